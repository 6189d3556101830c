//! The broker: the only place where the log and the state machine meet.
//!
//! Every request is one turn: validated against the state, appended to the log and
//! applied, under one short lock. Its answer is [`Gated`]: it may leave when the log has released
//! the index that it saw. FETCHes that find nothing wait here, and a timer ends leases, sessions
//! and waits.
//!
//! **Invariant:** the broker knows no socket and no protocol. It tells a connection what happens
//! later through its [`Mailbox`].
//!
//! | file | subject |
//! |---|---|
//! | `turn` | one turn under the lock |
//! | `core` | what lies under the lock |
//! | `fetch`, `grants`, `waiters` | FETCH, what it is given, and those that wait |
//! | `rotation` | whose turn it is in a FETCH by turns |
//! | `key_reading` | reading the keys of jobs ahead of a FETCH |
//! | `lease_requests`, `admin`, `dead_requests`, `withdraw` | the other requests |
//! | `ends`, `end_waiters` | WAIT, and those that wait for the end of a job |
//! | `jobs` | one job, described |
//! | `chain` | a commit with a result, and with jobs that follow from it |
//! | `moving` | jobs that go to another queue |
//! | `unique_batches` | batches with unique keys |
//! | `schedule_requests`, `scheduler` | requests about schedules, and the thread that fires them |
//! | `sessions` | who is connected, who is silent |
//! | `logs` | several logs as one: which queue lives where, and requests over more than one |
//! | `gate`, `mailbox` | when answers leave, and who is woken |
//! | `threads` | the sync thread and the timer |
//! | `read_ahead` | the thread that reads a backlog into memory ahead of its groups |
//! | `reserve`, `reserving` | below `fsync`: offsets reserved ahead, so that none is given twice |
//! | `retention` | the age of jobs, and groups that are set to a time |
//! | `keeper`, `duties` | makes checkpoints beside the running state; when it has to |
//! | `checkpoint`, `checkpoint_format` | the state in a file |
//! | `open`, `replay` | recovery, and applying the entries of a log |

mod admin;
mod chain;
mod checkpoint;
pub mod checkpoint_format;
mod core;
mod dead_requests;
mod duties;
mod end_waiters;
mod ends;
mod error;
mod fetch;
mod gate;
mod grants;
mod jobs;
mod keeper;
mod key_reading;
mod lease_requests;
mod logs;
mod mailbox;
mod moving;
mod open;
mod read_ahead;
mod replay;
mod requests;
mod reserve;
mod reserving;
mod retention;
mod rotation;
mod schedule_requests;
mod scheduler;
mod sessions;
mod threads;
mod turn;
mod unique_batches;
mod waiters;
mod withdraw;

use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

pub use admin::{GroupDescription, QueueDescription, QueueSummary};
pub use chain::{CommitOne, CommittedOne, Following};
pub use checkpoint::CheckpointError;
pub use dead_requests::{DeadQuery, Found};
pub use error::{BrokerError, OpenError};
pub use fetch::{DEFAULT_GROUP, FetchWait};
pub use gate::{Gate, GateState, Gated, Gates};
pub use grants::{FetchTerms, GrantedJob, Grants, Ticket, WaiterId};
pub use jobs::DescribedJob;
pub use keeper::{KeeperError, Kept};
pub use lease_requests::{Failed, LeaseRefs, Verdicts};
pub use logs::{Caller, Logs};
pub use mailbox::{CancelledJob, Ended, Event, Mailbox, Shard};
pub use moving::{Movable, Moved, Moving};
pub use requests::{Enqueued, FetchRequest, Fetched, FetchedJobs, Greeted, ReadJobs};
pub use retention::SeekTo;
pub use schedule_requests::NamedSchedule;
pub use scheduler::Scheduler;
pub use sessions::SessionHandle;
pub use threads::Threads;
pub use turn::JobBatch;

