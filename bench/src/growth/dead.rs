//! Commands about a queue with many dead jobs, in two groups.

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::admin::{
    CreateGroup, GroupKind, GroupName, GroupStart, QueueName, QueueSettings, UpdateQueue,
};
use joblog_protocol::messages::lease::Fail;

use super::ground::Ground;
use super::wire::Client;
use super::{Trial, bulk};
use crate::result::Growth;

const GROUPS: [&str; 2] = ["default", "second"];

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::create(&mut client, QueueSettings::default())?;
    for group in GROUPS.map(str::to_owned) {
        let (queue, kind, start) = (bulk::QUEUE.into(), GroupKind::Work, GroupStart::Start);
        client.ask_json(Opcode::CreateGroup, &CreateGroup { queue, group, kind, start })?;
    }
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;
    for group in GROUPS {
        kill_all(&mut client, group, trial.size)?;
    }
    ground.measure("UPDATE_QUEUE of failures_max", || {
        let settings = QueueSettings { failures_max: Some(3), ..QueueSettings::default() };
        let queue = bulk::QUEUE.into();
        let request = UpdateQueue { queue, settings, reset: Vec::new() };
        client.ask_json(Opcode::UpdateQueue, &request).map(|_| true)
    })?;
    ground.measure("DELETE_GROUP of one of two", || {
        let request = GroupName { queue: bulk::QUEUE.into(), group: "second".into() };
        client.ask_json(Opcode::DeleteGroup, &request).map(|_| true)
    })?;
    ground.measure("DELETE_QUEUE", || {
        let request = QueueName { queue: bulk::QUEUE.into() };
        client.ask_json(Opcode::DeleteQueue, &request).map(|_| true)
    })?;
    Ok(ground.into_rows())
}

/// Takes all jobs for a group, and says of each that it is dead.
fn kill_all(client: &mut Client, group: &str, count: u64) -> Result<()> {
    let handles = bulk::take(client, group, count, bulk::long_lease())?;
    for some in handles.chunks(bulk::HANDLES) {
        let jobs = bulk::set(group, some);
        let fail = Fail { jobs, failures_max: Some(0), delay_ms: None, reason: "no ink" };
        client.ask(Opcode::Fail, |out| fail.encode(out))?;
    }
    Ok(())
}
