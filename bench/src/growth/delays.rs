//! Many jobs that are due at once: delayed by their producers, for one group and for ten, and
//! retries.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::admin::{CreateGroup, GroupKind, GroupStart, QueueSettings};
use joblog_protocol::messages::lease::Fail;

use super::ground::Ground;
use super::{Trial, bulk};
use crate::result::Growth;

/// Groups of the trial with more than one.
const GROUPS: u64 = 10;
/// The time to put everything in place: so much, and so much more for each job.
const TIME_MIN: Duration = Duration::from_secs(2);
const TIME_PER_JOB: Duration = Duration::from_micros(4);
/// The small client begins so long before they are due.
const LEAD: Duration = Duration::from_millis(200);

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut rows = delayed(trial, 1, "delayed jobs are due")?;
    rows.extend(delayed(trial, GROUPS, "a tenth as many are due for 10 groups")?);
    rows.extend(retries(trial)?);
    Ok(rows)
}

/// When all is due, for this process and by the time of day.
fn due_for(count: u64) -> Result<(Instant, u64)> {
    let time = TIME_MIN + TIME_PER_JOB * u32::try_from(count)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)? + time;
    Ok((Instant::now() + time, at.as_millis() as u64))
}

fn delayed(trial: &Trial, groups: u64, work: &str) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::create(&mut client, QueueSettings::default())?;
    for number in 0..groups {
        let group = if groups == 1 { "default".into() } else { format!("group-{number}") };
        let (queue, kind, start) = (bulk::QUEUE.into(), GroupKind::Work, GroupStart::Start);
        client.ask_json(Opcode::CreateGroup, &CreateGroup { queue, group, kind, start })?;
    }
    let (due, at_ms) = due_for(trial.size)?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size / groups, Some(at_ms))?;
    until_due(&mut ground, due, work)?;
    Ok(ground.into_rows())
}

fn retries(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;
    let handles = bulk::take(&mut client, "", trial.size, bulk::long_lease())?;
    let (due, _) = due_for(trial.size)?;
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
    until_due(&mut ground, due, "retries are due")?;
    Ok(ground.into_rows())
}

fn until_due(ground: &mut Ground, due: Instant, work: &str) -> Result<()> {
    let mut watcher = ground.watcher()?;
    thread::sleep(due.saturating_duration_since(Instant::now() + LEAD));
    ground.measure_from(due, work, || {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        watcher.until(|group| group.delayed == 0)
    })
}
