//! Many jobs that are due at once: delayed by their producers, for one group and for ten, and
//! retries.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::admin::{CreateGroup, GroupKind, GroupStart, QueueSettings};
use joblog_protocol::messages::lease::Fail;

use super::ground::{Ground, with_time};
use super::{Trial, bulk};
use crate::result::Growth;

/// Groups of the trial with more than one.
const GROUPS: u64 = 10;
/// The time to put everything in place: so much, and so much more for each job.
const TIME_MIN: Duration = Duration::from_secs(1);
const TIME_PER_JOB: Duration = Duration::from_micros(4);

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let time = TIME_MIN + TIME_PER_JOB * u32::try_from(trial.size)?;
    let mut rows = with_time(time, |time| delayed(trial, time, 1, "delayed jobs are due"))?;
    let work = "a tenth as many are due for 10 groups";
    rows.extend(with_time(time, |time| delayed(trial, time, GROUPS, work))?);
    rows.extend(with_time(time, |time| retries(trial, time))?);
    Ok(rows)
}

fn delayed(trial: &Trial, time: Duration, groups: u64, work: &str) -> Result<Option<Ground>> {
    let ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::create(&mut client, QueueSettings::default())?;
    for number in 0..groups {
        let group = if groups == 1 { "default".into() } else { format!("group-{number}") };
        let (queue, kind, start) = (bulk::QUEUE.into(), GroupKind::Work, GroupStart::Start);
        client.ask_json(Opcode::CreateGroup, &CreateGroup { queue, group, kind, start })?;
    }
    let due = Instant::now() + time;
    let at_ms = (SystemTime::now().duration_since(UNIX_EPOCH)? + time).as_millis() as u64;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size / groups, Some(at_ms))?;
    until_due(ground, due, work)
}

fn retries(trial: &Trial, time: Duration) -> Result<Option<Ground>> {
    let ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;
    let handles = bulk::take(&mut client, "", trial.size, bulk::long_lease())?;
    let due = Instant::now() + time;
    for some in handles.chunks(bulk::HANDLES) {
        let delay = due.saturating_duration_since(Instant::now());
        let fail = Fail {
            jobs: bulk::set("", some),
            failures_max: None,
            delay_ms: Some(delay.as_millis() as u64),
            reason: "",
        };
        client.ask(Opcode::Fail, |out| fail.encode(out))?;
    }
    until_due(ground, due, "retries are due")
}

fn until_due(mut ground: Ground, due: Instant, work: &str) -> Result<Option<Ground>> {
    let in_time = ground.measure_due(due, work, |group| group.delayed == 0)?;
    Ok(in_time.then_some(ground))
}
