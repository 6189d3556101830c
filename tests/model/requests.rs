//! Random requests, and what the model says to each.

use std::collections::BTreeMap;

use joblog::queue::{
    EndReason, Fact, GroupFact, GroupKind, Holder, JobRefusal, LeaseFact, Numbered, Outcome,
    Picked, Refusal, RetryTerms, Runs, Start, push_offset,
};
use joblog::types::{Grant, GroupId, LeaseRef, Offset, QueueId, Stamp};

use crate::replay::{JOB_BYTES, Record};
use crate::world::{FRESH, Job, Place, World};
use crate::{FAILURE, GROUP_NAMES, settings};

impl World {
    pub(crate) fn enqueue(&mut self) {
        let ids: Vec<_> = self.queues.keys().copied().collect();
        let Some(queue) = self.rng.one_of(&ids) else {
            return self.create();
        };
        let count = self.rng.below(6) as u32;
        let Some(numbered) = self.number_of_new(queue) else {
            return;
        };
        let (base, stamp) = (self.machine.next_offset(queue).unwrap(), self.stamp());
        let wanted = self.wanted_keys(count);
        let plan = self.plan(queue, base, &wanted);
        let new: Vec<_> = (0..count).filter(|ordinal| plan.is_new(*ordinal)).collect();
        // A batch that meets keys has its number in the fact about that.
        let (of_jobs, of_fact) =
            if plan.hits.is_empty() { (numbered, None) } else { (None, numbered) };
        let facts: Vec<_> = plan.facts(queue, of_fact, base, count).collect();
        let dues = (base.0..).zip(&new);
        let dues = dues.filter_map(|(at, ordinal)| Some((at, wanted.get(ordinal)?.due_ms)));
        let dues: BTreeMap<_, _> = dues.collect();
        if new.is_empty() && !facts.is_empty() {
            self.seen.insert("nothing new");
        } else {
            self.enqueue_new(queue, new.len() as u32, of_jobs, stamp, &dues);
        }
        facts.into_iter().for_each(|fact| self.record(fact));
        self.check_keys();
    }

    fn enqueue_new(
        &mut self,
        queue: QueueId,
        count: u32,
        numbered: Option<Numbered>,
        stamp: Stamp,
        dues: &BTreeMap<u64, Option<u64>>,
    ) {
        let base = self.machine.next_offset(queue).unwrap();
        self.machine.take_woken(&mut Vec::new());
        let bytes = u64::from(count) * JOB_BYTES;
        self.machine.apply_jobs(queue, base, count, bytes, stamp).unwrap();
        self.note_numbered(queue, numbered, base, count);
        self.records.push(Record::Jobs(queue, base, count, numbered, stamp));
        let end = base.0 + u64::from(count);
        let terms = self.terms_of_new(queue, base.0..end, dues);
        self.ends.insert(self.queues[&queue], end);
        self.reserved = self.reserved.saturating_sub(u64::from(count));
        let mut woken = Vec::new();
        self.machine.take_woken(&mut woken);
        for (id, group) in self.groups.iter_mut().filter(|(_, group)| group.queue == queue) {
            group.jobs.extend((base.0..end).map(|offset| (offset, FRESH)));
            assert_eq!(woken.iter().filter(|woken| *woken == id).count(), 1);
        }
        if let Some(fact) = terms {
            self.record(fact);
        }
    }

    pub(crate) fn fetch(&mut self) {
        let Some(group) = self.any_group(GroupKind::Work) else {
            return;
        };
        let jobs_max = [1, 1, 2, 3, 7][self.rng.below(5) as usize];
        let fit_max = if self.rng.below(4) == 0 { self.rng.below(4) as usize } else { 99 };
        if self.is_keyed(group) {
            self.read_keys(group);
        }
        let mut picked = Picked::new();
        let mut fit_count = 0;
        let mut take = |_| {
            fit_count += 1;
            fit_count <= fit_max
        };
        self.machine.pick(group, jobs_max, &mut take, &mut picked);
        match self.is_paused(group) {
            true => assert!(picked.is_empty() && !self.machine.has_for_fetch(group)),
            false => {
                let room = usize::try_from(self.room(group)).unwrap_or(usize::MAX);
                self.check_pick(group, jobs_max.min(fit_max).min(room), &picked);
                let has_some = room > 0 && self.machine.ready_count(group) > 0;
                assert_eq!(self.machine.has_for_fetch(group), has_some);
            }
        }
        if picked.is_empty() {
            return;
        }
        let session = Holder::Session(self.session());
        let holder = if self.rng.below(3) == 0 { Holder::Timed } else { session };
        let lease_ms = [0, 30_000, 30_000, 3_600_000][self.rng.below(4) as usize];
        let first = self.machine.next_grant();
        let fact = self.machine.grant(group, holder, lease_ms, first, &picked).unwrap();
        self.record(fact);
    }

