//! Schedules: jobs that the server enqueues by itself, once for each due time.
//!
//! The log with the number 0 keeps all schedules; the queue of one may live in another log. So one
//! firing is two facts: the job's entry carries a *mark* in the log of its queue, and then the
//! schedule is *settled* here, which moves it on to its next due time. Whatever fails in between,
//! the due time is tried again and the mark says whether its job is enqueued already. A mark is not
//! forgotten by time, so that this also holds for what fires once a year.
//!
//! When a schedule is due next is found out by whoever records the fact, and stands in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Contradiction, Due, Fact, Machine, Record, Refusal, ScheduleFact, ScheduleRecord};
use crate::types::{Offset, QueueId, Stamp};

/// A due time that passed longer ago than this is missed, in milliseconds: below that the server
/// was merely busy.
pub const MISSED_AFTER_MS: u64 = 60_000;

/// Due times that one fact passes over; with more, more facts follow.
pub const SKIPPED_PER_FACT_MAX: u64 = 10_000;

/// The wait after a first firing that failed, in milliseconds; it doubles with each further one.
const RETRY_FIRST_MS: u64 = 1_000;

/// Where the doubling ends, in milliseconds.
const RETRY_LONGEST_MS: u64 = 60_000;

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At times of day, which are on the wall clock.
    Cron {
        /// The five fields of a cron expression.
        expression: Box<str>,
        /// The time zone by its IANA name.
        zone: Box<str>,
    },
    /// Again and again after so many milliseconds on the clock of the log, which nobody sets.
    Every {
        /// The milliseconds.
        every_ms: u64,
    },
}

/// What becomes of a due time that has passed while nothing could fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The last of those that have passed fires.
    Once,
    /// None fires.
    Skip,
}

/// What a schedule is to do, as it was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name of the queue that its jobs go to.
    pub queue: Box<str>,
    /// When it is due.
    pub timing: Timing,
    /// What becomes of a due time that is missed.
    pub missed: Missed,
    /// The job table of a batch with the one job.
    pub table: Box<[u8]>,
    /// The body of that job.
    pub body: Box<[u8]>,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it is to do.
    pub plan: Arc<Plan>,
    /// Whether it is paused.
    pub paused: bool,
    /// Its first due time that is not settled; none while it is paused, and when none comes.
    pub next: Option<Due>,
    /// When that is tried again, on the clock of the log, if it failed.
    pub retry_log_ms: Option<u64>,
    /// How often in a row that has failed.
    pub failed_in_row: u32,
    /// Due times that have fired.
    pub fired: u64,
    /// Due times that have passed without firing.
    pub skipped: u64,
    /// Tries that have failed.
    pub failed: u64,
    /// The last firing.
    pub last_firing: Option<Firing>,
    /// The last failure.
    pub last_failure: Option<FiringFailure>,
}

/// A due time that has fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// The due time.
    pub due: Due,
    /// When it was settled, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The job.
    pub offset: Offset,
}

/// A firing that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiringFailure {
    /// When, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Why.
    pub error: Box<str>,
}

/// What became of a due time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Its job is enqueued.
    Fired {
        /// The job.
        offset: Offset,
        /// The next due time.
        next: Option<Due>,
    },
    /// It and those behind it up to the next do not fire.
    Skipped {
        /// How many.
        count: u64,
        /// The next due time.
        next: Option<Due>,
    },
    /// Its job could not be enqueued.
    Failed {
        /// When it is tried again, on the clock of the log.
        retry_log_ms: u64,
        /// Why.
        error: Box<str>,
    },
}

/// The last job of a schedule in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleMark {
    /// The due time that it is for.
    pub due: Due,
    /// The job.
    pub offset: Offset,
}

/// What is to be done about a schedule now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To record that.
    Settle(Settled),
    /// To enqueue its job.
    Fire,
}

/// All schedules by name, and the order in which they are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    by_name: BTreeMap<Box<str>, Schedule>,
    by_log: BTreeSet<(u64, Box<str>)>,
    by_wall: BTreeSet<(u64, Box<str>)>,
}

impl Timing {
    /// A time on the clock that it goes by.
    pub fn due(&self, ms: u64) -> Due {
        match self {
            Self::Cron { .. } => Due::Wall(ms),
            Self::Every { .. } => Due::Log(ms),
        }
    }
}

