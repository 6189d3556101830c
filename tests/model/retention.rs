//! What queues keep: groups that are set back or ahead, jobs that are too old, and a model of what
//! is gone that looks at every job.

use std::collections::{BTreeMap, BTreeSet};

use joblog::queue::{Fact, GroupFact, QueueFact, Refusal, Seek};
use joblog::types::{GroupId, Offset, QueueId};

use crate::replay::JOB_BYTES;
use crate::world::{FRESH, Job, Place, World};

/// What the model knows of a queue.
pub(crate) struct Kept {
    /// The offset of its first job ever.
    pub(crate) first: u64,
    pub(crate) gone: BTreeSet<u64>,
    /// Offsets that no job has had.
    pub(crate) never: BTreeSet<u64>,
    aging: BTreeSet<u64>,
    turned_log_ms: u64,
    expired: u64,
}

impl Kept {
    pub(crate) fn new(first: u64, log_ms: u64) -> Self {
        let (gone, never, aging) = Default::default();
        Self { first, gone, never, aging, turned_log_ms: log_ms, expired: 0 }
    }

    /// Keeps what is consumed from now on.
    pub(crate) fn begin(&mut self, log_ms: u64) {
        self.aging = self.gone.clone();
        self.turned_log_ms = log_ms;
    }
}

impl World {
    pub(crate) fn retain(&mut self) {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        let queues: Vec<_> = self.queues.keys().copied().collect();
        match (self.rng.below(4), self.rng.one_of(&groups), self.rng.one_of(&queues)) {
            (0, Some(group), _) => self.seek(group),
            (1, _, Some(queue)) => self.expire(queue),
            (_, _, Some(queue)) => self.turn_kept(queue),
            _ => {}
        }
    }

    fn seek(&mut self, group: GroupId) {
        let queue = self.groups[&group].queue;
        let next = self.machine.next_offset(queue).unwrap();
        let first = self.first_live(queue);
        let at = Offset(self.rng.below(next.0 + 3));
        let seek = match self.rng.below(4) {
            0 => Seek::Beginning,
            1 => Seek::End,
            _ => Seek::To(at),
        };
        let to = match seek {
            Seek::Beginning => first,
            Seek::End => next,
            Seek::To(offset) if offset > next => {
                let refused = Err(Refusal::StartOutside { first, next });
                return assert_eq!(self.machine.seek(group, seek), refused);
            }
            Seek::To(offset) => offset.max(first),
        };
        let fact = self.machine.seek(group, seek).unwrap();
        assert_eq!(fact, Fact::Group(GroupFact::Sought { group, to }));
        self.record(fact);
        self.check_all();
        self.seen.insert("sought");
    }

    fn expire(&mut self, queue: QueueId) {
        let end = self.machine.next_offset(queue).unwrap().0;
        let (below, jobs_max) = (self.rng.below(end + 1), 1 + self.rng.below(30));
        let kept = &self.kept[&queue];
        let can_expire = |offset: &u64| {
            let mut states = self.states(queue, *offset).peekable();
            let unseen = states.peek().is_none();
            let mut states = states.filter(|place| !matches!(place, Place::Leased(_)));
            unseen || states.any(|place| *place != Place::Consumed)
        };
        let live = (kept.first..below).filter(|offset| !kept.gone.contains(offset));
        let ends: Vec<u64> = live.filter(can_expire).take(jobs_max as usize).collect();
        let expected = ends
            .last()
            .map(|last| Fact::Queue(QueueFact::Expired { queue, below: Offset(last + 1) }));
        let fact = self.machine.expire(queue, Offset(below), jobs_max);
        assert_eq!(fact, expected, "below {below}, at most {jobs_max}");
        if let Some(fact) = fact {
            self.record(fact);
            self.check_all();
            self.seen.insert("aged out");
        }
    }

    fn turn_kept(&mut self, queue: QueueId) {
        let consumed = self.consumed_by_all(queue);
        let kept = &self.kept[&queue];
        let keep_ms = self.settings[&queue].keep_consumed_for_ms;
        let due = keep_ms > 0 && self.log_ms >= kept.turned_log_ms + keep_ms;
        let expected = (due && consumed != kept.gone)
            .then_some(Fact::Queue(QueueFact::RetentionPassed { queue }));
        let fact = self.machine.turn_kept(queue, self.log_ms);
        assert_eq!(fact, expected);
        if let Some(fact) = fact {
            self.record(fact);
            self.seen.insert("turned");
        }
    }

    /// Where a job stands for each group that sees it.
    fn states(&self, queue: QueueId, offset: u64) -> impl Iterator<Item = &Place> {
        let groups = self.groups.values().filter(move |group| group.queue == queue);
        groups.filter_map(move |group| group.jobs.get(&offset).map(|job| &job.place))
    }

