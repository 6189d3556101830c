//! The state machine against a simple model: one entry per job and group, no cleverness.
//!
//! Random requests run against both; what the machine allows, refuses and chooses must be what the
//! model says. All that is applied is recorded, and now and then a fresh machine is built from the
//! record, as after a restart, and must look the same. `JOBLOG_SEEDS=200` runs that many seeds,
//! `JOBLOG_SEEDS=17..18` just those; the seed stands in the failure.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this file is a test throughout, also where it is not inside a test function"
)]

mod checks;
mod dead;
mod delays;
mod keys;
mod limits;
mod order;
mod producers;
mod replay;
mod requests;
mod reserved;
mod results;
mod retention;
mod schedules;
mod time;
mod unique;
mod update;
mod withdraw;
mod world;

use std::collections::BTreeSet;

use joblog::queue::{QueueSettings, Restore};

use keys::{KEYED_QUEUE_NAMES, with_keys};
use replay::{Rng, replay, restored};
use world::World;

const STEP_COUNT: u64 = 10_000;
/// Fewer, since each looks at all jobs of a key.
const KEYED_STEP_COUNT: u64 = 6_000;
const SEED_COUNT: u64 = 8;
/// Short, so that dead jobs go.
const DEAD_KEPT_MS: u64 = 3_000_000;
/// Short, and little, so that results go in both ways.
const RESULT_KEPT_MS: u64 = 100_000;
const RESULT_BYTES_MAX: u64 = 131_072;
/// What workers say when they fail.
const FAILURE: &str = "no ink";
const SESSION_COUNT: u64 = 4;
const QUEUE_NAMES: [&str; 3] = ["mail", "images", "bills"];
const GROUP_NAMES: [&str; 3] = ["default", "audit", "tail"];

/// The queue that keeps consumed jobs, and for how long.
const KEPT_QUEUE: &str = "bills";
const KEEP_MS: u64 = 60_000;

/// Small limits, so that jobs die often.
fn settings(queue: &str) -> QueueSettings {
    let keep_consumed_for_ms = if queue == KEPT_QUEUE { KEEP_MS } else { 0 };
    let default = QueueSettings::default();
    let settings = QueueSettings {
        failures_max: 2,
        crashes_max: 2,
        dead_kept_ms: DEAD_KEPT_MS,
        keep_consumed_for_ms,
        result_kept_ms: RESULT_KEPT_MS,
        result_bytes_max: RESULT_BYTES_MAX,
        ..default
    };
    with_keys(queue, settings)
}

#[test]
fn agrees_with_the_model() {
    let (seeds, mut seen) = (seeds(), BTreeSet::<&str>::new());
    let seed_count = seeds.end - seeds.start;
    for seed in seeds {
        let mut world = World::new(seed, QUEUE_NAMES);
        for _ in 0..STEP_COUNT {
            world.step();
        }
        world.check_all();
        world.restart();
        seen.extend(&world.seen);
    }
    let never: Vec<_> = WANTED.iter().filter(|what| !seen.contains(*what)).collect();
    assert!(never.is_empty() || seed_count < SEED_COUNT, "never saw {never:?}");
}

/// What must have happened in some history, or the agreement shows little.
const WANTED: &[&str] = &[
    "replaced",
    "replaced in the batch",
    "duplicate",
    "duplicate in the batch",
    "nothing new",
    "told again",
    "commit",
    "fail",
    "release",
    "extend",
    "expired",
    "silent",
    "goodbye",
    "retried",
    "dropped",
    "aged",
    "promoted",
    "fresh when due",
    "passed when due",
    "cancelled",
    "requested",
    "stopped",
    "purged",
    "paused",
    "over",
    "over while out",
    "updated",
    "keeps from now",
    "keeps no more",
    "sent again",
    "number taken",
    "too old",
    "forgotten",
    "result",
    "displaced",
    "result forgotten",
    "progress",
    "resumed",
    "dead",
    "restart",
    "checkpoint",
    "again",
    "skipped",
    "by priority",
    "at the front",
    "rate",
    "no room",
    "consumed twice",
    "lease lost",
    "sought",
    "aged out",
    "turned",
    "schedule set",
    "schedule settled",
];

