//! Reads the jobs of a backlog into memory ahead of those who fetch them.
//!
//! The jobs of sealed segments may be on the disk only. A FETCH that has to read them would wait
//! for it under the state lock. So a thread of its own goes ahead of each group that works its
//! way through such segments, always a stretch further than the group has come. Only the first
//! job of a backlog, and jobs that come again from far behind, are read where they are asked for.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::Broker;
use crate::types::{GroupId, Offset, QueueId};

/// How far it goes ahead at a time.
const STRETCH_BYTES: u64 = 4 << 20;

/// How many groups it remembers. The others begin anew.
const GROUPS_MAX: usize = 4_096;

/// What is to be read, and how far that has come.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// For each group the jobs for which nothing more need be read; none while it is read for.
    read: Mutex<FxHashMap<GroupId, Option<Range<Offset>>>>,
    wanted: Mutex<Vec<(GroupId, QueueId, Offset)>>,
    reader: OnceLock<Thread>,
}

impl ReadAhead {
    /// Notes that a group has come to a fresh job in a sealed segment.
    pub(super) fn reached(&self, group: GroupId, queue: QueueId, offset: Offset) {
        let Some(reader) = self.reader.get() else { return };
        {
            let mut read = self.read.lock();
            match read.get(&group) {
                Some(None) => return,
                Some(Some(stretch)) if stretch.contains(&offset) => return,
                None if read.len() >= GROUPS_MAX => read.clear(),
                _ => {}
            }
            read.insert(group, None);
        }
        self.wanted.lock().push((group, queue, offset));
        reader.unpark();
    }
}

impl Broker {
    pub(super) fn run_read_ahead(&self, stop: &AtomicBool) {
        self.read_ahead.reader.get_or_init(thread::current);
        while !stop.load(Ordering::Relaxed) {
            let wanted = std::mem::take(&mut *self.read_ahead.wanted.lock());
            for (group, queue, from) in &wanted {
                let through = self.log.read_ahead(*queue, *from, STRETCH_BYTES);
                // The next stretch is due when half of this one has been fetched.
                let half = Offset(from.0 + through.0.saturating_sub(from.0) / 2 + 1);
                self.read_ahead.read.lock().insert(*group, Some(*from..half));
            }
            if wanted.is_empty() {
                thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_asked_for_once_and_the_next_when_half_of_it_is_fetched() {
        let ahead = ReadAhead::default();
        let (group, queue) = (GroupId(1), QueueId(2));
        let asked = |offset: u64| {
            ahead.reached(group, queue, Offset(offset));
            ahead.wanted.lock().pop().map(|(_, _, from)| from.0)
        };
        assert_eq!(asked(5), None, "nobody reads");
        ahead.reader.get_or_init(thread::current);
        assert_eq!(asked(5), Some(5));
        assert_eq!(asked(6), None, "it is being read");
        ahead.read.lock().insert(group, Some(Offset(5)..Offset(50)));
        assert_eq!((asked(6), asked(49)), (None, None));
        assert_eq!(asked(50), Some(50));
        ahead.read.lock().insert(group, Some(Offset(50)..Offset(90)));
        assert_eq!(asked(7), Some(7), "the group was set back");
    }
}
