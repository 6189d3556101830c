//! Measures what the file under an appended log should be like: plain, allocated, filled with
//! zeros, or written before; for batches of 1, 16 and 256 jobs of 1 KiB, with a sync after each
//! batch and without. Takes about half a minute and 64 MiB in the current directory.
//!
//! `cargo run --release --example append_modes [DIRECTORY]`

use std::env;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};

const FILE_BYTES: u64 = 64 << 20;
const JOB_BYTES: usize = 1 << 10;
const TIME_MAX: Duration = Duration::from_millis(1_000);

/// How the file is prepared.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Plain,
    Allocated,
    Zeroed,
    Recycled,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Plain, Self::Allocated, Self::Zeroed, Self::Recycled];

    fn prepare(self, path: &Path) -> std::io::Result<File> {
        let _ = std::fs::remove_file(path);
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path)?;
        match self {
            Self::Plain => {}
            Self::Allocated => fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES)?,
            Self::Zeroed => fill(&file, 0)?,
            Self::Recycled => fill(&file, 0xA5)?,
        }
        file.sync_all()?;
        Ok(file)
    }
}

fn fill(file: &File, byte: u8) -> std::io::Result<()> {
    fallocate(file, FallocateFlags::empty(), 0, FILE_BYTES)?;
    let piece = vec![byte; 1 << 20];
    (0..FILE_BYTES >> 20).try_for_each(|number| file.write_all_at(&piece, number << 20))
}

/// Appends batches until the time or the file is over. Returns each batch's time, sorted.
fn measure(file: &File, jobs: usize, sync: bool) -> std::io::Result<Vec<Duration>> {
    let batch = vec![0x5A; jobs * JOB_BYTES];
    let (mut times, mut position) = (Vec::new(), 0);
    let begin = Instant::now();
    while begin.elapsed() < TIME_MAX && position + batch.len() as u64 <= FILE_BYTES {
        let before = Instant::now();
        file.write_all_at(&batch, position)?;
        if sync {
            file.sync_data()?;
        }
        times.push(before.elapsed());
        position += batch.len() as u64;
    }
    times.sort_unstable();
    Ok(times)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let path = Path::new(&dir).join("append-modes.tmp");
    println!("| file | jobs a batch | sync | median us | p99 us | jobs/s |");
    println!("|---|---|---|---|---|---|");
    for sync in [true, false] {
        for jobs in [1, 16, 256] {
            for mode in Mode::ALL {
                let file = mode.prepare(&path)?;
                let times = measure(&file, jobs, sync)?;
                let total: Duration = times.iter().sum();
                let at = |part: usize| times.get(times.len() * part / 100).copied();
                let micros = |time: Option<Duration>| time.unwrap_or_default().as_micros();
                let rate = (times.len() * jobs) as f64 / total.as_secs_f64();
                let sync = if sync { "yes" } else { "no" };
                let (median, p99) = (micros(at(50)), micros(at(99)));
                println!("| {mode:?} | {jobs} | {sync} | {median} | {p99} | {rate:.0} |");
            }
        }
    }
    std::fs::remove_file(&path)?;
    Ok(())
}
