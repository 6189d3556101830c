//! What lies under the state lock.

use std::sync::Arc;

use crate::queue::Machine;
use crate::types::{EntryIndex, GroupId, LogId};

use super::end_waiters::EndWaiters;
use super::read_ahead::ReadAhead;
use super::reserve::Reserve;
use super::rotation::Rotation;
use super::sessions::Sessions;
use super::waiters::Waiters;

/// The state of one log: the machine, which is rebuilt from the log, and what lives only while the
/// server runs.
#[derive(Debug)]
pub(super) struct Core {
    /// Which log of the server it is.
    pub(super) id: LogId,
    pub(super) machine: Machine,
    pub(super) waiters: Waiters,
    pub(super) ends: EndWaiters,
    pub(super) rotation: Rotation,
    pub(super) sessions: Sessions,
    /// The offsets reserved ahead; none at `fsync`, where nobody is told of what is not synced.
    pub(super) reserve: Option<Reserve>,
    /// Who reads jobs ahead of their groups.
    pub(super) read_ahead: Arc<ReadAhead>,
    /// The last entry appended.
    pub(super) last_index: EntryIndex,
    /// Bytes of the entries that this process has replayed and appended.
    pub(super) log_bytes: u64,
    /// An entry could not be appended after its facts were applied: the state is ahead of the log,
    /// so nothing more is told from it.
    pub(super) halted: bool,
    /// No request is taken any more.
    pub(super) stopping: bool,
    /// Where facts are encoded; kept so that a turn allocates nothing.
    pub(super) facts_buffer: Vec<u8>,
    /// Where groups with new ready jobs are listed; kept for the same reason.
    pub(super) woken_buffer: Vec<GroupId>,
    /// Groups in which the last turn stopped to read keys; one may stand here more than once.
    pub(super) unread: Vec<GroupId>,
    seed: u64,
}

impl Core {
    pub(super) fn new(
        id: LogId,
        machine: Machine,
        reserve: Option<Reserve>,
        last_index: EntryIndex,
        log_bytes: u64,
        seed: u64,
    ) -> Self {
        Self {
            id,
            machine,
            reserve,
            read_ahead: Arc::default(),
            waiters: Waiters::default(),
            ends: EndWaiters::default(),
            rotation: Rotation::default(),
            sessions: Sessions::default(),
            last_index,
            log_bytes,
            halted: false,
            stopping: false,
            facts_buffer: Vec::new(),
            woken_buffer: Vec::new(),
            unread: Vec::new(),
            seed,
        }
    }

    /// The next seed for jitter. Quality does not matter, only that neighbours differ.
    pub(super) fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.seed >> 16
    }
}
