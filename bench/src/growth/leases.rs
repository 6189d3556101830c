//! Many leases whose time is over at once, with nobody to renew them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::lease::Extend;

use super::ground::Ground;
use super::{Trial, bulk};
use crate::result::Growth;

/// Long enough to give it to all of them before the first one ends.
const LEASE: Duration = Duration::from_secs(3);
/// The small client begins so long before the leases end.
const LEAD: Duration = Duration::from_millis(200);

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;
    let handles = bulk::take(&mut client, "", trial.size, bulk::long_lease())?;
    let due = Instant::now() + LEASE;
    for some in handles.chunks(bulk::HANDLES) {
        let jobs = bulk::set("", some);
        let extend = Extend { jobs, lease_ms: LEASE.as_millis() as u64, progress: None };
        client.ask(Opcode::Extend, |out| extend.encode(out))?;
    }
    let mut watcher = ground.watcher()?;
    thread::sleep(due.saturating_duration_since(Instant::now() + LEAD));
    ground.measure_from(due, "their time is over", || {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        watcher.until(|group| group.leased == 0)
    })?;
    Ok(ground.into_rows())
}
