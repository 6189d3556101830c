//! Settings that change while the queue is in use.

use joblog::queue::{Fact, QueueSettings, Refusal};
use joblog::types::{GroupId, QueueId};

use crate::keys::KEYED_QUEUE_NAMES;
use crate::world::World;
use crate::{DEAD_KEPT_MS, GROUP_NAMES, KEEP_MS, QUEUE_NAMES, settings};

impl World {
    pub(crate) fn settings_of(&self, group: GroupId) -> &QueueSettings {
        &self.settings[&self.groups[&group].queue]
    }

    pub(crate) fn keeps(&self, queue: QueueId) -> bool {
        self.settings[&queue].keep_consumed_for_ms > 0
    }

    pub(crate) fn update(&mut self) {
        let ids: Vec<_> = self.queues.keys().copied().collect();
        let Some(queue) = self.rng.one_of(&ids) else {
            return;
        };
        if self.names == KEYED_QUEUE_NAMES && self.rng.below(3) == 0 {
            return self.change_keys(queue);
        }
        let mut new = self.settings[&queue].clone();
        let own = settings(self.queues[&queue]);
        match self.rng.below(13) {
            0 => new.failures_max = self.rng.below(4) as u32,
            1 => new.crashes_max = self.rng.below(4) as u32,
            2 => new.backoff_delays_ms = vec![700; self.rng.below(3) as usize],
            3 | 9..12 => new.dead_kept_ms = [0, 1_000, DEAD_KEPT_MS][self.rng.below(3) as usize],
            4 if self.rng.below(2) == 0 => self.draw_limits(&mut new),
            4 => new.max_bytes = [None, Some(1 << 20)][self.rng.below(2) as usize],
            5..8 => {
                new.keep_consumed_for_ms = [0, KEEP_MS, KEEP_MS / 2][self.rng.below(3) as usize]
            }
            8 => new.primary_group = self.rng.one_of(&GROUP_NAMES).unwrap().into(),
            _ => {
                let doubled = if new.parked_max == own.parked_max { 2 } else { 1 };
                let parked_max = doubled * own.parked_max;
                let QueueSettings { ordered_by_key, key_concurrency_max, .. } = new;
                new = QueueSettings { parked_max, ordered_by_key, key_concurrency_max, ..own };
            }
        }
        let wrong = QueueSettings { backoff_first_ms: 0, ..new.clone() };
        let refused = self.machine.update_queue(queue, wrong);
        assert!(matches!(refused, Err(Refusal::Settings(_))));
        let fact = self.machine.update_queue(queue, new.clone()).unwrap();
        match fact {
            None => assert_eq!(new, self.settings[&queue]),
            Some(fact) => {
                self.record(fact);
                self.check_all();
                self.seen.insert("updated");
            }
        }
        let unknown = QueueId(u32::MAX);
        assert_eq!(self.machine.update_queue(unknown, new), Err(Refusal::NoSuchQueue));
    }

    pub(crate) fn note_updated(&mut self, queue: QueueId, new: &QueueSettings) {
        self.settle(queue);
        let kept = self.keeps(queue);
        let old = self.settings.insert(queue, new.clone()).unwrap();
        self.note_limits(queue, &old);
        match (kept, self.keeps(queue)) {
            (false, true) => {
                self.kept.get_mut(&queue).unwrap().begin(self.log_ms);
                self.seen.insert("keeps from now");
            }
            (true, false) => {
                self.settle(queue);
                self.seen.insert("keeps no more");
            }
            _ => {}
        }
        let mut woken = Vec::new();
        self.machine.take_woken(&mut woken);
        for (id, group) in &self.groups {
            assert!(group.queue != queue || woken.contains(id), "{id} was not woken");
        }
    }
}

/// What a machine says of a change that does nothing.
#[test]
fn the_same_settings_are_no_fact() {
    let mut world = World::new(1, QUEUE_NAMES);
    world.create();
    let (queue, settings) = world.settings.first_key_value().unwrap();
    let found = world.machine.update_queue(*queue, settings.clone());
    assert_eq!(found, Ok(None::<Fact>));
}