/// How far a due time is away: its milliseconds, and what its clock says.
fn on_clock(due: Due, now: Stamp) -> (u64, u64) {
    match due {
        Due::Log(ms) => (ms, now.log_ms),
        Due::Wall(ms) => (ms, now.wall_ms),
    }
}

impl Schedule {
    pub(super) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            paused: false,
            next: None,
            retry_log_ms: None,
            failed_in_row: 0,
            fired: 0,
            skipped: 0,
            failed: 0,
            last_firing: None,
            last_failure: None,
        }
    }

    /// What is to be done now, if anything. `next_after` gives the due time that follows a given
    /// one, on the clock of the schedule's timing.
    ///
    /// Of several due times that have passed, only the last can fire: the others are passed over
    /// first, by a fact of their own, so that a due time that is fired is always `next`.
    pub fn step(&self, now: Stamp, next_after: &dyn Fn(u64) -> Option<u64>) -> Option<Step> {
        let (due_ms, now_ms) = on_clock(self.next?, now);
        if due_ms > now_ms {
            return None;
        }
        let next_after = |ms| next_after(ms).filter(|next_ms| *next_ms > ms);
        let (mut count, mut last_ms) = (0, due_ms);
        while count < SKIPPED_PER_FACT_MAX
            && let Some(next_ms) = next_after(last_ms)
            && next_ms <= now_ms
        {
            (count, last_ms) = (count + 1, next_ms);
        }
        let timing = &self.plan.timing;
        if count > 0 {
            let next = Some(timing.due(last_ms));
            return Some(Step::Settle(Settled::Skipped { count, next }));
        }
        if self.plan.missed == Missed::Skip && now_ms - due_ms > MISSED_AFTER_MS {
            let next = next_after(due_ms).map(|ms| timing.due(ms));
            return Some(Step::Settle(Settled::Skipped { count: 1, next }));
        }
        let waits = self.retry_log_ms.is_some_and(|retry_ms| retry_ms > now.log_ms);
        (!waits).then_some(Step::Fire)
    }

    /// What becomes of the due time after a try that failed at this time on the clock of the log.
    pub fn failed(&self, error: &str, now_log_ms: u64) -> Settled {
        let doubled = RETRY_FIRST_MS.checked_shl(self.failed_in_row.min(16));
        let wait_ms = doubled.map_or(RETRY_LONGEST_MS, |ms| ms.min(RETRY_LONGEST_MS));
        Settled::Failed { retry_log_ms: now_log_ms.saturating_add(wait_ms), error: error.into() }
    }

    /// When it is to be looked at.
    fn look(&self) -> Option<Due> {
        let next = self.next?;
        Some(self.retry_log_ms.map_or(next, Due::Log))
    }

    fn settled(mut self, settled: &Settled, wall_ms: u64) -> Self {
        match settled {
            Settled::Fired { offset, next } => {
                self.fired += 1;
                self.last_firing = self.next.map(|due| Firing { due, wall_ms, offset: *offset });
                self.moved_on(*next)
            }
            Settled::Skipped { count, next } => {
                self.skipped += count;
                self.moved_on(*next)
            }
            Settled::Failed { retry_log_ms, error } => {
                self.failed += 1;
                self.failed_in_row = self.failed_in_row.saturating_add(1);
                self.retry_log_ms = Some(*retry_log_ms);
                self.last_failure = Some(FiringFailure { wall_ms, error: error.clone() });
                self
            }
        }
    }

    fn moved_on(self, next: Option<Due>) -> Self {
        Self { next, retry_log_ms: None, failed_in_row: 0, ..self }
    }
}

impl Schedules {
    /// Changes one schedule, and keeps the order in step; none takes it away.
    fn change(&mut self, name: &str, change: impl FnOnce(Option<Schedule>) -> Option<Schedule>) {
        let before = self.by_name.remove(name);
        if let Some(look) = before.as_ref().and_then(Schedule::look) {
            let (ms, order) = self.order(look);
            order.remove(&(ms, name.into()));
        }
        let Some(after) = change(before) else { return };
        if let Some(look) = after.look() {
            let (ms, order) = self.order(look);
            order.insert((ms, name.into()));
        }
        self.by_name.insert(name.into(), after);
    }

