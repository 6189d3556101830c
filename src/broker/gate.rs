//! Answers, and when they may leave.

use super::error::BrokerError;
use crate::types::EntryIndex;

/// An answer with the index that it has seen: it may leave when that is released.
#[derive(Debug)]
pub struct Gated<T> {
    /// The answer.
    pub result: Result<T, BrokerError>,
    /// What must be released first; 0 for nothing.
    pub gate: EntryIndex,
}

/// Whether an answer may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// It may.
    Released,
    /// Not yet.
    Held,
    /// The log has failed: whether what the answer tells of will survive can't be known.
    Lost,
}
