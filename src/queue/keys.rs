//! Jobs of one key that must not be out all at once: order by key, and concurrency by key.
//!
//! A key has so many *places* in a group; one, where the queue is ordered by key. When the pointer
//! passes a job with a key, the job takes a place, and is at hand for the next FETCH; or it is
//! *parked*, if none is free. A job that ends or steps aside leaves its place to the parked job of
//! the key with the lowest offset.
//!
//! The machine has no bodies, and nothing is kept of jobs that the pointer has not reached. So the
//! one who grants reads the keys ahead of the pointer (`Machine::next_unread`), and what it has
//! read is a fact (`GroupFact::KeysRead`). A key is known by its hash: two keys with one hash share
//! their places, which costs speed and no promise.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{GroupKind, QueueSettings};
use crate::types::{KeyHash, Offset};

/// What the settings of a queue say about the jobs of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyRule {
    /// How many of them may be out or at hand at a time.
    places: u32,
    /// Whether a job that waits for its next delivery keeps its place.
    delayed_stays: bool,
    /// Whether a dead job keeps its place.
    dead_stays: bool,
}

/// What a group knows of the keys of its jobs.
///
/// A job with a key that the pointer has passed holds a place, is parked, or is away, until it is
/// consumed. **Invariant:** while a job of a key is parked, all places of the key are taken.
#[derive(Debug)]
pub(super) struct Keys {
    rule: KeyRule,
    /// The keys of those jobs.
    hashes: FxHashMap<Offset, KeyHash>,
    /// How many places of a key are taken. Keys of which none is are not in it.
    taken: FxHashMap<KeyHash, u32>,
    parked: BTreeSet<(KeyHash, Offset)>,
    /// Jobs that have given their place up and may come back: delayed or dead ones.
    away: FxHashSet<Offset>,
    /// Jobs that can be fetched and never were. Those with a key hold a place.
    passed: BTreeSet<Offset>,
    /// Jobs that the pointer passed before they were due, and that are due now.
    unread: BTreeSet<Offset>,
}

/// Where a job stands that the pointer of a group has passed, as far as its key is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyedPlace {
    /// It holds a place of its key: it is out, waits to be delivered again, or is dead.
    Holding,
    /// It waits for a place.
    Parked,
    /// It has given its place up: it is delayed or dead.
    Away,
    /// It can be fetched and never was; with a place of its key, if it has one.
    Passed,
    /// Its key is still to be read.
    Unread,
}

/// The cost of a job of which the key is known, in `hashes`, and the cost of being parked.
const _: () = assert!(size_of::<(Offset, KeyHash)>() == 16);

impl KeyRule {
    fn of(settings: &QueueSettings) -> Option<Self> {
        let ordered = settings.ordered_by_key;
        let places = if ordered { Some(1) } else { settings.key_concurrency_max };
        let dead_stays = settings.dead_keeps_key;
        places.map(|places| Self { places, delayed_stays: ordered, dead_stays })
    }
}

impl QueueSettings {
    /// Whether keys matter.
    pub(super) fn has_key_rule(&self) -> bool {
        KeyRule::of(self).is_some()
    }

    /// Whether the others say the same about keys.
    pub(super) fn has_key_rule_of(&self, others: &Self) -> bool {
        KeyRule::of(self) == KeyRule::of(others)
    }
}

impl Keys {
    /// For a new group; none where the queue has no rule for keys.
    pub(super) fn of_queue(settings: &QueueSettings, kind: GroupKind) -> Option<Box<Self>> {
        let rule = KeyRule::of(settings).filter(|_| kind == GroupKind::Work)?;
        Some(Box::new(Self {
            rule,
            hashes: FxHashMap::default(),
            taken: FxHashMap::default(),
            parked: BTreeSet::new(),
            away: FxHashSet::default(),
            passed: BTreeSet::new(),
            unread: BTreeSet::new(),
        }))
    }

    /// How many jobs can be fetched now, or could be if their key lets them.
    pub(super) fn ready_count(&self) -> u64 {
        (self.passed.len() + self.unread.len()) as u64
    }

    pub(super) fn parked_count(&self) -> u64 {
        self.parked.len() as u64
    }

    /// The jobs that can be fetched and never were, by offset.
    pub(super) fn passed(&self) -> &BTreeSet<Offset> {
        &self.passed
    }

    /// The jobs that are due now and that the pointer passed before, by offset.
    pub(super) fn unread(&self) -> &BTreeSet<Offset> {
        &self.unread
    }

    /// Lets a job be fetched that was never out, and that has its place if it has a key.
    pub(super) fn let_pass(&mut self, offset: Offset) {
        self.passed.insert(offset);
    }

    /// Has the key of a job be read that the pointer has passed before it was due.
    pub(super) fn let_read(&mut self, offset: Offset) {
        self.unread.insert(offset);
    }

