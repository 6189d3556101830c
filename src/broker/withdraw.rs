//! CANCEL, PURGE, PAUSE and RESUME.

use super::Broker;
use super::error::BrokerError;
use super::gate::Gated;
use super::mailbox::{CancelledJob, Event};
use super::turn::Turn;
use crate::queue::{CancelVerdict, Holder, PurgeStep, Removal};
use crate::types::{Grant, GroupId, Offset, QueueId};

/// Taking jobs back.
impl Broker {
    /// Cancels jobs for all groups. The workers of those that are out are told.
    pub fn cancel(&self, queue: &str, jobs: &[u64]) -> Gated<Vec<CancelVerdict>> {
        self.turn(|turn| {
            let id = turn.queue(queue)?;
            let machine = &turn.core.machine;
            let jobs = jobs.iter().map(|job| Offset(*job));
            let outcomes: Vec<_> = jobs.map(|job| (job, machine.cancel(id, job))).collect();
            let acts = |outcome| matches!(outcome, CancelVerdict::Done | CancelVerdict::Requested);
            let meant = outcomes.iter().filter(|(_, outcome)| acts(*outcome)).map(|(job, _)| *job);
            let fact = machine.withdraw(id, meant, Removal::Cancelled);
            turn.record_all(fact);
            for (job, outcome) in &outcomes {
                if *outcome == CancelVerdict::Requested {
                    turn.tell_workers(queue, id, *job);
                }
            }
            Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
        })
    }

    /// Withdraws up to `count_max` jobs from `from` on that are not out, below `end` or the end of
    /// the queue, which is given with what was done.
    pub fn purge(
        &self,
        queue: &str,
        from: Offset,
        end: Option<Offset>,
        count_max: u64,
    ) -> Gated<(PurgeStep, Offset)> {
        self.turn(|turn| {
            let id = turn.queue(queue)?;
            let next = turn.core.machine.next_offset(id).unwrap_or_default();
            let end = end.map_or(next, |end| end.min(next));
            let mut purge = turn.core.machine.purge(id, from, end, count_max);
            turn.record_all(purge.fact.take());
            purge.next = purge.next.min(end);
            Ok((purge, end))
        })
    }

    /// Pauses a queue or one group of it, or ends that.
    pub fn pause(&self, queue: &str, group: Option<&str>, paused: bool) -> Gated<()> {
        self.turn(|turn| {
            let id = turn.queue(queue)?;
            let group = group.map(|group| turn.work_group(queue, group)).transpose()?;
            let fact = turn.core.machine.pause(id, group, paused);
            turn.record_all(fact);
            Ok::<_, BrokerError>(())
        })
    }
}

impl Turn<'_> {
    fn tell_workers(&mut self, queue: &str, id: QueueId, offset: Offset) {
        let leases: Vec<(GroupId, Grant)> = self.core.machine.leases_of(id, offset).collect();
        for (group, grant) in leases {
            let holder = self.core.machine.lease(group, offset).map(|lease| lease.holder);
            let Some(Holder::Session(session)) = holder else { continue };
            let Some(mailbox) = self.core.sessions.mailbox(session) else { continue };
            let info = self.core.machine.group(group);
            let group = info.map(|info| info.name.to_owned()).unwrap_or_default();
            let job = CancelledJob { log: self.core.id, queue: queue.into(), group, offset, grant };
            self.send_when_released(mailbox, |gate| Event::Cancelled { job, gate });
        }
    }
}
