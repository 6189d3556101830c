//! Schedules and the marks of their jobs: added, replaced, paused, settled in every way, removed.

use std::collections::BTreeMap;

use joblog::queue::{
    Due, Fact, Missed, Plan, Refusal, ScheduleFact, ScheduleMark, Settled, Timing,
};
use joblog::types::{Offset, QueueId};

use crate::replay::Rng;
use crate::world::World;

const NAMES: [&str; 4] = ["hourly", "nightly", "often", "seldom"];

/// What is known of one schedule.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    every_ms: u64,
    paused: bool,
    next: Option<Due>,
    retry_log_ms: Option<u64>,
    fired: u64,
    skipped: u64,
    failed: u64,
}

/// All that is known of schedules.
pub(crate) struct Schedules {
    /// Dice of their own, so that the other requests stay those that they were.
    rng: Rng,
    by_name: BTreeMap<&'static str, Known>,
    marks: BTreeMap<(QueueId, &'static str), ScheduleMark>,
}

impl Schedules {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng(!seed), by_name: BTreeMap::new(), marks: BTreeMap::new() }
    }

    /// The marks of a queue go with it.
    pub(crate) fn forget_queue(&mut self, queue: QueueId) {
        self.marks.retain(|(of, _), _| *of != queue);
    }
}

impl World {
    pub(crate) fn use_schedules(&mut self) {
        let name = self.schedules.rng.one_of(&NAMES).unwrap();
        match self.schedules.rng.below(12) {
            0..2 => self.add_schedule(name),
            2 => self.pause_schedule(name),
            3 => self.remove_schedule(name),
            4..6 => self.mark_schedule(name),
            _ => self.settle_schedule(name),
        }
        self.check_schedules();
    }

    /// A due time on either clock, now or soon.
    fn some_due(&mut self, every_ms: u64) -> Due {
        let ms = self.schedules.rng.below(5_000);
        let stamp = self.stamp();
        if every_ms > 0 { Due::Log(stamp.log_ms + ms) } else { Due::Wall(stamp.wall_ms + ms) }
    }

    fn add_schedule(&mut self, name: &'static str) {
        let every_ms = self.schedules.rng.below(3) * 1_000;
        let timing = match every_ms {
            0 => Timing::Cron { expression: "@daily".into(), zone: "UTC".into() },
            every_ms => Timing::Every { every_ms },
        };
        let (queue, missed) = ("mail".into(), Missed::Once);
        let plan = Plan { queue, timing, missed, table: [7; 12].into(), body: [8; 4].into() };
        let (replace, paused) =
            (self.schedules.rng.below(2) == 0, self.schedules.rng.below(4) == 0);
        let first = self.some_due(every_ms);
        let known = self.schedules.by_name.get(name).cloned();
        let made = self.machine.add_schedule(name, plan, replace, paused, Some(first));
        if known.is_some() && !replace {
            assert_eq!(made, Err(Refusal::ScheduleExists));
            return;
        }
        self.record(made.unwrap());
        let before = known.clone().unwrap_or_default();
        let paused = paused || before.paused;
        let same = known.filter(|known| known.every_ms == every_ms && !known.paused);
        let next = if paused { None } else { same.and_then(|known| known.next).or(Some(first)) };
        let now = Known { every_ms, paused, next, retry_log_ms: None, ..before };
        self.schedules.by_name.insert(name, now);
        self.seen.insert("schedule set");
    }

    fn pause_schedule(&mut self, name: &'static str) {
        let paused = self.schedules.rng.below(2) == 0;
        let every_ms = self.schedules.by_name.get(name).map_or(0, |known| known.every_ms);
        let first = self.some_due(every_ms);
        let fact = self.machine.pause_schedule(name, paused, Some(first));
        let Some(known) = self.schedules.by_name.get_mut(name) else {
            return assert_eq!(fact, Err(Refusal::NoSuchSchedule));
        };
        let fact = fact.unwrap();
        assert_eq!(fact.is_some(), known.paused != paused);
        if let Some(fact) = fact {
            known.paused = paused;
            known.next = (!paused).then_some(first);
            known.retry_log_ms = None;
            self.record(fact);
        }
    }

