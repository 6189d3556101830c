//! WAIT: who waits for the end of a job, and how they hear of it.
//!
//! Every fact is looked at as it is applied, but only while somebody waits: a log without WAITs
//! pays one comparison for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Broker;
use super::error::BrokerError;
use super::fetch::Wait;
use super::gate::{Gated, Gates};
use super::mailbox::{ByMailbox, Event, Mailbox};
use super::turn::Turn;
use crate::queue::{Fact, GroupFact, JobEnd, JobFact, LeaseFact, Outcome, QueueFact, Run};
use crate::types::{Offset, QueueId};

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

/// Somebody who waits.
#[derive(Debug)]
struct EndWaiter {
    queue: QueueId,
    offset: Offset,
    mailbox: Arc<Mailbox>,
    /// What the connection knows the WAIT by.
    ticket: u64,
    deadline_ms: u64,
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
    fn add(&mut self, waiter: EndWaiter) {
        self.last_id += 1;
        let id = self.last_id;
        self.by_job.insert((waiter.queue, waiter.offset, id));
        self.by_mailbox.insert(&waiter.mailbox, id);
        self.by_deadline.insert((waiter.deadline_ms, id));
        self.all.insert(id, waiter);
    }

    fn remove(&mut self, id: u64) -> Option<EndWaiter> {
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
    fn within(&self, queue: QueueId, first: Offset, end: Offset) -> Vec<(Offset, u64)> {
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

impl Broker {
    /// Says how a job has ended; if it has not, and `wait` says so, its connection is told later,
    /// and gets nothing here.
    pub fn wait_for_end(
        &self,
        queue: &str,
        offset: Offset,
        wait: Option<Wait<'_>>,
    ) -> Gated<Option<Ended>> {
        self.turn(|turn| {
            let id = turn.queue(queue)?;
            let next = turn.core.machine.next_offset(id).unwrap_or_default();
            if offset >= next {
                return Err(BrokerError::NoSuchJobYet { job: format!("{queue}:{offset}"), next });
            }
            if let Some(end) = turn.core.machine.job_end(id, offset) {
                return Ok(Some(Ended::End(end)));
            }
            let Some(Wait { wait_ms, mailbox, ticket }) = wait else {
                return Ok(Some(Ended::NotYet));
            };
            let deadline_ms = turn.stamp.log_ms + wait_ms;
            let (mailbox, ticket) = (Arc::clone(mailbox), ticket.id);
            turn.core.ends.add(EndWaiter { queue: id, offset, mailbox, ticket, deadline_ms });
            Ok(None)
        })
    }
}

impl Turn<'_> {
    /// Tells those who wait for the end of jobs which end with this fact, which was just applied.
    pub(super) fn tell_ends(&mut self, fact: &Fact) {
        if self.core.ends.all.is_empty() {
            return;
        }
        let all = [(Offset(0), Offset(u64::MAX))];
        let of_run = |run: &Run| (run.first, run.first.plus(u64::from(run.count)));
        match fact {
            Fact::Lease(LeaseFact::Committed { group, runs }) => {
                let done = self.is_primary(*group).then_some(JobEnd::Done { result: None });
                self.tell_ended(self.core.machine.queue_of(*group), runs.iter().map(of_run), done);
            }
            Fact::Lease(LeaseFact::CommittedWithResult { group, offset, .. })
            | Fact::Lease(LeaseFact::Ended { group, offset, outcome: Outcome::Dead, .. })
            | Fact::Lease(LeaseFact::Ended {
                group, offset, outcome: Outcome::Withdrawn, ..
            }) => {
                let queue = self.core.machine.queue_of(*group);
                self.tell_ended(queue, [(*offset, offset.next())], None);
            }
            Fact::Group(GroupFact::CommittedThrough { group, through }) => {
                let done = self.is_primary(*group).then_some(JobEnd::Done { result: None });
                let queue = self.core.machine.queue_of(*group);
                self.tell_ended(queue, [(Offset(0), through.next())], done);
            }
            Fact::Job(JobFact::Withdrawn { queue, runs, .. }) => {
                self.tell_ended(Some(*queue), runs.iter().map(of_run), None);
            }
            Fact::Queue(QueueFact::Expired { queue, below }) => {
                self.tell_ended(Some(*queue), [(Offset(0), *below)], Some(JobEnd::Expired));
            }
            Fact::Group(GroupFact::Sought { group, .. }) => {
                self.tell_ended(self.core.machine.queue_of(*group), all, None);
            }
            // Another group may be the primary one now.
            Fact::Group(GroupFact::Created { queue, .. })
            | Fact::Queue(QueueFact::Updated { queue, .. }) => {
                self.tell_ended(Some(*queue), all, None);
            }
            Fact::Queue(QueueFact::Deleted { queue }) => {
                for (_, id) in self.core.ends.within(*queue, Offset(0), Offset(u64::MAX)) {
                    self.tell_one(id, Ended::NoQueue);
                }
            }
            _ => {}
        }
    }

    fn is_primary(&self, group: crate::types::GroupId) -> bool {
        let machine = &self.core.machine;
        let queue = machine.queue_of(group);
        queue.is_some_and(|queue| machine.primary_group(queue) == Some(group))
    }

    /// Tells those who wait for jobs in these ranges, as far as they have ended; `known` says how,
    /// where the state does not say so.
    fn tell_ended(
        &mut self,
        queue: Option<QueueId>,
        ranges: impl IntoIterator<Item = (Offset, Offset)>,
        known: Option<JobEnd>,
    ) {
        let Some(queue) = queue else { return };
        for (first, end) in ranges {
            for (offset, id) in self.core.ends.within(queue, first, end) {
                let Some(found) = self.core.machine.job_end(queue, offset) else { continue };
                let end = match (found, &known) {
                    (found @ (JobEnd::Done { .. } | JobEnd::Dead(_)), _) => found,
                    (_, Some(known)) => known.clone(),
                    (found, None) => found,
                };
                self.tell_one(id, Ended::End(end));
            }
        }
    }

    fn tell_one(&mut self, id: u64, ended: Ended) {
        if let Some(EndWaiter { mailbox, ticket, .. }) = self.core.ends.remove(id) {
            self.send_when_released(mailbox, move |gate| {
                let gates = Gates::from_iter([gate]);
                Event::JobEnded { ticket, ended, gates }
            });
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