pub use crate::log::{CompactReport, Durability, JobLocation, JobView, LogError, LogOptions};
pub use crate::queue::{
    CancelVerdict, DeadJob, EndReason, GroupKind, Holder, JobEnd, JobInfo, JobRefusal, JobStanding,
    Missed, Plan, PromoteVerdict, PurgeStep, QueueSettings, Rank, Refusal, Removal, RemovedCounts,
    RetryTerms, Schedule, Seek, Start, Timing, UniqueHit, UniqueInfo,
};

use self::checkpoint::Checkpoints;
use self::core::Core;
use self::read_ahead::ReadAhead;
use self::reserve::{Hold, RESERVED_JOBS};
use self::threads::Alarm;
use self::turn::{TURN_BYTES, Turn};
use crate::clock::{LeaseClock, LogClock};
use crate::log::Log;
use crate::types::{EntryIndex, LogId, Stamp};

/// Jobs that expire in one turn: 16 KiB of facts at most. More wait for the next one, and are not
/// given to anyone meanwhile.
const EXPIRED_PER_TURN_MAX: usize = 1_000;

/// How a broker behaves.
#[derive(Clone, Copy, Debug)]
pub struct BrokerOptions {
    /// When an answer may leave.
    pub durability: Durability,
    /// Silence in milliseconds after which a session that did not say otherwise is ended.
    pub silence_ms: u64,
    /// Whether ENQUEUE creates missing queues.
    pub auto_create: bool,
    /// How many I/O threads have connections.
    pub shards: usize,
    /// Which log of the server it is.
    pub log: LogId,
    /// Bytes of log after which a checkpoint is made, or four times the last one, if that is more.
    pub checkpoint_bytes: u64,
    /// Below `fsync`: for how many jobs offsets are reserved at first.
    pub reserved_jobs: u64,
}

impl Default for BrokerOptions {
    /// Those of log 0 of a server with the default settings and one I/O thread.
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            silence_ms: 10_000,
            auto_create: true,
            shards: 1,
            log: LogId(0),
            checkpoint_bytes: 64 << 20,
            reserved_jobs: RESERVED_JOBS,
        }
    }
}

/// One log with its state.
#[derive(Debug)]
pub struct Broker {
    log: Log,
    core: Mutex<Core>,
    clock: LogClock,
    lease_clock: LeaseClock,
    options: BrokerOptions,
    shards: Vec<Arc<Shard>>,
    alarm: Alarm,
    hold: Arc<Hold>,
    read_ahead: Arc<ReadAhead>,
    /// The thread that fires schedules, if this log keeps them.
    scheduler: OnceLock<Thread>,
    checkpoints: Checkpoints,
    /// Held while a checkpoint is made.
    keeping: Mutex<()>,
    kept: Mutex<Kept>,
    /// How many entries were replayed at the start.
    restored: u64,
}

/// Connections.
impl Broker {
    /// The shard of an I/O thread.
    pub(super) fn shard(&self, io_thread: usize) -> &Arc<Shard> {
        self.shards.get(io_thread).expect("there is one for each I/O thread")
    }

    /// Takes a waiting FETCH out of its lines, because another log has answered it.
    pub(super) fn forget_wait(&self, waiter: WaiterId) {
        self.core.lock().waiters.remove(waiter);
    }