    fn order(&mut self, look: Due) -> (u64, &mut BTreeSet<(u64, Box<str>)>) {
        match look {
            Due::Log(ms) => (ms, &mut self.by_log),
            Due::Wall(ms) => (ms, &mut self.by_wall),
        }
    }

    fn due(&self, now: Stamp) -> impl Iterator<Item = &str> {
        let log = self.by_log.iter().take_while(move |(ms, _)| *ms <= now.log_ms);
        let wall = self.by_wall.iter().take_while(move |(ms, _)| *ms <= now.wall_ms);
        log.chain(wall).map(|(_, name)| &**name)
    }

    /// The first look that is still to come, on each clock.
    fn coming(&self, now: Stamp) -> [Option<u64>; 2] {
        let first = |order: &BTreeSet<(u64, Box<str>)>, now_ms: u64| {
            let from = (now_ms.saturating_add(1), Box::default());
            order.range(from..).next().map(|(ms, _)| *ms)
        };
        [first(&self.by_log, now.log_ms), first(&self.by_wall, now.wall_ms)]
    }
}

/// What can be seen, and may be done.
impl Machine {
    /// The schedule of this name.
    pub fn schedule(&self, name: &str) -> Option<&Schedule> {
        self.schedules.by_name.get(name)
    }

    /// The schedules behind this name, by name.
    pub fn schedules_after(&self, after: &str) -> impl Iterator<Item = (&str, &Schedule)> {
        let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let range = self.schedules.by_name.range::<str, _>(behind);
        range.map(|(name, schedule)| (&**name, schedule))
    }

    /// The schedules that are to be looked at now: those that are due, and those whose next try
    /// is.
    pub fn due_schedules(&self, now: Stamp) -> impl Iterator<Item = &str> {
        self.schedules.due(now)
    }

    /// When the next schedule is due that is not due already, on the clock of the log: for one on
    /// the wall clock, if that goes on as it does.
    pub fn next_schedule_log_ms(&self) -> Option<u64> {
        let [log, wall] = self.schedules.coming(self.now);
        log.into_iter().chain(wall.map(|ms| self.log_of_wall(ms))).min()
    }

    /// The last job of a schedule in a queue of this log, if it is remembered.
    pub fn schedule_mark(&self, queue: QueueId, name: &str) -> Option<ScheduleMark> {
        self.queues.get(&queue)?.schedule_marks.get(name).copied()
    }

    /// All of those, by queue and name.
    pub fn schedule_marks(&self) -> impl Iterator<Item = (QueueId, &str, ScheduleMark)> {
        let mut queues: Vec<_> = self.queues.keys().copied().collect();
        queues.sort_unstable();
        let marks = |queue: QueueId| {
            let state = self.queues.get(&queue).into_iter();
            let marks = state.flat_map(|state| &state.schedule_marks);
            marks.map(move |(name, mark)| (queue, &**name, *mark))
        };
        queues.into_iter().flat_map(marks)
    }

    /// Adds a schedule that is due first at `first`, or with `replace` gives one of this name
    /// another plan. If that leaves its timing as it is, it goes on with its due time.
    ///
    /// # Errors
    /// [`Refusal::ScheduleExists`].
    pub fn add_schedule(
        &self,
        name: &str,
        plan: Plan,
        replace: bool,
        paused: bool,
        first: Option<Due>,
    ) -> Result<Fact, Refusal> {
        let known = self.schedule(name);
        if known.is_some() && !replace {
            return Err(Refusal::ScheduleExists);
        }
        let paused = paused || known.is_some_and(|known| known.paused);
        let same = known.filter(|known| known.plan.timing == plan.timing && !known.paused);
        let next = if paused { None } else { same.and_then(|known| known.next).or(first) };
        let (name, plan) = (name.into(), Arc::new(plan));
        Ok(Fact::Schedule(ScheduleFact::Set { name, plan, paused, next }))
    }

    /// Takes a schedule away.
    ///
    /// # Errors
    /// [`Refusal::NoSuchSchedule`].
    pub fn remove_schedule(&self, name: &str) -> Result<Fact, Refusal> {
        self.schedule(name).ok_or(Refusal::NoSuchSchedule)?;
        Ok(Fact::Schedule(ScheduleFact::Removed { name: name.into() }))
    }

