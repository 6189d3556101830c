//! CPU time of a process, as Linux accounts it.

use std::time::Duration;

/// Ticks a second of the times in `/proc`: fixed by the kernel's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time that a process has used; nothing if it can't be read.
pub(crate) fn used(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks: fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}