    /// Whether a FETCH of these queues and commits of these sets would be refused as a whole.
    pub(super) fn check(
        &self,
        caller: &SessionHandle,
        queues: &[&str],
        group: &str,
        sets: &[LeaseRefs<'_>],
    ) -> Gated<()> {
        self.turn(|turn| {
            turn.check_current(caller)?;
            queues.iter().try_for_each(|queue| turn.place(queue, group).map(drop))?;
            turn.work_groups(sets).map(drop)
        })
    }

    /// See [`Turn::longest_waiting`].
    pub(super) fn longest_waiting(&self, queues: &[&str], group: &str) -> Gated<Option<u64>> {
        self.view(|turn| Ok(turn.longest_waiting(&turn.places(queues, group)?)))
    }

    /// Whether the log has failed.
    pub(super) fn is_poisoned(&self) -> bool {
        self.log.poisoned().is_some()
    }

    /// Both clocks now.
    pub(super) fn now(&self) -> Stamp {
        self.clock.stamp()
    }

    /// Says whom to wake when a schedule is due.
    pub(super) fn set_scheduler(&self, thread: Thread) {
        self.scheduler.get_or_init(|| thread);
    }

    pub(super) fn wake_scheduler(&self) {
        if let Some(thread) = self.scheduler.get() {
            thread.unpark();
        }
    }

    /// The durability in force.
    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// How many entries had to be replayed at the start, behind the newest checkpoint.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    /// What may leave now.
    pub fn released(&self) -> EntryIndex {
        match self.options.durability {
            Durability::Fsync => self.log.synced(),
            Durability::Interval { .. } | Durability::Os => self.hold.limit(self.log.written()),
        }
    }

    /// Up to which gate connections are woken: a log that has failed releases nothing more, and all
    /// who wait must hear of that.
    pub fn woken(&self) -> EntryIndex {
        match self.log.poisoned() {
            None => self.released(),
            Some(_) => EntryIndex(u64::MAX),
        }
    }

    /// Whether an answer that has seen this index may leave.
    pub(super) fn release_of(&self, index: EntryIndex) -> GateState {
        if index <= self.released() {
            return GateState::Released;
        }
        match self.log.poisoned() {
            None => GateState::Held,
            Some(_) => GateState::Lost,
        }
    }

    /// To be called after the turns of one read from a socket. Below `fsync` it writes what they
    /// appended, here and now, so that nothing waits for another thread.
    pub fn flush(&self) {
        if self.options.durability == Durability::Fsync {
            return;
        }
        if let Err(error) = self.log.write() {
            tracing::error!(%error, "the log could not be written; no more writes are taken");
            self.tell_failure();
        }
        self.notify_shards();
    }

    /// Has no FETCH of a connection wait any longer.
    fn detach(&self, caller: &SessionHandle, mailbox: &Arc<Mailbox>) {
        let mut core = self.core.lock();
        core.waiters.remove_all(mailbox);
        core.ends.remove_all(mailbox);
        core.sessions.disconnect(caller);
    }

    /// Declares a granted job dead, because its bytes can't be read.
    fn damage(&self, job: &GrantedJob, error: &LogError) {
        self.turn_unasked(|turn| turn.damage(job.group, job.held(), &error.to_string()));
    }

    /// Releases jobs that were granted but never sent.
    fn give_back(&self, jobs: impl Iterator<Item = GrantedJob>) {
        let mut jobs = jobs.peekable();
        if jobs.peek().is_none() {
            return;
        }
        self.turn_unasked(|turn| {
            for job in jobs {
                turn.release(job.group, &[job.held()], 0);
            }
        });
    }

    /// Ends the waits of a connection: it takes nothing more.
    pub(super) fn end_waits_of(&self, mailbox: &Arc<Mailbox>) {
        self.view(|turn| {
            for id in turn.core.waiters.of_mailbox(mailbox) {
                turn.end_wait(id);
            }
            Ok(())
        });
    }

    /// Stops taking requests: waiting FETCHes are answered, and connections close.
    pub fn stop(&self) {
        let mut core = self.core.lock();
        core.stopping = true;
        for id in core.waiters.ids() {
            core.waiters.answer(id, Event::no_jobs);
        }
        core.ends.end_overdue(None);
        core.sessions.mailboxes().for_each(|mailbox| mailbox.send(Event::Stopping));
    }

    /// Tells those who wait that the log has failed, if it has: nothing comes from it any more.
    fn tell_failure(&self) {
        let mut core = self.core.lock();
        let Err(error @ BrokerError::Poisoned { .. }) = self.check_serving(&core) else { return };
        let error = Arc::new(error);
        for id in core.waiters.ids() {
            let error = Arc::clone(&error);
            core.waiters.answer(id, |ticket| Event::WaitFailed { ticket, error });
        }
        core.ends.fail_all(&error);
    }

    /// Whether the log and its state take turns.
    fn check_serving(&self, core: &Core) -> Result<(), BrokerError> {
        if core.stopping {
            return Err(BrokerError::ShuttingDown);
        }
        if core.halted {
            return Err(BrokerError::Poisoned { reason: "an entry did not fit".into() });
        }
        match self.log.poisoned() {
            Some(reason) => Err(BrokerError::Poisoned { reason: reason.to_string() }),
            None => Ok(()),
        }
    }

    fn notify_shards(&self) {
        self.shards.iter().for_each(|shard| shard.notify());
    }
}

/// Turns.
impl Broker {
    /// A turn that may change the state.
    fn turn<T>(&self, act: impl FnOnce(&mut Turn<'_>) -> Result<T, BrokerError>) -> Gated<T> {
        self.turn_with(0, act)
    }

    /// A turn that may change the state, and append an entry of `bytes` beside its facts.
    fn turn_with<T>(
        &self,
        bytes: usize,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T, BrokerError>,
    ) -> Gated<T> {
        if let Some(reason) = self.log.poisoned() {
            let error = BrokerError::Poisoned { reason: reason.to_string() };
            return Gated::refused(error);
        }
        match self.lock_with_room(bytes) {
            Err(error) => Gated::refused(error),
            Ok(core) => self.view_in(core, |turn| {
                // What has expired must not be given to anyone.
                let expired = turn.core.machine.lapse(turn.stamp.log_ms, EXPIRED_PER_TURN_MAX);
                turn.record_all(expired);
                act(turn)
            }),
        }
    }

    /// The state lock, with room in the log for what a turn appends: facts are applied before they
    /// are appended, so their room comes first of all. If a segment has to be made for it, that is
    /// waited for without the lock.
    fn lock_with_room(&self, bytes: usize) -> Result<MutexGuard<'_, Core>, BrokerError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(TURN_BYTES);
        // An entry that is too large is refused when it is appended.
        let bytes = bytes.min(self.log.entry_bytes_max() as u32);
        loop {
            match self.log.reserve(bytes) {
                // Then the state says why nothing is taken.
                Ok(()) | Err(LogError::Closed) => {}
                Err(error) => return Err(error.into()),
            }
            let core = self.core.lock();
            if self.log.has_room(bytes) || core.stopping {
                return Ok(core);
            }
        }
    }

