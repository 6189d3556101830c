//! A replicated log can have the log as its store: openraft's log-store traits over a `Log`, and
//! openraft's own suite for stores.
//!
//! Entry `i` of the replica is entry `i + 1` of the log. What openraft gives of an entry stands in
//! its facts; where the replica's log leaves places out (behind a purge beyond its end), blank
//! entries without facts fill them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use futures_util::{Stream, StreamExt};
use joblog::log::{CompactBudget, EntryKind, EntryView, Log, LogError, LogOptions, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, RaftLogReader, StorageError};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::{TempDir, tempdir};

openraft::declare_raft_types!(
    Config:
        D = String,
        R = (),
        NodeId = u64,
        Node = (),
);

type RaftEntryOf = openraft::alias::EntryOf<Config>;

/// What the replica must not forget beside its log.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Kept {
    vote: Option<VoteOf<Config>>,
    committed: Option<LogIdOf<Config>>,
    purged: Option<LogIdOf<Config>>,
}

/// A flush that has been asked for: up to this entry, and whom to tell.
type Flush = (Arc<Log>, IOFlushed<Config>);

struct Inner {
    dir: PathBuf,
    /// None while it is reopened.
    log: Option<Arc<Log>>,
    kept: Kept,
}

#[derive(Clone)]
struct Store {
    inner: Arc<Mutex<Inner>>,
    flushes: SyncSender<Flush>,
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10, prefill: false, ..LogOptions::default() }
}

/// Opens the log, cut behind `through` if that is given.
fn open(dir: &Path, through: Option<EntryIndex>) -> Result<Arc<Log>, LogError> {
    let mut recovery = Recovery::open(dir, options())?;
    if let Some(through) = through {
        recovery.truncate_after(through)?;
    }
    let recovered = recovery.replay(recovery.base(), &mut |_| Ok(()))?;
    // Starts have terms of their own, above all that replicas agree on.
    let term = Term(recovered.last_term.0.max(1 << 40) + 1);
    recovery.start(term).map(Arc::new)
}

fn failed(error: impl ToString) -> io::Error {
    io::Error::other(error.to_string())
}

/// Syncs and tells, in the order in which it was asked to.
fn flush(flushes: &Receiver<Flush>) {
    while let Ok((log, callback)) = flushes.recv() {
        callback.io_completed(log.sync().map(drop).map_err(failed));
    }
}

impl Store {
    fn new(dir: &Path) -> Self {
        let log = open(dir, None).unwrap();
        let kept = log.vote().unwrap().map(|bytes| serde_json::from_slice(&bytes).unwrap());
        let (flushes, asked) = sync_channel(64);
        thread::spawn(move || flush(&asked));
        let kept = kept.unwrap_or_default();
        let inner = Inner { dir: dir.to_owned(), log: Some(log), kept };
        Self { inner: Arc::new(Mutex::new(inner)), flushes }
    }
}

impl Inner {
    fn log(&self) -> &Arc<Log> {
        self.log.as_ref().expect("the log is open between two calls")
    }

    fn keep(&mut self, change: impl FnOnce(&mut Kept)) -> io::Result<()> {
        change(&mut self.kept);
        self.log().save_vote(&serde_json::to_vec(&self.kept)?).map_err(failed)
    }

    fn append(&self, kind: EntryKind, term: u64, facts: &[u8]) -> io::Result<()> {
        let entry = EntryView { facts, ..EntryView::default() };
        self.log().append_as(kind, Term(term + 1), &entry).map(drop).map_err(failed)
    }

    /// Fills the places in front of the replica's entry `index`.
    fn fill(&self, term: u64, index: u64) -> io::Result<()> {
        while self.log().next_index().0 < index + 1 {
            self.append(EntryKind::Blank, term, &[])?;
        }
        Ok(())
    }

    /// The replica's entries from `begin` on, in front of `end`.
    fn read(&self, begin: u64, end: u64) -> io::Result<Vec<RaftEntryOf>> {
        let purged = self.kept.purged.map_or(0, |purged| purged.index + 1);
        let (begin, end) = (begin.max(purged), end.min(self.log().written().0));
        let mut found = Vec::new();
        if begin < end {
            let read = self.log().entries(EntryIndex(begin), EntryIndex(end), &mut |view| {
                if !view.facts.is_empty() {
                    found.push(serde_json::from_slice(view.facts)?);
                }
                Ok(())
            });
            read.map_err(failed)?;
        }
        Ok(found)
    }
}

