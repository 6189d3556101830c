//! Another client that sends much: many small requests at once, or large ones.

use anyhow::Result;
use joblog_protocol::Opcode;

use super::ground::Ground;
use super::{Trial, bulk};
use crate::result::Growth;

/// How often the pipelined requests are sent.
const ROUNDS: u64 = 20;
/// Large requests in flight: one is read while the other is done.
const LARGE_IN_FLIGHT: u64 = 2;

/// Single jobs, so many requests in one write.
pub(super) fn pipelined(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    let one = bulk::batch(1, 100, None)?;
    ground.measure("ENQUEUEs in one write, 20 times", || {
        client.ask_many(Opcode::Enqueue, ROUNDS * trial.size, trial.size, |_, out| {
            bulk::put_enqueue(out, bulk::QUEUE, &one);
        })?;
        Ok(true)
    })?;
    Ok(ground.into_rows())
}

/// Requests with 4 MiB of jobs: in the large, more than the disk takes.
pub(super) fn frames(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    ground.measure("ENQUEUEs of 4 MiB, two in flight", || {
        bulk::enqueue_large(&mut client, trial.size, LARGE_IN_FLIGHT).map(|()| true)
    })?;
    Ok(ground.into_rows())
}
