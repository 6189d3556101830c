//! A hashed timing wheel: which leases are over, without looking at the others.
//!
//! A timer hangs in the slot of its deadline's tick, in a doubly linked list that runs through the
//! nodes themselves: insert, remove and move are O(1) and allocate nothing. A deadline more than
//! one turn away stays in its slot and is passed over once per turn. Nothing is rounded: a timer
//! is over when `deadline_ms <= now_ms`.

/// The end of a list, and the index that no node has.
pub(super) const NONE: u32 = u32::MAX;

/// The width of one slot in milliseconds. Only a balance of work; not the precision.
const TICK_MS: u64 = 64;

/// How many slots there are: a turn is 8.7 minutes and the heads take 32 KiB.
const SLOT_COUNT: u64 = 8192;

/// The part of a node that belongs to the wheel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    /// When it is over, on the clock that the caller of the wheel uses.
    deadline_ms: u64,
    next: u32,
    prev: u32,
}

/// What can hang in a wheel.
pub(super) trait Timed {
    fn timer(&self) -> &Timer;
    fn timer_mut(&mut self) -> &mut Timer;
}

#[derive(Debug)]
pub(super) struct Wheel {
    /// The first node of each slot.
    heads: Box<[u32]>,
    /// No slot before this tick holds a timer that is over.
    cursor_tick: u64,
}

impl Timer {
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// A timer that hangs nowhere yet.
    pub(super) fn unset() -> Self {
        Self { deadline_ms: 0, next: NONE, prev: NONE }
    }
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { heads: vec![NONE; SLOT_COUNT as usize].into(), cursor_tick: 0 }
    }

    /// Hangs node `index`, which must not hang in the wheel.
    pub(super) fn insert<T: Timed>(&mut self, nodes: &mut [T], index: u32, deadline_ms: u64) {
        // A deadline behind the cursor is over already; without this it would wait for a turn.
        let deadline_ms = deadline_ms.max(self.cursor_tick * TICK_MS);
        let head = self.head_mut(deadline_ms);
        let next = std::mem::replace(head, index);
        *timer_mut(nodes, index) = Timer { deadline_ms, next, prev: NONE };
        if next != NONE {
            timer_mut(nodes, next).prev = index;
        }
    }

    /// Takes node `index` out; it must hang in the wheel.
    pub(super) fn remove<T: Timed>(&mut self, nodes: &mut [T], index: u32) {
        let Timer { deadline_ms, next, prev } = *timer_mut(nodes, index);
        if prev == NONE {
            *self.head_mut(deadline_ms) = next;
        } else {
            timer_mut(nodes, prev).next = next;
        }
        if next != NONE {
            timer_mut(nodes, next).prev = prev;
        }
    }

    /// Adds to `over` the nodes that are over at `now_ms`, at most `count_max` in all.
    ///
    /// They stay in the wheel until they are removed, and the cursor does not pass them: asking
    /// again names them again.
    pub(super) fn collect_over<T: Timed>(
        &mut self,
        nodes: &[T],
        now_ms: u64,
        count_max: usize,
        over: &mut Vec<u32>,
    ) {
        let now_tick = now_ms / TICK_MS;
        // One turn visits every slot; more would only visit them again.
        let end_tick = now_tick.saturating_add(1).min(self.cursor_tick + SLOT_COUNT);
        let mut passed = true;
        for tick in self.cursor_tick..end_tick {
            let mut index = *self.head_mut(tick * TICK_MS);
            while let Some(timer) = nodes.get(index as usize).map(Timed::timer) {
                if timer.deadline_ms <= now_ms {
                    passed = false;
                    if over.len() == count_max {
                        return;
                    }
                    over.push(index);
                }
                index = timer.next;
            }
            if passed {
                self.cursor_tick = tick;
            }
        }
        if passed {
            self.cursor_tick = self.cursor_tick.max(now_tick);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.heads)
    }

    fn head_mut(&mut self, deadline_ms: u64) -> &mut u32 {
        let slot = (deadline_ms / TICK_MS) % SLOT_COUNT;
        self.heads.get_mut(slot as usize).expect("the remainder is below the number of slots")
    }
}

