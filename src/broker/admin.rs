//! Queues and groups: making, deleting and describing them.

use super::Broker;
use super::error::BrokerError;
use super::gate::Gated;
use super::turn::{JobBatch, Turn};
use crate::queue::{
    DeadJob, Fact, GroupCounts, GroupKind, Machine, QueueFact, QueueSettings, Refusal, Start,
    UniqueInfo,
};
use crate::types::{GroupId, Offset, QueueId};

/// Dead jobs listed in one answer, of all groups together.
const DEAD_LISTED_MAX: usize = 100;

/// A queue in a list.
#[derive(Clone, Debug)]
pub struct QueueSummary {
    /// Its name.
    pub name: String,
    /// The offset of the first job that it retains.
    pub first: Offset,
    /// The offset that its next job will have.
    pub next: Offset,
    /// The names of its groups.
    pub groups: Vec<String>,
}

/// A queue with its groups.
#[derive(Clone, Debug)]
pub struct QueueDescription {
    /// Its name and offsets.
    pub summary: QueueSummary,
    /// Its settings.
    pub settings: QueueSettings,
    /// Jobs that some group has still to consume.
    pub unconsumed: u64,
    /// Their bytes, where `max_bytes` is set; at most a 64th of that too high, or a batch.
    pub unconsumed_bytes: Option<u64>,
    /// Jobs that were too old.
    pub expired: u64,
    /// How many results it keeps, their bytes as `result_bytes_max` counts them, and how many went
    /// before their time.
    pub results: (u64, u64, u64),
    /// Whether it is paused.
    pub paused: bool,
    /// How its unique keys stand.
    pub unique: UniqueInfo,
    /// Its groups by name.
    pub groups: Vec<GroupDescription>,
}

/// A group.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its queue's name.
    pub queue: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: GroupKind,
    /// Whether it is paused.
    pub paused: bool,
    /// Where its jobs stand.
    pub counts: GroupCounts,
    /// The first of its dead jobs by offset, at most 100.
    pub dead: Vec<(Offset, DeadJob)>,
}

/// The administrative commands.
impl Broker {
    /// Makes a queue.
    pub fn create_queue(&self, name: &str, settings: QueueSettings) -> Gated<()> {
        self.turn(|turn| {
            if let Err(error) = settings.validate() {
                return Err(refused(format!("queue {name:?}"), error.into()));
            }
            turn.create_queue(name, settings).map(|_| ())
        })
    }

    /// Gives a queue the settings that `change` makes of those it has. Returns them.
    pub fn update_queue(
        &self,
        name: &str,
        change: impl FnOnce(&QueueSettings) -> QueueSettings,
    ) -> Gated<QueueSettings> {
        self.turn(|turn| {
            let queue = turn.queue(name)?;
            let machine = &turn.core.machine;
            let no_queue = || BrokerError::NoSuchQueue { queue: name.into() };
            let settings = change(machine.queue(queue).ok_or_else(no_queue)?.settings);
            let updated = machine.update_queue(queue, settings.clone());
            let fact = updated.map_err(|refusal| refused(format!("queue {name:?}"), refusal))?;
            fact.iter().for_each(|fact| turn.record(fact));
            Ok(settings)
        })
    }

    /// Deletes a queue with its groups and jobs. Those who wait for it wait for a new one.
    pub fn delete_queue(&self, name: &str) -> Gated<()> {
        self.turn(|turn| {
            let queue = turn.queue(name)?;
            let groups: Vec<_> = turn.core.machine.groups(queue).map(|info| info.group).collect();
            let fact = turn.core.machine.delete_queue(queue);
            turn.record(&fact.map_err(|refusal| refused(format!("queue {name:?}"), refusal))?);
            turn.log.forget(queue);
            groups.into_iter().for_each(|group| turn.group_gone(group));
            Ok(())
        })
    }

    /// Makes a group.
    pub fn create_group(
        &self,
        queue_name: &str,
        name: &str,
        kind: GroupKind,
        start: Start,
    ) -> Gated<()> {
        self.turn(|turn| {
            let queue = turn.queue(queue_name)?;
            let made = turn.core.machine.create_group(queue, name, kind, start);
            let what = || format!("group {name:?} of queue {queue_name:?}");
            turn.record(&made.map_err(|refusal| refused(what(), refusal))?);
            turn.queue_changed(queue_name);
            Ok(())
        })
    }

    /// Deletes a group; its leases end.
    pub fn delete_group(&self, queue: &str, name: &str) -> Gated<()> {
        self.turn(|turn| {
            let group = turn.group(queue, name)?;
            let what = || format!("group {name:?} of queue {queue:?}");
            let fact = turn.core.machine.delete_group(group);
            turn.record(&fact.map_err(|refusal| refused(what(), refusal))?);
            turn.group_gone(group);
            Ok(())
        })
    }

