//! Opening: the newest checkpoint, then what the log has behind it; and a new term begins.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::checkpoint::{Checkpoint, Checkpoints, Covered};
use super::core::Core;
use super::error::OpenError;
use super::keeper::Kept;
use super::replay::{ReplayError, log_bytes, replay_entry};
use super::reserve::Hold;
use super::threads::Alarm;
use super::{Broker, BrokerOptions, Durability, Shard, reserving};
use crate::clock::{self, LeaseClock, LogClock};
use crate::log::{EntryView, LogOptions, Recovery};
use crate::queue::Machine;
use crate::types::{EntryIndex, Grant, QueueId, Term};

impl Broker {
    /// Opens the log in `dir`, or makes one, and restores the state.
    ///
    /// # Errors
    /// [`OpenError::Log`]: it is damaged, in use, of another version, or can't be read or written;
    /// or it ends before its newest checkpoint, which proves that it went on.
    /// [`OpenError::Checkpoint`]: that is of another version.
    pub fn open(
        dir: &Path,
        log_options: LogOptions,
        options: BrokerOptions,
    ) -> Result<Arc<Self>, OpenError> {
        let checkpoints = Checkpoints::new(Arc::clone(&log_options.files), dir);
        let mut recovery = Recovery::open(dir, log_options)?;
        let mut state = Restored::begin(&recovery, &checkpoints)?;
        let recovered =
            recovery.replay(state.covered.index, &mut |entry| state.replay_entry(entry))?;
        let Restored { mut machine, covered, kept, deleted, entries, log_bytes } = state;
        tracing::info!(checkpoint = kept.index.0, entries, "restored the state");
        let term = next_term(recovered.last_term.max(covered.term), machine.next_grant());
        let log = recovery.start(term)?;
        deleted.into_iter().for_each(|queue| log.forget(queue));

        let clock = LogClock::resume(covered.stamp);
        let lease_clock = LeaseClock::start();
        let lease_now_ms = lease_clock.now_ms();
        machine.raise_grants(Grant(term.0 << 32));
        machine.rearm(lease_now_ms);
        machine.advance(clock.stamp());
        let hold = Arc::new(Hold::new());
        let below_fsync = options.durability != Durability::Fsync;
        let jobs = below_fsync.then_some(options.reserved_jobs);
        let reserve = reserving::begin(&mut machine, &log, clock.stamp(), jobs, &hold)?;
        let sessions = machine.session_ids();
        let last_index = EntryIndex(log.next_index().0 - 1);
        let seed = clock::wall_ms();
        let mut core = Core::new(options.log, machine, reserve, last_index, log_bytes, seed);
        for session in sessions {
            core.sessions.connect(session, options.silence_ms, None, lease_now_ms);
        }
        Ok(Arc::new(Self {
            log,
            clock,
            lease_clock,
            options,
            shards: (0..options.shards).map(|_| Arc::new(Shard::default())).collect(),
            alarm: Alarm::default(),
            hold,
            scheduler: OnceLock::new(),
            read_ahead: Arc::clone(&core.read_ahead),
            core: Mutex::new(core),
            checkpoints,
            keeping: Mutex::new(()),
            kept: Mutex::new(kept),
            restored: entries,
        }))
    }
}

/// Above every term and every grant of before, also those of a run that was forgotten because a
/// backup was restored: hence the clock.
fn next_term(last: Term, next_grant: Grant) -> Term {
    let unix_seconds = clock::wall_ms() / 1_000;
    Term(unix_seconds.max(last.0 + 1).max((next_grant.0 >> 32) + 1))
}

/// The state on its way back.
struct Restored {
    machine: Machine,
    /// The last entry in it.
    covered: Covered,
    /// The checkpoint that it began with.
    kept: Kept,
    deleted: Vec<QueueId>,
    /// Entries replayed, and their bytes.
    entries: u64,
    log_bytes: u64,
}

impl Restored {
    /// The state of the newest checkpoint, or none.
    fn begin(recovery: &Recovery, checkpoints: &Checkpoints) -> Result<Self, OpenError> {
        let mut state = Self {
            machine: Machine::new(),
            covered: Covered::default(),
            kept: Kept::default(),
            deleted: Vec::new(),
            entries: 0,
            log_bytes: 0,
        };
        let Some(log_id) = recovery.known_log_id() else {
            return Ok(state);
        };
        if let Some(Checkpoint { covered, machine, bytes, .. }) = checkpoints.newest(log_id)? {
            state.kept = Kept { index: covered.index, bytes, ..Kept::default() };
            let exists = |queue: &QueueId| machine.queue(*queue).is_some();
            let given = (1..machine.next_queue().0).map(QueueId);
            state.deleted = given.filter(|queue| !exists(queue)).collect();
            (state.machine, state.covered) = (machine, covered);
        }
        Ok(state)
    }

    fn replay_entry(&mut self, entry: &EntryView<'_>) -> Result<(), ReplayError> {
        self.deleted.extend(replay_entry(&mut self.machine, entry)?);
        self.covered = Covered { index: entry.index, term: entry.term, stamp: entry.stamp };
        self.entries += 1;
        self.log_bytes += log_bytes(entry.table, entry.facts, entry.bodies);
        Ok(())
    }
}
