//! An instance of everything that is written, for the tests.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::queue::{
    CHUNK_WORDS, Due, EnqueuedBatch, HeldKey, JobTerms, Missed, PRIORITY_MAX, Plan, QueueSettings,
    Rank, Removal, RemovedCounts, Runs, Schedule, ScheduleMark, Timing,
};
use crate::types::{Grant, GroupId, KeyHash, Offset, ProducerId, QueueId, SessionId};

/// Makes instances, other ones for other seeds.
pub(in crate::queue) trait Sample: Sized {
    fn sample(seed: usize) -> Self;
}

/// One of several forms, each with fields of all forms as the seeds go on.
pub(in crate::queue) fn one_of<T>(makers: &[fn(usize) -> T], seed: usize) -> T {
    makers[seed % makers.len()](seed / makers.len())
}

macro_rules! samples {
    ($($type:ty: |$seed:ident| $sample:expr,)*) => {$(
        impl Sample for $type {
            fn sample($seed: usize) -> Self {
                $sample
            }
        }
    )*};
}

/// Several of them, or one, or none.
fn some<T: Sample, All: FromIterator<T>>(seed: usize) -> All {
    (0..2_usize.saturating_sub(seed % 3)).map(|n| T::sample(seed + n)).collect()
}

samples! {
    u16: |seed| 65_535 - seed as u16,
    u32: |seed| 7 << (seed % 29),
    u64: |seed| 5 << (seed % 61),
    bool: |seed| seed % 2 == 1,
    [u8; 16]: |seed| [seed as u8; 16],
    [u64; CHUNK_WORDS]: |seed| std::array::from_fn(|n| (n * seed) as u64),
    QueueId: |seed| Self(3 + seed as u32),
    GroupId: |seed| Self(7 + seed as u32),
    Offset: |seed| Self(u64::sample(seed)),
    Grant: |seed| Self(u64::MAX - seed as u64),
    KeyHash: |seed| Self(u64::MAX - seed as u64),
    SessionId: |seed| Self([9 + seed as u8; 16]),
    ProducerId: |seed| Self([4 + seed as u8; 16]),
    Box<str>: |seed| "no ink"[..seed % 7].into(),
    Box<[u8]>: |seed| b"no ink"[..seed % 7].into(),
    Arc<[u8]>: |seed| b"no ink"[..seed % 7].into(),
    Runs: |seed| some(seed),
    SmallVec<[EnqueuedBatch; 1]>: |seed| some(seed),
    QueueSettings: |seed| Self { failures_max: seed as u32, ..Self::default() },
    Due: |seed| one_of(&[|seed| Self::Log(seed as u64), |_| Self::Wall(u64::MAX)], seed),
    Rank: |seed| Self { priority: seed as u8 % (PRIORITY_MAX + 1), front: true },
    JobTerms: |seed| Self {
        due: Sample::sample(seed),
        expires_log_ms: Sample::sample(seed / 3),
        rank: Option::<Rank>::sample(seed).unwrap_or_default(),
    },
    HeldKey: |seed| Self {
        offset: Offset::sample(seed),
        key: b"once"[..].into(),
        until_log_ms: Sample::sample(seed),
    },
    RemovedCounts: |seed| {
        let mut removed = Self::default();
        let causes = Removal::ALL.into_iter().skip(seed % 7).zip(1..);
        causes.for_each(|(cause, count)| removed.add(cause, count));
        removed
    },
    ScheduleMark: |seed| Self { due: Due::sample(seed), offset: Offset::sample(seed) },
    Plan: |seed| Self {
        queue: "mail".into(),
        timing: match seed % 2 {
            0 => Timing::Cron { expression: "0 3 * * *".into(), zone: "Europe/Zurich".into() },
            _ => Timing::Every { every_ms: 60_000 },
        },
        missed: if seed.is_multiple_of(3) { Missed::Once } else { Missed::Skip },
        table: [1; 12].into(),
        body: [2; 30].into(),
    },
    Schedule: |seed| Self {
        plan: Sample::sample(seed),
        paused: Sample::sample(seed),
        next: Sample::sample(seed),
        retry_log_ms: Sample::sample(seed / 2),
        failed_in_row: 2,
        fired: 3,
        skipped: 4,
        failed: 5,
        last_firing: Sample::sample(seed),
        last_failure: Sample::sample(seed / 3),
    },
}

impl<T: Sample> Sample for Option<T> {
    fn sample(seed: usize) -> Self {
        (seed % 2 == 1).then(|| T::sample(seed / 2))
    }
}

impl<T: Sample> Sample for Box<T> {
    fn sample(seed: usize) -> Self {
        Self::new(T::sample(seed))
    }
}

impl Sample for Arc<Plan> {
    fn sample(seed: usize) -> Self {
        Self::new(Plan::sample(seed))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(seed: usize) -> Self {
        some(seed)
    }
}

impl<A: Sample, B: Sample> Sample for (A, B) {
    fn sample(seed: usize) -> Self {
        (A::sample(seed), B::sample(seed))
    }
}
