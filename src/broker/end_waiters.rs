//! Those who WAIT for the end of a job, while it has not ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::error::BrokerError;
use super::gate::Gates;
use super::mailbox::{ByMailbox, Ended, Event, Mailbox};
use crate::types::{Offset, QueueId};

/// Somebody who waits.
#[derive(Debug)]
pub(super) struct EndWaiter {
    pub(super) queue: QueueId,
    pub(super) offset: Offset,
    pub(super) mailbox: Arc<Mailbox>,
    /// What the connection knows the WAIT by.
    pub(super) ticket: u64,
    pub(super) deadline_ms: u64,
}

/// All who wait for the end of a job of one log.
#[derive(Debug, Default)]
pub(super) struct EndWaiters {
    last_id: u64,
    all: BTreeMap<u64, EndWaiter>,
    by_job: BTreeSet<(QueueId, Offset, u64)>,
    by_mailbox: ByMailbox<u64>,
    by_deadline: BTreeSet<(u64, u64)>,
}

impl EndWaiters {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn add(&mut self, waiter: EndWaiter) {
        self.last_id += 1;
        let id = self.last_id;
        self.by_job.insert((waiter.queue, waiter.offset, id));
        self.by_mailbox.insert(&waiter.mailbox, id);
        self.by_deadline.insert((waiter.deadline_ms, id));
        self.all.insert(id, waiter);
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<EndWaiter> {
        let waiter = self.all.remove(&id)?;
        self.by_job.remove(&(waiter.queue, waiter.offset, id));
        self.by_deadline.remove(&(waiter.deadline_ms, id));
        self.by_mailbox.remove(&waiter.mailbox, id);
        Some(waiter)
    }

    /// Forgets all of one connection.
    pub(super) fn remove_all(&mut self, mailbox: &Mailbox) {
        self.by_mailbox.of(mailbox).into_iter().for_each(|id| drop(self.remove(id)));
    }

    /// Those who wait for jobs of a queue from `first` to below `end`.
    pub(super) fn within(&self, queue: QueueId, first: Offset, end: Offset) -> Vec<(Offset, u64)> {
        let range = (queue, first, 0)..(queue, end, 0);
        self.by_job.range(range).map(|(_, offset, id)| (*offset, *id)).collect()
    }

    /// When the next one has waited for long enough, on the log's clock.
    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Tells those that they have waited for long enough whose time is over, or all.
    pub(super) fn end_overdue(&mut self, now_ms: Option<u64>) {
        while let Some(&(deadline_ms, id)) = self.by_deadline.first()
            && now_ms.is_none_or(|now_ms| deadline_ms <= now_ms)
            && let Some(EndWaiter { mailbox, ticket, .. }) = self.remove(id)
        {
            let (ended, gates) = (Ended::NotYet, Gates::new());
            mailbox.send(Event::JobEnded { ticket, ended, gates });
        }
    }

    /// Tells all that the log has failed.
    pub(super) fn fail_all(&mut self, error: &Arc<BrokerError>) {
        for EndWaiter { mailbox, ticket, .. } in std::mem::take(self).all.into_values() {
            mailbox.send(Event::WaitFailed { ticket, error: Arc::clone(error) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_connection_that_is_gone() {
        let (gone, stays) = (Mailbox::new(Box::new([])), Mailbox::new(Box::new([])));
        let mut waiters = EndWaiters::default();
        for (ticket, mailbox) in [(1, &gone), (2, &stays), (3, &gone)] {
            waiters.add(EndWaiter {
                queue: QueueId(1),
                offset: Offset(7),
                mailbox: Arc::clone(mailbox),
                ticket,
                deadline_ms: 100 - ticket,
            });
        }
        assert_eq!(waiters.next_deadline_ms(), Some(97));
        waiters.remove_all(&gone);
        assert_eq!((waiters.all.len(), waiters.by_job.len(), waiters.by_deadline.len()), (1, 1, 1));
        assert_eq!(
            (waiters.by_mailbox.of(&gone), waiters.by_mailbox.of(&stays)),
            (vec![], vec![2])
        );
        assert_eq!(waiters.within(QueueId(1), Offset(0), Offset(8)), [(Offset(7), 2)]);
        assert_eq!(waiters.next_deadline_ms(), Some(98));
    }
}
