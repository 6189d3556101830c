//! Joblog, a durable job queue: a fetched job counts as consumed only after an explicit commit.
//!
//! `docs/ARCHITECTURE.md` says which file to open for what.

pub mod log;
pub mod types;
