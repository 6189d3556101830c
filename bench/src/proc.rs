//! What Linux accounts: CPU time, memory and context switches of processes and of the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Ticks a second of the times in `/proc`: fixed by the kernel's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// What a process and its threads have used since they began.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time on a CPU, to the nanosecond.
    pub(crate) cpu: Duration,
    /// The part of it spent in the kernel, to 10 ms.
    pub(crate) system: Duration,
    /// Times that a thread gave up its CPU to wait: each ends with a wake-up.
    pub(crate) waits: u64,
    /// Times that a thread was sent off its CPU.
    pub(crate) preempted: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            system: self.system + other.system,
            waits: self.waits + other.waits,
            preempted: self.preempted + other.preempted,
        }
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            system: self.system.saturating_sub(before.system),
            waits: self.waits.saturating_sub(before.waits),
            preempted: self.preempted.saturating_sub(before.preempted),
        }
    }
}

/// What the threads of a process have used. A thread that ended in between is missing.
pub(crate) fn usage(pid: u32) -> Usage {
    let mut usage = Usage { system: system_time(pid), ..Usage::default() };
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return usage };
    for task in tasks.flatten() {
        let path = task.path();
        usage.cpu += on_cpu(&path);
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        usage.waits += field(&status, "voluntary_ctxt_switches:");
        usage.preempted += field(&status, "nonvoluntary_ctxt_switches:");
    }
    usage
}

/// What this process has used.
pub(crate) fn own_usage() -> Usage {
    usage(std::process::id())
}

/// Time on a CPU of a thread: the first field of its `schedstat`, in nanoseconds.
fn on_cpu(task: &Path) -> Duration {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn system_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks: fields are counted from behind it.
    let ticks = stat
        .rsplit_once(") ")
        .and_then(|(_, fields)| fields.split(' ').nth(12)?.parse::<u64>().ok());
    Duration::from_millis(ticks.unwrap_or(0) * 1_000 / TICKS_PER_SECOND)
}

/// CPU time that the whole machine has used, interrupts included.
pub(crate) fn machine_busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let fields = line.split_whitespace().skip(1).enumerate();
    // Idle and waiting for a disk are not busy; guests are counted in user time already.
    let busy = fields.filter(|(place, _)| !matches!(place, 3 | 4 | 8 | 9));
    let ticks: u64 = busy.filter_map(|(_, field)| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// Memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Of its own: heap and stacks.
    pub(crate) anonymous: u64,
    /// Pages of files that it has mapped, which the kernel can drop.
    pub(crate) mapped: u64,
}

impl Memory {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { anonymous: self.anonymous + other.anonymous, mapped: self.mapped + other.mapped }
    }
}

/// The processes of a process group, its leader first.
pub(crate) fn group_members(leader: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![leader] };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_member = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let group = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(2));
        group.and_then(|group| group.parse().ok()) == Some(leader)
    };
    let mut members: Vec<u32> = names.filter(is_member).collect();
    members.sort_unstable();
    members
}

/// The memory that a process has in RAM.
pub(crate) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    Memory {
        anonymous: field(&status, "RssAnon:") * 1024,
        mapped: field(&status, "RssFile:") * 1024,
    }
}

/// How many files and sockets a process has open.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Bytes that a directory's files take on the disk.
pub(crate) fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let each = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(each).sum()
}

/// The load average of the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_this_process_is_seen() {
        let before = own_usage();
        let busy_before = machine_busy();
        let mut word = 1_u64;
        while own_usage().since(before).cpu < Duration::from_millis(30) {
            word = std::hint::black_box(word.rotate_left(1));
        }
        assert!(machine_busy() > busy_before);
        assert!(memory(std::process::id()).anonymous > 0);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text =
            "voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\nRssAnon:\t 8 kB\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), 12);
        assert_eq!(field(text, "nonvoluntary_ctxt_switches:"), 3);
        assert_eq!(field(text, "RssAnon:"), 8);
        assert_eq!(field(text, "missing:"), 0);
    }
}
