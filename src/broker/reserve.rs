//! Below `fsync`: offsets are reserved ahead of their use, so that none is given twice whatever a
//! power cut takes back.
//!
//! An answer leaves before its entry is synced, so a client may know an offset that the log then
//! loses. The log therefore says ahead how many jobs may be told of
//! (`QueueFact::OffsetsReserved`), and an answer that tells of more is held until that is synced.
//! That is done well before it is needed, by the sync thread, so that as good as nothing is ever
//! held. A start that finds some reserved passes over as many offsets; see `queue/queues.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

use crate::types::EntryIndex;

/// Jobs that a server reserves offsets for at first. More are when half of them are used.
pub(super) const RESERVED_JOBS: u64 = 1 << 20;

/// Where reservations follow each other faster than this, twice as many jobs are reserved.
const STEP_MS_MIN: u64 = 1_000;

/// Nothing is held.
const NONE: u64 = u64::MAX;

/// What the rest of the broker sees of it without the state lock.
#[derive(Debug)]
pub(super) struct Hold {
    /// The first entry with jobs that no synced reservation covers.
    first: AtomicU64,
    /// Who syncs what was reserved.
    syncer: OnceLock<Thread>,
}

/// The reservations of a log below `fsync`.
#[derive(Debug)]
pub(super) struct Reserve {
    /// The newest that is synced, and those behind it.
    reservations: VecDeque<Reservation>,
    /// How many jobs to reserve next.
    step: u64,
    /// When some were reserved last, on the clock of the log.
    reserved_log_ms: u64,
    hold: Arc<Hold>,
}

#[derive(Debug)]
struct Reservation {
    /// The entry that says so, or one behind it.
    index: EntryIndex,
    /// Jobs that it still covers.
    left: u64,
    /// The first entry with jobs that it does not cover.
    first_beyond: u64,
}

impl Hold {
    pub(super) fn new() -> Self {
        Self { first: AtomicU64::new(NONE), syncer: OnceLock::new() }
    }

    /// Of what is written, what may be told.
    pub(super) fn limit(&self, written: EntryIndex) -> EntryIndex {
        EntryIndex(written.0.min(self.first.load(Ordering::Acquire) - 1))
    }

    /// Has the calling thread be woken when there is something to sync.
    pub(super) fn is_synced_by_this_thread(&self) {
        self.syncer.get_or_init(thread::current);
    }
}

impl Reserve {
    /// Those of a log whose entry `index` has just reserved so many jobs, and is synced.
    pub(super) fn new(index: EntryIndex, jobs: u64, now_log_ms: u64, hold: Arc<Hold>) -> Self {
        let first = Reservation { index, left: jobs, first_beyond: NONE };
        let reservations = VecDeque::from([first]);
        Self { reservations, step: jobs, reserved_log_ms: now_log_ms, hold }
    }

    /// How many jobs are to be reserved before `count` more are enqueued, if any.
    pub(super) fn wanted(&mut self, count: u64, now_log_ms: u64) -> Option<u64> {
        let left = self.reservations.back().map_or(0, |last| last.left);
        if left.saturating_sub(count) >= self.step / 2 {
            return None;
        }
        if now_log_ms.saturating_sub(self.reserved_log_ms) < STEP_MS_MIN {
            self.step = self.step.saturating_mul(2);
        }
        self.step = self.step.max(count.saturating_mul(2));
        self.reserved_log_ms = now_log_ms;
        Some(self.step)
    }

    /// Notes a reservation, which the entry `index` or one before it has.
    pub(super) fn add(&mut self, index: EntryIndex, left: u64) {
        self.reservations.push_back(Reservation { index, left, first_beyond: NONE });
        if let Some(syncer) = self.hold.syncer.get() {
            syncer.unpark();
        }
    }

    /// Notes that the entry `index` has `count` jobs.
    pub(super) fn enqueued(&mut self, index: EntryIndex, count: u64) {
        for reservation in &mut self.reservations {
            match reservation.left.checked_sub(count) {
                Some(left) if reservation.first_beyond == NONE => reservation.left = left,
                _ => {
                    reservation.left = 0;
                    reservation.first_beyond = reservation.first_beyond.min(index.0);
                }
            }
        }
        self.set_hold();
    }

    /// Notes that the log is synced up to an entry.
    pub(super) fn synced(&mut self, synced: EntryIndex) {
        while self.reservations.get(1).is_some_and(|next| next.index <= synced) {
            self.reservations.pop_front();
        }
        self.set_hold();
    }

    /// Whether there is a reservation that no sync has covered yet.
    pub(super) fn is_unsynced(&self) -> bool {
        self.reservations.len() > 1
    }

    fn set_hold(&self) {
        let first = self.reservations.front().map_or(NONE, |front| front.first_beyond);
        self.hold.first.store(first, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = RESERVED_JOBS;

    fn reserve() -> (Reserve, Arc<Hold>) {
        let hold = Arc::new(Hold::new());
        (Reserve::new(EntryIndex(1), STEP, 0, Arc::clone(&hold)), hold)
    }

    /// Jobs are told of as long as what is synced covers them, however many reservations wait.
    #[test]
    fn what_no_synced_reservation_covers_is_held() {
        let (mut reserve, hold) = reserve();
        let told = |hold: &Hold| hold.limit(EntryIndex(1_000)).0;
        reserve.enqueued(EntryIndex(2), STEP / 2);
        assert_eq!(reserve.wanted(1, 5_000), Some(STEP));
        reserve.add(EntryIndex(3), STEP);
        reserve.enqueued(EntryIndex(4), STEP / 2);
        assert_eq!(told(&hold), 1_000, "all that was reserved first");
        reserve.enqueued(EntryIndex(5), 1);
        assert_eq!(told(&hold), 4);
        reserve.add(EntryIndex(6), 10);
        reserve.enqueued(EntryIndex(7), 20);
        reserve.enqueued(EntryIndex(8), 1);
        assert_eq!(told(&hold), 4);
        reserve.synced(EntryIndex(5));
        assert_eq!(told(&hold), 1_000, "the second covers all");
        reserve.synced(EntryIndex(6));
        assert_eq!(told(&hold), 6, "the third does not");
    }

    #[test]
    fn more_is_reserved_where_it_is_used_fast_or_at_once() {
        let (mut reserve, _) = reserve();
        assert_eq!(reserve.wanted(STEP / 2, 0), None);
        reserve.enqueued(EntryIndex(2), 1);
        assert_eq!(reserve.wanted(STEP / 2, 2_000), Some(STEP));
        assert_eq!(reserve.wanted(STEP / 2, 2_500), Some(2 * STEP));
        assert_eq!(reserve.wanted(10 * STEP, 9_000), Some(20 * STEP));
    }
}
