//! The background thread: prepares the next segment ahead, syncs the sealed ones, and makes their
//! index tables.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::LogError;
use super::segment::OpenSegment;
use super::shared::Shared;
use super::table::{IndexRows, Sealed, Table};
use super::tail::{Spare, Tail};

enum Work {
    /// Prepare the segment of this id.
    Prepare(u64),
    SyncSealed,
    Ballast,
    /// Make the index table of the segment of this id.
    Table(u64, Arc<IndexRows>),
    End,
}

/// Starts the thread. It ends when the tail is `stopping` and `background_signal` is given.
pub(super) fn spawn(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("log-background".to_owned()).spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    loop {
        match next_work(shared) {
            Work::Prepare(id) => prepare(shared, id),
            Work::SyncSealed => {
                if let Err(error) = shared.sync_sealed() {
                    tracing::error!(%error, "syncing a sealed segment failed");
                }
            }
            Work::Table(id, rows) => make_table(shared, id, &rows),
            Work::Ballast => shared.room.make_ballast(),
            Work::End => return,
        }
    }
}

fn next_work(shared: &Shared) -> Work {
    let mut tail = shared.tail.lock();
    loop {
        if tail.stopping {
            return Work::End;
        }
        if let Some(work) = due(shared, &mut tail) {
            return work;
        }
        tail.background_idle = true;
        shared.spare_signal.notify_all();
        shared.background_signal.wait(&mut tail);
        tail.background_idle = false;
    }
}

/// What is to be done next, which counts as begun.
fn due(shared: &Shared, tail: &mut Tail) -> Option<Work> {
    if matches!(tail.spare, Spare::Wanted) && (tail.started || tail.spare_awaited) {
        return Some(Work::Prepare(take_id(tail)));
    }
    if !tail.started {
        return None;
    }
    if shared.poison.get().is_none() && tail.sealed_dirty(shared.written()) > 0 {
        return Some(Work::SyncSealed);
    }
    if let Some((id, rows)) = tail.untabled.front()
        && tail.is_synced(*id, shared.synced())
    {
        return Some(Work::Table(*id, Arc::clone(rows)));
    }
    if tail.ballast_due && shared.room.wants_ballast() {
        tail.ballast_due = false;
        return Some(Work::Ballast);
    }
    None
}

impl Shared {
    /// Waits until the background thread has nothing to do.
    pub(super) fn settle(&self) {
        let mut tail = self.tail.lock();
        while !tail.stopping && (!tail.background_idle || self.has_work(&tail)) {
            self.background_signal.notify_one();
            self.spare_signal.wait_for(&mut tail, SETTLE_LOOK);
        }
    }

    fn has_work(&self, tail: &Tail) -> bool {
        let table = tail.untabled.front();
        matches!(tail.spare, Spare::Wanted)
            || (self.poison.get().is_none() && tail.sealed_dirty(self.written()) > 0)
            || table.is_some_and(|(id, _)| tail.is_synced(*id, self.synced()))
            || (tail.ballast_due && self.room.wants_ballast())
    }
}

/// How often one who waits for the background looks by himself.
const SETTLE_LOOK: Duration = Duration::from_millis(10);

/// An id is used once, also when its file could not be made: it may be there nevertheless.
fn take_id(tail: &mut Tail) -> u64 {
    let id = tail.next_segment;
    tail.next_segment += 1;
    id
}

fn prepare(shared: &Shared, id: u64) {
    // Filling is a gift to later syncs, not worth that anybody waits for it.
    let fill = || {
        let tail = shared.tail.lock();
        shared.options.prefill && !tail.spare_awaited && !tail.stopping
    };
    let create = || OpenSegment::create(&shared.options, &shared.dir, shared.log_id, id, &fill);
    let made = match create() {
        Err(LogError::NoSpace { .. }) if shared.room.release_ballast() => create(),
        made => made,
    };
    // Whether jobs are refused from now on is seen with the next one.
    let _ = shared.room.look();
    let mut tail = shared.tail.lock();
    tail.ballast_due = true;
    tail.spare = match made {
        Ok(segment) => Spare::Ready(segment),
        Err(error) => {
            tracing::warn!(%error, "the next segment could not be prepared");
            Spare::Failed(error)
        }
    };
    shared.spare_signal.notify_all();
}

/// Queues of a table that are taken into the index under one lock.
const SPANS_AT_ONCE: usize = 512;

/// Writes the index table of a sealed segment, and has it stand for the rows in memory.
fn make_table(shared: &Shared, id: u64, rows: &IndexRows) {
    let Some(Sealed { segment, extent, last, .. }) = shared.tail.lock().sealed_of(id).cloned()
    else {
        return;
    };
    let (files, dir) = (&*shared.options.files, &shared.dir);
    let table = Arc::new(Table::write(Some(files), dir, &segment, extent, rows, last));
    let queues: Vec<_> = table.queues().collect();
    for some in queues.chunks(SPANS_AT_ONCE) {
        let added = shared.tail.lock().index.add_spans(&table, some);
        added.expect("the offsets went up when the entries were appended");
    }
    let mut tail = shared.tail.lock();
    tail.index.forget_recent(id);
    tail.untabled.pop_front();
    if let Some(sealed) = tail.sealed.iter_mut().find(|sealed| sealed.segment.id == id) {
        sealed.table = Some(table);
    }
}