    /// A turn that no request asks for, so that nobody else has its entry written.
    fn turn_unasked<T>(&self, act: impl FnOnce(&mut Turn<'_>) -> T) -> Option<T> {
        let done = self.turn(|turn| Ok(act(turn))).result.ok()?;
        self.flush();
        Some(done)
    }

    /// A turn that only looks.
    fn view<T>(&self, act: impl FnOnce(&mut Turn<'_>) -> Result<T, BrokerError>) -> Gated<T> {
        self.view_in(self.core.lock(), act)
    }

    fn view_in<T>(
        &self,
        mut core: MutexGuard<'_, Core>,
        act: impl FnOnce(&mut Turn<'_>) -> Result<T, BrokerError>,
    ) -> Gated<T> {
        if core.stopping || core.halted {
            let halted = || BrokerError::Poisoned { reason: "an entry did not fit".into() };
            let error = if core.halted { halted() } else { BrokerError::ShuttingDown };
            return Gated::refused(error);
        }
        let (stamp, lease_now_ms) = (self.clock.stamp(), self.lease_clock.now_ms());
        // What is due must not become so between the validation of a fact and its application.
        core.machine.advance(stamp);
        let mut turn = Turn::begin(&mut core, &self.log, stamp, lease_now_ms);
        let result = act(&mut turn);
        turn.serve_waiters();
        let finished = turn.finish();
        self.alarm.plan(core.next_deadline_ms());
        drop(core);
        match finished {
            Ok((gate, handed_off)) => {
                // The sync thread may have been faster than the hand-off's entry in the list of
                // those to wake.
                if handed_off && gate.index <= self.released() {
                    self.notify_shards();
                }
                Gated { result, gates: SmallVec::from_iter([gate]) }
            }
            Err(error) => Gated::refused(error),
        }
    }
}
