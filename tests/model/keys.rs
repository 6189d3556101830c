//! Order and concurrency by key: a model that counts the jobs of a key one by one.

use std::collections::BTreeSet;

use joblog::queue::{Fact, GroupFact, QueueSettings, Refusal};
use joblog::types::{GroupId, KeyHash, Offset, QueueId};

use crate::world::{Group, Job, Place, World};

/// Queues where keys matter.
pub(crate) const KEYED_QUEUE_NAMES: [&str; 3] = ["orders", "ledger", "tenants"];

const KEY_COUNT: u64 = 4;

/// Small, so that the pointer has to wait now and then.
const PARKED_MAX: u64 = 5;

/// What a queue's settings say about keys.
pub(crate) fn with_keys(queue: &str, settings: QueueSettings) -> QueueSettings {
    match queue {
        "orders" => QueueSettings { ordered_by_key: true, ..settings },
        "ledger" => QueueSettings {
            ordered_by_key: true,
            dead_keeps_key: true,
            parked_max: PARKED_MAX,
            ..settings
        },
        "tenants" => QueueSettings { key_concurrency_max: Some(2), ..settings },
        _ => settings,
    }
}

pub(crate) fn has_key_rule(settings: &QueueSettings) -> bool {
    settings.ordered_by_key || settings.key_concurrency_max.is_some()
}