    fn remove_schedule(&mut self, name: &'static str) {
        let fact = self.machine.remove_schedule(name);
        match self.schedules.by_name.remove(name) {
            None => assert_eq!(fact, Err(Refusal::NoSuchSchedule)),
            Some(_) => self.record(fact.unwrap()),
        }
    }

    fn mark_schedule(&mut self, name: &'static str) {
        let queues: Vec<_> = self.queues.keys().copied().collect();
        let Some(queue) = self.schedules.rng.one_of(&queues) else { return };
        let next = self.machine.next_offset(queue).unwrap();
        let mark = (next.0 > 0 && self.schedules.rng.below(4) > 0)
            .then(|| ScheduleMark { due: self.some_due(0), offset: Offset(next.0 - 1) });
        match mark {
            Some(mark) => drop(self.schedules.marks.insert((queue, name), mark)),
            None => drop(self.schedules.marks.remove(&(queue, name))),
        }
        self.record(Fact::Schedule(ScheduleFact::Marked { queue, name: name.into(), mark }));
    }

    fn settle_schedule(&mut self, name: &'static str) {
        let Some(known) = self.schedules.by_name.get(name).cloned() else {
            let settled = Settled::Skipped { count: 1, next: None };
            return assert_eq!(self.machine.settle_schedule(name, Due::Log(1), settled), None);
        };
        let next = (self.schedules.rng.below(8) > 0).then(|| self.some_due(known.every_ms));
        let retry_log_ms = self.log_ms + self.schedules.rng.below(3_000);
        let settled = match self.schedules.rng.below(3) {
            0 => Settled::Fired { offset: Offset(5), next },
            1 => Settled::Skipped { count: 3, next },
            _ => Settled::Failed { retry_log_ms, error: "full".into() },
        };
        let other = self.machine.settle_schedule(name, Due::Log(1), settled.clone());
        assert_eq!(other, None, "another due time than the next one is settled already");
        let Some(due) = known.next else { return };
        self.record(self.machine.settle_schedule(name, due, settled.clone()).unwrap());
        let known = self.schedules.by_name.get_mut(name).unwrap();
        match settled {
            Settled::Fired { .. } => known.fired += 1,
            Settled::Skipped { .. } => known.skipped += 3,
            Settled::Failed { .. } => known.failed += 1,
        }
        match settled {
            Settled::Failed { .. } => known.retry_log_ms = Some(retry_log_ms),
            _ => (known.next, known.retry_log_ms) = (next, None),
        }
        self.seen.insert("schedule settled");
    }

    pub(crate) fn check_schedules(&mut self) {
        let now = self.stamp();
        let shown = self.machine.schedules_after("").map(|(name, found)| {
            let every_ms = match found.plan.timing {
                Timing::Every { every_ms } => every_ms,
                Timing::Cron { .. } => 0,
            };
            let known = Known {
                every_ms,
                paused: found.paused,
                next: found.next,
                retry_log_ms: found.retry_log_ms,
                fired: found.fired,
                skipped: found.skipped,
                failed: found.failed,
            };
            (name.to_owned(), known)
        });
        let shown: Vec<_> = shown.collect();
        let expected = self.schedules.by_name.iter();
        let expected: Vec<_> =
            expected.map(|(n, known)| ((*n).to_owned(), known.clone())).collect();
        assert_eq!(shown, expected);

        let marks: Vec<_> = self.machine.schedule_marks().collect();
        let expected = self.schedules.marks.iter();
        let expected: Vec<_> = expected.map(|((queue, n), mark)| (*queue, *n, *mark)).collect();
        assert_eq!(marks, expected);

        let look = |known: &Known| Some(known.retry_log_ms.map_or(known.next?, Due::Log));
        let is_due = |known: &Known| match look(known) {
            Some(Due::Log(ms)) => ms <= now.log_ms,
            Some(Due::Wall(ms)) => ms <= now.wall_ms,
            None => false,
        };
        let mut due: Vec<_> = self.machine.due_schedules(now).collect();
        due.sort_unstable();
        let expected = self.schedules.by_name.iter().filter(|(_, known)| is_due(known));
        assert_eq!(due, expected.map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
