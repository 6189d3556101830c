//! The state as plain records, and back: what a checkpoint holds.
//!
//! The records of a state come in one order, whatever way led to it, so that equal states give
//! equal checkpoints. Taking them back checks each against those before it; a machine that comes
//! out is one that facts could have made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ending::Candidates;
use super::group::{Group, Mark};
use super::limits::Bucket;
use super::machine::Machine;
use super::offset_set::OffsetSet;
use super::record::{
    BadRecord, GroupRecord, JobRecord, LogRecord, MarkedPlace, QueueRecord, Record,
};
use super::sizes::Sizes;
use super::state::Queue;
use super::{Due, GroupKind, JobTerms, KeyedPlace, Rank, UniqueInfo};
use crate::types::{Grant, GroupId, Offset, QueueId};

/// Hits in one record: 52 KiB.
const HITS_PER_RECORD: usize = 4_096;

impl Machine {
    /// The whole state, in one order. What only a running server knows is left out: how long
    /// leases have run, and which groups are to be woken.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let counters = Record::Log(LogRecord::Counters {
            next_queue: self.next_queue,
            next_group: self.next_group,
            next_grant: self.next_grant,
        });
        let Self { reserved, first_of_new, .. } = *self;
        let has_offsets = reserved > 0 || first_of_new > Offset(0);
        let offsets =
            has_offsets.then_some(Record::Log(LogRecord::Offsets { reserved, first_of_new }));
        let retired = self.retired.iter();
        let retired = retired.map(|(name, next)| {
            Record::Log(LogRecord::Retired { name: name.clone(), next: *next })
        });
        let mut queues: Vec<_> = self.queues.keys().copied().collect();
        queues.sort_unstable();
        let termed = queues.clone().into_iter().flat_map(|queue| self.termed_records(queue));
        let producers = queues.clone().into_iter().flat_map(|queue| {
            let producers = self.queues.get(&queue).map(|state| state.producers.all());
            let producers = producers.into_iter().flatten();
            producers.map(move |(producer, last_log_ms, batches)| {
                Record::Job(JobRecord::Producer { queue, producer, last_log_ms, batches })
            })
        });
        let results = queues.clone().into_iter().flat_map(|queue| self.result_records(queue));
        let unique = queues.clone().into_iter().flat_map(|queue| self.unique_records(queue));
        let mut groups: Vec<_> = self.groups.keys().copied().collect();
        groups.sort_unstable();
        let leases = self.leases.jobs();
        let group_records = move |group| {
            let from = leases.partition_point(|(known, _)| *known < group);
            let own = leases.iter().skip(from).take_while(|(known, _)| *known == group);
            self.group_records(group, own.map(|(_, offset)| *offset).collect())
        };
        std::iter::once(counters)
            .chain(offsets)
            .chain(retired)
            .chain(queues.into_iter().flat_map(|queue| self.queue_records(queue)))
            .chain(termed)
            .chain(producers)
            .chain(unique)
            .chain(results)
            .chain(self.schedule_records())
            .chain(groups.into_iter().flat_map(group_records))
    }

    fn queue_records(&self, queue: QueueId) -> impl Iterator<Item = Record> {
        let state = self.queues.get(&queue).into_iter();
        state.flat_map(move |state| {
            let head = Record::Queue(QueueRecord::Queue {
                queue,
                name: state.name.clone(),
                settings: Box::new(state.settings.clone()),
                next: state.next,
                gone: state.gone.floor(),
                aging: state.aging.floor(),
                turned_log_ms: state.turned_log_ms,
                expired: state.expired,
                bytes: state.sizes.total(),
                withdrawn: state.withdrawn.floor(),
                lapsed: state.lapsed.floor(),
                paused: state.paused,
            });
            let gone = state.gone.chunks();
            let gone =
                gone.map(|(chunk, members)| Record::Queue(QueueRecord::Gone { chunk, members }));
            let aging = state.aging.chunks();
            let aging =
                aging.map(|(chunk, members)| Record::Queue(QueueRecord::Aging { chunk, members }));
            let withdrawn = state.withdrawn.chunks();
            let withdrawn = withdrawn
                .map(|(chunk, members)| Record::Queue(QueueRecord::Withdrawn { chunk, members }));
            let lapsed = state.lapsed.chunks();
            let lapsed = lapsed
                .map(|(chunk, members)| Record::Queue(QueueRecord::Lapsed { chunk, members }));
            let sizes = state.sizes.marks();
            let sizes =
                sizes.map(|(offset, before)| Record::Queue(QueueRecord::Size { offset, before }));
            let sets = gone.chain(aging).chain(withdrawn).chain(lapsed);
            let skipped = state.skipped.iter();
            let skipped =
                skipped.map(|&(first, end)| Record::Queue(QueueRecord::Skipped { first, end }));
            std::iter::once(head).chain(sets).chain(sizes).chain(skipped)
        })
    }

    fn termed_records(&self, queue: QueueId) -> impl Iterator<Item = Record> {
        let mut all: BTreeMap<Offset, JobTerms> = BTreeMap::new();
        if let Some(state) = self.queues.get(&queue) {
            for (offset, due) in state.delays.iter() {
                all.entry(offset).or_default().due = Some(due);
            }
            for (offset, rank) in state.ranks.iter() {
                all.entry(offset).or_default().rank = rank;
            }
            for (offset, expiry) in state.expiries.iter() {
                let (Due::Log(ms) | Due::Wall(ms)) = expiry;
                all.entry(offset).or_default().expires_log_ms = Some(ms);
            }
        }
        all.into_iter()
            .map(move |(offset, terms)| Record::Job(JobRecord::Termed { queue, offset, terms }))
    }

    fn group_records(&self, group: GroupId, leased: Vec<Offset>) -> impl Iterator<Item = Record> {
        let state = self.groups.get(&group).map(|state| (state, leased)).into_iter();
        state.flat_map(move |(state, leased)| {
            let head = Record::Group(GroupRecord::Group {
                group,
                queue: state.queue,
                name: state.name.clone(),
                kind: state.kind,
                start: state.start,
                committed: state.consumed.floor(),
                next_fetch: state.next_fetch,
                fresh_owed: state.fresh_owed,
                removed: state.removed,
                paused: state.paused,
            });
            let consumed = state.consumed.chunks();
            let consumed = consumed
                .map(|(chunk, members)| Record::Group(GroupRecord::Consumed { chunk, members }));
            let marks = state.marked();
            let queue = self.queues.get(&state.queue);
            let marks = marks
                .into_iter()
                .filter_map(move |offset| Some(mark_record(state, queue?, offset)));
            let owed = state.ranked.owed().map(|rank| Record::Group(GroupRecord::Owed { rank }));
            let leases = leased.into_iter().filter_map(move |offset| {
                let lease = self.leases.get(group, offset)?;
                let (grant, holder) = (lease.grant, self.leases.holder(lease));
                let lease_ms = lease.lease_ms() as u32;
                Some(Record::Group(GroupRecord::Lease { offset, grant, holder, lease_ms }))
            });
            let dead = state.dead.from(Offset(0));
            let dead = dead
                .map(|(offset, job)| Record::Group(GroupRecord::Dead { offset, job: job.clone() }));
            let bucket = state.bucket.map(|bucket| {
                let (millijobs, at_log_ms) = bucket.content();
                Record::Group(GroupRecord::Bucket { millijobs, at_log_ms })
            });
            let progress = state.notes.progress().map(|(offset, note)| {
                Record::Group(GroupRecord::Progress { offset, note: note.into() })
            });
            let errors = state.notes.errors().map(|(offset, error)| {
                Record::Group(GroupRecord::LastError { offset, error: error.into() })
            });
            let keyed = state.keys.iter().flat_map(|keys| keys.all());
            let keyed = keyed.map(|(offset, key, place)| {
                Record::Group(GroupRecord::Keyed { offset, key, place })
            });
            let jobs = marks.chain(leases).chain(dead).chain(owed);
            let jobs = jobs.chain(progress).chain(errors).chain(keyed);
            std::iter::once(head).chain(bucket).chain(consumed).chain(jobs)
        })
    }

    /// All about unique keys, as records.
    fn unique_records(&self, queue: QueueId) -> impl Iterator<Item = Record> {
        let state = self.queues.get(&queue);
        let keys = state.into_iter().flat_map(|state| state.unique.iter());
        let counts = state.into_iter().filter_map(move |state| {
            let UniqueInfo { duplicates, replaced, .. } = state.unique.info();
            let counts = Record::Job(JobRecord::Met { queue, duplicates, replaced });
            (duplicates + replaced > 0).then_some(counts)
        });
        let hits = state.into_iter().flat_map(|state| state.producers.all_hits());
        let hits = hits.flat_map(move |(producer, sequence, hits)| {
            hits.chunks(HITS_PER_RECORD).map(move |hits| {
                Record::Job(JobRecord::Told { queue, producer, sequence, hits: hits.to_vec() })
            })
        });
        let keys = keys.map(move |held| Record::Job(JobRecord::Held { queue, held }));
        keys.chain(counts).chain(hits)
    }

    fn result_records(&self, queue: QueueId) -> impl Iterator<Item = Record> {
        let results = self.queues.get(&queue).map(|state| &state.results).into_iter();
        results.flat_map(move |results| {
            let kept = results.iter().map(move |(offset, until_log_ms, result)| {
                let result = Arc::clone(result);
                Record::Job(JobRecord::Result { queue, offset, until_log_ms, result })
            });
            let (_, _, count) = results.counts();
            let displaced =
                (count > 0).then_some(Record::Job(JobRecord::Displaced { queue, count }));
            kept.chain(displaced)
        })
    }
}