    /// Pauses a schedule, or has it go on with the due time `first`. No fact if it is so already.
    ///
    /// # Errors
    /// [`Refusal::NoSuchSchedule`].
    pub fn pause_schedule(
        &self,
        name: &str,
        paused: bool,
        first: Option<Due>,
    ) -> Result<Option<Fact>, Refusal> {
        let known = self.schedule(name).ok_or(Refusal::NoSuchSchedule)?;
        let next = first.filter(|_| !paused);
        let fact = || Fact::Schedule(ScheduleFact::Paused { name: name.into(), paused, next });
        Ok((known.paused != paused).then(fact))
    }

    /// Settles a due time of a schedule, if it has not been since.
    pub fn settle_schedule(&self, name: &str, due: Due, settled: Settled) -> Option<Fact> {
        let is_open = self.schedule(name)?.next == Some(due);
        is_open.then(|| Fact::Schedule(ScheduleFact::Settled { name: name.into(), due, settled }))
    }
}

/// What facts do.
impl Machine {
    pub(super) fn apply_to_schedule(
        &mut self,
        fact: &ScheduleFact,
        stamp: Stamp,
    ) -> Result<(), Contradiction> {
        match fact {
            ScheduleFact::Set { name, plan, paused, next } => {
                self.schedules.change(name, |known| {
                    let plan = Arc::clone(plan);
                    let known = known.unwrap_or_else(|| Schedule::new(Arc::clone(&plan)));
                    Some(Schedule { plan, paused: *paused, ..known }.moved_on(*next))
                })
            }
            ScheduleFact::Removed { name } => {
                self.check_schedule(name)?;
                self.schedules.change(name, |_| None);
            }
            ScheduleFact::Paused { name, paused, next } => {
                self.check_schedule(name)?;
                self.schedules.change(name, |known| {
                    Some(Schedule { paused: *paused, ..known? }.moved_on(*next))
                });
            }
            ScheduleFact::Settled { name, due, settled } => {
                if self.check_schedule(name)?.next != Some(*due) {
                    return Err(Contradiction::NotDue(name.clone()));
                }
                self.schedules.change(name, |known| Some(known?.settled(settled, stamp.wall_ms)));
            }
            ScheduleFact::Marked { queue, name, mark } => {
                let state = self.queues.get_mut(queue);
                let state = state.ok_or(Contradiction::NoSuchQueue(*queue))?;
                state.schedule_marks.remove(name);
                state.schedule_marks.extend(mark.map(|mark| (name.clone(), mark)));
            }
        }
        Ok(())
    }

    fn check_schedule(&self, name: &str) -> Result<&Schedule, Contradiction> {
        self.schedule(name).ok_or_else(|| Contradiction::NoSuchSchedule(name.into()))
    }

    /// All schedules and marks, as records.
    pub(super) fn schedule_records(&self) -> impl Iterator<Item = Record> {
        let schedules = self.schedules_after("").map(|(name, schedule)| {
            Record::Schedule(ScheduleRecord::Schedule {
                name: name.into(),
                schedule: Box::new(schedule.clone()),
            })
        });
        let marks = self.schedule_marks().map(|(queue, schedule, mark)| {
            let schedule = schedule.into();
            Record::Schedule(ScheduleRecord::Mark { queue, schedule, mark })
        });
        schedules.chain(marks)
    }