    /// Whether it knows of no job.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty() && self.passed.is_empty() && self.unread.is_empty()
    }

    /// Where a job stands; none if it is consumed, has no key and was out, or was not reached yet.
    pub(super) fn place(&self, offset: Offset) -> Option<KeyedPlace> {
        if self.unread.contains(&offset) {
            return Some(KeyedPlace::Unread);
        }
        if self.passed.contains(&offset) {
            return Some(KeyedPlace::Passed);
        }
        let hash = *self.hashes.get(&offset)?;
        Some(match () {
            () if self.parked.contains(&(hash, offset)) => KeyedPlace::Parked,
            () if self.away.contains(&offset) => KeyedPlace::Away,
            () => KeyedPlace::Holding,
        })
    }

    /// Every job of which something is known, by offset.
    pub(super) fn all(&self) -> impl Iterator<Item = (Offset, Option<KeyHash>, KeyedPlace)> {
        let known = self.hashes.keys().chain(&self.passed).chain(&self.unread).copied();
        let mut offsets: Vec<Offset> = known.collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets.into_iter().filter_map(|offset| {
            let key = self.hashes.get(&offset).copied();
            Some((offset, key, self.place(offset)?))
        })
    }

    /// Takes a job back from a record; false if it is known already, or cannot be so.
    pub(super) fn restore(
        &mut self,
        offset: Offset,
        key: Option<KeyHash>,
        place: KeyedPlace,
    ) -> bool {
        if self.place(offset).is_some() {
            return false;
        }
        self.hashes.extend(key.map(|key| (offset, key)));
        match (place, key) {
            (KeyedPlace::Holding, Some(key)) => self.take_place(key),
            (KeyedPlace::Parked, Some(key)) => drop(self.parked.insert((key, offset))),
            (KeyedPlace::Away, Some(_)) => drop(self.away.insert(offset)),
            (KeyedPlace::Passed, key) => {
                self.passed.insert(offset);
                key.into_iter().for_each(|key| self.take_place(key));
            }
            (KeyedPlace::Unread, None) => drop(self.unread.insert(offset)),
            _ => return false,
        }
        true
    }

    /// Whether no job is parked that could go.
    pub(super) fn parks_only_what_it_must(&self) -> bool {
        self.parked.iter().all(|(key, _)| !self.has_place(*key))
    }

    /// Whether a job that is delayed, or dead, keeps its place.
    pub(super) fn stays(&self, dead: bool) -> bool {
        if dead { self.rule.dead_stays } else { self.rule.delayed_stays }
    }

    pub(super) fn has_place(&self, key: KeyHash) -> bool {
        self.taken.get(&key).is_none_or(|taken| *taken < self.rule.places)
    }

    fn take_place(&mut self, key: KeyHash) {
        *self.taken.entry(key).or_default() += 1;
    }

    /// Gives a place of a key up. The parked job that has it now, if there is one.
    fn free_place(&mut self, key: KeyHash) -> Option<Offset> {
        let taken = self.taken.get_mut(&key)?;
        if *taken <= self.rule.places
            && let Some(next) = self.parked.range(all_of(key)).next().copied()
        {
            self.parked.remove(&next);
            return Some(next.1);
        }
        *taken -= 1;
        if *taken == 0 {
            self.taken.remove(&key);
        }
        None
    }

    /// Lets a job wait for a place, or take one: true then.
    fn take_or_park(&mut self, offset: Offset, key: KeyHash) -> bool {
        let free = self.has_place(key);
        if free {
            self.take_place(key);
        } else {
            self.parked.insert((key, offset));
        }
        free
    }

    /// Takes note of the key of a job that the pointer passes, or did before it was due.
    pub(super) fn pass(&mut self, offset: Offset, key: Option<KeyHash>) {
        self.unread.remove(&offset);
        self.hashes.extend(key.map(|key| (offset, key)));
        if key.is_none_or(|key| self.take_or_park(offset, key)) {
            self.passed.insert(offset);
        }
    }

    /// Takes a job that is about to go out from those at hand. True if it was never out.
    pub(super) fn grant(&mut self, offset: Offset) -> bool {
        // Only a log of other rules grants a job that is away.
        if self.away.remove(&offset)
            && let Some(key) = self.hashes.get(&offset).copied()
        {
            self.take_place(key);
        }
        self.passed.remove(&offset)
    }

    /// Forgets a job that is consumed. The parked job that has its place now, if there is one.
    pub(super) fn forget(&mut self, offset: Offset) -> Option<Offset> {
        self.passed.remove(&offset);
        self.unread.remove(&offset);
        let key = self.hashes.remove(&offset)?;
        let has_place = !self.parked.remove(&(key, offset)) && !self.away.remove(&offset);
        if has_place { self.free_place(key) } else { None }
    }

    /// Has a job give its place up until it comes back. The parked job that has it now.
    pub(super) fn step_aside(&mut self, offset: Offset) -> Option<Offset> {
        let key = *self.hashes.get(&offset)?;
        if self.away.insert(offset) { self.free_place(key) } else { None }
    }

    /// Lets a job that is not delayed or dead any more be fetched again, or wait for a place:
    /// false then.
    pub(super) fn come_back(&mut self, offset: Offset) -> bool {
        match self.hashes.get(&offset).copied() {
            Some(key) if self.away.remove(&offset) => self.take_or_park(offset, key),
            _ => true,
        }
    }
}

fn all_of(key: KeyHash) -> RangeInclusive<(KeyHash, Offset)> {
    (key, Offset(0))..=(key, Offset(u64::MAX))
}