fn mark_record(state: &Group, queue: &Queue, offset: Offset) -> Record {
    let Mark { due_log_ms, attempts, failures, crashes } = state.mark(offset);
    let place = match due_log_ms {
        Some(due_log_ms) => MarkedPlace::Delayed { due_log_ms },
        None if state.waits_again(queue, offset) => MarkedPlace::Ready,
        None if state.is_parked(offset) => MarkedPlace::Parked,
        None => MarkedPlace::Leased,
    };
    Record::Group(GroupRecord::Marked { offset, place, attempts, failures, crashes })
}

/// A state that is being put together from records.
#[derive(Debug, Default)]
pub struct Restore {
    machine: Machine,
    /// Records taken so far.
    count: u64,
    /// The queue that records about gone jobs belong to.
    queue: QueueId,
    /// The group that records about jobs belong to.
    group: GroupId,
    /// Marks of the group whose lease is still to come.
    leases_owed: u64,
    /// Ranks of which the group has a fresh job first next time.
    owed: Vec<Rank>,
    /// Marks of the group whose key is still to come.
    keys_owed: u64,
}

impl Restore {
    /// Nothing taken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`BadRecord`] if it can't follow those before it.
    pub fn add(&mut self, record: Record) -> Result<(), BadRecord> {
        let ordinal = self.count;
        self.count += 1;
        let first = matches!(record, Record::Log(LogRecord::Counters { .. }));
        let added = match first == (ordinal == 0) {
            true => self.add_any(record),
            false => Err("the counters come first and once"),
        };
        added.map_err(|reason| BadRecord { ordinal, reason })
    }

