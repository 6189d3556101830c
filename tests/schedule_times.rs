//! Schedules on clocks that jump, over restarts, and where a summer time begins or ends: with the
//! state machine of the log that keeps the schedule, that of the log that keeps its queue, and time
//! as an argument.
//!
//! The driver here does what the server's scheduler does, one fact after the other, and can be
//! stopped between any two of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::collections::BTreeMap;

use joblog::cron::Cron;
use joblog::queue::{
    Due, Fact, Machine, Missed, Plan, QueueSettings, Restore, ScheduleFact, ScheduleMark, Settled,
    Step, Timing,
};
use joblog::types::{Offset, QueueId, Stamp};

const SECOND_MS: u64 = 1_000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

const NAME: &str = "schedule";

/// 2026-03-28T00:00:00Z, a day before the clocks in Zurich go forward.
const MARCH_28_MS: u64 = 1_774_656_000_000;
/// 2026-10-24T00:00:00Z, a day before they go back.
const OCTOBER_24_MS: u64 = 1_792_800_000_000;

/// Where the server is stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Never,
    /// The job is enqueued, and its due time not yet settled.
    BeforeSettling,
    /// The due times before it are passed over, and its job not yet enqueued.
    BeforeFiring,
}

/// A server with one schedule, whose queue lives in another log.
struct World {
    meta: Machine,
    target: Machine,
    queue: QueueId,
    timing: Timing,
    now: Stamp,
    /// The due time of each job of the queue.
    jobs: Vec<u64>,
}

fn cron(expression: &str) -> Timing {
    Timing::Cron { expression: expression.into(), zone: "Europe/Zurich".into() }
}

impl World {
    fn new(timing: Timing, missed: Missed, wall_ms: u64) -> Self {
        let now = Stamp { wall_ms, log_ms: 5 * DAY_MS };
        let (mut meta, mut target) = (Machine::new(), Machine::new());
        let created = target.create_queue("q", QueueSettings::default()).unwrap();
        target.apply(&created, now, 0).unwrap();
        let queue = target.queue_id("q").unwrap();
        let first = next_after(&timing, clock(&timing, now)).map(|ms| timing.due(ms));
        let (table, body) = (Box::default(), Box::default());
        let plan = Plan { queue: "q".into(), timing: timing.clone(), missed, table, body };
        let set = meta.add_schedule(NAME, plan, false, false, first).unwrap();
        meta.apply(&set, now, 0).unwrap();
        Self { meta, target, queue, timing, now, jobs: Vec::new() }
    }

    /// What the scheduler does when it is woken.
    fn pass(&mut self, stop: Stop) {
        self.meta.advance(self.now);
        self.target.advance(self.now);
        while self.meta.due_schedules(self.now).next().is_some() {
            let schedule = self.meta.schedule(NAME).unwrap().clone();
            let timing = self.timing.clone();
            let due = schedule.next.unwrap();
            let (Due::Log(due_ms) | Due::Wall(due_ms)) = due;
            let next = || next_after(&timing, due_ms).map(|ms| timing.due(ms));
            let mark = self.target.schedule_mark(self.queue, NAME);
            let mark = mark.filter(|mark| mark.due == due);
            let step = schedule.step(self.now, &|ms| next_after(&timing, ms));
            let settled = match (mark, step) {
                (Some(ScheduleMark { offset, .. }), _) => Settled::Fired { offset, next: next() },
                (None, None) => return,
                (None, Some(Step::Settle(settled))) => settled,
                (None, Some(Step::Fire)) if stop == Stop::BeforeFiring => return,
                (None, Some(Step::Fire)) => {
                    let offset = self.fire(due);
                    if stop == Stop::BeforeSettling {
                        return;
                    }
                    Settled::Fired { offset, next: next() }
                }
            };
            let fact = self.meta.settle_schedule(NAME, due, settled).unwrap();
            self.meta.apply(&fact, self.now, 0).unwrap();
        }
    }

    /// Enqueues the job of a due time.
    fn fire(&mut self, due: Due) -> Offset {
        let offset = self.target.next_offset(self.queue).unwrap();
        self.target.apply_jobs(self.queue, offset, 1, 1, self.now).unwrap();
        let mark = Some(ScheduleMark { due, offset });
        let marked =
            Fact::Schedule(ScheduleFact::Marked { queue: self.queue, name: NAME.into(), mark });
        self.target.apply(&marked, self.now, 0).unwrap();
        let (Due::Log(ms) | Due::Wall(ms)) = due;
        self.jobs.push(ms);
        offset
    }

