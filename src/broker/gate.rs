//! Answers, and when they may leave.

use smallvec::SmallVec;

use super::error::BrokerError;
use crate::types::{EntryIndex, LogId};

/// What an answer has seen of a log: it may leave when that is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The log.
    pub log: LogId,
    /// The last entry that the answer depends on.
    pub index: EntryIndex,
}

/// The gates of an answer, at most one for each log; none if it depends on no log.
pub type Gates = SmallVec<[Gate; 1]>;

/// An answer with its gates.
#[derive(Debug)]
pub struct Gated<T> {
    /// The answer.
    pub result: Result<T, BrokerError>,
    /// What must be released first.
    pub gates: Gates,
}

impl<T> From<Result<T, BrokerError>> for Gated<T> {
    fn from(result: Result<T, BrokerError>) -> Self {
        Self { result, gates: Gates::new() }
    }
}

impl<T> Gated<T> {
    /// A refusal that depends on no log.
    pub(super) fn refused(error: BrokerError) -> Self {
        Err(error).into()
    }

    /// This answer and that of another log as one, if neither is a refusal.
    pub(super) fn and<U, V>(mut self, other: Gated<U>, join: impl FnOnce(T, U) -> V) -> Gated<V> {
        self.gates.extend(other.gates);
        let result = self.result.and_then(|one| Ok(join(one, other.result?)));
        Gated { result, gates: self.gates }
    }

    /// Goes on with another request, if this is not a refusal.
    pub(super) fn and_then<U>(self, then: impl FnOnce(T) -> Gated<U>) -> Gated<U> {
        let Self { result, gates } = self;
        match result.map(then) {
            Ok(mut next) => {
                // A later gate of the same log stands for an earlier one.
                let is_first = |gate: &Gate| next.gates.iter().all(|later| later.log != gate.log);
                let first: Gates = gates.into_iter().filter(is_first).collect();
                next.gates.extend(first);
                next
            }
            Err(error) => Gated { result: Err(error), gates },
        }
    }

    /// Goes on with the answer, if it is one.
    pub fn map<U>(self, then: impl FnOnce(T) -> U) -> Gated<U> {
        Gated { result: self.result.map(then), gates: self.gates }
    }
}

/// Whether an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateState {
    /// It may.
    Released,
    /// Not yet.
    Held,
    /// The log has failed: whether what the answer tells of will survive can't be known.
    Lost,
}
