//! Dead jobs: listed, retried and dropped, a bounded number in one turn.

use super::gate::Gated;
use super::turn::Turn;
use super::{Broker, DeadJob};
use crate::queue::{Fact, Machine, Removal};
use crate::types::{GroupId, Offset};

/// Dead jobs that are looked at in one turn.
const LOOKED_AT_MAX: usize = 10_000;

/// Jobs listed in one answer, and bytes of what their workers said.
const LISTED_MAX: usize = 1_000;
const LISTED_BYTES_MAX: usize = 1024 * 1024;

/// Which dead jobs of a group are meant: those that pass everything that is given.
#[derive(Clone, Debug)]
pub struct DeadQuery<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The group.
    pub group: &'a str,
    /// Only these.
    pub jobs: Option<&'a [u64]>,
    /// Only those whose last error has this text in it.
    pub error: Option<&'a str>,
    /// Only those dead for longer than so many milliseconds.
    pub older_than_ms: Option<u64>,
    /// Only those dead for less than so many milliseconds.
    pub younger_than_ms: Option<u64>,
    /// Only those from this offset on.
    pub from: Offset,
    /// At most so many.
    pub limit: usize,
}

/// What one turn has found.
#[derive(Clone, Debug)]
pub struct Found<T> {
    /// The jobs that were meant.
    pub jobs: Vec<T>,
    /// Jobs that were named and are not dead.
    pub refused: Vec<Offset>,
    /// Where to go on.
    pub next: Offset,
    /// Whether there may be more from there on.
    pub more: bool,
}

/// Dead jobs.
impl Broker {
    /// Lists dead jobs by offset.
    pub fn list_dead(&self, query: &DeadQuery<'_>) -> Gated<Found<(Offset, DeadJob)>> {
        self.view(|turn| {
            let group = turn.work_group(query.queue, query.group)?;
            let limit = query.limit.min(LISTED_MAX);
            let mut bytes = 0;
            Ok(turn.find_dead(group, query, limit, |offset, job| {
                bytes += job.message.len();
                (bytes <= LISTED_BYTES_MAX).then(|| (offset, job.clone()))
            }))
        })
    }

    /// Makes dead jobs ready again. What was found are their offsets.
    pub fn retry_dead(&self, query: &DeadQuery<'_>) -> Gated<Found<Offset>> {
        self.act_on_dead(query, |machine, group, jobs| machine.retry_dead(group, jobs))
    }

    /// Gives dead jobs up. What was found are their offsets.
    pub fn drop_dead(&self, query: &DeadQuery<'_>) -> Gated<Found<Offset>> {
        self.act_on_dead(query, |machine, group, jobs| {
            machine.remove_dead(group, jobs, Removal::Dropped)
        })
    }

    fn act_on_dead(
        &self,
        query: &DeadQuery<'_>,
        decide: impl FnOnce(&Machine, GroupId, Vec<Offset>) -> Option<Fact>,
    ) -> Gated<Found<Offset>> {
        self.turn(|turn| {
            let group = turn.work_group(query.queue, query.group)?;
            let found = turn.find_dead(group, query, query.limit, |offset, _| Some(offset));
            let fact = decide(&turn.core.machine, group, found.jobs.clone());
            turn.record_all(fact);
            Ok(found)
        })
    }
}

impl Turn<'_> {
    pub(super) fn record_all(&mut self, facts: impl IntoIterator<Item = Fact>) {
        facts.into_iter().for_each(|fact| self.record(&fact));
    }

    /// Goes through dead jobs, until `take` has no room for one.
    fn find_dead<T>(
        &self,
        group: GroupId,
        query: &DeadQuery<'_>,
        limit: usize,
        mut take: impl FnMut(Offset, &DeadJob) -> Option<T>,
    ) -> Found<T> {
        let machine = &self.core.machine;
        let mut found =
            Found { jobs: Vec::new(), refused: Vec::new(), next: query.from, more: false };
        let named = query.jobs.map(|jobs| {
            let mut jobs: Vec<_> = jobs.iter().map(|job| Offset(*job)).collect();
            jobs.sort_unstable();
            jobs.dedup();
            jobs.retain(|job| *job >= query.from);
            jobs
        });
        let dead_at = |offset: Offset| machine.dead(group, offset).next().filter(|d| d.0 == offset);
        let mut named_jobs = named.iter().flatten().map(|job| (*job, dead_at(*job).map(|d| d.1)));
        let mut all_jobs = machine.dead(group, query.from).map(|(at, job)| (at, Some(job)));
        let jobs: &mut dyn Iterator<Item = (Offset, Option<&DeadJob>)> =
            if named.is_some() { &mut named_jobs } else { &mut all_jobs };
        for (looked_at, (offset, job)) in jobs.enumerate() {
            if found.jobs.len() >= limit || looked_at >= LOOKED_AT_MAX {
                found.more = true;
                break;
            }
            match job {
                None => found.refused.push(offset),
                Some(job) if !self.is_meant(query, job) => {}
                Some(job) => match take(offset, job) {
                    Some(taken) => found.jobs.push(taken),
                    None => {
                        found.more = true;
                        break;
                    }
                },
            }
            found.next = Offset(offset.0.saturating_add(1));
        }
        found
    }

    fn is_meant(&self, query: &DeadQuery<'_>, job: &DeadJob) -> bool {
        let age_ms = self.stamp.log_ms.saturating_sub(job.died.log_ms);
        query.error.is_none_or(|text| job.message.contains(text))
            && query.older_than_ms.is_none_or(|ms| age_ms > ms)
            && query.younger_than_ms.is_none_or(|ms| age_ms < ms)
    }
}
