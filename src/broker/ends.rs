//! WAIT: asking for the end of a job, and how those who wait for it hear of it.
//!
//! Every fact is looked at as it is applied, but only while somebody waits: a log without WAITs
//! pays one comparison for each.

use std::sync::Arc;

use super::Broker;
use super::end_waiters::EndWaiter;
use super::error::BrokerError;
use super::fetch::FetchWait;
use super::gate::{Gated, Gates};
use super::mailbox::{Ended, Event};
use super::turn::Turn;
use crate::queue::{Fact, GroupFact, JobEnd, JobFact, LeaseFact, Outcome, QueueFact, Run};
use crate::types::{Offset, QueueId};

impl Broker {
    /// Says how a job has ended; if it has not, and `wait` says so, its connection is told later,
    /// and gets nothing here.
    pub fn wait_for_end(
        &self,
        queue: &str,
        offset: Offset,
        wait: Option<FetchWait<'_>>,
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
            let Some(FetchWait { wait_ms, mailbox, ticket }) = wait else {
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
        if self.core.ends.is_empty() {
            return;
        }
        let all = [(Offset(0), Offset(u64::MAX))];
        let of_run = |run: &Run| (run.first, run.first.plus(u64::from(run.count)));
        match fact {
            Fact::Lease(LeaseFact::Committed { group, runs }) => {
                let done = self.is_primary(*group).then_some(JobEnd::Done { result: None });
                self.tell_ended(self.core.machine.queue_of(*group), runs.iter().map(of_run), done);
            }
            Fact::Lease(
                LeaseFact::CommittedWithResult { group, offset, .. }
                | LeaseFact::Ended {
                    outcome: Outcome::Dead | Outcome::Withdrawn, group, offset, ..
                },
            ) => {
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
            Fact::Queue(
                QueueFact::Created { .. }
                | QueueFact::RetentionPassed { .. }
                | QueueFact::Paused { .. }
                | QueueFact::OffsetsReserved { .. }
                | QueueFact::OffsetsSkipped { .. },
            )
            | Fact::Group(GroupFact::Deleted { .. } | GroupFact::KeysRead { .. })
            | Fact::Lease(
                LeaseFact::Granted { .. }
                | LeaseFact::Extended { .. }
                | LeaseFact::Progressed { .. }
                | LeaseFact::Ended { outcome: Outcome::Ready | Outcome::Delayed { .. }, .. },
            )
            | Fact::Job(
                JobFact::TermsSet { .. }
                | JobFact::KeysHeld { .. }
                | JobFact::UniqueHits { .. }
                | JobFact::Promoted { .. }
                | JobFact::DeadRetried { .. }
                | JobFact::Removed { .. },
            )
            | Fact::Schedule(_) => {}
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
