//! Jobs that are enqueued with a due time, on either clock.

use std::collections::BTreeMap;
use std::ops::Range;

use joblog::queue::{Due, Fact, GroupKind, JobFact, JobTerms, PromoteVerdict, Removal, Run};
use joblog::types::{Offset, QueueId};

use crate::world::{Place, WALL_AHEAD_MS, World};

impl World {
    /// Terms for some of the jobs that have just been enqueued; those in `dues` are due then.
    pub(crate) fn terms_of_new(
        &mut self,
        queue: QueueId,
        offsets: Range<u64>,
        dues: &BTreeMap<u64, Option<u64>>,
    ) -> Option<Fact> {
        let mut runs = Vec::new();
        for offset in offsets {
            let due_ms = self.log_ms + 1 + self.rng.below(30_000);
            let due = match self.rng.below(6) {
                0 => Some(Due::Log(due_ms)),
                1 => Some(Due::Wall(due_ms + WALL_AHEAD_MS)),
                _ => None,
            };
            let due = dues.get(&offset).map_or(due, |due_ms| due_ms.map(Due::Log));
            let expires_ms = self.log_ms + 1 + self.rng.below(60_000);
            let expires_log_ms = (self.rng.below(6) == 0).then_some(expires_ms);
            let terms = JobTerms { due, expires_log_ms, rank: self.rank_of_new() };
            if terms != JobTerms::default() {
                runs.push((Run { first: Offset(offset), count: 1 }, terms));
            }
        }
        (!runs.is_empty()).then_some(Fact::Job(JobFact::TermsSet { queue, runs }))
    }

    pub(crate) fn note_terms(&mut self, queue: QueueId, runs: &[(Run, JobTerms)]) {
        self.note_ranks(queue, runs);
        for (run, terms) in runs {
            for offset in run.offsets() {
                if let Some(ms) = terms.expires_log_ms {
                    self.expiries.insert((queue, offset.0), ms);
                }
                let due_ms = match terms.due {
                    None => continue,
                    Some(Due::Log(ms)) => ms,
                    Some(Due::Wall(ms)) => ms - WALL_AHEAD_MS,
                };
                self.delayed.insert((queue, offset.0), due_ms);
                for group in self.groups.values_mut().filter(|group| group.queue == queue) {
                    if group.kind == GroupKind::Work {
                        group.jobs.get_mut(&offset.0).unwrap().place = Place::NotDue(due_ms);
                    }
                }
            }
        }
    }

    /// All that has expired is withdrawn.
    pub(crate) fn lapse(&mut self) {
        let limit = if self.rng.below(2) == 0 { 1 } else { 1_000 };
        let log_ms = self.log_ms;
        while let Some(fact) = self.machine.lapse(log_ms, limit) {
            let Fact::Job(JobFact::Withdrawn { queue, cause: Removal::Expired, runs }) = &fact
            else {
                panic!("{fact:?}")
            };
            let offsets: Vec<_> = runs.iter().flat_map(|run| run.offsets()).collect();
            assert!(offsets.len() <= limit);
            for offset in offsets {
                assert!(self.expiries[&(*queue, offset.0)] <= log_ms);
            }
            self.record(fact);
            self.seen.insert("over");
        }
        assert!(self.expiries.values().all(|ms| *ms > log_ms));
        assert_eq!(self.machine.next_expiry_log_ms(), self.expiries.values().min().copied());
    }

    pub(crate) fn promote_some(&mut self) {
        let ids: Vec<_> = self.queues.keys().copied().collect();
        let Some(queue) = self.rng.one_of(&ids) else { return };
        let end = self.machine.next_offset(queue).unwrap().0;
        let offsets: Vec<_> =
            (0..4).map(|_| (end + 2).saturating_sub(self.rng.below(25))).collect();
        let mut meant = Vec::new();
        for offset in offsets {
            let groups = self.groups.values().filter(|group| group.queue == queue);
            let mut groups = groups.filter(|group| group.kind == GroupKind::Work).peekable();
            let is_delayed = match groups.peek() {
                None => self.delayed.contains_key(&(queue, offset)),
                Some(_) => groups.any(|group| {
                    let place = group.jobs.get(&offset).map(|job| &job.place);
                    matches!(place, Some(Place::NotDue(_) | Place::Delayed(_)))
                }),
            };
            let expected = match is_delayed {
                _ if offset >= end => PromoteVerdict::NoSuchJob,
                true => PromoteVerdict::Promoted,
                false => PromoteVerdict::NotDelayed,
            };
            assert_eq!(self.machine.promote(queue, Offset(offset)), expected, "{offset}");
            if is_delayed {
                meant.push(Offset(offset));
            }
        }
        if let Some(fact) = self.machine.promote_jobs(queue, meant) {
            self.record(fact);
            self.seen.insert("promoted");
            self.check_all();
        }
    }

    /// The jobs are due as of now.
    pub(crate) fn note_promoted(&mut self, queue: QueueId, runs: &[Run]) {
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            if let Some(due_ms) = self.delayed.get_mut(&(queue, offset.0)) {
                *due_ms = self.log_ms;
            }
            for group in self.groups.values_mut().filter(|group| group.queue == queue) {
                let place = group.jobs.get_mut(&offset.0).map(|job| &mut job.place);
                if let Some(Place::NotDue(due_ms) | Place::Delayed(due_ms)) = place {
                    *due_ms = self.log_ms;
                }
            }
            // Each before the next: where they lie decides who is given a place of their key.
            self.note_due();
        }
    }

    /// Where a job stands for a group that is made now.
    pub(crate) fn first_place(&self, queue: QueueId, kind: GroupKind, offset: u64) -> Place {
        if self.gone.contains(&(queue, offset)) {
            return Place::Consumed;
        }
        match self.delayed.get(&(queue, offset)) {
            Some(due_ms) if kind == GroupKind::Work => Place::NotDue(*due_ms),
            _ => Place::Fresh,
        }
    }

    /// What is due takes its place: as if it had always been there, unless it is ordinary and the
    /// pointer, which stands at the first fresh job of that sort, is behind it.
    pub(crate) fn note_enqueued_due(&mut self) {
        let log_ms = self.log_ms;
        self.delayed.retain(|_, due_ms| *due_ms > log_ms);
        for group in self.groups.values_mut() {
            let ranked = |offset: &u64| self.ranks.contains_key(&(group.queue, *offset));
            let mut ordinary = group.jobs.iter().filter(|(offset, _)| !ranked(offset));
            let fresh = ordinary.find(|(_, job)| job.place == Place::Fresh);
            let pointer = fresh.map_or(u64::MAX, |(offset, _)| *offset);
            for (offset, job) in &mut group.jobs {
                if matches!(job.place, Place::NotDue(due_ms) if due_ms <= log_ms) {
                    let is_ranked = self.ranks.contains_key(&(group.queue, *offset));
                    let (place, what) = match *offset < pointer && !is_ranked {
                        true => (Place::Passed, "passed when due"),
                        false => (Place::Fresh, "fresh when due"),
                    };
                    job.place = place;
                    self.seen.insert(what);
                }
            }
        }
    }
}