impl RaftLogReader<Config> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntryOf>, io::Error> {
        let begin = match range.start_bound() {
            Bound::Included(begin) => *begin,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.inner.lock().read(begin, end)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<Config>>, io::Error> {
        Ok(self.inner.lock().kept.vote)
    }
}

impl RaftLogStorage<Config> for Store {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Config>, io::Error> {
        let inner = self.inner.lock();
        let last = inner.log().written().0;
        let purged = inner.kept.purged;
        let read = inner.read(last.saturating_sub(1), last)?;
        let last_log_id = read.last().map(|entry| entry.log_id()).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Config>) -> Result<(), io::Error> {
        self.inner.lock().keep(|kept| kept.vote = Some(*vote))
    }

    async fn save_committed(&mut self, id: Option<LogIdOf<Config>>) -> Result<(), io::Error> {
        self.inner.lock().keep(|kept| kept.committed = id)
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<Config>>, io::Error> {
        Ok(self.inner.lock().kept.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Config>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntryOf> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let inner = self.inner.lock();
        for entry in entries {
            let id = entry.log_id();
            let kind = match &entry.payload {
                EntryPayload::Blank => EntryKind::Blank,
                EntryPayload::Normal(_) => EntryKind::Ordinary,
                EntryPayload::Membership(_) => EntryKind::Membership,
            };
            inner.fill(id.committed_leader_id().term, id.index)?;
            assert_eq!(inner.log().next_index().0, id.index + 1, "no entry is written over");
            let facts = serde_json::to_vec(&entry)?;
            inner.append(kind, id.committed_leader_id().term, &facts)?;
        }
        // Readers see it from here on; that it is durable is told later.
        inner.log().write().map_err(failed)?;
        self.flushes.send((Arc::clone(inner.log()), callback)).map_err(failed)
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Config>>) -> Result<(), io::Error> {
        let mut inner = self.inner.lock();
        let through = EntryIndex(last.map_or(0, |last| last.index + 1));
        if through >= inner.log().written() {
            return Ok(());
        }
        let mut log = inner.log.take();
        // The thread that flushes may have it for a moment yet.
        while let Some(shared) = log.take() {
            log = Arc::try_unwrap(shared).map_or_else(Some, |last| {
                drop(last);
                None
            });
            thread::yield_now();
        }
        inner.log = Some(open(&inner.dir, Some(through)).map_err(failed)?);
        Ok(())
    }

    async fn purge(&mut self, id: LogIdOf<Config>) -> Result<(), io::Error> {
        let mut inner = self.inner.lock();
        inner.fill(id.committed_leader_id().term, id.index + 1)?;
        inner.log().write().map_err(failed)?;
        inner.keep(|kept| kept.purged = Some(id))?;
        let budget = CompactBudget { bytes: u64::MAX, jobs: u64::MAX };
        let none_is_live = &mut |_: QueueId, _: Offset| false;
        let compacted = inner.log().compact(EntryIndex(id.index + 1), none_is_live, budget);
        compacted.map(drop).map_err(failed)
    }
}

/// A state machine that remembers no more than the suite asks for.
#[derive(Clone, Default)]
struct Machine {
    applied: Option<LogIdOf<Config>>,
    membership: StoredMembershipOf<Config>,
    snapshot: Arc<Mutex<Option<SnapshotMetaOf<Config>>>>,
}

impl RaftSnapshotBuilder<Config> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<Config, ()>, io::Error> {
        let meta = SnapshotMetaOf::<Config> {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        };
        *self.snapshot.lock() = Some(meta.clone());
        Ok(SnapshotOf::<Config, ()> { meta, snapshot: () })
    }
}

impl RaftStateMachine<Config> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<Config>>, StoredMembershipOf<Config>), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Config>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.applied = Some(entry.log_id());
            if let Some(membership) = entry.get_membership() {
                self.membership =
                    StoredMembershipOf::<Config>::new(self.applied, membership.clone());
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Config>,
        (): (),
    ) -> Result<(), io::Error> {
        (self.applied, self.membership) = (meta.last_log_id, meta.last_membership.clone());
        *self.snapshot.lock() = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<Config, ()>>, io::Error> {
        let meta = self.snapshot.lock().clone();
        Ok(meta.map(|meta| SnapshotOf::<Config, ()> { meta, snapshot: () }))
    }
}

struct Builder;

impl StoreBuilder<Config, Store, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Store, Machine), StorageError<Config>> {
        let dir = tempdir().unwrap();
        let store = Store::new(dir.path());
        Ok((dir, store, Machine::default()))
    }
}

#[tokio::test]
async fn openrafts_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
