//! The background thread: prepares the next segment ahead, syncs the sealed ones, and makes their
//! index tables.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::segment::{OpenSegment, Sealed};
use super::shared::Shared;
use super::table::{Rows, Table};
use super::tail::{Spare, Tail};

enum Work {
    /// Prepare the segment of this id.
    Prepare(u64),
    SyncSealed,
    /// Make the index table of the segment of this id.
    Table(u64, Arc<Rows>),
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
        if matches!(tail.spare, Spare::Wanted) {
            return Work::Prepare(take_id(&mut tail));
        }
        if shared.poison.get().is_none() && tail.sealed_dirty(shared.written()) > 0 {
            return Work::SyncSealed;
        }
        if let Some((id, rows)) = tail.untabled.front()
            && tail.is_synced(*id, shared.synced())
        {
            return Work::Table(*id, Arc::clone(rows));
        }
        shared.background_signal.wait(&mut tail);
    }
}

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
    let made = OpenSegment::create(&shared.options, &shared.dir, shared.log_id, id, &fill);
    let mut tail = shared.tail.lock();
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
fn make_table(shared: &Shared, id: u64, rows: &Rows) {
    let Some(Sealed { segment, extent, last, .. }) = shared.tail.lock().sealed_of(id).cloned()
    else {
        return;
    };
    let (files, dir) = (&*shared.options.files, &shared.dir);
    let table = Arc::new(Table::write(files, dir, &segment, extent, rows, last));
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
