//! Crashes of a server with many queues. Below the class that syncs, a start passes over numbers
//! of jobs that may have been given away; what it notes about that must go again.

use anyhow::Result;

use super::ground::{End, Ground};
use super::{Trial, bulk};
use crate::result::Growth;

const KILLS: usize = 5;

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    bulk::enqueue_each(&mut ground.client()?, trial.size)?;
    ground.restart(End::Stop)?;
    ground.add_row("a job in each queue, SIGTERM", None);
    ground.note_next_start(End::Stop)?;
    for _ in 0..KILLS {
        bulk::enqueue_each(&mut ground.client()?, trial.size)?;
        ground.restart(End::Kill)?;
    }
    ground.add_row("a job more in each and SIGKILL, 5 times", None);
    ground.note_next_start(End::Kill)?;
    let mut client = ground.client()?;
    ground.measure("all jobs are consumed", || {
        bulk::consume_each(&mut client, trial.size).map(|()| true)
    })?;
    ground.note_next_start(End::Kill)?;
    Ok(ground.into_rows())
}