    /// Takes a schedule or a mark back from its record.
    pub(super) fn restore_schedules(&mut self, record: ScheduleRecord) -> Result<(), &'static str> {
        if !self.groups.is_empty() {
            return Err("schedules come before groups");
        }
        let fits = match record {
            ScheduleRecord::Schedule { name, schedule } => {
                let last = self.schedules.by_name.last_key_value();
                let ascends = last.is_none_or(|(last, _)| *last < name);
                let Schedule { paused, next, retry_log_ms, .. } = *schedule;
                let fits = if next.is_some() { !paused } else { retry_log_ms.is_none() };
                if ascends && fits {
                    self.schedules.change(&name, |_| Some(*schedule));
                }
                ascends && fits
            }
            ScheduleRecord::Mark { queue, schedule, mark } => {
                let state = self.queues.get_mut(&queue).filter(|state| mark.offset < state.next);
                state.is_some_and(|state| state.schedule_marks.insert(schedule, mark).is_none())
            }
        };
        if fits { Ok(()) } else { Err("the schedule can't be so") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: u64 = 60_000;

    fn schedule(missed: Missed, next: Due) -> Schedule {
        let timing = match next {
            Due::Log(_) => Timing::Every { every_ms: MINUTE_MS },
            Due::Wall(_) => Timing::Cron { expression: "* * * * *".into(), zone: "UTC".into() },
        };
        let (queue, table, body) = ("q".into(), Box::default(), Box::default());
        let plan = Arc::new(Plan { queue, timing, missed, table, body });
        Schedule { next: Some(next), ..Schedule::new(plan) }
    }

    fn step(schedule: &Schedule, wall_ms: u64) -> Option<Step> {
        let now = Stamp { wall_ms, log_ms: wall_ms };
        schedule.step(now, &|ms| Some((ms / MINUTE_MS + 1) * MINUTE_MS))
    }

    #[test]
    fn fires_at_its_due_time_and_not_before() {
        for missed in [Missed::Once, Missed::Skip] {
            let hourly = schedule(missed, Due::Wall(10 * MINUTE_MS));
            assert_eq!(step(&hourly, 10 * MINUTE_MS - 1), None);
            assert_eq!(step(&hourly, 10 * MINUTE_MS), Some(Step::Fire));
            assert_eq!(step(&hourly, 11 * MINUTE_MS - 1), Some(Step::Fire));
        }
    }

    #[test]
    fn of_several_missed_due_times_the_last_one_fires_or_none() {
        let next_of = |ms| Some(Due::Wall(ms));
        let skipped = |count, next| Some(Step::Settle(Settled::Skipped { count, next }));
        for missed in [Missed::Once, Missed::Skip] {
            let late = schedule(missed, Due::Wall(10 * MINUTE_MS));
            assert_eq!(step(&late, 15 * MINUTE_MS + 7), skipped(5, next_of(15 * MINUTE_MS)));
        }
        let hour = |ms: u64| Some((ms / (60 * MINUTE_MS) + 1) * 60 * MINUTE_MS);
        let now = Stamp { wall_ms: 62 * MINUTE_MS, log_ms: 0 };
        let late = schedule(Missed::Once, Due::Wall(60 * MINUTE_MS));
        assert_eq!(late.step(now, &hour), Some(Step::Fire));
        let late = schedule(Missed::Skip, Due::Wall(60 * MINUTE_MS));
        assert_eq!(late.step(now, &hour), skipped(1, next_of(120 * MINUTE_MS)));
    }

    #[test]
    fn a_clock_that_leaps_a_thousand_years_is_followed_in_bounded_steps() {
        let late = schedule(Missed::Once, Due::Wall(0));
        let Some(Step::Settle(Settled::Skipped { count, next })) = step(&late, u64::MAX / 2) else {
            panic!("nothing is passed over")
        };
        assert_eq!(count, SKIPPED_PER_FACT_MAX);
        assert_eq!(next, Some(Due::Wall(SKIPPED_PER_FACT_MAX * MINUTE_MS)));
    }

    #[test]
    fn a_timetable_that_goes_back_is_not_followed_for_ever() {
        let broken = schedule(Missed::Once, Due::Wall(5));
        let now = Stamp { wall_ms: 9, log_ms: 0 };
        assert_eq!(broken.step(now, &|ms| Some(ms - 1)), Some(Step::Fire));
    }

    #[test]
    fn failures_are_tried_again_after_a_wait_that_doubles_to_a_minute() {
        let mut full = schedule(Missed::Once, Due::Wall(0));
        let mut waits = Vec::new();
        for _ in 0..70 {
            let settled = full.failed("full", 0);
            full = full.settled(&settled, 0);
            waits.extend(full.retry_log_ms);
        }
        assert_eq!(waits[..8], [1, 2, 4, 8, 16, 32, 60, 60].map(|s| s * 1_000));
        assert!(waits[8..].iter().all(|wait_ms| *wait_ms == MINUTE_MS));
        let now = |log_ms| Stamp { wall_ms: 1, log_ms };
        let never = |_| None;
        assert_eq!(full.step(now(MINUTE_MS - 1), &never), None);
        assert_eq!(full.step(now(MINUTE_MS), &never), Some(Step::Fire));
    }
}
