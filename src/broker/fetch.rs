//! FETCH: taking jobs under a lease, at once or when some come.

use std::sync::Arc;

use smallvec::SmallVec;

use super::error::BrokerError;
use super::grants::{FetchTerms, GrantedJob, Grants, Ticket, WaiterId};
use super::mailbox::{Event, Mailbox};
use super::turn::Turn;
use super::waiters::{Line, Waiter};
use crate::log::FoundJob;
use crate::queue::{GroupKind, Picked, Start};
use crate::types::{Grant, GroupId, LeaseRef, Offset, QueueId};

/// The group that its first FETCH makes.
pub const DEFAULT_GROUP: &str = "default";

/// How a FETCH waits if there is nothing to take, or a WAIT for a job that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct FetchWait<'a> {
    /// For how long, in milliseconds.
    pub wait_ms: u64,
    /// Whom to tell.
    pub mailbox: &'a Arc<Mailbox>,
    /// What it is known by.
    pub ticket: &'a Arc<Ticket>,
}

/// A queue's group, as far as it exists.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Group(QueueId, GroupId),
    /// The queue exists, and its group `default` is to be made.
    NoGroup(QueueId),
    /// No queue has this name yet.
    NoQueue,
}

/// Where a FETCH takes from: one for each of its queues.
pub(super) type Places = SmallVec<[Place; 1]>;

impl Place {
    pub(super) fn group(self) -> Option<(QueueId, GroupId)> {
        match self {
            Self::Group(queue, group) => Some((queue, group)),
            Self::NoGroup(_) | Self::NoQueue => None,
        }
    }
}

