//! The clocks. A leaf, and the only place of the server that asks the operating system for time.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use crate::types::Stamp;

/// The lease clock moves at most this far in one turn of the timer, so that a server that was
/// stopped does not take its clients for dead.
const LEASE_TURN_MS_MAX: u64 = 1_000;

/// Milliseconds of wall-clock time since the Unix epoch; it may jump.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since the machine was started, its sleep included; never goes back.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Seconds since some moment before, from 1 on: cheap, and good enough to tell what was just now.
pub fn coarse_seconds() -> u32 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    (now.tv_sec.unsigned_abs() as u32).max(1)
}

/// The log's own time: it never goes back, and goes on over restarts.
#[derive(Clone, Copy, Debug)]
pub struct LogClock {
    log_ms_at_start: u64,
    boot_ms_at_start: u64,
}

impl LogClock {
    /// Goes on from the last entry's stamp. The time that the server was down counts as far as the
    /// wall clock has moved forward.
    pub fn resume(last: Stamp) -> Self {
        let down_ms = match last {
            Stamp { wall_ms: 0, log_ms: 0 } => 0,
            last => wall_ms().saturating_sub(last.wall_ms),
        };
        Self { log_ms_at_start: last.log_ms + down_ms, boot_ms_at_start: boot_ms() }
    }

    /// The log's time now, in milliseconds.
    pub fn log_ms(&self) -> u64 {
        self.log_ms_at_start + boot_ms().saturating_sub(self.boot_ms_at_start)
    }

    /// Both clocks now.
    pub fn stamp(&self) -> Stamp {
        Stamp { wall_ms: wall_ms(), log_ms: self.log_ms() }
    }
}

/// The clock that leases and sessions live on. It follows real time, but at most
/// one second in each turn of the timer: what happens while the server is stopped does not count.
#[derive(Debug)]
pub struct LeaseClock {
    turn: Mutex<LeaseTurn>,
}

#[derive(Debug)]
struct LeaseTurn {
    lease_ms: u64,
    boot_ms: u64,
}

impl LeaseTurn {
    fn now_ms(&self, boot_ms: u64) -> u64 {
        self.lease_ms + boot_ms.saturating_sub(self.boot_ms).min(LEASE_TURN_MS_MAX)
    }
}

impl LeaseClock {
    /// A clock that begins at 0.
    pub fn start() -> Self {
        Self { turn: Mutex::new(LeaseTurn { lease_ms: 0, boot_ms: boot_ms() }) }
    }

    /// The time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.turn.lock().now_ms(boot_ms())
    }

    /// Begins a new turn, and says the time in milliseconds.
    pub fn turn(&self) -> u64 {
        let mut turn = self.turn.lock();
        let boot_ms = boot_ms();
        *turn = LeaseTurn { lease_ms: turn.now_ms(boot_ms), boot_ms };
        turn.lease_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_server_moves_the_lease_clock_by_one_second_only() {
        let turn = LeaseTurn { lease_ms: 500, boot_ms: 10_000 };
        assert_eq!(turn.now_ms(10_400), 900);
        assert_eq!(turn.now_ms(40_000), 1_500);
        assert_eq!(turn.now_ms(9_000), 500);
    }

    #[test]
    fn downtime_counts_only_forward() {
        let ahead = Stamp { wall_ms: wall_ms() + 3_600_000, log_ms: 7 };
        assert!(LogClock::resume(ahead).log_ms() < 1_000);
        let behind = Stamp { wall_ms: wall_ms() - 5_000, log_ms: 7 };
        assert!(LogClock::resume(behind).log_ms() >= 5_007);
        assert!(LogClock::resume(Stamp::default()).log_ms() < 1_000);
    }
}
