//! Queues and groups: making, changing, deleting and describing them, and their numbers.

use joblog_protocol::job::Batch;

use super::Broker;
use super::error::BrokerError;
use super::gate::Gated;
use super::turn::{JobBatch, Turn};
use crate::queue::{
    DeadJob, Fact, GroupCounts, GroupInfo, GroupKind, Machine, QueueInfo, QueueSettings, Refusal,
    Start, UniqueInfo,
};
use crate::types::{GroupId, Offset, QueueId};

/// Dead jobs listed in one answer, of all groups together.
const DEAD_LISTED_MAX: usize = 100;

/// Groups in one page of numbers, together; a queue with more has a page of its own.
const STATS_GROUPS_MAX: usize = 1_000;

/// A queue with its groups, as lists have it.
#[derive(Clone, Debug)]
pub struct QueueSummary {
    /// Its name.
    pub name: String,
    /// Whether it is paused.
    pub paused: bool,
    /// The offset of the first job that it retains.
    pub first: Offset,
    /// The offset that its next job will have.
    pub next: Offset,
    /// Jobs that some group has still to consume.
    pub unconsumed: u64,
    /// Its groups by name.
    pub groups: Vec<GroupDescription>,
}

/// A queue with all that there is to say of it.
#[derive(Clone, Debug)]
pub struct QueueDescription {
    /// What lists have of it; its groups with dead jobs.
    pub summary: QueueSummary,
    /// Its settings.
    pub settings: QueueSettings,
    /// The bytes of the unconsumed jobs, where `max_bytes` is set; at most a 64th of that too
    /// high, or a batch.
    pub unconsumed_bytes: Option<u64>,
    /// Jobs that were too old.
    pub expired: u64,
    /// How many results it keeps, their bytes as `result_bytes_max` counts them, and how many went
    /// before their time.
    pub results: (u64, u64, u64),
    /// How its unique keys stand.
    pub unique: UniqueInfo,
}

/// A group.
#[derive(Clone, Debug)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: GroupKind,
    /// Whether it is paused.
    pub paused: bool,
    /// Where its jobs stand.
    pub counts: GroupCounts,
    /// Where it is described: the first of its dead jobs by offset, at most 100.
    pub dead: Vec<(Offset, DeadJob)>,
    /// Among numbers: when its oldest job was enqueued that is neither consumed nor dead, in
    /// milliseconds since the Unix epoch.
    pub oldest_wall_ms: Option<u64>,
}

