//! When offsets are reserved: at a start, before jobs are appended, and when a sync is done.

use std::sync::Arc;

use super::error::{BrokerError, OpenError};
use super::reserve::{Hold, Reserve};
use super::turn::Turn;
use super::{Broker, Durability};
use crate::log::{EntryView, Log, LogError};
use crate::queue::{Fact, Machine, QueueFact};
use crate::types::{EntryIndex, Stamp};

impl Turn<'_> {
    /// Makes sure that `count` more jobs are reserved. To be called before they are appended.
    pub(super) fn reserve_offsets(&mut self, count: u32) -> Result<(), BrokerError> {
        let Some(reserve) = &mut self.core.reserve else { return Ok(()) };
        let Some(count) = reserve.wanted(u64::from(count), self.stamp.log_ms) else {
            return Ok(());
        };
        self.record(&Fact::Queue(QueueFact::OffsetsReserved { count }));
        self.append_facts()?;
        let index = self.core.last_index;
        if let Some(reserve) = &mut self.core.reserve {
            reserve.add(index, count);
        }
        Ok(())
    }

    /// Notes that the last entry has `count` jobs.
    pub(super) fn use_offsets(&mut self, count: u32) {
        let index = self.core.last_index;
        if let Some(reserve) = &mut self.core.reserve {
            reserve.enqueued(index, u64::from(count));
        }
    }
}

impl Broker {
    /// Whether there is a reservation that no sync has covered yet.
    pub(super) fn is_reserve_unsynced(&self) -> bool {
        let core = self.core.lock();
        core.reserve.as_ref().is_some_and(|reserve| reserve.is_unsynced())
    }

    /// Lets those answers leave that waited for a reservation to be synced.
    pub(super) fn reserve_synced(&self) {
        if self.options.durability == Durability::Fsync {
            return;
        }
        if let Some(reserve) = &mut self.core.lock().reserve {
            reserve.synced(self.log.synced());
        }
    }

    /// Says that nothing is reserved any more, because nothing will be enqueued: no request is
    /// taken from here on.
    pub(super) fn end_reserve(&self) {
        let mut core = self.core.lock();
        core.stopping = true;
        if core.machine.reserved() == 0 || core.halted {
            return;
        }
        let fact = Fact::Queue(QueueFact::OffsetsReserved { count: 0 });
        let appended = record(&mut core.machine, &self.log, self.clock.stamp(), &[fact]);
        match appended {
            Ok(index) => core.last_index = index,
            Err(error) => tracing::warn!(%error, "the next start passes over some offsets"),
        }
    }
}

/// What a start does: passes over what the last run had reserved, and reserves so many jobs for
/// this one. All of it is synced when this returns.
pub(super) fn begin(
    machine: &mut Machine,
    log: &Log,
    stamp: Stamp,
    jobs: Option<u64>,
    hold: &Arc<Hold>,
) -> Result<Option<Reserve>, OpenError> {
    let skipped = machine.skip_reserved();
    if let Some(Fact::Queue(QueueFact::OffsetsSkipped { count })) = skipped {
        tracing::warn!(count, "the last run did not end in order: passing over offsets");
    }
    let reserved = jobs.map(|count| Fact::Queue(QueueFact::OffsetsReserved { count }));
    let facts: Vec<_> = skipped.into_iter().chain(reserved).collect();
    if facts.is_empty() {
        return Ok(None);
    }
    let index = record(machine, log, stamp, &facts)?;
    log.sync()?;
    Ok(jobs.map(|jobs| Reserve::new(index, jobs, stamp.log_ms, Arc::clone(hold))))
}

/// Applies facts and appends them as an entry.
fn record(
    machine: &mut Machine,
    log: &Log,
    stamp: Stamp,
    facts: &[Fact],
) -> Result<EntryIndex, OpenError> {
    let mut bytes = Vec::new();
    for fact in facts {
        let index = log.next_index();
        let applied = machine.apply(fact, stamp, 0);
        applied.map_err(|error| LogError::Replay { index, source: error.into() })?;
        fact.encode(&mut bytes);
    }
    Ok(log.append(&EntryView { facts: &bytes, stamp, ..EntryView::default() })?)
}