fn timer_mut<T: Timed>(nodes: &mut [T], index: u32) -> &mut Timer {
    nodes.get_mut(index as usize).expect("a link names a node of the slab").timer_mut()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::queue::retry::mix;

    struct Node(Timer);

    impl Timed for Node {
        fn timer(&self) -> &Timer {
            &self.0
        }
        fn timer_mut(&mut self) -> &mut Timer {
            &mut self.0
        }
    }

    fn model_over(model: &BTreeMap<u32, u64>, now_ms: u64) -> Vec<u32> {
        model.iter().filter(|(_, due)| **due <= now_ms).map(|(index, _)| *index).collect()
    }

    #[test]
    fn agrees_with_a_map_of_deadlines() {
        for seed in 0..4 {
            let mut nodes: Vec<_> = (0..300).map(|_| Node(Timer::unset())).collect();
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let mut now_ms = seed * 1_000_000_000;
            for step in 0..100_000 {
                let noise = mix(seed, step, 1);
                let index = (noise % 300) as u32;
                match (noise >> 32) % 8 {
                    0..5 => {
                        // From "over already" to several turns away.
                        let span_ms = [1, 200, 40_000, 3_000_000][(noise >> 40) as usize % 4];
                        let due_ms = (now_ms + (noise >> 44) % span_ms).saturating_sub(70);
                        if model.insert(index, due_ms).is_some() {
                            wheel.remove(&mut nodes, index);
                        }
                        wheel.insert(&mut nodes, index, due_ms);
                    }
                    5 if model.remove(&index).is_some() => wheel.remove(&mut nodes, index),
                    6 => now_ms += (noise >> 40) % 2_000,
                    7 if noise >> 54 == 0 => now_ms += 2_000_000,
                    _ => {}
                }
                if step % 7 == 0 {
                    let mut over = Vec::new();
                    wheel.collect_over(&nodes, now_ms, 5, &mut over);
                    let due = model_over(&model, now_ms);
                    assert_eq!(over.len(), due.len().min(5), "seed {seed} step {step}");
                    assert!(over.iter().all(|index| due.contains(index)), "seed {seed}");
                    for index in over {
                        wheel.remove(&mut nodes, index);
                        model.remove(&index);
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_pause_misses_no_slot() {
        for pause_ticks in [SLOT_COUNT - 1, SLOT_COUNT, SLOT_COUNT + 1, 10 * SLOT_COUNT + 7] {
            let mut nodes: Vec<_> = (0..SLOT_COUNT).map(|_| Node(Timer::unset())).collect();
            let mut wheel = Wheel::new();
            let start_ms = 33 * TICK_MS;
            wheel.collect_over(&nodes, start_ms, 0, &mut Vec::new());
            for index in 0..SLOT_COUNT as u32 {
                wheel.insert(&mut nodes, index, start_ms + u64::from(index) * TICK_MS);
            }
            let mut over = Vec::new();
            wheel.collect_over(&nodes, start_ms + pause_ticks * TICK_MS, usize::MAX, &mut over);
            assert_eq!(over.len() as u64, SLOT_COUNT, "after {pause_ticks} ticks");
        }
    }

    #[test]
    fn asking_again_names_the_same_until_they_are_removed() {
        let mut nodes: Vec<_> = (0..4).map(|_| Node(Timer::unset())).collect();
        let mut wheel = Wheel::new();
        (0..4).for_each(|n| wheel.insert(&mut nodes, n, 1_000 * u64::from(n + 1)));
        for _ in 0..3 {
            let mut over = Vec::new();
            wheel.collect_over(&nodes, 3_000, 10, &mut over);
            assert_eq!(over, [0, 1, 2]);
        }
        let mut over = Vec::new();
        wheel.remove(&mut nodes, 1);
        wheel.collect_over(&nodes, 3_999, 10, &mut over);
        assert_eq!(over, [0, 2]);
    }
}