/// The administrative commands.
impl Broker {
    /// Makes a queue.
    pub fn create_queue(&self, name: &str, settings: QueueSettings) -> Gated<()> {
        self.turn(|turn| {
            if let Err(error) = settings.validate() {
                return Err(refused_queue(name, error.into()));
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
            let info = turn.queue_info(name)?;
            let settings = change(info.settings);
            let updated = turn.core.machine.update_queue(info.queue, settings.clone());
            turn.record_all(updated.map_err(|refusal| refused_queue(name, refusal))?);
            Ok(settings)
        })
    }

    /// Deletes a queue with its groups and jobs. Those who wait for it wait for a new one.
    pub fn delete_queue(&self, name: &str) -> Gated<()> {
        self.turn(|turn| {
            let queue = turn.queue(name)?;
            let groups: Vec<_> = turn.core.machine.groups(queue).map(|info| info.group).collect();
            let fact = turn.core.machine.delete_queue(queue);
            turn.record(&fact.map_err(|refusal| refused_queue(name, refusal))?);
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
            let fact = turn.core.machine.create_group(queue, name, kind, start);
            turn.record(&fact.map_err(|refusal| refused_group(queue_name, name, refusal))?);
            turn.queue_changed(queue_name);
            Ok(())
        })
    }

    /// Deletes a group; its leases end.
    pub fn delete_group(&self, queue: &str, name: &str) -> Gated<()> {
        self.turn(|turn| {
            let group = turn.group(queue, name)?;
            let fact = turn.core.machine.delete_group(group);
            turn.record(&fact.map_err(|refusal| refused_group(queue, name, refusal))?);
            turn.group_gone(group);
            Ok(())
        })
    }

    /// Lists up to `limit` queues behind `after`, by name; also whether there are more.
    pub fn list_queues(&self, after: &str, limit: usize) -> Gated<(Vec<QueueSummary>, bool)> {
        self.turn(|turn| {
            let machine = &turn.core.machine;
            let mut names = machine.queues_after(after);
            let queues = names.by_ref().take(limit).filter_map(|queue| machine.queue(queue));
            let list = queues.map(|info| summary(machine, &info)).collect();
            Ok((list, names.next().is_some()))
        })
    }

    /// The numbers of up to `limit` queues behind `after`, by name; also whether there are more.
    ///
    /// The counts are kept, so they cost nothing to look at. How old the oldest job of a group is
    /// stands in the log: one look there for each group, without the state lock.
    pub fn stats(&self, after: &str, limit: usize) -> Gated<(Vec<QueueSummary>, bool)> {
        let seen = self.view(|turn| {
            let machine = &turn.core.machine;
            let mut ids = machine.queues_after(after).peekable();
            let (mut queues, mut groups) = (Vec::new(), 0);
            while queues.len() < limit
                && groups < STATS_GROUPS_MAX
                && let Some(id) = ids.next()
            {
                let Some(info) = machine.queue(id) else { continue };
                let oldest = machine.groups(id).map(|group| machine.oldest_open(group.group));
                queues.push((id, summary(machine, &info), oldest.collect::<Vec<_>>()));
                groups += info.group_count;
            }
            Ok((queues, ids.peek().is_some()))
        });
        seen.map(|(mut queues, more)| {
            for (id, queue, oldest) in &mut queues {
                for (group, offset) in queue.groups.iter_mut().zip(oldest) {
                    group.oldest_wall_ms = offset.and_then(|offset| self.wall_ms_of(*id, offset));
                }
            }
            (queues.into_iter().map(|(_, queue, _)| queue).collect(), more)
        })
    }

    /// When a job was enqueued. A job whose entry can't be read has no age here; that it is damaged
    /// is told to whoever fetches it.
    fn wall_ms_of(&self, queue: QueueId, offset: Offset) -> Option<u64> {
        self.stamp_of(queue, offset).ok().flatten().map(|stamp| stamp.wall_ms)
    }

    /// Describes a queue with its groups.
    pub fn describe_queue(&self, name: &str) -> Gated<QueueDescription> {
        self.turn(|turn| {
            let (info, machine) = (turn.queue_info(name)?, &turn.core.machine);
            let mut summary = summary(machine, &info);
            let mut listed = DEAD_LISTED_MAX;
            for (group, described) in machine.groups(info.queue).zip(&mut summary.groups) {
                described.dead = dead(machine, group.group, listed);
                listed -= described.dead.len();
            }
            Ok(QueueDescription {
                summary,
                settings: info.settings.clone(),
                unconsumed_bytes: info.unconsumed_bytes,
                expired: info.expired,
                results: machine.results(info.queue).unwrap_or_default(),
                unique: info.unique,
            })
        })
    }

    /// Describes one group.
    pub fn describe_group(&self, queue: &str, name: &str) -> Gated<GroupDescription> {
        self.turn(|turn| {
            let group = turn.group(queue, name)?;
            let machine = &turn.core.machine;
            let no_group = || BrokerError::NoSuchGroup { queue: queue.into(), group: name.into() };
            let info = machine.group(group).ok_or_else(no_group)?;
            Ok(GroupDescription {
                dead: dead(machine, group, DEAD_LISTED_MAX),
                ..GroupDescription::of(&info)
            })
        })
    }
}

impl GroupDescription {
    fn of(info: &GroupInfo<'_>) -> Self {
        let GroupInfo { name, kind, paused, counts, .. } = *info;
        let name = name.to_owned();
        Self { name, kind, paused, counts, dead: Vec::new(), oldest_wall_ms: None }
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

    /// As [`Turn::queue`], described.
    ///
    /// # Errors
    /// `NoSuchQueue`.
    fn queue_info(&self, name: &str) -> Result<QueueInfo<'_>, BrokerError> {
        let no_queue = || BrokerError::NoSuchQueue { queue: name.into() };
        self.core.machine.queue(self.queue(name)?).ok_or_else(no_queue)
    }

    /// Checks that the jobs fit the queue's bounds, with what the facts of their entry free.
    ///
    /// # Errors
    /// `Refused` with `QueueFull` or `NeverFits`.
    pub(super) fn check_room<'f>(
        &self,
        queue: QueueId,
        name: &str,
        batch: &JobBatch<'_>,
        with: impl IntoIterator<Item = &'f Fact>,
    ) -> Result<(), BrokerError> {
        let Batch { count, bodies, .. } = batch.jobs;
        let machine = &self.core.machine;
        let freed = with.into_iter().map(|fact| machine.freed_by(queue, fact)).sum();
        let room = machine.check_room(queue, count, bodies.len() as u64, freed);
        room.map_err(|refusal| refused_queue(name, refusal))
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
        let fact = made.map_err(|refusal| refused_queue(name, refusal))?;
        self.record(&fact);
        self.queue_changed(name);
        self.queue(name)
    }
}

fn refused_queue(name: &str, refusal: Refusal) -> BrokerError {
    BrokerError::Refused { what: format!("queue {name:?}"), refusal }
}

pub(super) fn refused_group(queue: &str, name: &str, refusal: Refusal) -> BrokerError {
    BrokerError::Refused { what: format!("group {name:?} of queue {queue:?}"), refusal }
}

fn summary(machine: &Machine, info: &QueueInfo<'_>) -> QueueSummary {
    QueueSummary {
        name: info.name.to_owned(),
        paused: info.paused,
        first: info.first,
        next: info.next,
        unconsumed: info.unconsumed,
        groups: machine.groups(info.queue).map(|group| GroupDescription::of(&group)).collect(),
    }
}

/// The first dead jobs of a group, at most `limit`.
fn dead(machine: &Machine, group: GroupId, limit: usize) -> Vec<(Offset, DeadJob)> {
    let dead = machine.dead(group, Offset(0)).take(limit);
    dead.map(|(offset, job)| (offset, job.clone())).collect()
}
