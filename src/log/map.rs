//! The read-only memory map of a segment: the only file of the project with unsafe code.
//!
//! A segment is written with `pwrite` and read here. The kernel keeps both views coherent: what a
//! finished `pwrite` has written, the map shows. What makes handing out `&[u8]` sound is the
//! *published* bound: bytes below it never change again, and none above it are handed out.

#![allow(unsafe_code, reason = "slices of mapped memory can't be had without it")]

use std::fs::File;
use std::io;
use std::slice;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::clock;

/// When pieces of a map were last brought into memory without an error.
///
/// What is in memory may be evicted, and the disk may then not give it back, which would be a
/// signal and no error. So before it is used it is brought in again, unless that was done a moment
/// ago: to be hit, a page would have to be evicted and its sector go bad within that moment.
#[derive(Debug)]
pub(super) struct Warmth {
    /// For each window the second; 0 for never.
    windows: Box<[AtomicU32]>,
}

/// What is brought into memory at once: as much as the kernel would read ahead by itself.
const WINDOW_BYTES: usize = 128 << 10;

/// A read-only map over a whole segment file.
#[derive(Debug)]
pub(super) struct Map {
    raw: MmapRaw,
    /// Bytes below are not handed out: the header, which is written last.
    floor: usize,
    /// Bytes from the floor up to here are written and final. It only grows.
    published: AtomicUsize,
}

impl Map {
    /// Maps a file that is being written. What lies above `floor` becomes readable as it is
    /// published, what lies below never does.
    pub(super) fn growing(file: &File, floor: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().map_raw_read_only(file)?;
        Ok(Self { raw, floor, published: AtomicUsize::new(floor) })
    }

    /// Maps a file that nobody will write to again.
    pub(super) fn whole(file: &File) -> io::Result<Self> {
        let map = Self::growing(file, 0)?;
        map.publish(map.len());
        Ok(map)
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Says that the bytes from the floor to `end` are written and will never be written again.
    pub(super) fn publish(&self, end: usize) {
        self.published.fetch_max(end.min(self.len()), Ordering::Release);
    }

    /// All bytes of a file mapped whole.
    pub(super) fn bytes(&self) -> &[u8] {
        self.get(0, self.len()).unwrap_or_default()
    }

    /// All published bytes from `begin` on.
    pub(super) fn from(&self, begin: usize) -> Option<&[u8]> {
        self.get(begin, self.published.load(Ordering::Acquire))
    }

    /// The bytes from `begin` to `end`, if they are published.
    #[inline]
    pub(super) fn get(&self, begin: usize, end: usize) -> Option<&[u8]> {
        if begin < self.floor || begin > end || end > self.published.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `begin <= end <= published <= raw.len()`, so the range lies within the map, which
        // lives as long as `self` and so as long as the slice. Nothing writes to these bytes any
        // more: the log writes below the floor and at or above the published bound only, holds
        // the directory's lock against other processes, and never truncates a segment.
        Some(unsafe { slice::from_raw_parts(self.raw.as_ptr().add(begin), end - begin) })
    }

    /// Brings the bytes from `begin` to `end` into memory, so that a bad disk, or a file that has
    /// become shorter, is an error here and not a signal later. What is not published is left.
    pub(super) fn populate_range(&self, begin: usize, end: usize) -> io::Result<()> {
        let end = end.min(self.published.load(Ordering::Acquire));
        let Some(len) = end.checked_sub(begin).filter(|len| *len > 0) else {
            return Ok(());
        };
        match self.raw.advise_range(Advice::PopulateRead, begin, len) {
            // Kernels before 5.14 do not know the advice; the pages then come one by one.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }
}

impl Warmth {
    /// That of a map of which nothing was brought in.
    pub(super) fn of(map: &Map) -> Self {
        let windows = map.len().div_ceil(WINDOW_BYTES);
        Self { windows: (0..windows).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Makes sure that the bytes from `begin` to `end` are in memory, or were a moment ago.
    #[inline]
    pub(super) fn warm(&self, map: &Map, begin: usize, end: usize) -> io::Result<()> {
        let now = clock::coarse_seconds();
        for number in begin / WINDOW_BYTES..end.div_ceil(WINDOW_BYTES) {
            let Some(window) = self.windows.get(number) else { break };
            let then = window.load(Ordering::Relaxed);
            if then == 0 || now.wrapping_sub(then) > 1 {
                let begin = number * WINDOW_BYTES;
                map.populate_range(begin, begin + WINDOW_BYTES)?;
                window.store(now, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
