//! Many groups of one queue that nobody fetches for.

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::admin::{
    self, CreateGroup, GroupKind, GroupStart, QueueDescription, QueueName, QueueSettings,
};

use super::ground::{End, Ground};
use super::wire::{Client, Refused};
use super::{Trial, bulk};
use crate::result::Growth;

/// Single jobs that are enqueued beside the groups.
const JOBS: u64 = 2_000;

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    bulk::create(&mut client, QueueSettings::default())?;
    let mut refused = None;
    ground.measure("CREATE_GROUP of each", || {
        refused = create_groups(&mut client, trial.size)?;
        Ok(true)
    })?;
    if let Some(refused) = refused {
        let request = QueueName { queue: bulk::QUEUE.into() };
        let body = client.ask_json(Opcode::DescribeQueue, &request)?;
        let groups = admin::decode::<QueueDescription>(&body)?.groups.len();
        ground.last_row()?.work += &format!(" ({} behind {groups})", refused.code);
    }
    let one = bulk::batch(1, 16, None)?;
    ground.measure("2,000 ENQUEUEs of a job", || {
        client.ask_many(Opcode::Enqueue, JOBS, bulk::IN_FLIGHT, |_, out| {
            bulk::put_enqueue(out, bulk::QUEUE, &one);
        })?;
        Ok(true)
    })?;
    ground.note_next_start(End::Stop)?;
    Ok(ground.into_rows())
}

/// Creates so many groups; gives why not all, if there is a limit.
fn create_groups(client: &mut Client, count: u64) -> Result<Option<Refused>> {
    let created = client.ask_many(Opcode::CreateGroup, count, bulk::IN_FLIGHT, |number, out| {
        let request = CreateGroup {
            queue: bulk::QUEUE.into(),
            group: format!("group-{number:06}"),
            kind: GroupKind::Work,
            start: GroupStart::Start,
        };
        admin::encode(out, &request);
    });
    created.map_or_else(|error| error.downcast().map(Some), |()| Ok(None))
}