    /// The state, when all records are taken.
    ///
    /// # Errors
    /// [`BadRecord`] if something is missing.
    pub fn finish(mut self) -> Result<Machine, BadRecord> {
        let finished = match self.count {
            0 => Err("there is none"),
            _ => self.finish_group(),
        };
        finished.map_err(|reason| BadRecord { ordinal: self.count, reason })?;
        let queues: Vec<_> = self.machine.queues.keys().copied().collect();
        queues.into_iter().for_each(|queue| self.machine.count_unconsumed(queue, &Candidates::ANY));
        Ok(self.machine)
    }

    fn add_any(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Log(LogRecord::Counters { next_queue, next_group, next_grant }) => {
                self.add_counters(next_queue, next_group, next_grant)
            }
            Record::Log(LogRecord::Offsets { reserved, first_of_new }) => {
                self.add_offsets(reserved, first_of_new)
            }
            Record::Log(LogRecord::Retired { name, next }) => self.add_retired(name, next),
            Record::Queue(QueueRecord::Queue {
                queue,
                name,
                settings,
                next,
                gone,
                aging,
                turned_log_ms,
                expired,
                bytes,
                withdrawn,
                lapsed,
                paused,
            }) => {
                let mut state = Queue::new(name, *settings, gone, turned_log_ms);
                state.next = next;
                state.aging = OffsetSet::new(aging);
                state.expired = expired;
                state.sizes = Sizes::with_total(bytes);
                let fits = withdrawn <= next && lapsed <= next;
                check(fits, "jobs are withdrawn that it does not have")?;
                state.withdrawn = OffsetSet::new(withdrawn);
                state.lapsed = OffsetSet::new(lapsed);
                state.paused = paused;
                self.add_queue(queue, state)
            }
            Record::Queue(QueueRecord::Gone { .. })
            | Record::Queue(QueueRecord::Aging { .. })
            | Record::Queue(QueueRecord::Withdrawn { .. })
            | Record::Queue(QueueRecord::Lapsed { .. })
            | Record::Queue(QueueRecord::Size { .. })
            | Record::Queue(QueueRecord::Skipped { .. }) => self.add_to_queue(record),
            Record::Job(_) => self.add_to_known_queue(record),
            Record::Group(GroupRecord::Group {
                group,
                queue,
                name,
                kind,
                start,
                committed,
                next_fetch,
                fresh_owed,
                removed,
                paused,
            }) => {
                self.finish_group()?;
                self.group = group;
                let known = self.machine.queues.get(&queue).ok_or("its queue is missing")?;
                let of = (queue, &known.settings);
                let consumed = OffsetSet::new(committed);
                let mut state = Group::new(of, name, kind, start, consumed);
                state.next_fetch = next_fetch;
                state.fresh_owed = fresh_owed;
                state.removed = removed;
                state.paused = paused;
                self.add_group(state)
            }
            other => self.add_other(other),
        }
    }

    fn add_other(&mut self, record: Record) -> Result<(), &'static str> {
        if matches!(record, Record::Schedule(_)) {
            return self.machine.restore_schedules(record);
        }
        if let Record::Group(GroupRecord::Keyed { offset, key, place }) = record {
            let is_marked = self.machine.restore_keyed(self.group, offset, key, place)?;
            let owed = u64::from(place == KeyedPlace::Parked && is_marked);
            let left = self.keys_owed.checked_sub(owed);
            self.keys_owed = left.ok_or("the job is out as well")?;
            return Ok(());
        }
        let state = self.machine.groups.get(&self.group);
        let keys = state.and_then(|state| state.keys.as_ref());
        check(keys.is_none_or(|keys| keys.is_empty()), "keys come behind all else about jobs")?;
        match record {
            Record::Group(GroupRecord::Owed { rank }) => {
                state.ok_or(NO_GROUP)?;
                self.owed.push(rank);
                Ok(())
            }
            Record::Group(GroupRecord::Bucket { millijobs, at_log_ms }) => {
                let state = self.machine.groups.get_mut(&self.group).ok_or(NO_GROUP)?;
                let before = state.bucket.replace(Bucket::restored(millijobs, at_log_ms));
                check(before.is_none(), "its bucket comes twice")
            }
            record => self.add_job(record),
        }
    }

    fn add_queue(&mut self, queue: QueueId, state: Queue) -> Result<(), &'static str> {
        let machine = &mut self.machine;
        check(machine.groups.is_empty(), "queues come before groups")?;
        let id_is_free = !machine.queues.contains_key(&queue);
        check(id_is_free && (1..machine.next_queue.0).contains(&queue.0), BAD_ID)?;
        let known = machine.queue_names.insert(state.name.clone(), queue).is_some();
        check(!known && !machine.retired.contains_key(&state.name), "a name comes twice")?;
        let within = state.gone.floor().max(state.aging.floor()) <= state.next;
        check(within, "the queue ends before it begins")?;
        machine.queues.insert(queue, state);
        self.queue = queue;
        Ok(())
    }

    fn add_counters(
        &mut self,
        next_queue: QueueId,
        next_group: GroupId,
        next_grant: Grant,
    ) -> Result<(), &'static str> {
        let machine = &mut self.machine;
        (machine.next_queue, machine.next_group) = (next_queue, next_group);
        machine.next_grant = next_grant;
        let fits = next_queue.0 > 0 && next_group.0 > 0 && next_grant.0 > 0;
        check(fits, "ids and grants begin at 1")
    }

    fn add_offsets(&mut self, reserved: u64, first_of_new: Offset) -> Result<(), &'static str> {
        let machine = &mut self.machine;
        let first = machine.retired.is_empty() && machine.queues.is_empty();
        let once = machine.reserved == 0 && machine.first_of_new == Offset(0);
        check(first && once, "the offsets come behind the counters and once")?;
        check((reserved, first_of_new.0) != (0, 0), "offsets without any are left out")?;
        (machine.reserved, machine.first_of_new) = (reserved, first_of_new);
        Ok(())
    }

    fn add_retired(&mut self, name: Box<str>, next: Offset) -> Result<(), &'static str> {
        let machine = &mut self.machine;
        let last = machine.retired.last_key_value();
        check(last.is_none_or(|(last, _)| **last < *name), "a name comes twice")?;
        check(machine.queues.is_empty(), "deleted queues come before the others")?;
        machine.retired.insert(name, next);
        Ok(())
    }

    fn add_to_known_queue(&mut self, record: Record) -> Result<(), &'static str> {
        let machine = &mut self.machine;
        check(machine.groups.is_empty(), "what is known of a queue's jobs comes before groups")?;
        match record {
            Record::Job(JobRecord::Termed { queue, offset, terms }) => {
                check(machine.restore_terms(queue, offset, terms), "the job can't have these terms")
            }
            Record::Job(JobRecord::Producer { queue, producer, last_log_ms, batches }) => {
                let fits = machine.restore_producer(queue, producer, last_log_ms, batches);
                check(fits, "the producer can't be so")
            }
            Record::Job(JobRecord::Result { queue, offset, until_log_ms, result }) => {
                let fits = machine.change(queue, |state| {
                    let is_new = offset < state.next && state.results.get(offset).is_none();
                    state.results.insert(offset, until_log_ms, result, 0);
                    is_new
                });
                check(fits == Some(true), "the job can't have this result")
            }
            Record::Job(JobRecord::Displaced { queue, count }) => {
                let state = machine.queues.get_mut(&queue);
                let fits = state.is_some_and(|state| state.results.restore_displaced(count));
                check(fits, "no results of this queue can have gone")
            }
            other => self.add_unique(other),
        }
    }

    /// Takes a record back that is about unique keys.
    ///
    /// # Errors
    /// Why it can't be.
    fn add_unique(&mut self, record: Record) -> Result<(), &'static str> {
        check(self.machine.groups.is_empty(), "unique keys come before groups")?;
        match record {
            Record::Job(JobRecord::Held { queue, held }) => {
                check(self.machine.restore_key(queue, held), "the job can't hold this key")
            }
            Record::Job(JobRecord::Met { queue, duplicates, replaced }) => {
                let state = self.machine.queues.get_mut(&queue).ok_or("its queue is missing")?;
                let UniqueInfo { duplicates: more, replaced: other, .. } = state.unique.info();
                check(more + other == 0, "the counts come twice")?;
                state.unique.count(duplicates, replaced);
                Ok(())
            }
            Record::Job(JobRecord::Told { queue, producer, sequence, hits }) => {
                let state = self.machine.queues.get_mut(&queue);
                let fits = state
                    .is_some_and(|state| state.producers.restore_hits(producer, sequence, hits));
                check(fits, "no batch of a producer can have met these keys")
            }
            _ => Err("it is not about unique keys"),
        }
    }

    fn add_to_queue(&mut self, record: Record) -> Result<(), &'static str> {
        check(self.machine.groups.is_empty(), "queues come before groups")?;
        let queue =
            self.machine.queues.get_mut(&self.queue).ok_or("there is no queue before it")?;
        let next = queue.next;
        let add = |set: &mut OffsetSet, chunk, members| {
            let added = set.add_chunk(chunk, members);
            check(added && set.last().is_none_or(|last| last < next), "no set has this chunk")
        };
        match record {
            Record::Queue(QueueRecord::Gone { chunk, members }) => {
                add(&mut queue.gone, chunk, members)
            }
            Record::Queue(QueueRecord::Aging { chunk, members }) => {
                add(&mut queue.aging, chunk, members)
            }
            Record::Queue(QueueRecord::Withdrawn { chunk, members }) => {
                add(&mut queue.withdrawn, chunk, members)
            }
            Record::Queue(QueueRecord::Lapsed { chunk, members }) => {
                add(&mut queue.lapsed, chunk, members)
            }
            Record::Queue(QueueRecord::Size { offset, before }) => {
                let fits = offset < next && queue.sizes.restore_mark(offset, before);
                check(fits, "the bytes of the queue do not add up")
            }
            Record::Queue(QueueRecord::Skipped { first, end }) => {
                let behind = queue.skipped.last().is_none_or(|last| last.1 < first);
                check(behind && first < end && end <= next, "no offsets are skipped so")?;
                queue.skipped.push((first, end));
                Ok(())
            }
            _ => Err("it is not about a queue"),
        }
    }

    fn add_group(&mut self, state: Group) -> Result<(), &'static str> {
        let machine = &mut self.machine;
        let group = self.group;
        let queue = machine.queues.get_mut(&state.queue).ok_or("its queue is missing")?;
        let id_is_free = !machine.groups.contains_key(&group);
        check(id_is_free && (1..machine.next_group.0).contains(&group.0), BAD_ID)?;
        let floor = state.consumed.floor();
        let fits = floor <= state.next_fetch && state.next_fetch <= queue.next;
        check(fits && state.start <= floor, "it lies outside of its queue")?;
        let known = queue.groups.insert(state.name.clone(), group).is_some();
        check(!known, "a name comes twice")?;
        machine.groups.insert(group, state);
        Ok(())
    }

    fn add_job(&mut self, record: Record) -> Result<(), &'static str> {
        if matches!(
            record,
            Record::Group(GroupRecord::Progress { .. })
                | Record::Group(GroupRecord::LastError { .. })
        ) {
            return self.add_note(record);
        }
        let Machine { queues, groups, leases, next_grant, deadlines, .. } = &mut self.machine;
        let group = self.group;
        let state = groups.get_mut(&group).ok_or(NO_GROUP)?;
        let consumed = matches!(record, Record::Group(GroupRecord::Consumed { .. }));
        check(consumed || state.kind == GroupKind::Work, "a stream group has no such jobs")?;
        let offset = match record {
            Record::Group(GroupRecord::Consumed { chunk, members }) => {
                let empty = state.marked_count() == 0 && state.dead.len() == 0;
                check(empty && state.leased_count == 0, "consumed jobs come before others")?;
                return check(state.consumed.add_chunk(chunk, members), "no set has this chunk");
            }
            Record::Group(GroupRecord::Marked { offset, .. })
            | Record::Group(GroupRecord::Lease { offset, .. })
            | Record::Group(GroupRecord::Dead { offset, .. }) => offset,
            _ => return Err("it is not about a job"),
        };
        let queue = queues.get(&state.queue).ok_or("its queue is missing")?;
        let out = offset < state.next_fetch || queue.ranks.get(offset).is_some();
        let open = out && !state.consumed.contains(offset);
        check(queue.delays.get(offset).is_none(), "the job is not due")?;
        check(open && !state.dead.contains(offset), "the job is not open")?;
        match record {
            Record::Group(GroupRecord::Marked { place, attempts, failures, crashes, .. }) => {
                let due_log_ms = match place {
                    MarkedPlace::Delayed { due_log_ms } => Some(due_log_ms),
                    MarkedPlace::Ready | MarkedPlace::Leased | MarkedPlace::Parked => None,
                };
                let mark = Mark { due_log_ms, attempts, failures, crashes };
                return self.add_marked(offset, place, mark);
            }
            Record::Group(GroupRecord::Lease { grant, holder, lease_ms, .. }) => {
                check(leases.get(group, offset).is_none(), "the job comes twice")?;
                check(grant < *next_grant, "its grant is still to come")?;
                let mark = state.past(offset);
                let waits = mark.is_some_and(|mark| mark.due_log_ms.is_some())
                    || state.waits_again(queue, offset);
                check(!waits, "the job waits to be fetched")?;
                let owed = self.leases_owed.checked_sub(u64::from(mark.is_some()));
                self.leases_owed = owed.ok_or("the job waits for others of its key")?;
                leases.insert((group, offset), (holder, grant), lease_ms, 0);
                state.leased_count += 1;
            }
            Record::Group(GroupRecord::Dead { job, .. }) => {
                let free = state.past(offset).is_none() && !state.waits_again(queue, offset);
                check(free && leases.get(group, offset).is_none(), "the job is alive as well")?;
                let end_log_ms = job.end_log_ms(queue.settings.dead_kept_ms);
                deadlines.dead.moved((group, offset), None, end_log_ms);
                state.dead.insert(offset, job);
            }
            _ => {}
        }
        Ok(())
    }

    fn add_note(&mut self, record: Record) -> Result<(), &'static str> {
        let Machine { groups, leases, .. } = &mut self.machine;
        let state = groups.get_mut(&self.group).ok_or(NO_GROUP)?;
        let is_new = match record {
            Record::Group(GroupRecord::Progress { offset, note }) => {
                let is_out = leases.get(self.group, offset).is_some();
                check(is_out, "a job has progress that is not out")?;
                !note.is_empty() && state.notes.set_progress(offset, &note)
            }
            Record::Group(GroupRecord::LastError { offset, error }) => {
                check(state.past(offset).is_some(), "a job failed that never came back")?;
                state.notes.set_error(offset, &error)
            }
            _ => return Err("it is nothing that a worker said"),
        };
        check(is_new, "a worker said nothing, or the job comes twice")
    }

    fn add_marked(
        &mut self,
        offset: Offset,
        place: MarkedPlace,
        mark: Mark,
    ) -> Result<(), &'static str> {
        let parts = self.machine.parts(self.group);
        let (state, queue, deadlines) = parts.ok_or(NO_GROUP)?;
        check(state.dead.len() == 0 && state.leased_count == 0, "marks come before")?;
        let known = state.past(offset).is_some() || state.waits_again(queue, offset);
        check(!known, "the job comes twice")?;
        let never_out = mark.attempts == 0 && place == MarkedPlace::Ready;
        check(!never_out || mark.failures + mark.crashes == 0, "it failed without an attempt")?;
        let is_ranked = queue.ranks.get(offset).is_some();
        check(!(never_out && is_ranked), "it was not out, and has its place")?;
        if !never_out {
            state.set_mark(offset, mark);
        }
        match (mark.due_log_ms, place) {
            (Some(_), _) => {
                deadlines.retries.moved((self.group, offset), None, mark.due_log_ms);
            }
            (None, MarkedPlace::Ready) => state.wait_again(queue, offset),
            (None, MarkedPlace::Parked) => self.keys_owed += 1,
            (None, _) => self.leases_owed += 1,
        }
        Ok(())
    }

    /// Every delivered job of a group is in exactly one place; none was counted twice above.
    fn finish_group(&mut self) -> Result<(), &'static str> {
        check(self.leases_owed == 0, "a job that is out has no lease")?;
        check(self.keys_owed == 0, "a parked job has no key")?;
        let Some((state, queue, _)) = self.machine.parts(self.group) else { return Ok(()) };
        let full = state.keys.as_ref().is_none_or(|keys| keys.parks_only_what_it_must());
        check(full, "a job is parked whose key is free")?;
        let last = state.consumed.last();
        let is_known = last.is_none_or(|last| last < queue.next);
        check(is_known, "a job is consumed that is still to come")?;
        check(!state.consumed.contains(state.next_fetch), "the first fresh job is consumed")?;
        state.count_holes();
        let next_fetch = state.next_fetch;
        self.machine.count_skipped(self.group);
        let Some((state, queue, deadlines)) = self.machine.parts(self.group) else { return Ok(()) };
        check(state.next_fetch == next_fetch, "its pointer stands at a job that is not fresh")?;
        let rate = queue.settings.rate();
        check(state.bucket.is_some() == rate.is_some(), "a rate and a bucket come together")?;
        let fits = state.bucket.zip(rate).is_none_or(|(bucket, rate)| bucket.fits(rate));
        check(fits, "its bucket holds too much")?;
        deadlines.refills.moved(self.group, None, state.refill_log_ms(rate));
        let owed = self.owed.drain(..).all(|rank| state.ranked.owe(rank));
        check(owed, "no job of a rank waits of which a fresh one is first")?;
        check(state.accounts_for_all(), "a job of the group is missing")
    }
}

const NO_GROUP: &str = "there is no group before it";
const BAD_ID: &str = "its id was given before or never";

fn check(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}
