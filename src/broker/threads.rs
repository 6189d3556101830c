//! The broker's threads: one syncs the log, one ends leases, sessions and waits, and one makes
//! checkpoints (see `keeper`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::Broker;
use super::core::Core;
use super::error::OpenError;
use super::turn::Turn;
use crate::log::{Durability, LogError};
use crate::queue::SessionEnd;

/// Longest sleep of the timer, and time between two looks at leases and sessions.
const TURN_MS: u64 = 100;

/// At `os`, between two looks whether something is to be synced that nobody has said.
const LOOK: Duration = Duration::from_secs(1);

/// Without an append for so long, the log counts as idle.
const IDLE_MS: u64 = 100;

/// Leases ended under one lock; more wait for the next turn, so that requests get in between.
const EXPIRED_PER_TURN_MAX: usize = 1_000;

/// Dead jobs that go under one lock.
const AGED_PER_TURN_MAX: usize = 1_000;

/// How the timer is told of a deadline that comes before it would look.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    planned_ms: AtomicU64,
    timer: OnceLock<Thread>,
}

impl Alarm {
    /// Has the timer look at this time on the log's clock, if it does not do so before.
    pub(super) fn plan(&self, deadline_ms: Option<u64>) {
        if let Some(deadline_ms) = deadline_ms
            && deadline_ms < self.planned_ms.load(Ordering::Relaxed)
            && let Some(timer) = self.timer.get()
        {
            self.planned_ms.store(deadline_ms, Ordering::Relaxed);
            timer.unpark();
        }
    }
}

/// The running threads of a broker.
#[derive(Debug)]
pub struct Threads {
    broker: Arc<Broker>,
    stop: Arc<AtomicBool>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// [`OpenError::Thread`] if the system has no thread to give.
    pub fn start(broker: &Arc<Broker>) -> Result<Self, OpenError> {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |name: &str, run: fn(&Broker, &AtomicBool)| {
            let (broker, stop) = (Arc::clone(broker), Arc::clone(&stop));
            thread::Builder::new().name(name.into()).spawn(move || run(&broker, &stop))
        };
        let handles = vec![
            spawn("joblog-timer", Broker::run_timer)?,
            spawn("joblog-keeper", Broker::run_keeper)?,
            spawn("joblog-sync", Broker::run_sync)?,
            spawn("joblog-reader", Broker::run_read_ahead)?,
        ];
        Ok(Self { broker: Arc::clone(broker), stop, handles })
    }

    /// Ends them, makes a last checkpoint, then syncs and closes the log.
    ///
    /// # Errors
    /// [`OpenError::Log`] if the last sync failed.
    pub fn stop(self) -> Result<(), OpenError> {
        self.stop.store(true, Ordering::Relaxed);
        self.broker.log.wake();
        for handle in self.handles {
            handle.thread().unpark();
            if handle.join().is_err() {
                tracing::error!("a thread of the broker has panicked");
            }
        }
        self.broker.close()
    }
}

impl Broker {
    /// What a stop in order ends with: a last checkpoint, then the log is synced and closed. No
    /// request is taken from here on.
    ///
    /// # Errors
    /// [`OpenError::Log`] if the last sync failed.
    pub fn close(&self) -> Result<(), OpenError> {
        self.end_reserve();
        if self.log.poisoned().is_none()
            && let Err(error) = self.make_checkpoint()
        {
            tracing::warn!(%error, "no checkpoint was made; the next start replays more");
        }
        Ok(self.log.close()?)
    }

    /// Waits until the log's own thread has nothing to do; for tests that want the same calls of
    /// the file system in the same order each time.
    pub fn settle(&self) {
        self.log.settle();
    }

    fn run_sync(&self, stop: &AtomicBool) {
        self.hold.is_synced_by_this_thread();
        let mut marked = false;
        while !stop.load(Ordering::Relaxed) && self.log.poisoned().is_none() {
            match self.options.durability {
                Durability::Interval { ms } => thread::park_timeout(Duration::from_millis(ms)),
                Durability::Os => thread::park_timeout(LOOK),
                Durability::Fsync => {
                    let wait_ms = if marked { 1_000 } else { IDLE_MS };
                    let synced = self.log.synced();
                    if !self.log.wait_for_append(synced, Duration::from_millis(wait_ms)) {
                        // From now on damage to the last entries is told from a torn tail.
                        marked = self.log.mark().is_ok();
                        continue;
                    }
                    marked = false;
                }
            }
            let due = match self.options.durability {
                Durability::Fsync => true,
                Durability::Interval { .. } => self.log.synced() < self.log.written(),
                // A start writes once more what was not synced, for which a full disk has no room.
                Durability::Os => self.is_reserve_unsynced() || self.is_unsynced_on_a_full_disk(),
            };
            if due && let Err(error) = self.sync() {
                tracing::error!(%error, "a sync failed; no more writes are taken");
                self.tell_failure();
            }
        }
    }

