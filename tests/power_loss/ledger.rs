//! What clients were told of jobs and tokens, and what must hold of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use joblog::types::{Grant, Offset};

/// How sure it is that something has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sure {
    No,
    /// It was asked for, and nobody was told what became of it.
    Perhaps,
    /// It was answered before it was synced: it outlives the process, not the machine.
    Written,
    /// It was answered, and is synced.
    Durable,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) queue: &'static str,
    enqueued: Sure,
    consumed: Sure,
}

/// A job by its name.
pub(crate) type Name = (&'static str, Offset);

/// An answer that has not left yet.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Enqueued(&'static str, Offset, Vec<u64>),
    Granted(Vec<(Name, Grant, u64)>),
    Committed(Vec<u64>),
    /// A lease is over; the job waits again.
    Ended(Name, Grant),
    Deleted(Vec<u64>),
}

/// Jobs are known by a number in their payload.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    jobs: BTreeMap<u64, Job>,
    /// Which job has which name, for ever.
    names: HashMap<Name, u64>,
    grants: HashSet<Grant>,
    /// Tokens of leases that are over.
    ended: Vec<(Name, Grant, Sure)>,
    next: u64,
}

impl Ledger {
    /// A job that is about to be enqueued.
    pub(crate) fn add(&mut self, queue: &'static str) -> u64 {
        self.next += 1;
        let (enqueued, consumed) = (Sure::Perhaps, Sure::No);
        self.jobs.insert(self.next, Job { queue, enqueued, consumed });
        self.next
    }

    /// The jobs of a queue, which may be consumed from now on.
    pub(crate) fn perhaps_consumed(&mut self, jobs: impl IntoIterator<Item = u64>) {
        for job in jobs {
            let job = self.jobs.get_mut(&job).unwrap();
            job.consumed = job.consumed.max(Sure::Perhaps);
        }
    }

    pub(crate) fn of_queue(&self, queue: &str) -> Vec<u64> {
        self.jobs.iter().filter(|(_, job)| job.queue == queue).map(|(job, _)| *job).collect()
    }

    /// A name is given to one job, for ever, also if the job is lost.
    fn name(&mut self, name: Name, job: u64) {
        let known = *self.names.entry(name).or_insert(job);
        assert_eq!(known, job, "{name:?} was given to job {known} before");
    }

    /// An answer has left.
    pub(crate) fn told(&mut self, told: Told, sure: Sure) {
        match told {
            Told::Enqueued(queue, first, jobs) => {
                for (job, nth) in jobs.into_iter().zip(0..) {
                    self.name((queue, first.plus(nth)), job);
                    let job = self.jobs.get_mut(&job).unwrap();
                    job.enqueued = job.enqueued.max(sure);
                }
            }
            Told::Granted(jobs) => {
                for (name, grant, job) in jobs {
                    self.name(name, job);
                    assert!(self.grants.insert(grant), "grant {grant} was given twice");
                    let known = &self.jobs[&job];
                    assert!(known.consumed <= Sure::Perhaps, "job {job} comes back: {known:?}");
                }
            }
            Told::Committed(jobs) | Told::Deleted(jobs) => {
                for job in jobs {
                    let job = self.jobs.get_mut(&job).unwrap();
                    job.consumed = job.consumed.max(sure);
                }
            }
            Told::Ended(name, grant) => self.ended.push((name, grant, sure)),
        }
    }

    /// All that was told so far is synced.
    pub(crate) fn synced(&mut self) {
        let synced =
            |sure: &mut Sure| *sure = if *sure == Sure::Written { Sure::Durable } else { *sure };
        for job in self.jobs.values_mut() {
            synced(&mut job.enqueued);
            synced(&mut job.consumed);
        }
        self.ended.iter_mut().for_each(|(.., sure)| synced(sure));
    }

    /// The power has failed: what was not synced is as if nobody knew.
    pub(crate) fn lost_power(&mut self) {
        let lost =
            |sure: &mut Sure| *sure = if *sure == Sure::Written { Sure::Perhaps } else { *sure };
        for job in self.jobs.values_mut() {
            lost(&mut job.enqueued);
            lost(&mut job.consumed);
        }
        self.ended.retain(|(.., sure)| *sure == Sure::Durable);
    }

    /// A token that nothing may be done with any more.
    pub(crate) fn ended(&self, choose: u64) -> Option<(Name, Grant)> {
        let (name, grant, _) = *self.ended.get(choose as usize % self.ended.len().max(1))?;
        Some((name, grant))
    }

    /// A start has found these jobs, by name, and they are synced.
    pub(crate) fn found(&mut self, found: &[(Name, u64)]) {
        for (name, job) in found {
            self.name(*name, *job);
        }
        let there: BTreeSet<u64> = found.iter().map(|(_, job)| *job).collect();
        assert_eq!(there.len(), found.len(), "a job is there twice");
        for (number, job) in &mut self.jobs {
            let Job { enqueued, consumed, .. } = *job;
            match there.contains(number) {
                true => {
                    assert!(consumed <= Sure::Perhaps, "job {number} was consumed: {job:?}");
                    assert!(enqueued > Sure::No, "job {number} was lost once: {job:?}");
                    (job.enqueued, job.consumed) = (Sure::Durable, Sure::No);
                }
                false => {
                    let may_be_gone = enqueued <= Sure::Perhaps || consumed > Sure::No;
                    assert!(may_be_gone, "job {number} is lost: {job:?}");
                    if consumed == Sure::No {
                        job.enqueued = Sure::No;
                    }
                    job.consumed = if consumed > Sure::No { Sure::Durable } else { Sure::No };
                }
            }
        }
        self.synced();
    }
}