impl Turn<'_> {
    /// Finds the group of a queue for a FETCH. A missing queue is no error.
    ///
    /// # Errors
    /// `NoSuchGroup`, `WrongGroupKind`.
    pub(super) fn place(&self, queue: &str, group: &str) -> Result<Place, BrokerError> {
        let machine = &self.core.machine;
        let Some(queue_id) = machine.queue_id(queue) else { return Ok(Place::NoQueue) };
        let Some(group_id) = machine.group_id(queue_id, group) else {
            if group == DEFAULT_GROUP {
                return Ok(Place::NoGroup(queue_id));
            }
            return Err(BrokerError::NoSuchGroup { queue: queue.into(), group: group.into() });
        };
        match machine.group_kind(group_id) {
            Some(GroupKind::Stream) => Err(BrokerError::WrongGroupKind {
                queue: queue.into(),
                group: group.into(),
                kind: "stream",
                allowed: "READ its jobs and COMMIT through an offset",
            }),
            _ => Ok(Place::Group(queue_id, group_id)),
        }
    }

    /// As [`Turn::place`], for all queues of a FETCH.
    pub(super) fn places(
        &self,
        queues: &[impl AsRef<str>],
        group: &str,
    ) -> Result<Places, BrokerError> {
        queues.iter().map(|queue| self.place(queue.as_ref(), group)).collect()
    }

    /// Makes the group `default` where it is missing, from its queue's first job on.
    pub(super) fn make_default(&mut self, places: &mut Places) -> Result<(), BrokerError> {
        for place in places {
            if let Place::NoGroup(queue) = *place {
                let (kind, start) = (GroupKind::Work, Start::Beginning);
                let made = self.core.machine.create_group(queue, DEFAULT_GROUP, kind, start);
                let what = || format!("group {DEFAULT_GROUP:?}");
                let refused = |refusal| BrokerError::Refused { what: what(), refusal };
                self.record(&made.map_err(refused)?);
                let group = self.core.machine.group_id(queue, DEFAULT_GROUP);
                *place = group.map_or(*place, |group| Place::Group(queue, group));
            }
        }
        Ok(())
    }

    /// When the group was last served by turns that has something ready and waits for its turn the
    /// longest; none if nothing is ready. A group that is to be made may have something.
    pub(super) fn longest_waiting(&self, places: &[Place]) -> Option<u64> {
        let core = &self.core;
        let last = |place: &Place| match *place {
            Place::Group(_, id) => core.machine.has_for_fetch(id).then(|| core.rotation.last(id)),
            Place::NoGroup(_) => Some(0),
            Place::NoQueue => None,
        };
        places.iter().filter_map(last).min()
    }

    /// Takes what is ready in these groups, in their order or by turns.
    pub(super) fn take(&mut self, places: &[Place], terms: &FetchTerms) -> Grants {
        let mut grants = Grants { lease_ms: terms.lease_ms, jobs: SmallVec::new() };
        let mut bytes_left = terms.bytes_max;
        if terms.by_turns {
            self.take_by_turns(places, terms, &mut bytes_left, &mut grants);
            return grants;
        }
        // The places come first: behind the last of 255 there is no ordinal.
        for (place, ordinal) in places.iter().zip(terms.first_ordinal..) {
            if grants.jobs.len() >= terms.jobs_max || bytes_left == 0 {
                break;
            }
            if let Some((queue, group)) = place.group() {
                self.take_from(ordinal, queue, group, terms, &mut bytes_left, &mut grants);
            }
        }
        grants
    }

    /// Asks first who was served least recently. None gets more than its even share of the jobs
    /// that are still to be had, before all have been asked.
    fn take_by_turns(
        &mut self,
        places: &[Place],
        terms: &FetchTerms,
        bytes_left: &mut u64,
        grants: &mut Grants,
    ) {
        let asked = places.iter().zip(terms.first_ordinal..);
        let asked = asked.filter_map(|(place, ordinal)| Some((ordinal, place.group()?)));
        let mut asked: SmallVec<[_; 4]> = asked.collect();
        asked.sort_by_key(|(_, (_, group))| self.core.rotation.last(*group));
        for is_first_round in [true, false] {
            for (nth, (ordinal, (queue, group))) in asked.iter().enumerate() {
                let before = grants.jobs.len();
                let left = terms.jobs_max.saturating_sub(before);
                if left == 0 || *bytes_left == 0 {
                    return;
                }
                let share = if is_first_round { left.div_ceil(asked.len() - nth) } else { left };
                let part = FetchTerms { jobs_max: before + share, ..*terms };
                self.take_from(*ordinal, *queue, *group, &part, bytes_left, grants);
                if grants.jobs.len() > before {
                    self.core.rotation.note(*group);
                }
            }
        }
    }

    fn take_from(
        &mut self,
        queue_ordinal: u8,
        queue: QueueId,
        group: GroupId,
        terms: &FetchTerms,
        bytes_left: &mut u64,
        grants: &mut Grants,
    ) {
        let jobs_max = terms.jobs_max - grants.jobs.len();
        if self.core.machine.is_keyed(group) {
            self.read_keys(queue, group, jobs_max);
        }
        let log = self.log;
        let machine = &self.core.machine;
        let mut first = grants.jobs.is_empty();
        let mut found: SmallVec<[(Offset, Option<FoundJob>); 1]> = SmallVec::new();
        let mut fits = |offset| {
            let job = log.find(queue, offset);
            let bytes = job.as_ref().map_or(0, |job| u64::from(job.bytes));
            if bytes > *bytes_left && !std::mem::take(&mut first) {
                *bytes_left = 0;
                return false;
            }
            first = false;
            *bytes_left = bytes_left.saturating_sub(bytes);
            found.push((offset, job));
            true
        };
        let mut picked = Picked::new();
        machine.pick(group, jobs_max, &mut fits, &mut picked);
        if picked.is_empty() {
            return;
        }
        let first_grant = machine.next_grant();
        let fact = machine.grant(group, terms.holder, terms.lease_ms, first_grant, &picked);
        self.record(&fact.expect("the lease's bounds were checked with the request"));
        // They are granted in another order than that in which they were chosen.
        found.sort_unstable_by_key(|(offset, _)| *offset);
        for (nth, offset) in (0..).zip(picked.offsets()) {
            let grant = Grant(first_grant.0 + nth);
            let at = found.binary_search_by_key(&offset, |(offset, _)| *offset).ok();
            let job = at.and_then(|at| found.get_mut(at)?.1.take());
            let Some(FoundJob { location, bytes, is_sealed }) = job else {
                self.damage(
                    group,
                    LeaseRef { offset, grant },
                    "the log does not have its bytes any more",
                );
                continue;
            };
            let lease = self.core.machine.lease(group, offset);
            let attempt = lease.map_or(1, |lease| lease.attempt);
            if is_sealed && attempt == 1 {
                self.core.read_ahead.reached(group, queue, offset);
            }
            grants.jobs.push(GrantedJob {
                log: self.core.id,
                queue_ordinal,
                group,
                offset,
                grant,
                attempt,
                bytes,
                location,
            });
        }
    }

    /// Declares a leased job dead whose bytes the log can't give: what is damaged outside must not
    /// end the server.
    pub(super) fn damage(&mut self, group: GroupId, job: LeaseRef, reason: &str) {
        let offset = job.offset;
        tracing::error!(%offset, reason, "a job is damaged; it is dead, the others are served");
        // Its lease may have ended meanwhile: then the next to fetch it finds the damage.
        if let Ok(fact) = self.core.machine.damage(group, job, reason) {
            self.record(&fact);
        }
    }

    /// Puts a FETCH that found nothing into its lines.
    pub(super) fn wait(
        &mut self,
        queues: &[&str],
        group: &str,
        terms: FetchTerms,
        wait: &FetchWait<'_>,
    ) -> WaiterId {
        let queues: SmallVec<[Arc<str>; 1]> = queues.iter().map(|name| Arc::from(*name)).collect();
        let lines = queues.iter().map(|queue| self.line(queue, group)).collect();
        self.core.waiters.add(Waiter {
            queues,
            group: group.into(),
            terms,
            mailbox: Arc::clone(wait.mailbox),
            ticket: Arc::clone(wait.ticket),
            deadline_ms: self.stamp.log_ms + wait.wait_ms,
            lines,
        })
    }

    fn line(&self, queue: &Arc<str>, group: &str) -> Line {
        match self.place(queue, group) {
            Ok(Place::Group(_, group)) => Line::Group(group),
            _ => Line::Queue(Arc::clone(queue)),
        }
    }

    /// Lets those who waited for this queue, or for a group of it, look again.
    pub(super) fn queue_changed(&mut self, queue: &str) {
        for id in self.core.waiters.of_queue(queue) {
            self.look_again(id);
        }
    }

    /// Moves those who waited for a group that is gone back to its queue's name.
    pub(super) fn group_gone(&mut self, group: GroupId) {
        for id in self.core.waiters.of_group(group) {
            self.look_again(id);
        }
        self.core.waiters.forget_group(group);
        self.core.rotation.forget(group);
    }

    /// Serves a waiting FETCH if there is something for it now, or puts it into the right lines.
    fn look_again(&mut self, id: WaiterId) {
        if self.serve(id) {
            return;
        }
        let Some(waiter) = self.core.waiters.get(id) else { return };
        let lines = waiter.queues.iter().map(|queue| self.line(queue, &waiter.group)).collect();
        self.core.waiters.move_to(id, lines);
    }

    /// Gives jobs that have become ready to those who wait, in order, and wakes no one else.
    pub(super) fn serve_waiters(&mut self) {
        let mut woken = std::mem::take(&mut self.core.woken_buffer);
        self.core.machine.take_woken(&mut woken);
        woken.append(&mut self.core.unread);
        for group in woken.drain(..) {
            // Most groups have nobody in line; that is found out at less cost.
            while let Some(id) = self.core.waiters.first(group)
                && self.core.machine.has_for_fetch(group)
                && self.serve(id)
            {}
        }
        self.core.woken_buffer = woken;
    }

    /// Answers a waiting FETCH if it can be: with jobs, or because it can't wait any longer.
    fn serve(&mut self, id: WaiterId) -> bool {
        let Some(waiter) = self.core.waiters.get(id) else { return false };
        let (queues, group, terms) =
            (waiter.queues.clone(), Arc::clone(&waiter.group), waiter.terms);
        let placed = self.places(&queues, &group);
        let made = placed.and_then(|mut places| self.make_default(&mut places).map(|()| places));
        let Ok(places) = made else {
            // One of its groups has become another kind: it hears that when it asks again.
            self.end_wait(id);
            return true;
        };
        if !self.is_ready(&places) {
            return false;
        }
        let Some(waiter) = self.core.waiters.remove(id) else { return false };
        if waiter.ticket.claim() {
            let grants = self.take(&places, &terms);
            self.hand_off(waiter, grants);
        }
        true
    }

    /// Ends the waits that are over.
    pub(super) fn end_waits(&mut self, now_ms: u64) {
        while let Some(waiter) = self.core.waiters.overdue(now_ms) {
            self.end_wait(waiter);
        }
    }

    /// Ends one wait without a job.
    pub(super) fn end_wait(&mut self, waiter: WaiterId) {
        self.core.waiters.answer(waiter, Event::no_jobs);
    }
}