    pub(crate) fn commit_some(&mut self) {
        let Some((group, ..)) = self.rng.one_of(&self.leases()) else {
            return;
        };
        let mut runs = Runs::new();
        for (of, offset, lease) in self.leases() {
            if of == group && self.rng.below(2) == 0 {
                assert_eq!(
                    self.machine.commit(group, LeaseRef { offset, grant: lease.grant }),
                    Ok(())
                );
                push_offset(&mut runs, offset);
            }
        }
        self.record(Fact::Lease(LeaseFact::Committed { group, runs }));
        self.seen.insert("commit");
    }

    pub(crate) fn hand_back(&mut self) {
        let Some((group, offset, lease)) = self.rng.one_of(&self.leases()) else {
            return;
        };
        let (job, now_ms) = (LeaseRef { offset, grant: lease.grant }, self.log_ms);
        let fact = match self.rng.below(5) {
            4 => {
                let notes = ["", "a third", "half"];
                let note = self.rng.one_of(&notes).unwrap();
                self.machine.note_progress(group, job, note).unwrap()
            }
            0 => {
                self.seen.insert("extend");
                let lease_ms = 1 + self.rng.below(100_000);
                self.machine.extend(group, job, lease_ms).unwrap()
            }
            1 => {
                self.seen.insert("release");
                let delay_ms = self.rng.below(3) * 4_000;
                let fact = self.machine.release(group, job, delay_ms, now_ms).unwrap();
                let due = Outcome::Delayed { due_log_ms: now_ms + delay_ms };
                let outcome = if delay_ms == 0 { Outcome::Ready } else { due };
                self.expect_end(&fact, EndReason::Released, outcome);
                fact
            }
            _ => self.fail(group, job),
        };
        self.record(fact);
    }

    fn fail(&mut self, group: GroupId, job: LeaseRef) -> Fact {
        self.seen.insert("fail");
        let all = [
            RetryTerms::POLICY,
            RetryTerms::POLICY,
            RetryTerms { failures_max: Some(4), delay_ms: None },
            RetryTerms { failures_max: None, delay_ms: Some(500) },
            RetryTerms::NEVER,
        ];
        let retry = self.rng.one_of(&all).unwrap();
        let (now_ms, seed) = (self.log_ms, self.rng.next());
        let fact = self.machine.fail(group, job, retry, FAILURE, now_ms, seed).unwrap();
        let Fact::Lease(LeaseFact::Ended {
            outcome, reason: EndReason::Failed, ref message, ..
        }) = fact
        else {
            panic!("{fact:?}")
        };
        assert_eq!(&**message, FAILURE);
        let failures = self.groups[&group].jobs[&job.offset.0].failures + 1;
        if self.is_gone(group, job.offset) {
            assert_eq!(outcome, Outcome::Withdrawn);
            return fact;
        }
        let settings = self.settings_of(group);
        let listed = settings.backoff_delays_ms.get(failures as usize - 1);
        let listed = listed.or_else(|| settings.backoff_delays_ms.last()).copied();
        match retry.delay_ms.or(listed) {
            _ if failures > retry.failures_max.unwrap_or(settings.failures_max) => {
                assert_eq!(outcome, Outcome::Dead);
            }
            Some(delay_ms) => {
                assert_eq!(outcome, Outcome::Delayed { due_log_ms: now_ms + delay_ms });
            }
            None => self.expect_due(outcome, 500 << failures),
        }
        fact
    }

