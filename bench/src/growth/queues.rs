//! Many queues, each of which keeps what is consumed.

use anyhow::Result;
use joblog_protocol::messages::admin::QueueSettings;

use super::ground::{End, Ground};
use super::{Trial, bulk};
use crate::result::Growth;

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    let keeping =
        QueueSettings { keep_consumed_for_ms: Some(bulk::HOUR_MS), ..QueueSettings::default() };
    ground.measure("CREATE_QUEUE of each", || {
        bulk::create_each(&mut client, trial.size, &keeping).map(|()| true)
    })?;
    ground.measure("a job through each", || {
        bulk::enqueue_each(&mut client, trial.size)?;
        bulk::consume_each(&mut client, trial.size).map(|()| true)
    })?;
    ground.note_idle_cpu()?;
    ground.note_next_start(End::Stop)?;
    Ok(ground.into_rows())
}