    /// Lists up to `limit` queues behind `after`, by name; also whether there are more.
    pub fn list_queues(&self, after: &str, limit: usize) -> Gated<(Vec<QueueSummary>, bool)> {
        self.turn(|turn| {
            let machine = &turn.core.machine;
            let mut names = machine.queues_after(after);
            let queues = names.by_ref().take(limit);
            let list = queues.filter_map(|queue| summary(machine, queue)).collect();
            Ok((list, names.next().is_some()))
        })
    }

    /// Describes a queue with its groups.
    pub fn describe_queue(&self, name: &str) -> Gated<QueueDescription> {
        self.turn(|turn| {
            let queue = turn.queue(name)?;
            let machine = &turn.core.machine;
            let no_queue = || BrokerError::NoSuchQueue { queue: name.into() };
            let info = machine.queue(queue).ok_or_else(no_queue)?;
            let mut listed = DEAD_LISTED_MAX;
            let mut describe = |group| {
                let description = describe_group(machine, name, group, listed)?;
                listed -= description.dead.len();
                Some(description)
            };
            let groups = machine.groups(queue).map(|info| info.group);
            Ok(QueueDescription {
                summary: summary(machine, queue).ok_or_else(no_queue)?,
                settings: info.settings.clone(),
                unconsumed: info.unconsumed,
                unconsumed_bytes: info.unconsumed_bytes,
                expired: info.expired,
                results: machine.results(queue).unwrap_or_default(),
                paused: info.paused,
                unique: info.unique,
                groups: groups.filter_map(&mut describe).collect(),
            })
        })
    }

    /// Describes one group.
    pub fn describe_group(&self, queue: &str, name: &str) -> Gated<GroupDescription> {
        self.turn(|turn| {
            let group = turn.group(queue, name)?;
            let no_group = || BrokerError::NoSuchGroup { queue: queue.into(), group: name.into() };
            describe_group(&turn.core.machine, queue, group, DEAD_LISTED_MAX).ok_or_else(no_group)
        })
    }
}

impl Turn<'_> {
    /// The queue of this name.
    ///
    /// # Errors
    /// `NoSuchQueue`.
    pub(super) fn queue(&self, name: &str) -> Result<QueueId, BrokerError> {
        let no_queue = || BrokerError::NoSuchQueue { queue: name.into() };
        self.core.machine.queue_id(name).ok_or_else(no_queue)
    }

    /// Checks that the jobs fit the queue's bounds.
    ///
    /// # Errors
    /// `Refused` with `QueueFull`.
    pub(super) fn check_room(
        &self,
        queue: QueueId,
        name: &str,
        batch: &JobBatch<'_>,
    ) -> Result<(), BrokerError> {
        let room = self.core.machine.check_room(queue, batch.count, batch.bodies.len() as u64);
        room.map_err(|refusal| refused(format!("queue {name:?}"), refusal))
    }

    /// Makes a queue and lets those who waited for its name look again.
    ///
    /// # Errors
    /// `Refused` if the name is taken.
    pub(super) fn create_queue(
        &mut self,
        name: &str,
        settings: QueueSettings,
    ) -> Result<QueueId, BrokerError> {
        let made = self.core.machine.create_queue(name, settings);
        let fact = made.map_err(|refusal| refused(format!("queue {name:?}"), refusal))?;
        self.record(&fact);
        self.queue_changed(name);
        let Fact::Queue(QueueFact::Created { queue, .. }) = fact else {
            unreachable!("create_queue gives QueueCreated")
        };
        Ok(queue)
    }
}

fn refused(what: String, refusal: Refusal) -> BrokerError {
    BrokerError::Refused { what, refusal }
}

fn summary(machine: &Machine, queue: QueueId) -> Option<QueueSummary> {
    let info = machine.queue(queue)?;
    let groups = machine.groups(queue).map(|group| group.name.to_owned()).collect();
    Some(QueueSummary { name: info.name.to_owned(), first: info.first, next: info.next, groups })
}

fn describe_group(
    machine: &Machine,
    queue: &str,
    group: GroupId,
    dead_max: usize,
) -> Option<GroupDescription> {
    let info = machine.group(group)?;
    let dead = machine.dead(group, Offset(0)).take(dead_max);
    Some(GroupDescription {
        queue: queue.to_owned(),
        name: info.name.to_owned(),
        kind: info.kind,
        paused: info.paused,
        counts: info.counts,
        dead: dead.map(|(offset, job)| (offset, job.clone())).collect(),
    })
}
