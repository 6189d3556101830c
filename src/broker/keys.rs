//! Reading the keys of jobs, for queues where they matter, before a FETCH takes jobs from them.
//!
//! The state machine has no bodies, so a FETCH reads keys from the log ahead of a group's pointer
//! until it has as many jobs as it wants. How many keys one turn reads is bounded, so that a long
//! row of jobs that can't go does not hold the lock; where it finds nothing within that, and
//! somebody waits, the timer goes on at once with a turn of its own.

use super::error::BrokerError;
use super::fetch::Place;
use super::turn::{JobBatch, Turn};
use crate::queue::Rank;
use crate::types::{GroupId, KeyHash, Offset, QueueId};

/// The function that finds the key of a job in its body, for one who knows its layout.
pub type KeyOf = fn(&[u8]) -> Option<KeyHash>;

/// Keys that one turn reads: about a millisecond.
pub(super) const KEYS_PER_TURN_MAX: usize = 4_096;

/// Keys in one fact: 21 bytes each.
const KEYS_PER_FACT_MAX: usize = 1_024;

impl Turn<'_> {
    /// Refuses jobs with a rank for a queue where keys matter.
    ///
    /// # Errors
    /// `RankByKey`.
    pub(super) fn check_ranks(
        &self,
        id: QueueId,
        queue: &str,
        batch: &JobBatch<'_>,
    ) -> Result<(), BrokerError> {
        let mut wishes = batch.wishes.iter();
        let is_ranked = wishes.any(|(_, wish)| wish.rank != Rank::ORDINARY);
        if is_ranked && self.core.machine.has_key_rule(id) {
            return Err(BrokerError::RankByKey { queue: queue.to_owned() });
        }
        Ok(())
    }

    /// Whether something can be taken from one of these groups.
    pub(super) fn is_ready(&mut self, places: &[Place]) -> bool {
        let mut groups = places.iter().filter_map(|place| place.group());
        groups.any(|(queue, group)| self.has_one(queue, group))
    }

    fn has_one(&mut self, queue: QueueId, group: GroupId) -> bool {
        if !self.core.machine.has_for_fetch(group) {
            return false;
        }
        if !self.core.machine.is_keyed(group) {
            return true;
        }
        self.read_keys(queue, group, 1);
        self.core.machine.at_hand_count(group) > 0
    }

    /// Reads keys until `wanted` jobs of a group are at hand, as far as there are so many and the
    /// turn goes.
    pub(super) fn read_keys(&mut self, queue: QueueId, group: GroupId, wanted: usize) {
        let mut unread: Vec<Offset> = Vec::new();
        let mut count_max = wanted;
        while self.core.machine.at_hand_count(group) < wanted {
            unread.clear();
            count_max = count_max.min(KEYS_PER_FACT_MAX).min(self.keys_left);
            self.core.machine.next_unread(group, count_max.max(1), &mut unread);
            if unread.is_empty() {
                return;
            }
            if self.keys_left == 0 {
                self.core.unread.push(group);
                return;
            }
            self.keys_left -= unread.len();
            let key_of = |offset| self.log.with_body(queue, offset, self.key_of).flatten();
            let keys: Vec<_> = unread.iter().map(|offset| (*offset, key_of(*offset))).collect();
            let Some(fact) = self.core.machine.pass(group, &keys) else { return };
            self.record(&fact);
            // What was read in vain tells that there may be more of it.
            count_max *= 2;
        }
    }
}
