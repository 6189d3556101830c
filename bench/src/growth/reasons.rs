//! One request with a long text about many jobs.

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::limits::{PROGRESS_BYTES_MAX, REASON_BYTES_MAX};
use joblog_protocol::messages::lease::{Extend, Fail};

use super::ground::{End, Ground};
use super::{Trial, bulk};
use crate::result::Growth;

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;
    let handles = bulk::take(&mut client, "", trial.size, bulk::long_lease())?;
    let progress = "p".repeat(PROGRESS_BYTES_MAX);
    ground.measure("one EXTEND of all, 1 KiB of progress", || {
        let jobs = bulk::set("", &handles);
        let extend = Extend { jobs, lease_ms: bulk::HOUR_MS, progress: Some(&progress) };
        client.ask(Opcode::Extend, |out| extend.encode(out)).map(|_| true)
    })?;
    let reason = "r".repeat(REASON_BYTES_MAX);
    ground.measure("one FAIL of all, 4 KiB of reason", || {
        let fail = Fail {
            jobs: bulk::set("", &handles),
            failures_max: None,
            delay_ms: Some(bulk::HOUR_MS),
            reason: &reason,
        };
        client.ask(Opcode::Fail, |out| fail.encode(out)).map(|_| true)
    })?;
    ground.note_next_start(End::Stop)?;
    Ok(ground.into_rows())
}
