//! What can be seen of the state: ids, descriptions, counts, single jobs.

use std::ops::Bound;

use super::machine::Machine;
use super::state::Queue;
use super::{
    Due, GroupKind, Holder, KeyedPlace, PRIORITY_COUNT, QueueSettings, RemovedCounts, UniqueInfo,
};
use crate::types::{Grant, GroupId, Offset, QueueId, SessionId};

/// Dead jobs that are passed over to find the oldest one that is not: the state is locked for it.
const DEAD_PASSED_MAX: usize = 1_000;

/// A queue, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInfo<'a> {
    /// Its id.
    pub queue: QueueId,
    /// Its name.
    pub name: &'a str,
    /// Its settings.
    pub settings: &'a QueueSettings,
    /// The offset of the first job that it retains.
    pub first: Offset,
    /// The offset that its next job will get.
    pub next: Offset,
    /// How many groups it has.
    pub group_count: usize,
    /// How many jobs some group has still to consume.
    pub unconsumed: u64,
    /// Their bytes, where `max_bytes` is set; see [`Machine::unconsumed_bytes`].
    pub unconsumed_bytes: Option<u64>,
    /// How many jobs were too old.
    pub expired: u64,
    /// Whether nothing is fetched from it for now.
    pub paused: bool,
    /// How its unique keys stand.
    pub unique: UniqueInfo,
}

/// A group, described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupInfo<'a> {
    /// Its id.
    pub group: GroupId,
    /// The queue whose jobs it sees.
    pub queue: QueueId,
    /// Its name within the queue.
    pub name: &'a str,
    /// Its kind.
    pub kind: GroupKind,
    /// Whether nothing is fetched for it for now, though its queue may go on.
    pub paused: bool,
    /// Where its jobs stand.
    pub counts: GroupCounts,
}

/// Where the jobs of a group stand. Every job from `committed` to the end of the queue that is not
/// `consumed_above` is exactly one of ready, leased, delayed, dead and parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupCounts {
    /// Jobs that can be fetched now, fresh or again. Where keys matter, fresh jobs of a key that
    /// has no place for them are among these until the pointer comes to them.
    pub ready: u64,
    /// Of these, those of each priority.
    pub ready_by_priority: [u64; PRIORITY_COUNT],
    /// Jobs that are out with a worker.
    pub leased: u64,
    /// Jobs that can be fetched later.
    pub delayed: u64,
    /// Jobs that are not fetched again.
    pub dead: u64,
    /// Jobs that wait for others of their key.
    pub parked: u64,
    /// Whether as many are parked as may be: then the pointer waits at the next one.
    pub parked_full: bool,
    /// Jobs that left without a commit since the group was made.
    pub removed: RemovedCounts,
    /// The lowest offset that is not consumed: the oldest job that the group keeps alive.
    pub committed: Offset,
    /// Jobs above `committed` that are consumed.
    pub consumed_above: u64,
    /// Jobs whose past is kept: they were handed back and are neither consumed nor dead. Each
    /// costs 40 bytes and its share of a hash map.
    pub marked: u64,
    /// The memory for what is consumed above `committed`, in bytes.
    pub consumed_heap_bytes: usize,
    /// The first job that was never delivered.
    pub next_fetch: Offset,
}

/// A lease, described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its number.
    pub grant: Grant,
    /// Who holds it.
    pub holder: Holder,
    /// How long it runs from its grant or last extension, in milliseconds.
    pub lease_ms: u64,
    /// Which delivery of the job to the group this is; the first is 1.
    pub attempt: u32,
    /// How often a worker said that the job failed.
    pub failures: u32,
    /// How often the job's worker was lost.
    pub crashes: u32,
    /// Whether it was restored by a replay and its worker not heard of since.
    pub restored: bool,
}

/// Where one job stands for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It is consumed.
    Consumed,
    /// It is out with a worker.
    Leased,
    /// It can be fetched.
    Ready,
    /// It waits for others of its key.
    Parked,
    /// It can be fetched later.
    Delayed {
        /// When, on the clock of the log.
        due_log_ms: u64,
    },
    /// It is not fetched again.
    Dead,
}

