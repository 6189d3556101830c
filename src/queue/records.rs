//! The state as plain records, and back: what a checkpoint holds.
//!
//! The records of a state come in one order, whatever way led to it, so that equal states give
//! equal checkpoints. Taking them back checks each against those before it; a machine that comes
//! out is one that facts could have made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::deadlines::Deadlines;
use super::ending::Candidates;
use super::group::{Group, Mark};
use super::limits::Bucket;
use super::machine::Machine;
use super::offset_set::{ChunkMembers, OffsetSet};
use super::record::{
    BadRecord, GroupRecord, JobRecord, LogRecord, MarkedPlace, QueueRecord, Record,
};
use super::sizes::Sizes;
use super::state::Queue;
use super::{Due, GroupKind, JobTerms, KeyedPlace, Rank, UniqueInfo};
use crate::types::{GroupId, Offset, QueueId};

/// Hits in one record: 52 KiB.
const HITS_PER_RECORD: usize = 4_096;

impl Machine {
    /// The whole state, in one order. What only a running server knows is left out: how long
    /// leases have run, and which groups are to be woken.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let Self { next_queue, next_group, next_grant, reserved, first_of_new, .. } = *self;
        let counters = LogRecord::Counters { next_queue, next_group, next_grant };
        let has_offsets = reserved > 0 || first_of_new > Offset(0);
        let offsets = has_offsets.then_some(LogRecord::Offsets { reserved, first_of_new });
        let retired = self.retired.iter();
        let retired =
            retired.map(|(name, next)| LogRecord::DeletedQueue { name: name.clone(), next: *next });
        let log = std::iter::once(counters).chain(offsets).chain(retired);
        let mut queues: Vec<(_, &Queue)> =
            self.queues.iter().map(|(id, state)| (*id, &**state)).collect();
        queues.sort_unstable_by_key(|(id, _)| *id);
        let termed = queues.clone().into_iter().flat_map(termed_records);
        let producers = queues.clone().into_iter().flat_map(producer_records);
        let results = queues.clone().into_iter().flat_map(result_records);
        let unique = queues.clone().into_iter().flat_map(unique_records);
        let jobs = termed.chain(producers).chain(unique).chain(results);
        let mut groups: Vec<_> = self.groups.keys().copied().collect();
        groups.sort_unstable();
        let leases = self.leases.jobs();
        let group_records = move |group| {
            let from = leases.partition_point(|(known, _)| *known < group);
            let own = leases.iter().skip(from).take_while(|(known, _)| *known == group);
            self.group_records(group, own.map(|(_, offset)| *offset).collect())
        };
        log.map(Record::Log)
            .chain(queues.into_iter().flat_map(queue_records).map(Record::Queue))
            .chain(jobs.map(Record::Job))
            .chain(self.schedule_records())
            .chain(groups.into_iter().flat_map(group_records).map(Record::Group))
    }

    fn group_records(
        &self,
        group: GroupId,
        leased: Vec<Offset>,
    ) -> impl Iterator<Item = GroupRecord> {
        let parts = self.of(group).map(|(state, queue)| (state, queue, leased));
        parts.into_iter().flat_map(move |(state, queue, leased)| {
            let head = GroupRecord::Group {
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
            };
            let consumed =
                chunks(&state.consumed, |chunk, members| GroupRecord::Consumed { chunk, members });
            let marks = state.marked().into_iter();
            let marks = marks.map(move |offset| mark_record(state, queue, offset));
            let owed = state.ranked.owed().map(|rank| GroupRecord::FreshOwed { rank });
            let leases = leased.into_iter().filter_map(move |offset| {
                let lease = self.leases.get(group, offset)?;
                let (grant, holder) = (lease.grant, self.leases.holder(lease));
                let lease_ms = lease.lease_ms() as u32;
                Some(GroupRecord::Lease { offset, grant, holder, lease_ms })
            });
            let dead = state.dead.from(Offset(0));
            let dead = dead.map(|(offset, job)| GroupRecord::Dead { offset, job: job.clone() });
            let bucket = state.bucket.map(|bucket| {
                let (millijobs, at_log_ms) = bucket.content();
                GroupRecord::Bucket { millijobs, at_log_ms }
            });
            let progress = state
                .notes
                .progress()
                .map(|(offset, note)| GroupRecord::Progress { offset, note: note.into() });
            let errors = state
                .notes
                .errors()
                .map(|(offset, error)| GroupRecord::LastError { offset, error: error.into() });
            let keyed = state.keys.iter().flat_map(|keys| keys.all());
            let keyed = keyed.map(|(offset, key, place)| GroupRecord::Keyed { offset, key, place });
            let jobs = marks.chain(leases).chain(dead).chain(owed);
            let jobs = jobs.chain(progress).chain(errors).chain(keyed);
            std::iter::once(head).chain(bucket).chain(consumed).chain(jobs)
        })
    }
}

