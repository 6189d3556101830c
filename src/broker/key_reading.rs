//! Reading the keys of jobs, for queues where they matter, before a FETCH takes jobs from them.
//!
//! The state machine has no bodies, so a FETCH reads keys from the log ahead of a group's pointer
//! until it has as many jobs as it wants. How many keys one turn reads is bounded, so that a long
//! row of jobs that can't go does not hold the lock; where it finds nothing within that, and
//! somebody waits, the timer goes on at once with a turn of its own.

use joblog_protocol::job;
use siphasher::sip::SipHasher13;

use super::error::BrokerError;
use super::fetch::Place;
use super::turn::{JobBatch, Turn};
use crate::types::{GroupId, KeyHash, Offset, QueueId};

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
        let is_ranked = batch.asked.iter().any(|(_, asked)| asked.terms.is_ranked());
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
            let key_of = |offset| self.log.with_body(queue, offset, key_hash).flatten();
            let keys: Vec<_> = unread.iter().map(|offset| (*offset, key_of(*offset))).collect();
            let Some(fact) = self.core.machine.pass(group, &keys) else { return };
            self.record(&fact);
            // What was read in vain tells that there may be more of it.
            count_max *= 2;
        }
    }
}

/// What the key in a job's body is known by, if it has one that can be read: SipHash-1-3 under a
/// key of zeros. It stands in the log, so it stays what it is.
fn key_hash(body: &[u8]) -> Option<KeyHash> {
    job::key_of(body).map(|key| KeyHash(SipHasher13::new().hash(key)))
}

#[cfg(test)]
mod tests {
    use joblog_protocol::job::Job;

    use super::*;

    #[test]
    fn the_hash_of_a_key_is_what_it_was_in_every_log() {
        let hash_of = |key: &[u8]| {
            let mut body = Vec::new();
            let job = Job { key: Some(key.to_vec()), ..Job::new("hello") };
            job.put_body(&mut body).unwrap();
            key_hash(&body)
        };
        assert_eq!(hash_of(b"user-7"), Some(KeyHash(0xec60_244a_7350_3c84)));
        assert_eq!(hash_of(b""), Some(KeyHash(0xd1fb_a762_150c_532c)));
        assert_eq!(key_hash(&[0, 0, 0, 0, b'x']), None);
        assert_eq!(key_hash(b"x"), None);
    }
}
