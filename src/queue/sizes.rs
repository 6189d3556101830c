//! The bytes of a queue's jobs from an offset on, without the size of each.
//!
//! A mark says how many bytes came before an offset. What is counted is never too low, and too high
//! by the distance of two marks at most. They are kept for every queue, so that `max_bytes` can be
//! set at any time, and closer where it is set.

use std::collections::VecDeque;

use crate::types::Offset;

/// Two marks are at most so great a part of the counted bytes apart, or a batch.
const PARTS: u64 = 64;

/// The same where `max_bytes` is not set.
const PARTS_UNBOUNDED: u64 = 8;

/// How the bytes of a queue lie over its offsets. Costs 16 bytes for each mark: 1 KiB at most, and
/// 8 KiB where `max_bytes` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Bytes of all jobs that there ever were.
    total: u64,
    /// Offsets, ascending, with the bytes of all jobs before them.
    marks: VecDeque<(Offset, u64)>,
}

/// Where it matters how exact the sizes of a queue are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precision {
    /// Nothing is asked before this offset.
    pub(super) kept_from: Offset,
    /// What lies before this one only if a group is set back.
    pub(super) waiting_from: Offset,
    /// Whether `max_bytes` is set.
    pub(super) bounded: bool,
}

impl Sizes {
    /// From a record; the marks follow.
    pub(super) fn with_total(total: u64) -> Self {
        Self { total, marks: VecDeque::new() }
    }

    /// The bytes of all jobs that there ever were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Offsets, ascending, with the bytes of all jobs before them.
    pub(super) fn marks(&self) -> impl Iterator<Item = (Offset, u64)> {
        self.marks.iter().copied()
    }

    /// Takes a mark back; false if it does not follow from those before it.
    pub(super) fn restore_mark(&mut self, offset: Offset, before: u64) -> bool {
        let last = self.marks.back();
        let ascends = last.is_none_or(|last| last.0 < offset && last.1 <= before);
        self.marks.push_back((offset, before));
        ascends && before <= self.total
    }

    /// Adds the jobs from `base` on.
    pub(super) fn add(&mut self, base: Offset, bytes: u64, precision: Precision) {
        while self.marks.get(1).is_some_and(|(offset, _)| *offset <= precision.kept_from) {
            self.marks.pop_front();
        }
        let parts = if precision.bounded { PARTS } else { PARTS_UNBOUNDED };
        let step = self.from(precision.waiting_from) / parts;
        let marked = self.marks.back().map(|(_, before)| *before);
        let is_far = |marked| self.total > marked && self.total - marked >= step;
        if bytes > 0 && marked.is_none_or(is_far) {
            self.marks.push_back((base, self.total));
        }
        self.total = self.total.saturating_add(bytes);
        if self.marks.len() as u64 > 8 * parts {
            let kept_step = self.from(precision.kept_from) / parts;
            self.thin(precision.waiting_from, kept_step, step);
        }
    }

    /// Drops marks between two others that are not more than a step apart. The step is another one
    /// from `waiting` on. Of three neighbours that are left, the outer two are further apart.
    fn thin(&mut self, waiting: Offset, kept_step: u64, step: u64) {
        let mut left: VecDeque<(Offset, u64)> = VecDeque::new();
        let mut marks = std::mem::take(&mut self.marks).into_iter().peekable();
        while let Some(mark) = marks.next() {
            let is_between = match (left.back(), marks.peek()) {
                (Some((_, last)), Some((next_offset, next))) => {
                    next - last <= if *next_offset <= waiting { kept_step } else { step }
                }
                _ => false,
            };
            if !is_between {
                left.push_back(mark);
            }
        }
        self.marks = left;
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
        let most = 64_000;
        for (bounded, parts, keeps) in
            [(true, PARTS, false), (false, PARTS_UNBOUNDED, false), (true, PARTS, true)]
        {
            let mut sizes = Sizes::default();
            let mut jobs = Vec::new();
            let (mut first, mut waiting) = (0, 0);
            for step in 0..20_000_u64 {
                let bytes = 1 + step * 7_919 % 400;
                let kept_from = Offset(if keeps { 0 } else { first as u64 });
                let precision =
                    Precision { kept_from, waiting_from: Offset(first as u64), bounded };
                sizes.add(Offset(step), bytes, precision);
                jobs.push(bytes);
                waiting += bytes;
                while waiting > most {
                    waiting -= jobs[first];
                    first += 1;
                }
                let counted = sizes.from(Offset(first as u64));
                let much = counted / parts + 400;
                assert!((waiting..=waiting + much).contains(&counted), "{counted} {waiting}");
                assert!(sizes.marks.len() as u64 <= 8 * parts, "{} marks", sizes.marks.len());
            }
            // After a seek to the start of what is kept.
            let all: u64 = jobs.iter().sum();
            assert!(!keeps || sizes.from(Offset(0)) == all, "{all}");
        }
    }
}