    /// A grant of the past, or none at all: only that of the lease itself may do anything.
    pub(crate) fn use_old_grant(&mut self) {
        let Some((group, offset, grant)) = self.rng.one_of(&self.grants) else {
            return;
        };
        let offset = if self.rng.below(8) == 0 { offset.plus(self.rng.below(50)) } else { offset };
        let grant = if self.rng.below(8) == 0 { Grant(0) } else { grant };
        let job = self.groups.get(&group).and_then(|group| group.jobs.get(&offset.0));
        if let Some(Job { place: Place::Leased(lease), .. }) = job
            && lease.grant == grant
        {
            return;
        }
        let refusal = self.expected_refusal(group, offset);
        self.seen.insert(match refusal {
            JobRefusal::AlreadyConsumed => "consumed twice",
            JobRefusal::LeaseLost => "lease lost",
            _ => "other refusal",
        });
        let (machine, job) = (&self.machine, LeaseRef { offset, grant });
        assert_eq!(machine.commit(group, job), Err(refusal));
        assert_eq!(machine.extend(group, job, 5), Err(refusal));
        assert_eq!(machine.note_progress(group, job, "half"), Err(refusal));
        assert_eq!(machine.release(group, job, 0, 0), Err(refusal));
        assert_eq!(machine.damage(group, job, ""), Err(refusal));
        let failed = machine.fail(group, job, RetryTerms::POLICY, "", 0, 0);
        assert_eq!(failed, Err(refusal));
    }

    pub(crate) fn commit_through(&mut self) {
        let Some(group) = self.any_group(GroupKind::Stream) else {
            return;
        };
        let state = &self.groups[&group];
        let next = self.machine.next_offset(state.queue).unwrap();
        let through = Offset(state.committed.saturating_sub(1) + self.rng.below(5));
        let expected = match through {
            _ if through >= next => Err(JobRefusal::BeyondEnd { next }),
            _ if through.0 < self.groups[&group].committed => Err(JobRefusal::AlreadyConsumed),
            _ => Ok(Fact::Group(GroupFact::CommittedThrough { group, through })),
        };
        let found = self.machine.commit_through(group, through);
        assert_eq!(found, expected);
        if let Ok(fact) = found {
            self.record(fact);
            self.check_group(group);
        }
    }

    pub(crate) fn create(&mut self) {
        let name = self.rng.one_of(&self.names).unwrap();
        let created = self.machine.create_queue(name, settings(name));
        match self.machine.queue_id(name) {
            None => self.record(created.unwrap()),
            Some(queue) => {
                let same_settings = self.settings[&queue] == settings(name);
                let exists = Refusal::QueueExists { queue, same_settings };
                assert_eq!(created, Err(exists));
            }
        }
        let queue = self.machine.queue_id(name).unwrap();
        let group_name = self.rng.one_of(&GROUP_NAMES).unwrap();
        let kind = if group_name == "tail" { GroupKind::Stream } else { GroupKind::Work };
        let next = self.machine.next_offset(queue).unwrap();
        let starts = [Start::Beginning, Start::End, Start::At(next), Start::At(next.next())];
        let start = self.rng.one_of(&starts).unwrap();
        let created = self.machine.create_group(queue, group_name, kind, start);
        match (self.machine.group_id(queue, group_name), start) {
            (Some(group), _) => assert_eq!(created, Err(Refusal::GroupExists { group })),
            (None, Start::At(offset)) if offset > next => {
                assert!(matches!(created, Err(Refusal::StartOutside { .. })));
            }
            _ => self.record(created.unwrap()),
        }
    }

    pub(crate) fn delete(&mut self) {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        let queues: Vec<_> = self.queues.keys().copied().collect();
        let fact = if self.rng.below(2) == 0 {
            self.rng.one_of(&groups).map(|group| self.machine.delete_group(group).unwrap())
        } else {
            self.rng.one_of(&queues).map(|queue| self.machine.delete_queue(queue).unwrap())
        };
        if let Some(fact) = fact {
            self.record(fact);
            self.check_all();
        }
    }
}
