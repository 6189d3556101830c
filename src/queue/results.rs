//! Results: what workers said of the jobs that they committed, kept for a time.
//!
//! A result lies in the state, not in the log by reference: it is small, read soon or never, and
//! gone in minutes, so compaction need not know of it. What a queue keeps is bounded by a setting;
//! over it, those go first that would have gone first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::Offset;

/// What a kept result counts as beside its bytes: its places in two ordered sets, and the head of
/// an allocation.
pub const RESULT_OVERHEAD_BYTES: u64 = 128;

/// The results that a queue keeps.
#[derive(Debug, Default)]
pub(super) struct Results {
    by_job: BTreeMap<Offset, KeptResult>,
    by_end: BTreeSet<(u64, Offset)>,
    /// As the setting counts them.
    bytes: u64,
    /// How many went before their time, for others.
    displaced: u64,
}

#[derive(Debug)]
struct KeptResult {
    until_log_ms: u64,
    result: Arc<[u8]>,
}

fn cost(result: &[u8]) -> u64 {
    result.len() as u64 + RESULT_OVERHEAD_BYTES
}

impl Results {
    pub(super) fn get(&self, offset: Offset) -> Option<&Arc<[u8]>> {
        self.by_job.get(&offset).map(|kept| &kept.result)
    }

    /// Every result with the time at which it goes, by job.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, u64, &Arc<[u8]>)> {
        self.by_job.iter().map(|(offset, kept)| (*offset, kept.until_log_ms, &kept.result))
    }

    /// When the next one goes.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.by_end.first().map(|(until_log_ms, _)| *until_log_ms)
    }

    /// How many there are, their bytes as the setting counts them, and how many have gone before
    /// their time.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.by_job.len() as u64, self.bytes, self.displaced)
    }

    /// Takes back how many have gone before their time; false if it was known.
    pub(super) fn restore_displaced(&mut self, count: u64) -> bool {
        let before = std::mem::replace(&mut self.displaced, count);
        before == 0 && count > 0
    }

    /// Keeps the result of a job, for which so many others go; one that it had before is replaced.
    pub(super) fn insert(
        &mut self,
        offset: Offset,
        until_log_ms: u64,
        result: Arc<[u8]>,
        displaced: u32,
    ) {
        self.remove(offset);
        for _ in 0..(displaced as usize).min(self.by_job.len()) {
            self.remove_first();
            self.displaced += 1;
        }
        self.bytes += cost(&result);
        self.by_end.insert((until_log_ms, offset));
        self.by_job.insert(offset, KeptResult { until_log_ms, result });
    }

    /// Forgets those whose time is over.
    pub(super) fn remove_over(&mut self, log_ms: u64) {
        while self.next_end().is_some_and(|until_log_ms| until_log_ms <= log_ms) {
            self.remove_first();
        }
    }

    /// Forgets the results of all jobs from an offset on.
    pub(super) fn remove_from(&mut self, from: Offset) {
        let offsets: Vec<_> = self.by_job.range(from..).map(|(offset, _)| *offset).collect();
        offsets.into_iter().for_each(|offset| self.remove(offset));
    }

    fn remove(&mut self, offset: Offset) {
        if let Some(kept) = self.by_job.remove(&offset) {
            self.by_end.remove(&(kept.until_log_ms, offset));
            self.bytes -= cost(&kept.result);
        }
    }

    fn remove_first(&mut self) {
        if let Some((_, offset)) = self.by_end.first().copied() {
            self.remove(offset);
        }
    }

    /// How many must go so that another one has its place.
    pub(super) fn displaced_by(&self, offset: Offset, result: &[u8], bytes_max: u64) -> u32 {
        let replaced = self.get(offset).map_or(0, |result| cost(result));
        let mut bytes = self.bytes - replaced + cost(result);
        let others = self.by_end.iter().filter(|(_, other)| *other != offset);
        let mut costs = others.filter_map(|(_, other)| self.get(*other).map(|r| cost(r)));
        let mut count = 0;
        while bytes > bytes_max
            && let Some(cost) = costs.next()
        {
            bytes -= cost;
            count += 1;
        }
        count
    }
}
