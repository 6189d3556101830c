//! The background threads. One prepares the next segment and keeps the ballast; the other syncs
//! sealed segments and makes their index tables, and makes the new ones durable. So who waits for a
//! segment waits for no sync.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::LogError;
use super::files::fill_with_zeros;
use super::segment::OpenSegment;
use super::shared::Shared;
use super::table::{IndexRows, Sealed, Table};
use super::tail::{Spare, Tail};

enum Work {
    Prepare(Wanted),
    Discard(Arc<OpenSegment>),
    Ballast,
    Name(Arc<OpenSegment>),
    SyncSealed,
    /// Make the index table of the segment of this id.
    Table(u64, Arc<IndexRows>),
}

/// The segment that is to be prepared.
struct Wanted {
    id: u64,
    /// The size that it should have, and the least that is of use.
    bytes: u32,
    least: u32,
}

/// What one of the threads does next, which counts as begun.
type Next = fn(&Shared, &mut Tail) -> Option<Work>;

/// Starts the threads. They end when the tail is `stopping` and `background_signal` is given.
pub(super) fn spawn(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, next: Next| {
        let shared = Arc::clone(shared);
        shared.tail.lock().busy += 1;
        thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared, next))
    };
    Ok(vec![spawn("log-spare", next_ahead)?, spawn("log-seal", next_behind)?])
}

fn run(shared: &Shared, next: Next) {
    while let Some(work) = wait_for(shared, next) {
        match work {
            Work::Prepare(wanted) => prepare(shared, &wanted),
            Work::Discard(spare) => discard(shared, &spare),
            Work::Ballast => shared.room.make_ballast(),
            Work::Name(spare) => name(shared, &spare),
            Work::SyncSealed => {
                if let Err(error) = shared.sync_sealed() {
                    tracing::error!(%error, "syncing a sealed segment failed");
                }
            }
            Work::Table(id, rows) => make_table(shared, id, &rows),
        }
    }
}

/// The next work; none when the log is closed.
fn wait_for(shared: &Shared, next: Next) -> Option<Work> {
    let mut tail = shared.tail.lock();
    loop {
        if tail.stopping {
            tail.busy -= 1;
            shared.spare_signal.notify_all();
            return None;
        }
        if let Some(work) = next(shared, &mut tail) {
            return Some(work);
        }
        tail.busy -= 1;
        shared.spare_signal.notify_all();
        shared.background_signal.wait(&mut tail);
        tail.busy += 1;
    }
}

/// What is to be done for what comes.
fn next_ahead(shared: &Shared, tail: &mut Tail) -> Option<Work> {
    if let Some(spare) = tail.discarded.pop() {
        return Some(Work::Discard(spare));
    }
    if matches!(tail.spare, Spare::Wanted) && (tail.started || tail.spare_awaited > 0) {
        // An id is used once, also when its file could not be made: it may be there nevertheless.
        let id = tail.next_segment;
        tail.next_segment += 1;
        let least = tail.spare_awaited.max(shared.options.segment_bytes_first());
        return Some(Work::Prepare(Wanted { id, bytes: tail.spare_bytes.max(least), least }));
    }
    if tail.started && tail.ballast_due {
        tail.ballast_due = false;
        return Some(Work::Ballast);
    }
    None
}

/// What is to be done for what has been written.
fn next_behind(shared: &Shared, tail: &mut Tail) -> Option<Work> {
    if !tail.started {
        return None;
    }
    if let Some(spare) = tail.unnamed.pop() {
        return Some(Work::Name(spare));
    }
    if shared.poison.get().is_none() && tail.sealed_dirty(shared.written()) > 0 {
        return Some(Work::SyncSealed);
    }
    let (id, rows) = tail.untabled.front()?;
    tail.is_synced(*id, shared.synced()).then(|| Work::Table(*id, Arc::clone(rows)))
}

impl Shared {
    /// Waits until the background threads have nothing to do.
    pub(super) fn settle(&self) {
        self.wait_for_background(|tail| {
            tail.busy > 0
                || matches!(tail.spare, Spare::Wanted)
                || !tail.discarded.is_empty()
                || !tail.unnamed.is_empty()
                || tail.ballast_due
                || self.has_sealed_work(tail)
        });
    }

    /// Waits until the segments that are sealed and synced have their index tables.
    pub(super) fn wait_for_tables(&self) {
        self.wait_for_background(|tail| self.has_sealed_work(tail));
    }

