//! Limits: how many jobs a group has out at once, and how many it is given per second.

use joblog::queue::QueueSettings;
use joblog::types::{GroupId, QueueId};

use crate::world::{Place, World};

/// Thousandths of a job, and as of when.
pub(crate) type Bucket = (u64, u64);

impl World {
    /// Other limits, or none.
    pub(crate) fn draw_limits(&mut self, new: &mut QueueSettings) {
        new.max_in_flight = [None, Some(1), Some(3)][self.rng.below(3) as usize];
        let (rate, burst) = match self.rng.below(4) {
            0 => (Some(1), None),
            1 => (Some(3), Some(5)),
            2 => (Some(700), Some(1)),
            _ => (None, None),
        };
        (new.rate_per_second, new.rate_burst) = (rate, burst);
    }

    fn rate(settings: &QueueSettings) -> Option<(u64, u64)> {
        let rate = settings.rate_per_second?;
        Some((rate, 1_000 * settings.rate_burst.unwrap_or(rate)))
    }

    fn filled(&self, bucket: Bucket, (rate, most): (u64, u64)) -> Bucket {
        ((bucket.0 + (self.log_ms - bucket.1) * rate).min(most), self.log_ms)
    }

    /// How many jobs the group may be given now.
    pub(crate) fn room(&self, id: GroupId) -> u64 {
        let (group, settings) = (&self.groups[&id], self.settings_of(id));
        let is_out = |place: &Place| matches!(place, Place::Leased(_));
        let out = group.jobs.values().filter(|job| is_out(&job.place)).count() as u64;
        let places = settings.max_in_flight.map_or(u64::MAX, |most| most.saturating_sub(out));
        match Self::rate(settings) {
            Some(rate) => places.min(self.filled(self.buckets[&id], rate).0 / 1_000),
            None => places,
        }
    }

    pub(crate) fn note_new_bucket(&mut self, id: GroupId) {
        if let Some((_, most)) = Self::rate(self.settings_of(id)) {
            self.buckets.insert(id, (most, self.log_ms));
        }
    }

    pub(crate) fn note_taken(&mut self, id: GroupId, count: u64) {
        if let Some(rate) = Self::rate(self.settings_of(id)) {
            let (held, at_ms) = self.filled(self.buckets[&id], rate);
            self.buckets.insert(id, (held - 1_000 * count, at_ms));
            self.seen.insert("rate");
        }
        if self.room(id) == 0 {
            self.seen.insert("no room");
        }
    }

    pub(crate) fn note_limits(&mut self, queue: QueueId, old: &QueueSettings) {
        let ids: Vec<_> = self.groups.iter().filter(|(_, group)| group.queue == queue).collect();
        let ids: Vec<_> = ids.into_iter().map(|(id, _)| *id).collect();
        for id in ids {
            match (Self::rate(old), Self::rate(self.settings_of(id))) {
                (Some(old), Some(new)) => {
                    let (held, at_ms) = self.filled(self.buckets[&id], old);
                    self.buckets.insert(id, (held.min(new.1), at_ms));
                }
                (None, _) => self.note_new_bucket(id),
                (Some(_), None) => drop(self.buckets.remove(&id)),
            }
        }
    }

    /// A group that has emptied its bucket is woken when it holds a job again, and not before.
    pub(crate) fn check_refills(&self) {
        let next = self.machine.next_refill_log_ms();
        assert!(next.is_none_or(|at_ms| at_ms > self.log_ms), "{next:?} is over");
        let due = self.buckets.iter().filter_map(|(id, bucket)| {
            let (rate, _) = Self::rate(self.settings_of(*id))?;
            let missing = 1_000_u64.checked_sub(bucket.0).filter(|missing| *missing > 0)?;
            Some(bucket.1 + missing.div_ceil(rate))
        });
        assert_eq!(next, due.filter(|at_ms| *at_ms > self.log_ms).min());
    }
}
