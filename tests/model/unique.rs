//! Unique keys: which job holds which, and what new ones with the same meet.

use std::collections::BTreeMap;

use joblog::queue::{Fact, GroupKind, JobFact, UniqueHit, UniqueInfo, UniquePlan, WishedKey};
use joblog::types::{Offset, QueueId};

use crate::world::{Place, World};

/// The unique keys of one queue.
#[derive(Default)]
pub(crate) struct Keys {
    /// Who holds a key, and until when if for a time.
    held: BTreeMap<Vec<u8>, (u64, Option<u64>)>,
    duplicates: u64,
    replaced: u64,
}

/// What a job of a new batch wants.
pub(crate) struct Wanted {
    pub(crate) key: Vec<u8>,
    window_ms: Option<u64>,
    replace: bool,
    pub(crate) due_ms: Option<u64>,
}

impl World {
    /// Keys for some of the jobs of a new batch. Few keys, so that they are met.
    pub(crate) fn wanted_keys(&mut self, count: u32) -> BTreeMap<u32, Wanted> {
        let mut wanted = BTreeMap::new();
        for ordinal in 0..count {
            if self.rng.below(3) > 0 {
                continue;
            }
            let key = vec![b'k', self.rng.below(12) as u8];
            let window_ms = (self.rng.below(4) == 0).then(|| 1 + self.rng.below(40_000));
            let due_ms = self.log_ms + 1 + self.rng.below(30_000);
            let due_ms = (self.rng.below(2) == 0).then_some(due_ms);
            let replace = self.rng.below(3) == 0;
            wanted.insert(ordinal, Wanted { key, window_ms, replace, due_ms });
        }
        wanted
    }

    /// What the machine plans for them, which must be what the model says.
    pub(crate) fn plan(
        &mut self,
        queue: QueueId,
        base: Offset,
        wanted: &BTreeMap<u32, Wanted>,
    ) -> UniquePlan {
        let wishes = wanted.iter().map(|(ordinal, wanted)| WishedKey {
            ordinal: *ordinal,
            key: &wanted.key,
            window_ms: wanted.window_ms,
            replace: wanted.replace,
            delayed: wanted.due_ms.is_some(),
        });
        let plan = self.machine.plan_unique(queue, base, wishes, self.log_ms, |_| false);
        let mut holders: BTreeMap<&[u8], (u64, bool)> = BTreeMap::new();
        for (key, (offset, _)) in &self.keys[&queue].held {
            holders.insert(key, (*offset, self.delayed.contains_key(&(queue, *offset))));
        }
        let (mut hits, mut duplicates) = (Vec::new(), 0);
        for (ordinal, wanted) in wanted {
            let offset = base.0 + u64::from(*ordinal) - duplicates;
            if let Some((holder, delayed)) = holders.get(&wanted.key[..]) {
                let replaced = wanted.replace && *delayed;
                self.seen.insert(match (replaced, *holder >= base.0) {
                    (true, false) => "replaced",
                    (true, true) => "replaced in the batch",
                    (false, false) => "duplicate",
                    (false, true) => "duplicate in the batch",
                });
                hits.push(UniqueHit { ordinal: *ordinal, offset: Offset(*holder), replaced });
                if !replaced {
                    duplicates += 1;
                    continue;
                }
            }
            holders.insert(&wanted.key, (offset, wanted.due_ms.is_some()));
        }
        assert_eq!(plan.hits, hits);
        plan
    }

    pub(crate) fn note_keys(&mut self, queue: QueueId, fact: &Fact) {
        let keys = self.keys.get_mut(&queue).unwrap();
        match fact {
            Fact::Job(JobFact::KeysHeld { keys: new, .. }) => {
                for held in new {
                    let value = (held.offset.0, held.until_log_ms);
                    assert!(keys.held.insert(held.key.to_vec(), value).is_none(), "held twice");
                }
            }
            Fact::Job(JobFact::UniqueHits { hits, batch, first, count, .. }) => {
                let replaced = hits.iter().filter(|hit| hit.replaced).count() as u64;
                keys.replaced += replaced;
                keys.duplicates += hits.len() as u64 - replaced;
                if let Some(batch) = batch {
                    self.note_batch(queue, *batch, *first, *count, hits.clone());
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Frees the key of a job that gave way.
    pub(crate) fn free_replaced(&mut self, queue: QueueId, offset: u64) {
        self.keys.get_mut(&queue).unwrap().held.retain(|_, (holder, _)| *holder != offset);
    }

    /// Frees what is free by now: to be asked after every fact and when time has passed.
    pub(crate) fn free_keys(&mut self) {
        let log_ms = self.log_ms;
        for (queue, mut keys) in std::mem::take(&mut self.keys) {
            keys.held.retain(|_, (offset, until_ms)| match until_ms {
                Some(until_ms) => *until_ms > log_ms,
                None => !self.is_done(queue, *offset),
            });
            self.keys.insert(queue, keys);
        }
    }

    fn is_done(&self, queue: QueueId, offset: u64) -> bool {
        let primary = self.machine.group_id(queue, &self.settings[&queue].primary_group);
        let withdrawn = self.gone.contains(&(queue, offset));
        let consumed = |place: &Place| *place == Place::Consumed;
        if let Some(group) = primary.map(|id| &self.groups[&id]) {
            let job = group.jobs.get(&offset);
            let is_stream = group.kind == GroupKind::Stream;
            return job.is_none_or(|job| consumed(&job.place)) || (is_stream && withdrawn);
        }
        let groups = self.groups.values().filter(|group| group.queue == queue);
        let mut places = groups.filter_map(|group| group.jobs.get(&offset)).peekable();
        let seen = places.peek().is_some();
        withdrawn
            || self.kept[&queue].gone.contains(&offset)
            || (seen && places.all(|job| consumed(&job.place)))
    }

    pub(crate) fn check_keys(&self) {
        for (queue, keys) in &self.keys {
            for (key, (offset, _)) in &keys.held {
                assert_eq!(self.machine.holder(*queue, key), Some(Offset(*offset)), "{key:?}");
            }
            let held = keys.held.len() as u64;
            let Keys { duplicates, replaced, .. } = *keys;
            let info = UniqueInfo { held, duplicates, replaced };
            assert_eq!(self.machine.queue(*queue).unwrap().unique, info);
        }
    }
}
