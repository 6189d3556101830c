//! FETCHes that wait for a job.
//!
//! Each stands in the line of every group that it asks, and, for a queue that does not exist yet
//! (or lacks the group), in the line of that queue's name. Lines are served in order of arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::grants::{FetchTerms, Ticket, WaiterId};
use super::mailbox::{ByMailbox, Event, Mailbox};
use crate::types::GroupId;

/// A line in which a FETCH waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// For jobs of this group.
    Group(GroupId),
    /// For a queue of this name, or for the group in it.
    Queue(Arc<str>),
}

/// What a waiting FETCH wants.
#[derive(Debug)]
pub(super) struct Waiter {
    /// Its queues in order.
    pub(super) queues: SmallVec<[Arc<str>; 1]>,
    /// Its group's name.
    pub(super) group: Arc<str>,
    /// How much, and under which lease.
    pub(super) terms: FetchTerms,
    /// Whom to tell.
    pub(super) mailbox: Arc<Mailbox>,
    /// Says whether another log has answered it.
    pub(super) ticket: Arc<Ticket>,
    /// When it gives up, on the log's clock in milliseconds.
    pub(super) deadline_ms: u64,
    /// Where it stands now, one line for each queue.
    pub(super) lines: SmallVec<[Line; 1]>,
}

/// All waiting FETCHes of a log.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    last_id: u64,
    all: FxHashMap<WaiterId, Waiter>,
    by_group: FxHashMap<GroupId, BTreeSet<WaiterId>>,
    by_queue: BTreeMap<Arc<str>, BTreeSet<WaiterId>>,
    /// A connection's waits are found without a look at those of others.
    by_mailbox: ByMailbox<WaiterId>,
    by_deadline: BTreeSet<(u64, WaiterId)>,
}

impl Waiters {
    /// Adds one at the end of its lines.
    pub(super) fn add(&mut self, waiter: Waiter) -> WaiterId {
        self.last_id += 1;
        let id = WaiterId(self.last_id);
        self.by_deadline.insert((waiter.deadline_ms, id));
        self.by_mailbox.insert(&waiter.mailbox, id);
        self.enter(id, &waiter.lines);
        self.all.insert(id, waiter);
        id
    }

    /// Takes one out of all its lines.
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter> {
        let waiter = self.all.remove(&id)?;
        self.by_deadline.remove(&(waiter.deadline_ms, id));
        self.by_mailbox.remove(&waiter.mailbox, id);
        self.leave(id, &waiter.lines);
        Some(waiter)
    }

    /// Takes one out, and tells its connection unless another log has answered it.
    pub(super) fn answer(&mut self, id: WaiterId, event: impl FnOnce(u64) -> Event) {
        if let Some(Waiter { mailbox, ticket, .. }) = self.remove(id)
            && ticket.claim()
        {
            mailbox.send(event(ticket.id));
        }
    }

    /// One that still waits.
    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter> {
        self.all.get(&id)
    }

    /// The first in the line of a group.
    pub(super) fn first(&self, group: GroupId) -> Option<WaiterId> {
        self.by_group.get(&group)?.first().copied()
    }

    /// All in the line of a group, in order.
    pub(super) fn of_group(&self, group: GroupId) -> Vec<WaiterId> {
        self.by_group.get(&group).into_iter().flatten().copied().collect()
    }

    /// All in the line of a queue's name, in order.
    pub(super) fn of_queue(&self, queue: &str) -> Vec<WaiterId> {
        self.by_queue.get(queue).into_iter().flatten().copied().collect()
    }

    /// All of them, in order of arrival.
    pub(super) fn ids(&self) -> Vec<WaiterId> {
        let mut ids: Vec<_> = self.all.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// All of one connection, in order of arrival.
    pub(super) fn of_mailbox(&self, mailbox: &Mailbox) -> Vec<WaiterId> {
        self.by_mailbox.of(mailbox)
    }

    /// Takes out all of one connection.
    pub(super) fn remove_all(&mut self, mailbox: &Mailbox) {
        let ids = self.of_mailbox(mailbox);
        ids.into_iter().for_each(|id| drop(self.remove(id)));
    }

    /// Puts one into other lines, because queues or groups came or went. It keeps its place.
    pub(super) fn move_to(&mut self, id: WaiterId, lines: SmallVec<[Line; 1]>) {
        let Some(waiter) = self.all.get_mut(&id) else { return };
        let old = std::mem::replace(&mut waiter.lines, lines.clone());
        self.leave(id, &old);
        self.enter(id, &lines);
    }

    /// The next whose wait is over at `now_ms`.
    pub(super) fn overdue(&self, now_ms: u64) -> Option<WaiterId> {
        self.by_deadline
            .first()
            .filter(|(deadline_ms, _)| *deadline_ms <= now_ms)
            .map(|(_, id)| *id)
    }

    /// When the next wait is over.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    fn enter(&mut self, id: WaiterId, lines: &[Line]) {
        for line in lines {
            match line {
                Line::Group(group) => self.by_group.entry(*group).or_default().insert(id),
                Line::Queue(name) => self.by_queue.entry(Arc::clone(name)).or_default().insert(id),
            };
        }
    }

    /// A group's empty line is kept, since the next FETCH will stand in it again; it goes with the
    /// group. A name's empty line is dropped: names come from outside and are without number.
    fn leave(&mut self, id: WaiterId, lines: &[Line]) {
        for line in lines {
            match line {
                Line::Group(group) => {
                    self.by_group.get_mut(group).map(|line| line.remove(&id));
                }
                Line::Queue(name) => {
                    if let Some(line) = self.by_queue.get_mut(name) {
                        line.remove(&id);
                        if line.is_empty() {
                            self.by_queue.remove(name);
                        }
                    }
                }
            }
        }
    }

    /// Forgets the line of a group that is gone; those in it have been moved before.
    pub(super) fn forget_group(&mut self, group: GroupId) {
        self.by_group.remove(&group);
    }
}
