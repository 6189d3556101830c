//! What was applied, how it is replayed, and the seeded noise behind it all.

use std::fmt::Write;

use joblog::queue::{Contradiction, Fact, Machine, Numbered, Restore};
use joblog::types::{Offset, QueueId, Stamp};

/// What each job has.
pub(crate) const JOB_BYTES: u64 = 10;

pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_of<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            None
        } else {
            Some(from[self.below(from.len() as u64) as usize].clone())
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Record {
    Jobs(QueueId, Offset, u32, Option<Numbered>, Stamp),
    Fact(Box<Fact>, Stamp),
}

pub(crate) fn replay(records: &[Record]) -> Result<Machine, Contradiction> {
    replay_onto(Machine::new(), records)
}

pub(crate) fn replay_onto(
    mut machine: Machine,
    records: &[Record],
) -> Result<Machine, Contradiction> {
    for record in records {
        match record {
            Record::Jobs(queue, base, count, numbered, stamp) => {
                let bytes = u64::from(*count) * JOB_BYTES;
                machine.apply_jobs(*queue, *base, *count, bytes, *stamp)?;
                if let Some(numbered) = numbered {
                    machine.apply_numbered(*queue, *numbered, *base, *count, stamp.log_ms)?;
                }
            }
            Record::Fact(fact, stamp) => machine.apply(fact, *stamp, 0)?,
        }
    }
    Ok(machine)
}

/// The machine rebuilt from its records, as from a checkpoint.
pub(crate) fn restored(machine: &Machine) -> Machine {
    let mut restore = Restore::new();
    machine.records().for_each(|record| restore.add(record).unwrap());
    let restored = restore.finish().unwrap();
    assert!(restored.records().eq(machine.records()));
    restored
}

/// Everything that can be seen of a machine and that a restart must not change.
pub(crate) fn look(machine: &Machine) -> String {
    let mut text = String::new();
    for schedule in machine.schedules_after("") {
        writeln!(text, "{schedule:?}").unwrap();
    }
    for mark in machine.schedule_marks() {
        writeln!(text, "{mark:?}").unwrap();
    }
    for queue in machine.queues() {
        writeln!(text, "{queue:?}").unwrap();
        for group in machine.groups(queue.queue) {
            // The room of a vector depends on how it grew.
            let mut group = group.clone();
            group.counts.consumed_heap_bytes = 0;
            writeln!(text, "{group:?}").unwrap();
            for offset in (queue.first.0..queue.next.0).map(Offset) {
                let state = machine.job(group.group, offset);
                let lease = machine.lease(group.group, offset).map(|mut lease| {
                    lease.restored = false;
                    lease
                });
                writeln!(text, "{offset} {state:?} {lease:?}").unwrap();
            }
            let dead: Vec<_> = machine.dead(group.group, Offset(0)).collect();
            writeln!(text, "{dead:?}").unwrap();
        }
    }
    text
}
