//! Seeded histories of a broker on a disk that fails and loses power, at every durability level,
//! against what was promised to clients: nothing that is answered and synced is lost, nothing
//! consumed comes back, no offset and no token is given twice.
//!
//! `JOBLOG_SEEDS=n` runs so many histories, `JOBLOG_LONG=1` ten times as many as usual;
//! `JOBLOG_SEED=n` runs one, which does the same calls in the same order each time, and prints
//! them.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this file is a test throughout, also where it is not inside a test function"
)]

mod backup;
#[path = "../common/broker.rs"]
mod broker;
mod history;
mod ledger;
#[path = "../log/support.rs"]
#[allow(dead_code, reason = "the disk that loses power is shared; entries are not used here")]
mod support;

use std::collections::BTreeMap;
use std::env;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use history::History;

const SEEDS: u64 = 1_200;
const LIVES: u64 = 5;

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut history = History::new(seed);
    for _ in 0..LIVES {
        history.live();
    }
    history.finish();
    history.seen
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_promise_is_kept_in_any_history() {
    let long = if env::var_os("JOBLOG_LONG").is_some() { 10 } else { 1 };
    let (first, end) = match number("JOBLOG_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("JOBLOG_SEEDS").unwrap_or(long * SEEDS)),
    };
    let next = AtomicU64::new(first);
    let seen = Mutex::new(BTreeMap::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match panic::catch_unwind(AssertUnwindSafe(|| run(seed))) {
                        Ok(of_history) => {
                            let mut seen = seen.lock().unwrap();
                            for (what, count) in of_history {
                                *seen.entry(what).or_insert(0) += count;
                            }
                        }
                        Err(cause) => {
                            next.store(end, Ordering::Relaxed);
                            eprintln!("the history of JOBLOG_SEED={seed} failed");
                            panic::resume_unwind(cause);
                        }
                    }
                }
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    println!("{seen:?}");
    if end - first >= 500 {
        for what in ["power cut", "clean stop", "held", "lease lost", "old token", "deleted"] {
            assert!(seen.get(what) > Some(&100), "{what}: {:?}", seen.get(what));
        }
        assert!(seen.get("compacted") > Some(&50) && seen.get("checkpoint") > Some(&500));
    }
}
