//! A control group that caps a server's memory, its page cache included.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// A control group; it goes when dropped, once its processes have ended.
#[derive(Debug)]
pub(crate) struct Cap {
    dir: PathBuf,
}

impl Cap {
    /// Makes a group with at most so many bytes.
    ///
    /// # Errors
    /// The system has no memory control group that this user may write.
    pub(crate) fn new(bytes: u64) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = Path::new("/sys/fs/cgroup");
        let (base, limit) = if root.join("cgroup.controllers").exists() {
            (root.to_owned(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cap = Self { dir: base.join(format!("qbench-{}-{number}", std::process::id())) };
        let why = "--memory-cap needs root and a memory control group";
        fs::create_dir(&cap.dir).context(why)?;
        fs::write(cap.dir.join(limit), bytes.to_string()).context(why)?;
        Ok(cap)
    }

    /// The same command, in the group from its start.
    pub(crate) fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new("sh");
        let script = "echo $$ > \"$0\" && exec \"$@\"";
        wrapped.args(["-c", script]).arg(self.dir.join("cgroup.procs"));
        super::systems::take_over(&mut wrapped, command);
        wrapped
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        // The kernel may still be taking the last process apart; an empty group costs nothing.
        drop(fs::remove_dir(&self.dir));
    }
}