#[test]
fn agrees_with_the_model_where_keys_matter() {
    let (seeds, mut seen) = (seeds(), BTreeSet::<&str>::new());
    let seed_count = seeds.end - seeds.start;
    for seed in seeds {
        let mut world = World::new(seed, KEYED_QUEUE_NAMES);
        for _ in 0..KEYED_STEP_COUNT {
            world.step();
        }
        world.check_all();
        world.restart();
        seen.extend(&world.seen);
    }
    let never: Vec<_> = WANTED_BY_KEY.iter().filter(|what| !seen.contains(*what)).collect();
    assert!(never.is_empty() || seed_count < SEED_COUNT, "never saw {never:?}");
}

/// As `WANTED`, where keys matter.
const WANTED_BY_KEY: &[&str] = &[
    "granted by key",
    "parked",
    "parked late",
    "parked again",
    "promoted",
    "unparked",
    "pointer waits",
    "keys in use",
    "other keys",
    "dead",
    "retried",
    "dropped",
    "silent",
    "cancelled",
    "purged",
    "over",
    "sought",
    "aged out",
    "checkpoint",
    "restart",
];

/// Every other seed has queues where keys matter.
fn names_of(seed: u64) -> [&'static str; 3] {
    if seed.is_multiple_of(2) { QUEUE_NAMES } else { KEYED_QUEUE_NAMES }
}

/// A log with an entry lost, doubled or out of place is refused or gives some state: no panic, and
/// no token twice.
#[test]
fn a_damaged_log_is_a_contradiction_and_no_panic() {
    let mut refused_count = 0;
    for seed in seeds() {
        let mut world = World::new(seed, names_of(seed));
        (0..1_500).for_each(|_| world.step());
        let mut rng = Rng(seed);
        for _ in 0..60 {
            let mut records = world.records.clone();
            let at = rng.below(records.len() as u64) as usize;
            match rng.below(3) {
                0 => drop(records.remove(at)),
                1 => records.insert(at, records[at].clone()),
                _ => records.swap(at, rng.below(world.records.len() as u64) as usize),
            }
            refused_count += u32::from(replay(&records).is_err());
        }
    }
    assert!(refused_count > 100, "only {refused_count} refused");
}

/// A checkpoint with a record lost, doubled or out of place is refused, or holds a whole state all
/// the same: it goes round once more without a change.
#[test]
fn a_damaged_checkpoint_is_refused_and_no_panic() {
    let mut refused_count = 0;
    for seed in seeds() {
        let mut world = World::new(seed, names_of(seed));
        (0..1_500).for_each(|_| world.step());
        let records: Vec<_> = world.machine.records().collect();
        let mut rng = Rng(seed);
        for _ in 0..200 {
            let mut damaged = records.clone();
            let at = rng.below(records.len() as u64) as usize;
            match rng.below(3) {
                0 => drop(damaged.remove(at)),
                1 => damaged.insert(at, damaged[at].clone()),
                _ => damaged.swap(at, rng.below(records.len() as u64) as usize),
            }
            let mut restore = Restore::new();
            let added = damaged.iter().cloned().try_for_each(|record| restore.add(record));
            match added.and_then(|()| restore.finish()) {
                Ok(machine) => drop(restored(&machine)),
                Err(_) => refused_count += 1,
            }
        }
    }
    assert!(refused_count > 500, "only {refused_count} refused");
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("JOBLOG_SEEDS") else {
        return 0..SEED_COUNT;
    };
    let number = |text: &str| text.parse().expect("JOBLOG_SEEDS is a number or first..end");
    text.split_once("..").map_or_else(|| 0..number(&text), |(a, b)| number(a)..number(b))
}
