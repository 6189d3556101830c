//! Jobs that are not delivered any more after a time: their queue's, and so every group's.
//!
//! They cost what delayed jobs cost, until they expire or every group has consumed them. Which have
//! expired is a fact: they are withdrawn like cancelled jobs, and counted apart.

use super::machine::Queue;
use super::{Due, Fact, JobFact, Machine, Removal, Run, Runs, push_offset};
use crate::types::{Offset, QueueId, Stamp};

impl Machine {
    /// The jobs that have expired, of one queue at a time and at most `limit`. It must be applied:
    /// what it names is not named again.
    pub fn lapse(&mut self, now_log_ms: u64, limit: usize) -> Option<Fact> {
        let first = self.expiry_order.first().filter(|(ms, _)| *ms <= now_log_ms);
        let queue = first.map(|(_, queue)| *queue)?;
        let before = self.next_expiry(queue);
        let state = self.queues.get_mut(&queue)?;
        let now = Stamp { wall_ms: 0, log_ms: now_log_ms };
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(offset) = state.expiries.peek_due(now)
        {
            expired.push(offset);
        }
        self.expiry_changed(queue, before);
        expired.sort_unstable();
        let mut runs = Runs::new();
        expired.into_iter().for_each(|offset| push_offset(&mut runs, offset));
        let cause = Removal::Expired;
        (!runs.is_empty()).then_some(Fact::Job(JobFact::Withdrawn { queue, cause, runs }))
    }

    /// When the next job expires, on the clock of the log.
    pub fn next_expiry_log_ms(&self) -> Option<u64> {
        self.expiry_order.first().map(|(ms, _)| *ms)
    }

    /// Forgets what set jobs apart that a group has consumed, and every other one.
    pub(super) fn forget_terms(&mut self, queue: QueueId, runs: &[Run]) {
        let Some(state) = self.queues.get(&queue) else { return };
        let (expire, ranked) = (!state.expiries.is_empty(), !state.ranks.is_empty());
        if expire {
            self.forget_expiries(queue, runs);
        }
        if ranked {
            self.forget_ranks(queue, runs.iter().flat_map(|run| run.offsets()));
        }
    }

    /// Forgets the expiry of jobs that every group has consumed.
    fn forget_expiries(&mut self, queue: QueueId, runs: &[Run]) {
        let before = self.next_expiry(queue);
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            let state = self.queues.get(&queue);
            let mut groups = state.into_iter().flat_map(|state| self.work_groups(state));
            if !groups.all(|group| group.consumed.contains(offset)) {
                continue;
            }
            drop(groups);
            if let Some(state) = self.queues.get_mut(&queue) {
                state.expiries.remove(offset);
            }
        }
        self.expiry_changed(queue, before);
    }

    pub(super) fn next_expiry(&self, queue: QueueId) -> Option<u64> {
        self.queues.get(&queue).and_then(|state| state.expiries.next()[0])
    }

    /// Keeps the order of the queues by their next expiry.
    pub(super) fn expiry_changed(&mut self, queue: QueueId, before: Option<u64>) {
        let after = self.next_expiry(queue);
        if before == after {
            return;
        }
        if let Some(ms) = before {
            self.expiry_order.remove(&(ms, queue));
        }
        if let Some(ms) = after {
            self.expiry_order.insert((ms, queue));
        }
    }
}

impl Queue {
    /// Whether the time of a job is over, also where no fact says so yet.
    pub(super) fn is_over(&self, offset: Offset, now_log_ms: u64) -> bool {
        matches!(self.expiries.get(offset), Some(Due::Log(ms)) if ms <= now_log_ms)
    }
}
