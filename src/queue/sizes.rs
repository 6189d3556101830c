//! The bytes of a queue's jobs from an offset on, without the size of each.
//!
//! A mark says how many bytes came before an offset. There is one for each 64th part of
//! `max_bytes`, so what is counted is at most so much too high, or a batch, and never too low.

use std::collections::VecDeque;

use crate::types::Offset;

/// The parts of `max_bytes` that have a mark each.
const PARTS: u64 = 64;

/// How the bytes of a queue lie over its offsets; kept only where `max_bytes` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes of all jobs that there ever were.
    pub(super) total: u64,
    /// Offsets, ascending, with the bytes of all jobs before them.
    pub(super) marks: VecDeque<(Offset, u64)>,
}

impl Sizes {
    /// Adds the jobs from `base` on. Of those before `first` nothing more will be asked.
    pub(super) fn add(&mut self, base: Offset, bytes: u64, max_bytes: u64, first: Offset) {
        while self.marks.get(1).is_some_and(|(offset, _)| *offset <= first) {
            self.marks.pop_front();
        }
        let marked = self.marks.back().map(|(_, before)| *before);
        if marked.is_none_or(|marked| self.total - marked >= max_bytes / PARTS) {
            self.marks.push_back((base, self.total));
        }
        self.total = self.total.saturating_add(bytes);
    }

    /// The bytes of the jobs from `first` on, counted from the mark at or before it.
    pub(super) fn from(&self, first: Offset) -> u64 {
        let behind = self.marks.partition_point(|(offset, _)| *offset <= first);
        let mark = self.marks.get(behind.saturating_sub(1));
        self.total - mark.map_or(self.total, |(_, before)| *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_never_too_low_and_little_too_high() {
        let max_bytes = 64_000;
        let mut sizes = Sizes::default();
        let mut jobs = Vec::new();
        let mut first = 0;
        for step in 0..20_000_u64 {
            let bytes = 1 + step * 7_919 % 400;
            sizes.add(Offset(step), bytes, max_bytes, Offset(first));
            jobs.push(bytes);
            let mut live: u64 = jobs[first as usize..].iter().sum();
            while live > max_bytes {
                live -= jobs[first as usize];
                first += 1;
            }
            let counted = sizes.from(Offset(first));
            assert!((live..=live + max_bytes / PARTS + 400).contains(&counted), "{counted} {live}");
            assert!(sizes.marks.len() as u64 <= PARTS + 2, "{} marks", sizes.marks.len());
        }
    }
}
