//! The few things that the log asks of a file system, as traits that a test can implement.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

/// A file system as the log sees it.
pub trait Files: Send + Sync + fmt::Debug {
    /// Creates the directory and those above it, durably, unless it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on `path`, creating the file. Held until the file is dropped.
    /// `WouldBlock` if another holds it.
    fn lock(&self, path: &Path) -> io::Result<File>;
    /// The names in the directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Creates a file with `bytes` of allocated zeros. Neither it nor the directory is synced.
    fn create(&self, path: &Path, bytes: u32) -> io::Result<Box<dyn DataFile>>;
    /// Creates an empty file that grows as it is written; one that is there is emptied. Nothing is
    /// synced.
    fn create_growing(&self, path: &Path) -> io::Result<Box<dyn DataFile>>;
    /// Gives a file another name, in place of a file that had it. The directory is not synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Opens a file that `create` has made, for writing.
    fn reuse(&self, path: &Path) -> io::Result<Box<dyn DataFile>>;
    /// Removes a file. The directory is not synced.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in the directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// How much room there is where the directory lies.
    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = statvfs(dir)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
    /// Sixteen random bytes.
    fn random_id(&self) -> io::Result<[u8; 16]>;
    /// Milliseconds since the Unix epoch, to say when a file was made.
    fn wall_ms(&self) -> u64;
}

/// The room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be taken.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// A file that is written at given positions and synced.
pub trait DataFile: Send + Sync + fmt::Debug {
    /// Writes all of `bytes` at `position`.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes all that was written durable. After an error nothing is known; never retry.
    fn sync_data(&self) -> io::Result<()>;
    /// The file to map for reading.
    fn file(&self) -> &File;
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        self.create_dir(parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }

    fn lock(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for item in fs::read_dir(dir)? {
            names.extend(item?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn create(&self, path: &Path, bytes: u32) -> io::Result<Box<dyn DataFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let allocated = match fallocate(&file, FallocateFlags::empty(), 0, u64::from(bytes)) {
            // Then all the room has to be taken by writing it.
            Err(Errno::OPNOTSUPP) => fill_with_zeros(&file, bytes, &|| true),
            other => other.map_err(io::Error::from),
        };
        // A half-made file takes the room that others still need.
        allocated.inspect_err(|_| drop(fs::remove_file(path)))?;
        Ok(Box::new(file))
    }

    fn create_growing(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).clone();
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn reuse(&self, path: &Path) -> io::Result<Box<dyn DataFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn random_id(&self) -> io::Result<[u8; 16]> {
        let mut id = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut id)?;
        Ok(id)
    }

    fn wall_ms(&self) -> u64 {
        let now = clock_gettime(ClockId::Realtime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
    }
}

impl DataFile for File {
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn file(&self) -> &File {
        self
    }
}

/// Writes zeros over the file for as long as `go_on` says so. It syncs as it goes, so that a sync
/// of the log that comes in between does not wait for all of them.
pub(super) fn fill_with_zeros(
    file: &dyn DataFile,
    bytes: u32,
    go_on: &dyn Fn() -> bool,
) -> io::Result<()> {
    const STEP: u32 = 1 << 20;
    let zeros = vec![0; STEP as usize];
    let mut position = 0;
    while position < bytes && go_on() {
        let step = STEP.min(bytes - position);
        let chunk = zeros.get(..step as usize).unwrap_or(&zeros);
        file.write_all_at(chunk, u64::from(position))?;
        file.sync_data()?;
        position += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_files_are_zeros_of_the_full_size_filled_or_not() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, fill) in [(3 << 20, false), (3 << 20, true), ((1 << 20) + 4096, true)] {
            let path = dir.path().join(format!("{bytes} {fill}"));
            let file = SystemFiles.create(&path, bytes).unwrap();
            fill_with_zeros(&*file, bytes, &|| fill).unwrap();
            assert_eq!(fs::read(&path).unwrap(), vec![0; bytes as usize]);
            assert!(SystemFiles.create(&path, bytes).is_err(), "nothing is overwritten");
        }
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = SystemFiles.lock(&path).unwrap();
        assert_eq!(SystemFiles.lock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        SystemFiles.lock(&path).unwrap();
    }
}
