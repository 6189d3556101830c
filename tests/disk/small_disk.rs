//! A file system of a few MiB, to be filled.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system in memory. It is unmounted when this is dropped.
pub(crate) struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// Mounts one. None where that is not allowed, which is said on the standard error even of a
    /// test that passes; who runs the tests as root in CI is to see a failure instead.
    pub(crate) fn mount(test: &str, mebibytes: u32) -> Option<Self> {
        assert!(mebibytes <= 300, "memory is not for this");
        let dir = TempDir::new().unwrap();
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "joblog-test"]).arg(dir.path());
        let failure = match mount.output() {
            Ok(output) if output.status.success() => return Some(Self { dir }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let failure = failure.trim();
        let must = rustix::process::geteuid().is_root() && std::env::var_os("CI").is_some();
        assert!(!must, "a file system for {test} can't be mounted: {failure}");
        let text = format!("\nNOT TESTED: {test}: no file system can be mounted: {failure}\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Fills all that is free with a file that is not the server's.
    pub(crate) fn fill(&self) {
        let path = self.filler();
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        for bytes in [1 << 20, 4096, 1] {
            while file.write_all(&vec![7; bytes]).is_ok() {}
        }
    }

    /// Removes that file.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.dir.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is still being killed may have it open.
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "it stays mounted");
    }
}
