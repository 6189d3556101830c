//! Opening: the log is replayed into the machine, and a new term begins.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::core::Core;
use super::error::OpenError;
use super::threads::Alarm;
use super::{Broker, BrokerOptions, Shard, fact_codec};
use crate::clock::{self, LeaseClock, LogClock};
use crate::log::{EntryView, LogOptions, Recovery};
use crate::queue::{Fact, Machine};
use crate::types::{EntryIndex, Grant, QueueId, Term};

type ReplayError = Box<dyn std::error::Error + Send + Sync>;

impl Broker {
    /// Opens the log in `dir`, or makes one, and restores the state.
    ///
    /// # Errors
    /// [`OpenError::Log`]: it is damaged, in use, of another version, or can't be read or written.
    pub fn open(
        dir: &Path,
        log_options: LogOptions,
        options: BrokerOptions,
    ) -> Result<Arc<Self>, OpenError> {
        let mut machine = Machine::new();
        let mut deleted = Vec::new();
        let mut recovery = Recovery::open(dir, log_options)?;
        let recovered =
            recovery.replay(&mut |entry| replay_entry(&mut machine, &mut deleted, entry))?;
        let term = next_term(recovered.last_term, machine.next_grant());
        let log = recovery.start(term)?;
        deleted.into_iter().for_each(|queue| log.forget(queue));

        let clock = LogClock::resume(recovered.last_stamp);
        let lease_clock = LeaseClock::start();
        let lease_now_ms = lease_clock.now_ms();
        machine.raise_grants(Grant(term.0 << 32));
        machine.rearm(lease_now_ms);
        machine.advance(clock.stamp());
        let sessions = machine.session_ids();
        let last_index = EntryIndex(log.next_index().0 - 1);
        let mut core = Core::new(machine, last_index, clock::wall_ms());
        for session in sessions {
            core.sessions.connect(session, options.silence_ms, None, lease_now_ms);
        }
        Ok(Arc::new(Self {
            log,
            core: Mutex::new(core),
            clock,
            lease_clock,
            options,
            shards: (0..options.shards).map(|_| Arc::new(Shard::default())).collect(),
            alarm: Alarm::default(),
        }))
    }
}

/// Above every term and every grant of before, also those of a run that was forgotten because a
/// backup was restored: hence the clock.
fn next_term(last: Term, next_grant: Grant) -> Term {
    let unix_seconds = clock::wall_ms() / 1_000;
    Term(unix_seconds.max(last.0 + 1).max((next_grant.0 >> 32) + 1))
}

fn replay_entry(
    machine: &mut Machine,
    deleted: &mut Vec<QueueId>,
    entry: &EntryView<'_>,
) -> Result<(), ReplayError> {
    if entry.count > 0 {
        machine.apply_jobs(entry.queue, entry.base_offset, entry.count, entry.stamp)?;
    }
    for fact in fact_codec::decode_all(entry.facts)? {
        machine.apply(&fact, entry.stamp, 0)?;
        if let Fact::QueueDeleted { queue } = fact {
            deleted.push(queue);
        }
    }
    Ok(())
}
