//! The background thread: prepares the next segment ahead, and syncs the sealed ones.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::segment::OpenSegment;
use super::shared::Shared;
use super::tail::{Spare, Tail};

enum Work {
    /// Prepare the segment of this id.
    Prepare(u64),
    SyncSealed,
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
