//! Changes of a queue's settings.
//!
//! A setting is looked at when it is needed, so most changes need nothing more. What was computed
//! from one before is computed anew here, so that a change holds for the jobs that are there.

use super::keys::Keys;
use super::machine::wake;
use super::{Contradiction, Fact, Machine, QueueFact, QueueSettings, Refusal};
use crate::types::{GroupId, Offset, QueueId, Stamp};

impl Machine {
    /// Gives a queue other settings; no fact if it has them.
    ///
    /// # Errors
    /// [`Refusal::NoSuchQueue`], [`Refusal::Settings`]; [`Refusal::KeysInUse`] for what a queue
    /// says about keys, while jobs of it are to be consumed.
    pub fn update_queue(
        &self,
        queue: QueueId,
        settings: QueueSettings,
    ) -> Result<Option<Fact>, Refusal> {
        let state = self.queues.get(&queue).ok_or(Refusal::NoSuchQueue)?;
        settings.validate()?;
        if state.holds_to_keys() && !state.settings.has_key_rule_of(&settings) {
            return Err(Refusal::KeysInUse { unconsumed: state.unconsumed });
        }
        let changes = state.settings != settings;
        Ok(changes.then_some(Fact::Queue(QueueFact::Updated { queue, settings })))
    }

    pub(super) fn queue_updated(
        &mut self,
        queue: QueueId,
        settings: &QueueSettings,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        let state = self.queues.get(&queue).ok_or(Contradiction::NoSuchQueue(queue))?;
        let groups: Vec<_> = state.groups.values().copied().collect();
        let rate = state.settings.rate();
        let other_keys = !state.settings.has_key_rule_of(settings);
        if other_keys && state.holds_to_keys() {
            return Err(Contradiction::KeysInUse(queue));
        }
        // What is gone without being kept stays gone; what is consumed from now on is kept.
        let begins_to_keep = !state.keeps_consumed() && settings.keep_consumed_for_ms > 0;
        let gone = begins_to_keep.then(|| self.gone(state));
        groups.iter().for_each(|group| self.forget_dead_ends(*group));
        if let Some(state) = self.queues.get_mut(&queue) {
            state.settings = settings.clone();
            if let Some(gone) = gone {
                state.aging = gone.clone();
                state.gone = gone;
                state.turned_log_ms = stamp.log_ms;
            }
        }
        self.free_all_keys(queue);
        for group in groups {
            self.note_dead_ends(group);
            self.limits_changed(group, rate);
            if let Some(state) = self.groups.get_mut(&group).filter(|_| other_keys) {
                state.keys = Keys::of_queue(settings, state.kind);
            }
            // What is allowed now may let a job go out.
            wake(&mut self.groups, &mut self.woken, group);
        }
        self.forget_ranks_within(queue, Offset(0)..Offset(u64::MAX));
        Ok(())
    }

    pub(super) fn forget_dead_ends(&mut self, group: GroupId) {
        for end in self.dead_ends_of(group) {
            self.dead_ends.remove(&end);
        }
    }

    fn note_dead_ends(&mut self, group: GroupId) {
        let ends = self.dead_ends_of(group);
        self.dead_ends.extend(ends);
    }
}
