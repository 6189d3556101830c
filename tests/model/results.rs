//! Results of committed jobs, and what is known of how jobs ended.

use std::collections::BTreeMap;

use joblog::queue::{Fact, GroupKind, JobEnd, JobStanding, LeaseFact, RESULT_OVERHEAD_BYTES};
use joblog::types::{Grant, GroupId, LeaseRef, Offset, QueueId};

use crate::world::{Place, World};
use crate::{RESULT_BYTES_MAX, RESULT_KEPT_MS};

/// The results of all queues by job, each with the time until which it is kept.
pub(crate) type Results = BTreeMap<(QueueId, u64), (u64, Vec<u8>)>;

fn cost(result: &[u8]) -> u64 {
    result.len() as u64 + RESULT_OVERHEAD_BYTES
}

impl World {
    pub(crate) fn commit_with_result(&mut self) {
        let mut leases = self.leases();
        leases.retain(|(group, ..)| self.is_primary(*group));
        let Some((group, offset, lease)) = self.rng.one_of(&leases) else {
            return;
        };
        // Mostly ones of which only two fit.
        let bytes = if self.rng.below(3) > 0 { 60_000 } else { self.rng.below(20) };
        let result = vec![self.step as u8; bytes as usize];
        let job = LeaseRef { offset, grant: lease.grant };
        let fact = self.machine.commit_with_result(group, job, &result, self.log_ms);
        let stale = LeaseRef { offset, grant: Grant(lease.grant.0 + 1_000_000) };
        let refused = self.machine.commit_with_result(group, stale, &result, self.log_ms);
        assert_eq!(refused.map(drop), self.machine.commit(group, stale));
        let fact = fact.unwrap();
        let Fact::Lease(LeaseFact::CommittedWithResult { until_log_ms, displaced, .. }) = &fact
        else {
            panic!("{fact:?}")
        };
        assert_eq!(*until_log_ms, self.log_ms + RESULT_KEPT_MS);
        let queue = self.groups[&group].queue;
        let kept = self.results.iter().filter(|((of, at), _)| *of == queue && *at != offset.0);
        let mut kept: Vec<_> =
            kept.map(|((_, at), (until, result))| (*until, *at, cost(result))).collect();
        kept.sort_unstable();
        let mut total = kept.iter().map(|(.., cost)| cost).sum::<u64>() + cost(&result);
        let mut expected = 0;
        for (_, at, cost) in kept {
            if total <= RESULT_BYTES_MAX {
                break;
            }
            total -= cost;
            expected += 1;
            self.results.remove(&(queue, at));
            self.seen.insert("displaced");
        }
        assert_eq!(*displaced, expected);
        let before = self.machine.results(queue).unwrap().2;
        let result = (*until_log_ms, result);
        self.record(fact);
        assert_eq!(self.machine.results(queue).unwrap().2, before + u64::from(expected));
        self.results.insert((queue, offset.0), result);
        self.seen.insert("result");
    }

    pub(crate) fn is_primary(&self, group: GroupId) -> bool {
        self.machine.primary_group(self.groups[&group].queue) == Some(group)
    }

    pub(crate) fn forget_results(&mut self) {
        let log_ms = self.log_ms;
        let before = self.results.len();
        self.results.retain(|_, (until, _)| *until > log_ms);
        if self.results.len() < before {
            self.seen.insert("result forgotten");
        }
    }

    /// What the machine says of each job to people is what the model knows.
    pub(crate) fn check_infos(&self, group: GroupId) {
        let state = &self.groups[&group];
        if state.kind == GroupKind::Stream {
            return;
        }
        for (offset, job) in &state.jobs {
            let found =
                self.machine.job_info(state.queue, Some(group), Offset(*offset), 0).unwrap();
            let counts = (found.attempts, found.failures, found.crashes);
            if job.place == Place::Consumed {
                assert_eq!((counts.0, &found.progress, &found.last_error), (None, &None, &None));
                continue;
            }
            assert_eq!(counts, (Some(job.deliveries), job.failures, job.crashes), "job {offset}");
            let said = |text: Option<&str>| text.map(Box::<str>::from);
            assert_eq!(found.progress, said(job.progress.as_deref()), "job {offset}");
            let dead = matches!(job.place, Place::Dead(_));
            assert_eq!(found.last_error, said(job.error.filter(|_| !dead)), "job {offset}");
            let lease = matches!(found.standing, JobStanding::Leased(_));
            assert_eq!(lease, matches!(job.place, Place::Leased(_)));
        }
    }

    /// What the machine says of the end of each job is what the model knows.
    pub(crate) fn check_ends(&self) {
        let next = self.results.values().map(|(until, _)| *until).min();
        assert_eq!(self.machine.next_result_end_log_ms(), next);
        for queue in self.queues.keys().copied() {
            let of_queue = || self.results.iter().filter(|((of, _), _)| *of == queue);
            let bytes = of_queue().map(|(_, (_, result))| cost(result)).sum();
            let (count, found_bytes, _) = self.machine.results(queue).unwrap();
            assert_eq!((count, found_bytes), (of_queue().count() as u64, bytes));
            assert!(bytes <= RESULT_BYTES_MAX);
            let info = self.machine.queue(queue).unwrap();
            for offset in info.first.0..info.next.0 {
                let found = self.machine.job_end(queue, Offset(offset));
                match (self.expected_end(queue, offset), found) {
                    (None, Some(JobEnd::Dead(_))) => {
                        let group = self.machine.primary_group(queue).unwrap();
                        let place = &self.groups[&group].jobs[&offset].place;
                        assert!(matches!(place, Place::Dead(_)));
                    }
                    (expected, found) => assert_eq!(found, expected, "job {offset}"),
                }
            }
            assert_eq!(self.machine.job_end(queue, info.next), None);
        }
    }

    /// The end of a job that is not dead.
    fn expected_end(&self, queue: QueueId, offset: u64) -> Option<JobEnd> {
        let withdrawn = match self.expired.contains(&(queue, offset)) {
            true => JobEnd::Expired,
            false => JobEnd::Cancelled,
        };
        let withdrawn = self.gone.contains(&(queue, offset)).then_some(withdrawn);
        let Some(group) = self.machine.primary_group(queue) else {
            return withdrawn;
        };
        let job = self.groups[&group].jobs.get(&offset);
        if job.is_some_and(|job| job.place != Place::Consumed) {
            return None;
        }
        match self.results.get(&(queue, offset)) {
            Some((_, result)) => Some(JobEnd::Done { result: Some(result.as_slice().into()) }),
            None => withdrawn.or(Some(JobEnd::Unknown)),
        }
    }
}
