//! What tests of a broker without a server start from: its options, and a FETCH.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::Path;
use std::sync::Arc;
use std::thread;

use joblog::broker::{
    Broker, BrokerOptions, FetchRequest, FetchTerms, Holder, LogError, LogOptions, OpenError,
};
use joblog::types::SessionId;

/// The session that fetches.
pub(crate) const SESSION: SessionId = SessionId([7; 16]);

/// Checkpoints are made when the test says so.
pub(crate) fn options() -> BrokerOptions {
    BrokerOptions { checkpoint_bytes: u64::MAX, ..BrokerOptions::default() }
}

/// Opens it. A process that another test has just forked holds the lock until it has become another
/// program, so that is waited for.
pub(crate) fn open(dir: &Path, log_options: &LogOptions) -> Arc<Broker> {
    for _ in 0..1_000_000 {
        match Broker::open(dir, log_options.clone(), options()) {
            Err(OpenError::Log(LogError::Locked { .. })) => thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
    panic!("{} stays locked", dir.display())
}

/// A FETCH for the group `default` under a session lease, which does not wait.
pub(crate) fn fetch_of<'a>(queues: &'a [&'a str], jobs_max: usize) -> FetchRequest<'a> {
    let terms = FetchTerms {
        jobs_max,
        bytes_max: 1 << 20,
        holder: Holder::Session(SESSION),
        lease_ms: 3_600_000,
        by_turns: false,
        first_ordinal: 0,
    };
    FetchRequest { queues, group: "default", terms, wait: None, commits: &[] }
}