    /// Time goes on, and the server looks at each minute of it.
    fn run(&mut self, span_ms: u64) {
        for _ in 0..span_ms / MINUTE_MS {
            self.now.wall_ms += MINUTE_MS;
            self.now.log_ms += MINUTE_MS;
            self.pass(Stop::Never);
        }
    }

    /// The server is stopped, and starts again from its checkpoints after a time.
    fn restart(&mut self, down_ms: u64) {
        self.meta = restored(&self.meta);
        self.target = restored(&self.target);
        self.now.wall_ms += down_ms;
        self.now.log_ms += down_ms;
        self.pass(Stop::Never);
    }

    fn counts(&self) -> (u64, u64) {
        let schedule = self.meta.schedule(NAME).unwrap();
        assert_eq!(schedule.fired, self.jobs.len() as u64, "one job for each that has fired");
        (schedule.fired, schedule.skipped)
    }

    /// The jobs' due times in minutes from a moment.
    fn minutes_from(&self, start_ms: u64) -> Vec<u64> {
        self.jobs.iter().map(|due_ms| (due_ms - start_ms) / MINUTE_MS).collect()
    }
}

fn clock(timing: &Timing, now: Stamp) -> u64 {
    match timing {
        Timing::Cron { .. } => now.wall_ms,
        Timing::Every { .. } => now.log_ms,
    }
}

fn next_after(timing: &Timing, ms: u64) -> Option<u64> {
    match timing {
        Timing::Cron { expression, zone } => Cron::parse(expression, zone).unwrap().next_after(ms),
        Timing::Every { every_ms } => Some(ms + every_ms),
    }
}

fn restored(machine: &Machine) -> Machine {
    let mut restore = Restore::new();
    machine.records().for_each(|record| restore.add(record).unwrap());
    restore.finish().unwrap()
}

#[test]
fn when_the_clocks_go_forward_a_daily_job_comes_once_at_the_end_of_the_gap() {
    let mut world = World::new(cron("30 2 * * *"), Missed::Once, MARCH_28_MS);
    world.run(3 * DAY_MS);
    // 02:30 is 01:30 UTC before the change; on its day 03:00 is 01:00 UTC, and later 00:30 UTC.
    assert_eq!(world.minutes_from(MARCH_28_MS), [90, 24 * 60 + 60, 48 * 60 + 30]);
    assert_eq!(world.counts(), (3, 0));
}

#[test]
fn when_the_clocks_go_back_a_daily_job_comes_once_and_an_hourly_one_every_hour() {
    let mut daily = World::new(cron("30 2 * * *"), Missed::Once, OCTOBER_24_MS);
    daily.run(3 * DAY_MS);
    assert_eq!(daily.minutes_from(OCTOBER_24_MS), [30, 24 * 60 + 30, 48 * 60 + 90]);
    let mut hourly = World::new(cron("0 * * * *"), Missed::Once, OCTOBER_24_MS);
    hourly.run(2 * DAY_MS);
    let each_hour: Vec<u64> = (1..=48).map(|hour| hour * 60).collect();
    assert_eq!(hourly.minutes_from(OCTOBER_24_MS), each_hour);
}

#[test]
fn a_clock_set_back_an_hour_fires_nothing_a_second_time() {
    let mut world = World::new(cron("*/10 * * * *"), Missed::Once, MARCH_28_MS);
    world.run(2 * HOUR_MS);
    assert_eq!(world.counts(), (12, 0));
    world.now.wall_ms -= HOUR_MS;
    world.pass(Stop::Never);
    world.run(HOUR_MS);
    assert_eq!(world.counts(), (12, 0), "the hour was there before");
    world.run(10 * MINUTE_MS);
    assert_eq!(world.counts(), (13, 0));
}

#[test]
fn what_is_due_every_so_often_does_not_care_about_the_wall_clock() {
    let every = Timing::Every { every_ms: 10 * MINUTE_MS };
    let mut world = World::new(every, Missed::Once, MARCH_28_MS);
    world.run(HOUR_MS);
    world.now.wall_ms -= HOUR_MS;
    world.run(HOUR_MS);
    world.now.wall_ms += 3 * HOUR_MS;
    world.run(HOUR_MS);
    assert_eq!(world.counts(), (18, 0));
}

#[test]
fn a_clock_set_forward_fires_once_for_all_that_it_leaps_over() {
    let mut world = World::new(cron("0 * * * *"), Missed::Once, MARCH_28_MS);
    world.now.wall_ms += 5 * HOUR_MS + 30 * MINUTE_MS;
    world.pass(Stop::Never);
    assert_eq!(world.minutes_from(MARCH_28_MS), [5 * 60]);
    assert_eq!(world.counts(), (1, 4));
}

