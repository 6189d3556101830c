//! What tests against a real server share: the server as a process, a raw client, and a proxy that
//! cuts connections.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test binary uses a part, and a test may stop at what it did not expect"
)]

mod cli;
mod proxy;
mod raw;
mod server;

pub(crate) use cli::{qctl_any, qctl_code, qctl_objects};
pub(crate) use proxy::{Cut, CuttingProxy, FreezingProxy};
pub(crate) use raw::{
    Frame, Job, Raw, all_done, fetch_of, hello_of, new_session, of_default, only,
};
pub(crate) use server::Server;

use std::time::Duration;

/// How long a test waits for what must come. Long, since machines are shared; never slept through.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Pseudo-random numbers from a seed (xorshift), the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Whether the tests that take longer are asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("JOBLOG_LONG").is_some()
}
