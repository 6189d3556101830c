//! Joblog, a durable job queue: a fetched job counts as consumed only after an explicit commit.
//!
//! `docs/ARCHITECTURE.md` says which file to open for what.

#[cfg(feature = "client")]
pub mod client;
pub mod queue;
pub mod types;
