//! What is known of one queue: its settings, which jobs are gone, and the indexes of those jobs
//! that are not like all others.

use std::collections::BTreeMap;

use super::deadlines::QueueTimes;
use super::delays::Delays;
use super::offset_set::OffsetSet;
use super::producers::Producers;
use super::ranks::Ranks;
use super::results::Results;
use super::schedules::ScheduleMark;
use super::sizes::Sizes;
use super::unique::UniqueKeys;
use super::{Due, JobTerms, QueueSettings, Rank, Removal};
use crate::types::{GroupId, Offset};

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Box<str>,
    pub(super) settings: QueueSettings,
    /// Jobs that are gone, whatever the groups of today have consumed; see `live`.
    pub(super) gone: OffsetSet,
    /// Where consumed jobs are kept for a time: what was consumed at `turned_log_ms`.
    pub(super) aging: OffsetSet,
    pub(super) turned_log_ms: u64,
    /// The offset that its next job gets.
    pub(super) next: Offset,
    /// Offsets that no job has had, up to the second of each pair; see `queues`.
    pub(super) skipped: Vec<(Offset, Offset)>,
    pub(super) groups: BTreeMap<Box<str>, GroupId>,
    /// How many jobs some group has still to consume.
    pub(super) unconsumed: u64,
    /// How many jobs were too old.
    pub(super) expired: u64,
    pub(super) sizes: Sizes,
    /// When jobs are due that were enqueued with a due time.
    pub(super) delays: Delays,
    pub(super) unique: UniqueKeys,
    /// When jobs expire that do.
    pub(super) expiries: Delays,
    /// Those that have, among the withdrawn ones.
    pub(super) lapsed: OffsetSet,
    /// Jobs that stand before the ordinary ones, until they are gone.
    pub(super) ranks: Ranks,
    pub(super) producers: Producers,
    pub(super) results: Results,
    /// The last job of each schedule.
    pub(super) schedule_marks: BTreeMap<Box<str>, ScheduleMark>,
    /// Jobs that no group is given any more, whatever becomes of it.
    pub(super) withdrawn: OffsetSet,
    /// Whether nothing is fetched from it for now.
    pub(super) paused: bool,
}

impl Queue {
    /// A queue without jobs and groups, whose first job gets the offset `first`.
    pub(super) fn new(
        name: Box<str>,
        settings: QueueSettings,
        first: Offset,
        now_log_ms: u64,
    ) -> Self {
        Self {
            name,
            settings,
            gone: OffsetSet::new(first),
            aging: OffsetSet::new(first),
            turned_log_ms: now_log_ms,
            next: first,
            skipped: Vec::new(),
            groups: BTreeMap::new(),
            unconsumed: 0,
            expired: 0,
            sizes: Sizes::default(),
            delays: Delays::default(),
            unique: UniqueKeys::default(),
            expiries: Delays::default(),
            lapsed: OffsetSet::new(first),
            ranks: Ranks::default(),
            producers: Producers::default(),
            results: Results::default(),
            schedule_marks: BTreeMap::new(),
            withdrawn: OffsetSet::new(first),
            paused: false,
        }
    }

    /// Notes the terms of a job, which is behind all others that have such; false if it is not.
    pub(super) fn set_terms(&mut self, offset: Offset, terms: JobTerms) -> bool {
        let JobTerms { due, expires_log_ms, rank } = terms;
        (rank == Rank::ORDINARY || self.ranks.push(offset, rank))
            && due.is_none_or(|due| self.delays.push(offset, due))
            && expires_log_ms.is_none_or(|ms| self.expiries.push(offset, Due::Log(ms)))
    }

    /// What it waits for.
    pub(super) fn times(&self) -> QueueTimes {
        let [due_log_ms, due_wall_ms] = self.delays.next();
        let [expiry_log_ms, _] = self.expiries.next();
        let result_end_log_ms = self.results.next_end();
        QueueTimes { due_log_ms, due_wall_ms, expiry_log_ms, result_end_log_ms }
    }

    /// Whether what is consumed is kept for a time.
    pub(super) fn keeps_consumed(&self) -> bool {
        self.settings.keep_consumed_for_ms > 0
    }

    /// Whether what it says about keys can't change: jobs are parked and out, or have a rank, which
    /// no job has where keys matter.
    pub(super) fn holds_to_keys(&self) -> bool {
        self.unconsumed > 0 || !self.ranks.is_empty()
    }

    /// Whether the time of a job is over, also where no fact says so yet.
    pub(super) fn is_over(&self, offset: Offset, now_log_ms: u64) -> bool {
        matches!(self.expiries.get(offset), Some(Due::Log(ms)) if ms <= now_log_ms)
    }

    /// Why a job was withdrawn, if it was: its time was over, or somebody cancelled it.
    pub(super) fn withdrawal(&self, offset: Offset) -> Option<Removal> {
        let lapsed = self.lapsed.contains(offset);
        let cause = if lapsed { Removal::Expired } else { Removal::Cancelled };
        self.withdrawn.contains(offset).then_some(cause)
    }

    /// How many offsets above `floor` no job has had. A group has consumed all of these.
    pub(super) fn skipped_above(&self, floor: Offset) -> u64 {
        let above = self.skipped.iter().filter(|(first, _)| *first > floor);
        above.map(|(first, end)| end.0 - first.0).sum()
    }
}