    fn is_unsynced_on_a_full_disk(&self) -> bool {
        self.log.is_full() && self.log.synced() < self.log.written()
    }

    /// Writes and syncs what was appended so far, and has those woken who wait for it. The threads
    /// of a broker do it by themselves, as its durability wants it.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    pub fn sync(&self) -> Result<(), LogError> {
        let synced = self.log.sync();
        self.reserve_synced();
        self.notify_shards();
        synced.map(drop)
    }

    fn run_timer(&self, stop: &AtomicBool) {
        self.alarm.timer.get_or_init(thread::current);
        let mut look_ms = 0;
        let mut horizon_ms = 0;
        while !stop.load(Ordering::Relaxed) {
            let lease_now_ms = self.lease_clock.turn();
            // A deadline is acted on one look after the clock has passed it: what came from
            // clients in between has been read by then, so a late server is no dead client.
            let expire_up_to_ms = (lease_now_ms >= look_ms).then_some(horizon_ms);
            if expire_up_to_ms.is_some() {
                look_ms = lease_now_ms + TURN_MS;
                horizon_ms = lease_now_ms;
            }
            let now_ms = self.clock.log_ms();
            self.alarm.planned_ms.store(now_ms + TURN_MS, Ordering::Relaxed);
            let next = loop {
                // Each turn is short, so that requests get in between.
                match self.timer_turn(expire_up_to_ms) {
                    TimerTurn::MoreIsDue if !stop.load(Ordering::Relaxed) => {}
                    TimerTurn::MoreIsDue | TimerTurn::Done => {
                        break self.core.lock().next_deadline_ms();
                    }
                    // What is due stays so; there is no use in trying without rest.
                    TimerTurn::Refused => break None,
                }
            };
            let sleep_ms = next.map_or(TURN_MS, |at| at.saturating_sub(now_ms).min(TURN_MS));
            thread::park_timeout(Duration::from_millis(sleep_ms));
        }
    }

    /// One turn of the timer.
    fn timer_turn(&self, expire_up_to_ms: Option<u64>) -> TimerTurn {
        let gated = self.turn(|turn| {
            if turn.core.machine.due_schedules(turn.stamp).next().is_some() {
                self.wake_scheduler();
            }
            turn.end_waits(turn.stamp.log_ms);
            turn.core.ends.end_overdue(Some(turn.stamp.log_ms));
            let aged = turn.core.machine.drop_aged(turn.stamp.log_ms, AGED_PER_TURN_MAX);
            turn.record_all(aged);
            Ok(expire_up_to_ms.map_or(TimerTurn::Done, |horizon_ms| turn.end_leases(horizon_ms)))
        });
        match gated.result {
            Ok(done) => {
                self.flush();
                done
            }
            Err(_) => {
                self.tell_failure();
                TimerTurn::Refused
            }
        }
    }
}

/// What a turn of the timer has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimerTurn {
    /// All that was due.
    Done,
    /// As much as fits a turn.
    MoreIsDue,
    /// Nothing: the log takes no turns, or not now.
    Refused,
}

impl Turn<'_> {
    /// Ends leases that are over and sessions that are silent at `horizon_ms` of the lease clock,
    /// as many as fit a turn.
    fn end_leases(&mut self, horizon_ms: u64) -> TimerTurn {
        let seed = self.core.next_seed();
        let now_ms = self.stamp.log_ms;
        let machine = &mut self.core.machine;
        let expired = machine.take_expired(horizon_ms, now_ms, seed, EXPIRED_PER_TURN_MAX);
        expired.iter().for_each(|fact| self.record(fact));
        while let Some(session) = self.core.sessions.next_silent(horizon_ms) {
            self.end_session(session, SessionEnd::Silent);
        }
        let is_full = expired.len() == EXPIRED_PER_TURN_MAX;
        if is_full { TimerTurn::MoreIsDue } else { TimerTurn::Done }
    }
}

impl Core {
    /// When the next delayed job or schedule is due, a rate allows one more, a dead job goes, a
    /// wait is over, or keys are to be read, on the log's clock.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let due_ms = self.machine.next_due_log_ms().into_iter();
        let dead_ms = self.machine.next_dead_end_log_ms();
        let expiry_ms = self.machine.next_expiry_log_ms();
        let refill_ms = self.machine.next_refill_log_ms();
        let at_once = (!self.unread.is_empty()).then_some(0);
        let wait_ms = [self.waiters.next_deadline_ms(), self.ends.next_deadline_ms(), at_once];
        let wait_ms = wait_ms.into_iter().flatten();
        let schedule_ms = self.machine.next_schedule_log_ms();
        let machine_ms = due_ms.chain(expiry_ms).chain(refill_ms).chain(dead_ms).chain(schedule_ms);
        machine_ms.chain(wait_ms).min()
    }
}
