//! System calls of a server, counted by `perf` in a round that is not timed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::children::find_program;

/// How long perf may take to attach.
const ATTACH_TIME: Duration = Duration::from_millis(300);

/// A count that runs.
#[derive(Debug)]
pub(crate) struct Count {
    perf: Child,
}

impl Count {
    /// Starts to count the system calls of processes.
    ///
    /// # Errors
    /// perf is not installed, or may not count here.
    pub(crate) fn start(pids: &[u32]) -> Result<Self> {
        let program = find_program("perf")
            .context("--syscalls needs perf (Debian: apt-get install linux-perf)")?;
        let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(program);
        command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pids]);
        let perf = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        // perf does not say when it has attached.
        std::thread::sleep(ATTACH_TIME);
        Ok(Self { perf })
    }

    /// Ends it: the number of system calls.
    pub(crate) fn stop(mut self) -> Result<u64> {
        if let Some(pid) = Pid::from_raw(self.perf.id().cast_signed()) {
            kill_process(pid, Signal::INT)?;
        }
        let mut text = String::new();
        if let Some(stderr) = &mut self.perf.stderr {
            stderr.read_to_string(&mut text)?;
        }
        self.perf.wait()?;
        let line = text.lines().find(|line| line.contains("raw_syscalls"));
        let count = line.and_then(|line| line.split(',').next()?.parse().ok());
        ensure!(count.is_some(), "perf could not count: {text}");
        Ok(count.unwrap_or(0))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        // It has ended already unless something went wrong.
        drop(self.perf.kill());
        drop(self.perf.wait());
    }
}