/// One job in five has no key.
fn key_of(queue: QueueId, offset: u64) -> Option<KeyHash> {
    let noise = (offset + u64::from(queue.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    (!noise.is_multiple_of(KEY_COUNT + 1)).then_some(KeyHash(noise % (KEY_COUNT + 1)))
}

impl World {
    pub(crate) fn is_keyed(&self, group: GroupId) -> bool {
        has_key_rule(self.settings_of(group))
    }

    fn holds_place(&self, group: &Group, place: &Place) -> bool {
        let settings = &self.settings[&group.queue];
        match place {
            Place::Again | Place::AtHand | Place::Leased(_) => true,
            Place::Delayed(_) => settings.ordered_by_key,
            Place::Dead(_) => settings.dead_keeps_key,
            _ => false,
        }
    }

    fn jobs_of_key<'a>(
        &self,
        group: &'a Group,
        key: KeyHash,
    ) -> impl Iterator<Item = (u64, &'a Job)> + use<'a> {
        let queue = group.queue;
        // What lies below is consumed, and takes part in nothing.
        let jobs = group.jobs.range(group.committed..).map(|(offset, job)| (*offset, job));
        jobs.filter(move |(offset, _)| key_of(queue, *offset) == Some(key))
    }

    /// How many places of a key are free.
    fn free_places(&self, id: GroupId, key: KeyHash) -> usize {
        let group = &self.groups[&id];
        let places = self.settings_of(id).key_concurrency_max.unwrap_or(1) as usize;
        let jobs = self.jobs_of_key(group, key);
        places - jobs.filter(|(_, job)| self.holds_place(group, &job.place)).count()
    }

    fn parked_count(&self, id: GroupId) -> u64 {
        let group = &self.groups[&id];
        let jobs = group.jobs.range(group.committed..);
        jobs.filter(|(_, job)| job.place == Place::Parked).count() as u64
    }

    /// Reads keys ahead of the pointer, as a FETCH does.
    pub(crate) fn read_keys(&mut self, id: GroupId) {
        let count_max = self.rng.below(6) as usize;
        let mut found = Vec::new();
        self.machine.next_unread(id, count_max, &mut found);
        let group = &self.groups[&id];
        let at = |place: Place| {
            let jobs = group.jobs.iter().filter(move |(_, job)| job.place == place);
            jobs.map(|(offset, _)| Offset(*offset))
        };
        let expected: Vec<_> = at(Place::Passed).chain(at(Place::Fresh)).take(count_max).collect();
        assert_eq!(found, expected);
        let keyed = |offset: &Offset| (*offset, key_of(group.queue, offset.0));
        let keyed: Vec<_> = found.iter().map(keyed).collect();
        let first_goes = keyed
            .first()
            .is_some_and(|(_, key)| key.is_none_or(|key| self.free_places(id, key) > 0));
        let room = self.settings_of(id).parked_max.saturating_sub(self.parked_count(id));
        assert_eq!(self.machine.group(id).unwrap().counts.parked_full, room == 0);
        match self.machine.pass(id, &keyed) {
            Some(fact) => self.record(fact),
            None if keyed.is_empty() => {}
            None => {
                assert!(room == 0 && !first_goes);
                self.seen.insert("pointer waits");
            }
        }
    }

    pub(crate) fn note_passed(&mut self, id: GroupId, offset: u64, key: Option<KeyHash>) {
        assert_eq!(key, key_of(self.groups[&id].queue, offset));
        let goes = key.is_none_or(|key| self.free_places(id, key) > 0);
        let parked = self.parked_count(id);
        let group = &self.groups[&id];
        assert!(goes || parked < self.settings_of(id).parked_max);
        let late = group.jobs[&offset].place == Place::Passed;
        let is_open = |job: &Job| matches!(job.place, Place::Passed | Place::Fresh);
        let first = group.jobs.iter().find(|(_, job)| is_open(job));
        assert!(late || first.is_some_and(|(first, _)| *first == offset));
        let job = self.job_mut(id, Offset(offset));
        assert!(is_open(job), "{job:?}");
        job.late |= late;
        job.place = if goes { Place::AtHand } else { Place::Parked };
        if !goes {
            self.seen.insert(if late { "parked late" } else { "parked" });
        }
    }

    /// Lets a job that was away come back: to be fetched again, or to wait for its key.
    pub(crate) fn note_back(&mut self, id: GroupId, offset: u64) {
        let group = &self.groups[&id];
        let holds = self.holds_place(group, &group.jobs[&offset].place);
        let key = if self.is_keyed(id) { key_of(group.queue, offset) } else { None };
        let goes = holds || key.is_none_or(|key| self.free_places(id, key) > 0);
        let job = self.job_mut(id, Offset(offset));
        job.late |= !holds;
        job.place = if goes { Place::Again } else { Place::Parked };
        if !goes {
            self.seen.insert("parked again");
        }
    }

    /// Lets parked jobs go whose keys have become free: the lowest first.
    pub(crate) fn unpark(&mut self) {
        let keyed = self.groups.keys().copied().filter(|id| self.is_keyed(*id));
        for id in keyed.collect::<Vec<_>>() {
            let group = &self.groups[&id];
            let parked =
                group.jobs.range(group.committed..).filter(|(_, job)| job.place == Place::Parked);
            let parked: Vec<_> = parked.map(|(offset, _)| *offset).collect();
            for offset in parked {
                let key = key_of(self.groups[&id].queue, offset).unwrap();
                if self.free_places(id, key) > 0 {
                    let job = self.job_mut(id, Offset(offset));
                    job.place = if job.deliveries > 0 { Place::Again } else { Place::AtHand };
                    self.seen.insert("unparked");
                }
            }
        }
    }

    /// What a queue with keys promises about the job that goes out now.
    pub(crate) fn check_key_of_granted(&mut self, id: GroupId, offset: u64) {
        let group = &self.groups[&id];
        let (queue, ordered) = (group.queue, self.settings_of(id).ordered_by_key);
        let Some(key) = key_of(queue, offset).filter(|_| self.is_keyed(id)) else { return };
        let jobs: Vec<_> = self.jobs_of_key(group, key).collect();
        let leased = jobs.iter().filter(|(_, job)| matches!(job.place, Place::Leased(_))).count();
        let places = self.settings_of(id).key_concurrency_max.unwrap_or(1) as usize;
        assert!(leased < places, "{offset} goes out beside {leased} of its key");
        let mut before = jobs.iter().filter(|(other, _)| *other < offset);
        let is_before = |job: &Job| match job.place {
            Place::Again | Place::Delayed(_) | Place::Leased(_) => true,
            Place::Fresh | Place::AtHand => true,
            Place::Parked => !job.late,
            Place::Dead(_) => self.settings_of(id).dead_keeps_key,
            Place::NotDue(_) | Place::Passed | Place::Consumed => false,
        };
        // Those that came into the order later than others must wait for those.
        assert!(!ordered || !before.any(|(_, job)| is_before(job)), "{offset} overtakes: {jobs:?}");
        self.seen.insert("granted by key");
    }

    /// Asks for another rule for keys: it is refused while there are jobs.
    pub(crate) fn change_keys(&mut self, queue: QueueId) {
        let mut new = self.settings[&queue].clone();
        match self.rng.below(3) {
            0 => (new.ordered_by_key, new.key_concurrency_max) = (false, Some(3)),
            1 => (new.ordered_by_key, new.key_concurrency_max) = (true, None),
            _ => new = crate::settings(self.queues[&queue]),
        }
        let old = &self.settings[&queue];
        let rule = |settings: &QueueSettings| {
            let ordered = settings.ordered_by_key;
            let places = settings.key_concurrency_max;
            has_key_rule(settings).then_some((ordered, places, settings.dead_keeps_key))
        };
        let unconsumed = self.machine.queue(queue).unwrap().unconsumed;
        let updated = self.machine.update_queue(queue, new.clone());
        if rule(old) != rule(&new) && unconsumed > 0 {
            assert_eq!(updated, Err(Refusal::KeysInUse { unconsumed }));
            self.seen.insert("keys in use");
        } else if let Some(fact) = updated.unwrap() {
            self.record(fact);
            self.seen.insert("other keys");
        }
    }

    /// No key has more places than it may, and none that is free while a job of it is parked.
    pub(crate) fn check_places(&self, id: GroupId) {
        let group = &self.groups[&id];
        let keys: BTreeSet<_> = group.jobs.keys().filter_map(|o| key_of(group.queue, *o)).collect();
        for key in keys {
            let free = self.free_places(id, key);
            let mut jobs = self.jobs_of_key(group, key);
            assert!(free == 0 || jobs.all(|(_, job)| job.place != Place::Parked));
        }
        assert_eq!(self.machine.group(id).unwrap().counts.parked, self.parked_count(id));
        assert!(self.machine.is_keyed(id));
    }

    pub(crate) fn note_keys_read(&mut self, fact: &Fact) {
        if let Fact::Group(GroupFact::KeysRead { group, runs }) = fact {
            for (run, key) in runs {
                run.offsets().for_each(|offset| self.note_passed(*group, offset.0, *key));
            }
        }
    }
}
