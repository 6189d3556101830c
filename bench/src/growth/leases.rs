//! Many leases whose time is over at once, with nobody to renew them.

use std::time::{Duration, Instant};

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::lease::Extend;

use super::ground::{Ground, with_time};
use super::{Trial, bulk};
use crate::result::Growth;

/// Long enough to give it to all of them before the first one ends.
const LEASE: Duration = Duration::from_secs(2);

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    with_time(LEASE, |lease| run_out(trial, lease))
}

fn run_out(trial: &Trial, lease: Duration) -> Result<Option<Ground>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;
    let handles = bulk::take(&mut client, "", trial.size, bulk::long_lease())?;
    let due = Instant::now() + lease;
    for some in handles.chunks(bulk::HANDLES) {
        let jobs = bulk::set("", some);
        let extend = Extend { jobs, lease_ms: lease.as_millis() as u64, progress: None };
        client.ask(Opcode::Extend, |out| extend.encode(out))?;
    }
    let in_time = ground.measure_due(due, "their time is over", |group| group.leased == 0)?;
    Ok(in_time.then_some(ground))
}