    pub(crate) fn consumed_by_all(&self, queue: QueueId) -> BTreeSet<u64> {
        let kept = &self.kept[&queue];
        let end = self.machine.next_offset(queue).unwrap().0;
        let consumed = |offset: &u64| {
            let mut states = self.states(queue, *offset).peekable();
            match states.peek() {
                None => kept.gone.contains(offset),
                Some(_) => states.all(|place| *place == Place::Consumed),
            }
        };
        (kept.first..end).filter(consumed).collect()
    }

    fn first_live(&self, queue: QueueId) -> Offset {
        let kept = &self.kept[&queue];
        Offset((kept.first..).find(|offset| !kept.gone.contains(offset)).unwrap())
    }

    /// Takes note of what has gone by now. To be asked before groups go and after they change.
    pub(crate) fn settle(&mut self, queue: QueueId) {
        if !self.keeps(queue) {
            let consumed = self.consumed_by_all(queue);
            self.kept.get_mut(&queue).unwrap().gone.extend(consumed);
        }
    }

    /// As `settle`, after some jobs were consumed.
    pub(crate) fn settle_jobs(&mut self, queue: QueueId, offsets: impl Iterator<Item = u64>) {
        if self.keeps(queue) {
            return;
        }
        for offset in offsets {
            if self.states(queue, offset).all(|place| *place == Place::Consumed) {
                self.kept.get_mut(&queue).unwrap().gone.insert(offset);
            }
        }
    }

    pub(crate) fn note_sought(&mut self, id: GroupId, to: u64) {
        let queue = self.groups[&id].queue;
        self.settle(queue);
        let end = self.machine.next_offset(queue).unwrap().0;
        let gone = &self.kept[&queue].gone;
        let group = &self.groups[&id];
        let start = group.start.min(to);
        let place = |offset| match offset < to || gone.contains(&offset) {
            true => Place::Consumed,
            false => self.first_place(queue, group.kind, offset),
        };
        let new = |offset| (offset, Job { place: place(offset), ..FRESH });
        let jobs: BTreeMap<_, _> = (start..end).map(new).collect();
        let group = self.groups.get_mut(&id).unwrap();
        (group.start, group.committed, group.jobs) = (start, start, jobs);
        self.settle(queue);
    }

    pub(crate) fn note_expired(&mut self, queue: QueueId, below: u64) {
        let before = self.consumed_by_all(queue).len();
        let first = self.kept[&queue].first;
        for offset in first..below {
            if self.states(queue, offset).next().is_none() {
                self.kept.get_mut(&queue).unwrap().gone.insert(offset);
            }
        }
        self.delayed.retain(|(of, offset), _| *of != queue || *offset >= below);
        for group in self.groups.values_mut().filter(|group| group.queue == queue) {
            for (_, job) in group.jobs.range_mut(..below) {
                if !matches!(job.place, Place::Leased(_)) {
                    job.place = Place::Consumed;
                }
            }
        }
        let ended = self.consumed_by_all(queue).len() - before;
        self.kept.get_mut(&queue).unwrap().expired += ended as u64;
        self.settle(queue);
    }

    pub(crate) fn note_turned(&mut self, queue: QueueId) {
        let consumed = self.consumed_by_all(queue);
        let (log_ms, kept) = (self.log_ms, self.kept.get_mut(&queue).unwrap());
        let still: Vec<u64> = kept.aging.intersection(&consumed).copied().collect();
        kept.gone.extend(still);
        kept.aging = consumed;
        kept.turned_log_ms = log_ms;
    }

    pub(crate) fn check_kept(&mut self) {
        for queue in self.queues.keys().copied().collect::<Vec<_>>() {
            let info = self.machine.queue(queue).unwrap();
            let kept = &self.kept[&queue];
            let consumed = self.consumed_by_all(queue);
            let end = info.next.0;
            for offset in (kept.first..end).map(Offset) {
                let gone = kept.gone.contains(&offset.0);
                assert_eq!(self.machine.is_live(queue, offset), !gone, "{offset} of {queue}");
            }
            assert_eq!(info.first, self.first_live(queue));
            assert_eq!(info.unconsumed, end - kept.first - consumed.len() as u64);
            assert_eq!(info.expired, kept.expired);
            if let Some(bytes) = info.unconsumed_bytes {
                let ended = |offset: &u64| consumed.contains(offset);
                let first = (kept.first..).find(|offset| !ended(offset)).unwrap();
                let jobs_from = |from| end - from - kept.never.range(from..).count() as u64;
                let (open, ever) =
                    (JOB_BYTES * jobs_from(first), JOB_BYTES * jobs_from(kept.first));
                assert!(
                    (open..=open + ever / 8 + 6 * JOB_BYTES).contains(&bytes),
                    "{bytes} {open}"
                );
            }
            let from = kept.first + self.rng.below(end - kept.first + 2);
            let live = (from..end).find(|offset| !kept.gone.contains(offset)).map(Offset);
            assert_eq!(self.machine.next_live(queue, Offset(from)), live);
        }
    }
}
