//! Dead jobs: those of a group that are not fetched again, until somebody retries or drops them.

use std::collections::BTreeMap;

use super::{EndReason, Runs, runs_of};
use crate::types::{Offset, Stamp};

/// A job that is not fetched again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadJob {
    /// Why its last lease ended.
    pub reason: EndReason,
    /// What the worker said last; empty if it said nothing.
    pub message: Box<str>,
    /// How often it was delivered.
    pub attempts: u32,
    /// How often a worker said that it failed.
    pub failures: u32,
    /// How often its worker was lost.
    pub crashes: u32,
    /// When it died, on both clocks.
    pub died: Stamp,
}

/// The dead jobs of one group.
#[derive(Debug, Default)]
pub(super) struct DeadJobs(BTreeMap<Offset, DeadJob>);

impl DeadJob {
    /// When it goes, on the clock of the log; never, if dead jobs are kept for ever.
    pub(super) fn end_log_ms(&self, kept_ms: u64) -> Option<u64> {
        (kept_ms > 0).then(|| self.died.log_ms.saturating_add(kept_ms))
    }
}

impl DeadJobs {
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn contains(&self, offset: Offset) -> bool {
        self.0.contains_key(&offset)
    }

    /// The jobs from an offset on, by offset.
    pub(super) fn from(&self, offset: Offset) -> impl Iterator<Item = (Offset, &DeadJob)> {
        self.0.range(offset..).map(|(offset, job)| (*offset, job))
    }

    /// Those of these jobs that are dead.
    pub(super) fn among(&self, jobs: impl IntoIterator<Item = Offset>) -> Runs {
        let mut dead: Vec<_> = jobs.into_iter().filter(|job| self.contains(*job)).collect();
        runs_of(&mut dead)
    }

    pub(super) fn insert(&mut self, offset: Offset, job: DeadJob) {
        self.0.insert(offset, job);
    }

    pub(super) fn remove(&mut self, offset: Offset) -> Option<DeadJob> {
        self.0.remove(&offset)
    }
}