impl Machine {
    /// The queue of this name.
    pub fn queue_id(&self, name: &str) -> Option<QueueId> {
        self.queue_names.get(name).copied()
    }

    /// The group of this name in a queue.
    pub fn group_id(&self, queue: QueueId, name: &str) -> Option<GroupId> {
        self.queues.get(&queue)?.groups.get(name).copied()
    }

    /// The kind of a group.
    pub fn group_kind(&self, group: GroupId) -> Option<GroupKind> {
        self.groups.get(&group).map(|state| state.kind)
    }

    /// The queue of a group.
    pub fn queue_of(&self, group: GroupId) -> Option<QueueId> {
        self.groups.get(&group).map(|state| state.queue)
    }

    /// The offset that the next job of a queue gets.
    pub fn next_offset(&self, queue: QueueId) -> Option<Offset> {
        self.queues.get(&queue).map(|state| state.next)
    }

    /// The id that the next queue gets.
    pub fn next_queue(&self) -> QueueId {
        self.next_queue
    }

    /// All queues, by name.
    pub fn queues(&self) -> impl Iterator<Item = QueueInfo<'_>> {
        self.queue_names.values().filter_map(|queue| self.queue(*queue))
    }

    /// The queues whose names come behind `after`, by name.
    pub fn queues_after(&self, after: &str) -> impl Iterator<Item = QueueId> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        self.queue_names.range::<str, _>(behind).map(|(_, queue)| *queue)
    }

    /// One queue.
    pub fn queue(&self, queue: QueueId) -> Option<QueueInfo<'_>> {
        let Queue { name, settings, next, groups, unconsumed, expired, paused, unique, .. } =
            &**self.queues.get(&queue)?;
        Some(QueueInfo {
            queue,
            name,
            settings,
            first: self.first_offset(queue)?,
            next: *next,
            group_count: groups.len(),
            unconsumed: *unconsumed,
            unconsumed_bytes: self.unconsumed_bytes(queue),
            expired: *expired,
            paused: *paused,
            unique: unique.info(),
        })
    }

    /// The groups of a queue, by name.
    pub fn groups(&self, queue: QueueId) -> impl Iterator<Item = GroupInfo<'_>> {
        let state = self.queues.get(&queue);
        let groups = state.into_iter().flat_map(|state| state.groups.values());
        groups.filter_map(|group| self.group(*group))
    }

    /// One group.
    pub fn group(&self, group: GroupId) -> Option<GroupInfo<'_>> {
        let (state, queue) = self.of(group)?;
        let consumed = &state.consumed;
        let skipped = queue.skipped_above(consumed.floor());
        let parked = state.keys.as_ref().map_or(0, |keys| keys.parked_count());
        let (ready, mut ready_by_priority) = (state.ready_count(queue), state.ranked.counts());
        let [none, above @ ..] = &mut ready_by_priority;
        *none = ready - above.iter().sum::<u64>();
        let counts = GroupCounts {
            ready,
            ready_by_priority,
            leased: state.leased_count,
            delayed: state.delayed_count(),
            dead: state.dead.len(),
            parked,
            parked_full: parked >= queue.settings.parked_max,
            removed: state.removed,
            committed: consumed.floor(),
            consumed_above: consumed.above_count().saturating_sub(skipped),
            marked: state.marked_count(),
            consumed_heap_bytes: consumed.heap_bytes(),
            next_fetch: state.next_fetch,
        };
        let (queue, kind, paused) = (state.queue, state.kind, state.paused);
        Some(GroupInfo { group, queue, name: &state.name, kind, paused, counts })
    }

    /// How many jobs of a group can be fetched now (for a stream group: read). Cheap.
    pub fn ready_count(&self, group: GroupId) -> u64 {
        self.of(group).map_or(0, |(state, queue)| state.ready_count(queue))
    }

    /// The lease of a job, if it is leased.
    pub fn lease(&self, group: GroupId, offset: Offset) -> Option<LeaseInfo> {
        let lease = self.leases.get(group, offset)?;
        let mark = self.groups.get(&group)?.mark(offset);
        Some(LeaseInfo {
            grant: lease.grant,
            holder: self.leases.holder(lease),
            lease_ms: lease.lease_ms(),
            attempt: mark.attempts.saturating_add(1),
            failures: mark.failures,
            crashes: mark.crashes,
            restored: lease.restored(),
        })
    }

    /// Where a job stands for a group; none if there is no such group or no such job yet.
    pub fn job(&self, group: GroupId, offset: Offset) -> Option<JobState> {
        let (state, queue) = self.of(group)?;
        if offset >= queue.next {
            return None;
        }
        if state.consumed.contains(offset) {
            return Some(JobState::Consumed);
        }
        if state.kind == GroupKind::Work
            && let Some(due_log_ms) = self.enqueued_due_log_ms(queue, offset)
        {
            return Some(JobState::Delayed { due_log_ms });
        }
        if state.is_ready(queue, offset) {
            return Some(JobState::Ready);
        }
        match state.keys.as_ref().and_then(|keys| keys.place(offset)) {
            Some(KeyedPlace::Passed | KeyedPlace::Unread) => return Some(JobState::Ready),
            Some(KeyedPlace::Parked) => return Some(JobState::Parked),
            Some(KeyedPlace::Holding | KeyedPlace::Away) | None => {}
        }
        if state.dead.contains(offset) {
            return Some(JobState::Dead);
        }
        if self.leases.get(group, offset).is_some() {
            return Some(JobState::Leased);
        }
        let due_log_ms = state.mark(offset).due_log_ms?;
        Some(JobState::Delayed { due_log_ms })
    }

    /// The due time of a job that was enqueued with one, on the clock of the log.
    pub(super) fn enqueued_due_log_ms(&self, queue: &Queue, offset: Offset) -> Option<u64> {
        match queue.delays.get(offset)? {
            Due::Log(ms) => Some(ms),
            Due::Wall(ms) => Some(self.log_of_wall(ms)),
        }
    }

    /// The first job from `from` on that a group has still to consume.
    pub fn next_unconsumed(&self, group: GroupId, from: Offset) -> Option<Offset> {
        let (state, queue) = self.of(group)?;
        Some(state.consumed.next_absent(from)).filter(|found| *found < queue.next)
    }

    /// The oldest job of a group that is neither consumed nor dead. Beyond `DEAD_PASSED_MAX` dead
    /// jobs at the front, one of them may be named.
    pub fn oldest_open(&self, group: GroupId) -> Option<Offset> {
        let dead = &self.groups.get(&group)?.dead;
        let mut oldest = self.next_unconsumed(group, Offset(0))?;
        for _ in 0..DEAD_PASSED_MAX {
            if !dead.contains(oldest) {
                break;
            }
            oldest = self.next_unconsumed(group, oldest.next())?;
        }
        Some(oldest)
    }

    /// The sessions that hold leases, by id.
    pub fn session_ids(&self) -> Vec<SessionId> {
        self.leases.session_ids()
    }

    /// How many leases a session holds.
    pub fn session_lease_count(&self, session: SessionId) -> usize {
        self.leases.of_session(session).count()
    }

    /// How many leases there are in all groups.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    /// The heap memory of all leases in bytes. It does not shrink when leases end.
    pub fn lease_heap_bytes(&self) -> usize {
        self.leases.heap_bytes()
    }

    /// The group that results, and waiting for a job's end, look at; none while it is not made.
    pub fn primary_group(&self, queue: QueueId) -> Option<GroupId> {
        let state = self.queues.get(&queue)?;
        state.groups.get(&*state.settings.primary_group).copied()
    }

    /// How many results a queue keeps, their bytes as `result_bytes_max` counts them, and how many
    /// have gone before their time.
    pub fn results(&self, queue: QueueId) -> Option<(u64, u64, u64)> {
        Some(self.queues.get(&queue)?.results.counts())
    }

    /// When the next result goes, on the clock of the log.
    pub fn next_result_end_log_ms(&self) -> Option<u64> {
        self.deadlines.results.first_ms()
    }

    /// When the next job expires, on the clock of the log.
    pub fn next_expiry_log_ms(&self) -> Option<u64> {
        self.deadlines.expiries.first_ms()
    }

    /// When the next dead job has been kept for long enough, on the clock of the log.
    pub fn next_dead_end_log_ms(&self) -> Option<u64> {
        self.deadlines.dead.first_ms()
    }
}