#[test]
fn what_was_missed_while_the_server_was_down_fires_once_or_is_skipped() {
    for (missed, fired) in [(Missed::Once, 1), (Missed::Skip, 0)] {
        let mut world = World::new(cron("0 * * * *"), missed, MARCH_28_MS);
        world.restart(3 * HOUR_MS + 5 * MINUTE_MS);
        assert_eq!(world.counts(), (fired, 3 - fired), "{missed:?}");
        world.run(HOUR_MS);
        assert_eq!(world.counts(), (fired + 1, 3 - fired), "{missed:?} goes on");
    }
    // Half a minute late is not missed.
    let mut world = World::new(cron("0 * * * *"), Missed::Skip, MARCH_28_MS);
    world.restart(HOUR_MS + 30 * SECOND_MS);
    assert_eq!(world.counts(), (1, 0));
}

#[test]
fn a_crash_between_the_job_and_its_settling_gives_one_job_however_long_the_server_is_down() {
    for down_ms in [0, 30 * SECOND_MS, 2 * DAY_MS, 400 * DAY_MS] {
        let mut world = World::new(cron("0 1 1 1 *"), Missed::Once, MARCH_28_MS);
        let year_ms = 366 * DAY_MS;
        world.now.wall_ms += year_ms - 87 * DAY_MS;
        world.now.log_ms += year_ms - 87 * DAY_MS;
        world.pass(Stop::BeforeSettling);
        assert_eq!(world.jobs.len(), 1, "it is due once a year");
        world.restart(down_ms);
        let years = 1 + u64::from(down_ms > year_ms);
        assert_eq!(world.counts().0, years, "after {} h", down_ms / HOUR_MS);
    }
}

#[test]
fn a_crash_and_a_clock_set_back_give_one_job_for_the_last_of_those_that_were_missed() {
    for stop in [Stop::BeforeSettling, Stop::BeforeFiring] {
        let mut world = World::new(cron("0 * * * *"), Missed::Once, MARCH_28_MS);
        world.now.wall_ms += 3 * HOUR_MS;
        world.pass(stop);
        world.now.wall_ms -= HOUR_MS;
        world.restart(0);
        world.run(HOUR_MS);
        assert_eq!(world.minutes_from(MARCH_28_MS), [3 * 60], "{stop:?}");
        assert_eq!(world.counts(), (1, 2), "{stop:?}");
    }
}

#[test]
fn a_paused_schedule_fires_nothing_and_goes_on_from_now() {
    let mut world = World::new(cron("0 * * * *"), Missed::Once, MARCH_28_MS);
    world.run(90 * MINUTE_MS);
    let pause = world.meta.pause_schedule(NAME, true, None).unwrap().unwrap();
    world.meta.apply(&pause, world.now, 0).unwrap();
    world.run(5 * HOUR_MS);
    world.restart(0);
    assert_eq!(world.counts(), (1, 0));
    let first = next_after(&world.timing, world.now.wall_ms).map(Due::Wall);
    let resume = world.meta.pause_schedule(NAME, false, first).unwrap().unwrap();
    world.meta.apply(&resume, world.now, 0).unwrap();
    world.run(HOUR_MS);
    assert_eq!(world.minutes_from(MARCH_28_MS), [60, 7 * 60]);
}

/// Whatever clocks and crashes do, no due time has two jobs, and they come in their order.
#[test]
fn no_due_time_fires_twice_on_any_way_through_jumps_and_crashes() {
    let mut fired = 0;
    for seed in 0..200_u64 {
        let mut noise = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            (noise >> 11) % bound
        };
        let missed = if below(2) == 0 { Missed::Once } else { Missed::Skip };
        let mut world = World::new(cron("*/7 * * * *"), missed, MARCH_28_MS);
        for _ in 0..60 {
            let span_ms = below(20) * MINUTE_MS + below(1_000);
            match below(8) {
                0 => world.now.wall_ms -= below(90) * MINUTE_MS,
                1 => world.now.wall_ms += below(90) * MINUTE_MS,
                2 => world.pass(Stop::BeforeSettling),
                3 => world.pass(Stop::BeforeFiring),
                4 => world.restart(span_ms),
                _ => world.run(span_ms),
            }
        }
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        world.jobs.iter().for_each(|due_ms| *seen.entry(*due_ms).or_default() += 1);
        assert!(seen.values().all(|count| *count == 1), "seed {seed}: {seen:?}");
        assert!(world.jobs.is_sorted(), "seed {seed}: {:?}", world.jobs);
        fired += world.jobs.len();
    }
    assert!(fired > 2_000, "only {fired} have fired");
}