fn queue_records((queue, state): (QueueId, &Queue)) -> impl Iterator<Item = QueueRecord> {
    let head = QueueRecord::Queue {
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
    };
    let gone = chunks(&state.gone, |chunk, members| QueueRecord::Gone { chunk, members });
    let aging = chunks(&state.aging, |chunk, members| QueueRecord::Aging { chunk, members });
    let withdrawn =
        chunks(&state.withdrawn, |chunk, members| QueueRecord::Withdrawn { chunk, members });
    let lapsed = chunks(&state.lapsed, |chunk, members| QueueRecord::Lapsed { chunk, members });
    let sets = gone.chain(aging).chain(withdrawn).chain(lapsed);
    let sizes = state.sizes.marks();
    let sizes = sizes.map(|(offset, before)| QueueRecord::Size { offset, before });
    let skipped = state.skipped.iter().map(|&(first, end)| QueueRecord::Skipped { first, end });
    std::iter::once(head).chain(sets).chain(sizes).chain(skipped)
}

fn chunks<T>(set: &OffsetSet, record: impl Fn(u64, ChunkMembers) -> T) -> impl Iterator<Item = T> {
    set.chunks().map(move |(chunk, members)| record(chunk, members))
}

fn termed_records((queue, state): (QueueId, &Queue)) -> impl Iterator<Item = JobRecord> {
    let mut all: BTreeMap<Offset, JobTerms> = BTreeMap::new();
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
    all.into_iter().map(move |(offset, terms)| JobRecord::Terms { queue, offset, terms })
}

fn producer_records((queue, state): (QueueId, &Queue)) -> impl Iterator<Item = JobRecord> {
    let producers = state.producers.all().into_iter();
    producers.map(move |(producer, last_log_ms, batches)| JobRecord::Producer {
        queue,
        producer,
        last_log_ms,
        batches,
    })
}

fn unique_records((queue, state): (QueueId, &Queue)) -> impl Iterator<Item = JobRecord> {
    let keys = state.unique.iter().map(move |held| JobRecord::UniqueKey { queue, held });
    let UniqueInfo { duplicates, replaced, .. } = state.unique.info();
    let counts = JobRecord::UniqueCounts { queue, duplicates, replaced };
    let counts = (duplicates + replaced > 0).then_some(counts);
    let hits = state.producers.all_hits().into_iter();
    let hits = hits.flat_map(move |(producer, sequence, hits)| {
        let parts = hits.chunks(HITS_PER_RECORD).map(<[_]>::to_vec);
        parts.map(move |hits| JobRecord::UniqueHits { queue, producer, sequence, hits })
    });
    keys.chain(counts).chain(hits)
}

fn result_records((queue, state): (QueueId, &Queue)) -> impl Iterator<Item = JobRecord> {
    let kept = state.results.iter().map(move |(offset, until_log_ms, result)| {
        let result = Arc::clone(result);
        JobRecord::Result { queue, offset, until_log_ms, result }
    });
    let (_, _, count) = state.results.counts();
    kept.chain((count > 0).then_some(JobRecord::Displaced { queue, count }))
}

