//! How a connection hears of what happens after its call has returned: jobs granted to a waiting
//! FETCH, the end of a wait, and the release of what its held replies depend on.
//!
//! A [`Shard`] stands for one I/O thread. Others never wake its connections one by one: they wake
//! the shard's notifier once, and it wakes the connections on their own thread.

use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::error::BrokerError;
use super::gate::{Gate, Gates};
use super::grants::Grants;
use crate::queue::JobEnd;
use crate::types::{EntryIndex, Grant, LogId, Offset};

/// What a connection is told.
#[derive(Debug)]
pub enum Event {
    /// Jobs were granted to a waiting FETCH; none, if it has waited for as long as it wanted to, or
    /// the server is stopping.
    Granted {
        /// The ticket of the FETCH.
        ticket: u64,
        /// The jobs.
        grants: Grants,
        /// What must be released first.
        gates: Gates,
    },
    /// The log in which a FETCH or a WAIT waits has failed.
    WaitFailed {
        /// The ticket of the FETCH or WAIT.
        ticket: u64,
        /// What its log says.
        error: Arc<BrokerError>,
    },
    /// A job that was waited for has ended, or not within the time.
    JobEnded {
        /// The ticket of the WAIT.
        ticket: u64,
        /// How.
        ended: Ended,
        /// What must be released first.
        gates: Gates,
    },
    /// A job that the session holds was cancelled.
    Cancelled {
        /// The job.
        job: CancelledJob,
        /// The entry that says so.
        gate: Gate,
    },
    /// Another connection has taken the session over.
    Replaced,
    /// The session was silent for too long, and has been ended.
    Silent,
    /// The server is stopping: no more requests.
    Stopping,
}

impl Event {
    /// The answer to a FETCH that has waited in vain.
    pub(super) fn no_jobs(ticket: u64) -> Self {
        Self::Granted { ticket, grants: Grants::none(), gates: Gates::new() }
    }
}

/// Tells one mailbox from all others of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct MailboxId(u64);

/// What a WAIT is told.
#[derive(Clone, Debug)]
pub enum Ended {
    /// How the job ended.
    End(JobEnd),
    /// Its queue was deleted.
    NoQueue,
    /// It has not ended within the time.
    NotYet,
}

/// A job whose worker is to stop.
#[derive(Clone, Debug)]
pub struct CancelledJob {
    /// The log that it is in.
    pub log: LogId,
    /// The queue.
    pub queue: String,
    /// The group.
    pub group: String,
    /// The job.
    pub offset: Offset,
    /// Its lease.
    pub grant: Grant,
}

/// One connection's mailbox.
#[derive(Debug)]
pub struct Mailbox {
    id: MailboxId,
    /// Of the connection's I/O thread, one for each log.
    shards: Box<[Arc<Shard>]>,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    events: Vec<Event>,
    waker: Option<Waker>,
}

impl Mailbox {
    /// A mailbox for a connection of the I/O thread with these shards, one for each log.
    pub(super) fn new(shards: Box<[Arc<Shard>]>) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = MailboxId(LAST.fetch_add(1, Ordering::Relaxed));
        Arc::new(Self { id, shards, inside: Mutex::default() })
    }

    /// Takes all events, and has `cx` woken for the next.
    pub fn take(&self, cx: &Context<'_>, events: &mut Vec<Event>) {
        let mut inside = self.inside.lock();
        match &mut inside.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            waker => *waker = Some(cx.waker().clone()),
        }
        events.append(&mut inside.events);
    }

    /// Takes the grants that are left, when the connection is gone.
    pub(super) fn take_grants(&self) -> impl Iterator<Item = Grants> + use<> {
        let events = {
            let mut inside = self.inside.lock();
            inside.waker = None;
            std::mem::take(&mut inside.events)
        };
        let granted =
            |event| if let Event::Granted { grants, .. } = event { Some(grants) } else { None };
        events.into_iter().filter_map(granted)
    }

    /// Puts an event in and wakes the connection.
    pub(super) fn send(&self, event: Event) {
        let waker = {
            let mut inside = self.inside.lock();
            inside.events.push(event);
            inside.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Puts an event in that may leave only when `gate` is released; the connection is woken then.
    pub(super) fn send_gated(self: &Arc<Self>, event: Event, gate: Gate) {
        self.inside.lock().events.push(event);
        self.wake_when_released(gate);
    }

    /// Has the connection woken when `gate` is released.
    pub fn wake_when_released(self: &Arc<Self>, gate: Gate) {
        let shard = self.shards.get(usize::from(gate.log.0)).expect("there is one for each log");
        shard.waiting.lock().connections.push((gate.index, Arc::clone(self)));
    }

    fn wake(&self) {
        let waker = self.inside.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Which waits belong to each connection, so that the end of one looks at no other's.
#[derive(Debug)]
pub(super) struct ByMailbox<W>(FxHashMap<MailboxId, BTreeSet<W>>);

impl<W> Default for ByMailbox<W> {
    fn default() -> Self {
        Self(FxHashMap::default())
    }
}

impl<W: Copy + Ord> ByMailbox<W> {
    pub(super) fn insert(&mut self, mailbox: &Mailbox, wait: W) {
        self.0.entry(mailbox.id).or_default().insert(wait);
    }

    pub(super) fn remove(&mut self, mailbox: &Mailbox, wait: W) {
        if let Entry::Occupied(mut waits) = self.0.entry(mailbox.id) {
            waits.get_mut().remove(&wait);
            if waits.get().is_empty() {
                waits.remove();
            }
        }
    }

    /// Those of one connection, in order of arrival.
    pub(super) fn of(&self, mailbox: &Mailbox) -> Vec<W> {
        self.0.get(&mailbox.id).into_iter().flatten().copied().collect()
    }
}

/// The connections of one I/O thread that wait for a release of one log.
#[derive(Debug, Default)]
pub struct Shard {
    waiting: Mutex<WaitingConnections>,
}

#[derive(Debug, Default)]
struct WaitingConnections {
    connections: Vec<(EntryIndex, Arc<Mailbox>)>,
    notifier: Option<Waker>,
}

impl Shard {
    /// The notifier's turn, on the shard's own thread: wakes the connections whose index has been
    /// released, and is woken again by [`Shard::notify`]. Never ready.
    pub fn poll_wake(&self, cx: &Context<'_>, released: impl FnOnce() -> EntryIndex) -> Poll<()> {
        let due: Vec<_> = {
            let mut waiting = self.waiting.lock();
            waiting.notifier = Some(cx.waker().clone());
            // Asked only now: what is released after this finds the notifier's waker in place.
            let released = released();
            waiting.connections.extract_if(.., |(gate, _)| *gate <= released).collect()
        };
        due.iter().for_each(|(_, mailbox)| mailbox.wake());
        Poll::Pending
    }

    /// Wakes the notifier if someone waits. Costs no system call when it runs already.
    pub fn notify(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.connections.is_empty() {
            return;
        }
        let notifier = waiting.notifier.take();
        drop(waiting);
        if let Some(notifier) = notifier {
            notifier.wake();
        }
    }
}
