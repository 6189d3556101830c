//! Where a result comes from: the machine, its kernel and file system, and the commit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::proc::load_average;

/// Syncs of which the median is told.
const SYNCS: usize = 21;

/// The machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) disk: String,
    /// Median time of a write of 4 KiB and an fdatasync.
    pub(crate) sync_us: f64,
    pub(crate) commit: String,
    pub(crate) qbench: String,
    pub(crate) unix_seconds: u64,
    pub(crate) load_average: f64,
}

impl Machine {
    /// This machine, with the directory in which servers keep their data.
    pub(crate) fn here(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let names = rustix::system::uname();
        let (file_system, disk) = mount_of(dir);
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
        let total = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = total.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
        Ok(Self {
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: total.unwrap_or(0) * 1024,
            kernel: names.release().to_string_lossy().into_owned(),
            file_system,
            disk,
            sync_us: sync_us(dir)?,
            commit: commit(),
            qbench: env!("CARGO_PKG_VERSION").into(),
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            load_average: load_average(),
        })
    }
}

/// The type and the device of the file system that holds a directory.
fn mount_of(dir: &Path) -> (String, String) {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let line = mounts
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|point| dir.starts_with(point)))
        .max_by_key(|line| line.split(' ').nth(1).map_or(0, str::len));
    let field = |place| line.and_then(|line| line.split(' ').nth(place)).unwrap_or("unknown");
    (format!("{} ({})", field(2), field(3)), field(0).to_owned())
}

fn sync_us(dir: &Path) -> Result<f64> {
    use std::io::Write;
    let mut file = tempfile::tempfile_in(dir)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0x55; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(crate::stats::median(&times))
}

fn commit() -> String {
    let source = env!("CARGO_MANIFEST_DIR");
    let output =
        Command::new("git").args(["-C", source, "describe", "--always", "--dirty"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}