    fn has_sealed_work(&self, tail: &Tail) -> bool {
        let table = tail.untabled.front();
        (self.poison.get().is_none() && tail.sealed_dirty(self.written()) > 0)
            || table.is_some_and(|(id, _)| tail.is_synced(*id, self.synced()))
    }

    fn wait_for_background(&self, has_work: impl Fn(&Tail) -> bool) {
        let mut tail = self.tail.lock();
        while !tail.stopping && tail.started && has_work(&tail) {
            self.background_signal.notify_all();
            self.spare_signal.wait_for(&mut tail, SETTLE_LOOK);
        }
    }
}

/// How often one who waits for the background looks by himself.
const SETTLE_LOOK: Duration = Duration::from_millis(10);

fn prepare(shared: &Shared, wanted: &Wanted) {
    let made = create(shared, wanted).and_then(|spare| fill(shared, spare)).map(Arc::new);
    // Whether jobs are refused from now on is seen with the next one.
    let _ = shared.room.look();
    let mut tail = shared.tail.lock();
    tail.ballast_due = true;
    let of_use = tail.spare_bytes.max(tail.spare_awaited).max(wanted.least);
    match made {
        // The log has begun to take less room meanwhile.
        Ok(spare) if !matches!(tail.spare, Spare::Wanted) || spare.bytes() > of_use => {
            tail.discarded.push(spare);
        }
        Ok(spare) => {
            tail.unnamed.push(Arc::clone(&spare));
            tail.spare = Spare::Ready(spare);
        }
        Err(error) => {
            tracing::warn!(%error, "the next segment could not be prepared");
            tail.spare = Spare::Failed(error);
        }
    }
    shared.spare_signal.notify_all();
    shared.background_signal.notify_all();
}

/// Makes the file: of the size wanted if that leaves enough room, else of the least, also from the
/// ballast.
fn create(shared: &Shared, wanted: &Wanted) -> Result<OpenSegment, LogError> {
    let Wanted { id, bytes, least } = *wanted;
    let create =
        |bytes| OpenSegment::create(&shared.options, &shared.dir, shared.log_id, id, bytes);
    let mut made = create(shared.room.segment_bytes_within(bytes, least));
    while matches!(made, Err(LogError::NoSpace { .. }))
        && shared.room.release_ballast_for(u64::from(least))
    {
        made = create(least);
    }
    made
}

/// Writes zeros over it, which makes later syncs faster. It is not worth that anybody waits.
fn fill(shared: &Shared, spare: OpenSegment) -> Result<OpenSegment, LogError> {
    let go_on = || {
        let tail = shared.tail.lock();
        shared.options.prefill && tail.spare_awaited == 0 && !tail.stopping
    };
    let filled = fill_with_zeros(&*spare.file, spare.bytes(), &go_on);
    match filled {
        Ok(()) => Ok(spare),
        Err(error) => {
            discard(shared, &spare);
            Err(LogError::io("filling", &spare.segment.path, error))
        }
    }
}

/// Makes the file and its name durable, so that the first sync of it need not. Until it is, it may
/// be in use already.
fn name(shared: &Shared, spare: &OpenSegment) {
    if spare.is_named() {
        return;
    }
    let (path, dir) = (&*spare.segment.path, &*shared.dir);
    let synced = spare.file.sync_data().map_err(|error| (path, error));
    let synced_dir = || shared.options.files.sync_dir(dir).map_err(|error| (dir, error));
    let Err((path, error)) = synced.and_then(|()| synced_dir()) else {
        return spare.set_named();
    };
    let is_it = |other: &OpenSegment| other.segment.id == spare.segment.id;
    let mut tail = shared.tail.lock();
    if let Spare::Ready(ready) = &tail.spare
        && is_it(ready)
    {
        let ready = Arc::clone(ready);
        tail.discarded.push(ready);
        tail.spare = Spare::Failed(LogError::io("syncing", path, error));
        shared.spare_signal.notify_all();
    } else if is_it(&tail.active) || tail.sealed_of(spare.segment.id).is_some() {
        // What is written to it now can't be made sure of. If it was discarded, nothing is.
        drop(tail);
        shared.poison("syncing", path, &error);
    }
}

fn discard(shared: &Shared, spare: &OpenSegment) {
    let path = &spare.segment.path;
    if let Err(error) = shared.options.files.remove(path) {
        let file = path.display();
        tracing::warn!(%file, %error, "a spare stays until the next start");
    }
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