fn mark_record(state: &Group, queue: &Queue, offset: Offset) -> GroupRecord {
    let Mark { due_log_ms, attempts, failures, crashes } = state.mark(offset);
    let place = match due_log_ms {
        Some(due_log_ms) => MarkedPlace::Delayed { due_log_ms },
        None if state.waits_again(queue, offset) => MarkedPlace::Ready,
        None if state.is_parked(offset) => MarkedPlace::Parked,
        None => MarkedPlace::Leased,
    };
    GroupRecord::Marked { offset, place, attempts, failures, crashes }
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

    fn add_any(&mut self, record: Record) -> Checked {
        match record {
            Record::Log(record) => self.add_to_log(record),
            Record::Queue(record) => self.add_to_queue(record),
            Record::Job(record) => self.add_to_jobs(record),
            Record::Schedule(record) => self.machine.restore_schedules(record),
            Record::Group(record) => self.add_to_group(record),
        }
    }

    fn add_to_log(&mut self, record: LogRecord) -> Checked {
        let machine = &mut self.machine;
        match record {
            LogRecord::Counters { next_queue, next_group, next_grant } => {
                (machine.next_queue, machine.next_group) = (next_queue, next_group);
                machine.next_grant = next_grant;
                let fits = next_queue.0 > 0 && next_group.0 > 0 && next_grant.0 > 0;
                check(fits, "ids and grants begin at 1")
            }
            LogRecord::Offsets { reserved, first_of_new } => {
                let first = machine.retired.is_empty() && machine.queues.is_empty();
                let once = machine.reserved == 0 && machine.first_of_new == Offset(0);
                check(first && once, "the offsets come behind the counters and once")?;
                check((reserved, first_of_new.0) != (0, 0), "offsets without any are left out")?;
                (machine.reserved, machine.first_of_new) = (reserved, first_of_new);
                Ok(())
            }
            LogRecord::DeletedQueue { name, next } => {
                let last = machine.retired.last_key_value();
                check(last.is_none_or(|(last, _)| **last < *name), "a name comes twice")?;
                check(machine.queues.is_empty(), "deleted queues come before the others")?;
                machine.retired.insert(name, next);
                Ok(())
            }
        }
    }

    fn add_to_queue(&mut self, record: QueueRecord) -> Checked {
        check(self.machine.groups.is_empty(), "queues come before groups")?;
        let known = self.machine.queues.get_mut(&self.queue).map(|known| &mut **known);
        let known = known.ok_or("there is no queue before it");
        let add = |known: Result<&mut Queue, _>, set: fn(&mut Queue) -> &mut OffsetSet, chunk| {
            let (known, (chunk, members)) = (known?, chunk);
            let next = known.next;
            let set = set(known);
            let added = set.add_chunk(chunk, members);
            check(added && set.last().is_none_or(|last| last < next), "no set has this chunk")
        };
        match record {
            QueueRecord::Queue {
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
            } => {
                let fits = withdrawn <= next && lapsed <= next;
                check(fits, "jobs are withdrawn that it does not have")?;
                let state = Queue {
                    next,
                    aging: OffsetSet::new(aging),
                    expired,
                    sizes: Sizes::with_total(bytes),
                    withdrawn: OffsetSet::new(withdrawn),
                    lapsed: OffsetSet::new(lapsed),
                    paused,
                    ..Queue::new(name, *settings, gone, turned_log_ms)
                };
                self.add_queue(queue, state)
            }
            QueueRecord::Gone { chunk, members } => {
                add(known, |known| &mut known.gone, (chunk, members))
            }
            QueueRecord::Aging { chunk, members } => {
                add(known, |known| &mut known.aging, (chunk, members))
            }
            QueueRecord::Withdrawn { chunk, members } => {
                add(known, |known| &mut known.withdrawn, (chunk, members))
            }
            QueueRecord::Lapsed { chunk, members } => {
                add(known, |known| &mut known.lapsed, (chunk, members))
            }
            QueueRecord::Size { offset, before } => {
                let known = known?;
                let fits = offset < known.next && known.sizes.restore_mark(offset, before);
                check(fits, "the bytes of the queue do not add up")
            }
            QueueRecord::Skipped { first, end } => {
                let known = known?;
                let behind = known.skipped.last().is_none_or(|last| last.1 < first);
                check(behind && first < end && end <= known.next, "no offsets are skipped so")?;
                known.skipped.push((first, end));
                Ok(())
            }
        }
    }

    fn add_queue(&mut self, queue: QueueId, state: Queue) -> Checked {
        let machine = &mut self.machine;
        let id_is_free = !machine.queues.contains_key(&queue);
        check(id_is_free && (1..machine.next_queue.0).contains(&queue.0), BAD_ID)?;
        let known = machine.queue_names.insert(state.name.clone(), queue).is_some();
        check(!known && !machine.retired.contains_key(&state.name), "a name comes twice")?;
        let within = state.gone.floor().max(state.aging.floor()) <= state.next;
        check(within, "the queue ends before it begins")?;
        machine.queues.insert(queue, Box::new(state));
        self.queue = queue;
        Ok(())
    }

    fn add_to_jobs(&mut self, record: JobRecord) -> Checked {
        let machine = &mut self.machine;
        check(machine.groups.is_empty(), "what is known of a queue's jobs comes before groups")?;
        match record {
            JobRecord::Terms { queue, offset, terms } => {
                // A job that is gone may still have an expiry: it is forgotten when its time comes.
                let fits = machine.change(queue, |state| {
                    let known = offset < state.next && terms != JobTerms::default();
                    known && state.set_terms(offset, terms)
                });
                check(fits == Some(true), "the job can't have these terms")
            }
            JobRecord::Producer { queue, producer, last_log_ms, batches } => {
                let state = machine.queues.get_mut(&queue).map(|state| &mut state.producers);
                let check_ms = state.and_then(|all| all.restore(producer, last_log_ms, batches));
                machine.deadlines.producers.moved((queue, producer), None, check_ms);
                check(check_ms.is_some(), "the producer can't be so")
            }
            JobRecord::UniqueKey { queue, held } => {
                let (offset, until_log_ms) = (held.offset, held.until_log_ms);
                let state = machine.queues.get_mut(&queue).filter(|state| offset < state.next);
                machine.deadlines.keys.moved((queue, offset), None, until_log_ms);
                let fits = state.is_some_and(|state| state.unique.restore(held));
                check(fits, "the job can't hold this key")
            }
            JobRecord::UniqueCounts { queue, duplicates, replaced } => {
                let state = machine.queues.get_mut(&queue).ok_or("its queue is missing")?;
                let UniqueInfo { duplicates: more, replaced: other, .. } = state.unique.info();
                check(more + other == 0, "the counts come twice")?;
                state.unique.count(duplicates, replaced);
                Ok(())
            }
            JobRecord::UniqueHits { queue, producer, sequence, hits } => {
                let state = machine.queues.get_mut(&queue).map(|state| &mut state.producers);
                let fits = state.is_some_and(|known| known.restore_hits(producer, sequence, hits));
                check(fits, "no batch of a producer can have met these keys")
            }
            JobRecord::Result { queue, offset, until_log_ms, result } => {
                let fits = machine.change(queue, |state| {
                    let is_new = offset < state.next && state.results.get(offset).is_none();
                    state.results.insert(offset, until_log_ms, result, 0);
                    is_new
                });
                check(fits == Some(true), "the job can't have this result")
            }
            JobRecord::Displaced { queue, count } => {
                let state = machine.queues.get_mut(&queue);
                let fits = state.is_some_and(|state| state.results.restore_displaced(count));
                check(fits, "no results of this queue can have gone")
            }
        }
    }

    fn add_to_group(&mut self, record: GroupRecord) -> Checked {
        match record {
            GroupRecord::Group {
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
            } => {
                self.finish_group()?;
                self.group = group;
                let known = self.machine.queues.get(&queue).ok_or("its queue is missing")?;
                let of = (queue, &known.settings);
                let mut state = Group::new(of, name, kind, start, OffsetSet::new(committed));
                (state.next_fetch, state.fresh_owed) = (next_fetch, fresh_owed);
                (state.removed, state.paused) = (removed, paused);
                self.add_group(state)
            }
            GroupRecord::Bucket { millijobs, at_log_ms } => {
                let (state, ..) = self.keyless()?;
                let before = state.bucket.replace(Bucket::restored(millijobs, at_log_ms));
                check(before.is_none(), "its bucket comes twice")
            }
            GroupRecord::Consumed { chunk, members } => {
                let (state, ..) = self.keyless()?;
                let empty = state.marked_count() == 0 && state.dead.len() == 0;
                check(empty && state.leased_count == 0, "consumed jobs come before others")?;
                check(state.consumed.add_chunk(chunk, members), "no set has this chunk")
            }
            GroupRecord::Marked { offset, place, attempts, failures, crashes } => {
                let due_log_ms = match place {
                    MarkedPlace::Delayed { due_log_ms } => Some(due_log_ms),
                    MarkedPlace::Ready | MarkedPlace::Leased | MarkedPlace::Parked => None,
                };
                self.add_marked(offset, place, Mark { due_log_ms, attempts, failures, crashes })
            }
            GroupRecord::Lease { offset, grant, holder, lease_ms } => {
                let group = self.group;
                let (is_out, next) = (self.is_out(offset), self.machine.next_grant);
                let (state, queue, _) = self.open(offset)?;
                check(!is_out, "the job comes twice")?;
                check(grant < next, "its grant is still to come")?;
                let mark = state.past(offset);
                let is_delayed = mark.is_some_and(|mark| mark.due_log_ms.is_some());
                let waits = is_delayed || state.waits_again(queue, offset);
                check(!waits, "the job waits to be fetched")?;
                state.leased_count += 1;
                let owed = self.leases_owed.checked_sub(u64::from(mark.is_some()));
                self.leases_owed = owed.ok_or("the job waits for others of its key")?;
                self.machine.leases.insert((group, offset), (holder, grant), lease_ms, 0);
                Ok(())
            }
            GroupRecord::Dead { offset, job } => {
                let (group, is_out) = (self.group, self.is_out(offset));
                let (state, queue, deadlines) = self.open(offset)?;
                let free = state.past(offset).is_none() && !state.waits_again(queue, offset);
                check(free && !is_out, "the job is alive as well")?;
                let end_log_ms = job.end_log_ms(queue.settings.dead_kept_ms);
                deadlines.dead.moved((group, offset), None, end_log_ms);
                state.dead.insert(offset, job);
                Ok(())
            }
            GroupRecord::FreshOwed { rank } => {
                self.keyless()?;
                self.owed.push(rank);
                Ok(())
            }
            GroupRecord::Progress { offset, note } => {
                let is_out = self.is_out(offset);
                let (state, ..) = self.keyless()?;
                check(is_out, "a job has progress that is not out")?;
                let is_new = !note.is_empty() && state.notes.set_progress(offset, &note);
                check(is_new, "a worker said nothing, or the job comes twice")
            }
            GroupRecord::LastError { offset, error } => {
                let (state, ..) = self.keyless()?;
                check(state.past(offset).is_some(), "a job failed that never came back")?;
                let is_new = state.notes.set_error(offset, &error);
                check(is_new, "a worker said nothing, or the job comes twice")
            }
            GroupRecord::Keyed { offset, key, place } => {
                let is_marked = self.machine.restore_keyed(self.group, offset, key, place)?;
                let owed = u64::from(place == KeyedPlace::Parked && is_marked);
                let left = self.keys_owed.checked_sub(owed);
                self.keys_owed = left.ok_or("the job is out as well")?;
                Ok(())
            }
        }
    }

    fn is_out(&self, offset: Offset) -> bool {
        self.machine.leases.get(self.group, offset).is_some()
    }

    /// The group that records about jobs belong to, before the keys of its jobs come.
    fn keyless(&mut self) -> Result<Parts<'_>, &'static str> {
        let parts = self.machine.parts(self.group).ok_or(NO_GROUP)?;
        let keyless = parts.0.keys.as_ref().is_none_or(|keys| keys.is_empty());
        check(keyless, "keys come behind all else about jobs")?;
        Ok(parts)
    }

    /// As [`keyless`](Self::keyless), if a job was delivered and is neither consumed nor dead.
    fn open(&mut self, offset: Offset) -> Result<Parts<'_>, &'static str> {
        let (state, queue, deadlines) = self.keyless()?;
        check(state.kind == GroupKind::Work, "a stream group has no such jobs")?;
        let out = offset < state.next_fetch || queue.ranks.get(offset).is_some();
        let open = out && !state.consumed.contains(offset);
        check(queue.delays.get(offset).is_none(), "the job is not due")?;
        check(open && !state.dead.contains(offset), "the job is not open")?;
        Ok((state, queue, deadlines))
    }

    fn add_group(&mut self, state: Group) -> Checked {
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

    fn add_marked(&mut self, offset: Offset, place: MarkedPlace, mark: Mark) -> Checked {
        let group = self.group;
        let (state, queue, deadlines) = self.open(offset)?;
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
                deadlines.retries.moved((group, offset), None, mark.due_log_ms);
            }
            (None, MarkedPlace::Ready) => state.wait_again(queue, offset),
            (None, MarkedPlace::Parked) => self.keys_owed += 1,
            (None, MarkedPlace::Leased | MarkedPlace::Delayed { .. }) => self.leases_owed += 1,
        }
        Ok(())
    }

    /// Every delivered job of a group is in exactly one place; none was counted twice above.
    fn finish_group(&mut self) -> Checked {
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

/// None, or what is wrong with a record.
type Checked = Result<(), &'static str>;

/// A group to be changed, with its queue and what waits for a time.
type Parts<'a> = (&'a mut Group, &'a Queue, &'a mut Deadlines);

const NO_GROUP: &str = "there is no group before it";
const BAD_ID: &str = "its id was given before or never";

fn check(holds: bool, otherwise: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise) }
}
