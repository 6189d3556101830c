//! Jobs that are not delivered any more after a time: their queue's, and so every group's.
//!
//! They cost what delayed jobs cost, until they expire or every group has consumed them. Which have
//! expired is a fact: they are withdrawn like cancelled jobs, and counted apart.

use super::{Due, Fact, Machine, Removal, Run, Runs, push_offset};
use crate::types::{GroupId, Offset, QueueId, Stamp};

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
        (!runs.is_empty()).then_some(Fact::Withdrawn { queue, cause, runs })
    }

    /// When the next job expires, on the clock of the log.
    pub fn next_expiry_log_ms(&self) -> Option<u64> {
        self.expiry_order.first().map(|(ms, _)| *ms)
    }

    /// Whether the time of a job is over, also where no fact says so yet.
    pub(super) fn has_expired(&self, queue: QueueId, offset: Offset) -> bool {
        let Some(state) = self.queues.get(&queue) else { return false };
        let expiry = state.expiries.get(offset);
        matches!(expiry, Some(Due::Log(ms)) if ms <= self.now.log_ms)
    }

    /// Forgets the expiry of jobs that every group has consumed.
    pub(super) fn forget_expiries(&mut self, group: GroupId, runs: &[Run]) {
        let Some(queue) = self.groups.get(&group).map(|state| state.queue) else { return };
        if self.queues.get(&queue).is_none_or(|state| state.expiries.is_empty()) {
            return;
        }
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
