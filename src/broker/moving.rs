//! MOVE: jobs that leave a queue as others are enqueued, in one entry of the log.

use super::Broker;
use super::chain::Following;
use super::gate::Gated;
use super::logs::Logs;
use super::requests::Enqueued;
use super::turn::Turn;
use crate::queue::{CancelVerdict, Fact, Removal};
use crate::types::{GroupId, Offset, QueueId};

/// Jobs that are to be moved.
#[derive(Clone, Copy, Debug)]
pub struct Moving<'a> {
    /// The queue that they leave.
    pub queue: &'a str,
    /// The group for which they are dead; without one, they wait, and leave for all groups.
    pub dead_for: Option<&'a str>,
    /// The jobs, ascending.
    pub offsets: &'a [u64],
    /// What is enqueued for them.
    pub jobs: Following<'a>,
}

/// Whether a job can be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movable {
    /// It can.
    Yes,
    /// It is out with a worker.
    Leased,
    /// It is consumed, withdrawn or gone, or not dead.
    Gone,
}

/// What a MOVE has done.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Whether each job can be moved. They were, if all can.
    pub jobs: Vec<Movable>,
    /// What was enqueued for them, if they were moved.
    pub enqueued: Option<Enqueued>,
}

impl Logs {
    /// Moves jobs to another queue of the same log: all, or none.
    pub fn move_jobs(&self, moving: &Moving<'_>) -> Gated<Moved> {
        let broker = self.of_both(moving.queue, moving.jobs.queue);
        Gated::from(broker).and_then(|broker| broker.move_jobs(moving))
    }
}

impl Broker {
    fn move_jobs(&self, moving: &Moving<'_>) -> Gated<Moved> {
        self.turn(|turn| {
            let queue = turn.queue(moving.queue)?;
            let group = moving.dead_for.map(|group| turn.work_group(moving.queue, group));
            let group = group.transpose()?;
            // Sent again, because its answer was lost: the jobs are where it brought them.
            if let Some(enqueued) = turn.enqueued_before(&moving.jobs) {
                let jobs = vec![Movable::Yes; moving.offsets.len()];
                return Ok(Moved { jobs, enqueued: Some(enqueued) });
            }
            let offsets = || moving.offsets.iter().map(|offset| Offset(*offset));
            let jobs: Vec<_> = offsets().map(|job| turn.movable(queue, group, job)).collect();
            if jobs.iter().any(|movable| *movable != Movable::Yes) {
                return Ok(Moved { jobs, enqueued: None });
            }
            let machine = &turn.core.machine;
            let fact: Option<Fact> = match group {
                Some(group) => machine.remove_dead(group, offsets(), Removal::Moved),
                None => machine.withdraw(queue, offsets(), Removal::Moved),
            };
            let Following { queue: to, create, batch } = moving.jobs;
            let create = create && self.options.auto_create;
            let enqueued = turn.enqueue(to, create, batch, fact.as_ref())?;
            Ok(Moved { jobs, enqueued: Some(enqueued) })
        })
    }
}

impl Turn<'_> {
    fn movable(&self, queue: QueueId, group: Option<GroupId>, job: Offset) -> Movable {
        let machine = &self.core.machine;
        match group {
            Some(group) if machine.is_dead(group, job) => Movable::Yes,
            Some(_) => Movable::Gone,
            None => match machine.cancel(queue, job) {
                CancelVerdict::Done => Movable::Yes,
                CancelVerdict::Requested => Movable::Leased,
                CancelVerdict::Consumed | CancelVerdict::NoSuchJob => Movable::Gone,
            },
        }
    }
}
