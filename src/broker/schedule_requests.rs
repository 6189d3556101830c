//! Requests about schedules. The log 0 keeps them; their queues may live in any log.

use joblog_protocol::job::Batch;

use super::error::BrokerError;
use super::gate::{Gate, GateState, Gated, Gates};
use super::logs::Logs;
use super::requests::Enqueued;
use super::turn::{JobBatch, Turn};
use super::{Broker, Durability};
use crate::cron::Cron;
use crate::queue::{
    Due, Fact, Machine, Plan, Refusal, Schedule, ScheduleFact, ScheduleMark, Settled, Timing,
};
use crate::types::{Offset, QueueId, Stamp};

/// Bytes of an error that a schedule keeps.
const ERROR_BYTES_MAX: usize = 1024;

/// A schedule with its name.
#[derive(Clone, Debug)]
pub struct NamedSchedule {
    /// Its name.
    pub name: String,
    /// The schedule.
    pub schedule: Schedule,
    /// Its next due times, as many as were asked for, in milliseconds since the Unix epoch.
    pub next_wall_ms: Vec<u64>,
    /// The due time of its last job, likewise.
    pub fired_due_wall_ms: Option<u64>,
}

/// A timing that can be asked.
#[derive(Debug)]
pub(super) enum Recurrence {
    Cron(Box<Cron>),
    Every { every_ms: u64 },
}

impl Recurrence {
    /// # Errors
    /// `BadSchedule`.
    pub(super) fn of(timing: &Timing) -> Result<Self, BrokerError> {
        match timing {
            Timing::Every { every_ms } => Ok(Self::Every { every_ms: *every_ms }),
            Timing::Cron { expression, zone } => match Cron::parse(expression, zone) {
                Ok(cron) => Ok(Self::Cron(Box::new(cron))),
                Err(error) => Err(BrokerError::BadSchedule { reason: error.to_string() }),
            },
        }
    }

    /// The due time behind another one, on the timing's clock.
    pub(super) fn next_after(&self, ms: u64) -> Option<u64> {
        match self {
            Self::Cron(cron) => cron.next_after(ms),
            Self::Every { every_ms } => ms.checked_add(*every_ms),
        }
    }

    /// The first due time from now on.
    fn first(&self, now: Stamp) -> Option<Due> {
        match self {
            Self::Cron(_) => self.next_after(now.wall_ms).map(Due::Wall),
            Self::Every { .. } => self.next_after(now.log_ms).map(Due::Log),
        }
    }
}

impl Logs {
    /// The log that keeps the schedules.
    pub(super) fn meta(&self) -> &Broker {
        self.iter().next().expect("there is at least one log")
    }

    /// Adds a schedule, or with `replace` gives the one of this name another plan.
    pub fn add_schedule(&self, name: &str, plan: Plan, replace: bool, paused: bool) -> Gated<()> {
        let first = match Recurrence::of(&plan.timing) {
            Ok(timetable) => timetable.first(self.meta().now()),
            Err(error) => return Gated::refused(error),
        };
        if first.is_none() {
            let reason = "its cron expression is never due".to_owned();
            return Gated::refused(BrokerError::BadSchedule { reason });
        }
        self.change_schedule(name, |machine| {
            machine.add_schedule(name, plan, replace, paused, first).map(Some)
        })
    }

    /// Removes a schedule. Its jobs stay.
    pub fn remove_schedule(&self, name: &str) -> Gated<()> {
        self.change_schedule(name, |machine| machine.remove_schedule(name).map(Some))
    }

    /// Pauses a schedule, or has it go on from now.
    pub fn pause_schedule(&self, name: &str, paused: bool) -> Gated<()> {
        let found = self.meta().view(|turn| turn.schedule(name).cloned());
        found.and_then(|schedule| {
            let first = match Recurrence::of(&schedule.plan.timing) {
                Ok(timetable) => timetable.first(self.meta().now()),
                // What can't be read any more can still be paused.
                Err(_) if paused => None,
                Err(error) => return Gated::refused(error),
            };
            self.change_schedule(name, |machine| machine.pause_schedule(name, paused, first))
        })
    }

    /// Records a change of a schedule, and has the scheduler look again.
    fn change_schedule(
        &self,
        name: &str,
        decide: impl FnOnce(&Machine) -> Result<Option<Fact>, Refusal>,
    ) -> Gated<()> {
        let gated = self.meta().turn(|turn| {
            let fact = decide(&turn.core.machine).map_err(|refusal| refused(name, refusal))?;
            turn.record_all(fact);
            Ok(())
        });
        self.meta().wake_scheduler();
        gated
    }

    /// Lists up to `limit` schedules behind `after`, by name, each with up to `times` due times;
    /// also whether there are more.
    pub fn list_schedules(
        &self,
        after: &str,
        limit: usize,
        times: usize,
    ) -> Gated<(Vec<NamedSchedule>, bool)> {
        let gated = self.meta().view(|turn| {
            let mut behind = turn.core.machine.schedules_after(after);
            let named = behind.by_ref().take(limit);
            let named = named.map(|(name, schedule)| (name.to_owned(), schedule.clone()));
            let named: Vec<_> = named.collect();
            Ok((named, behind.next().is_some(), turn.stamp))
        });
        gated.map(|(named, more, now)| {
            let of = |(name, schedule)| NamedSchedule::new(name, schedule, times, now);
            (named.into_iter().map(of).collect(), more)
        })
    }

    /// Shows one schedule, with up to `times` due times.
    pub fn schedule(&self, name: &str, times: usize) -> Gated<NamedSchedule> {
        let gated = self.meta().view(|turn| Ok((turn.schedule(name)?.clone(), turn.stamp)));
        gated.map(|(schedule, now)| NamedSchedule::new(name.to_owned(), schedule, times, now))
    }

    /// Enqueues a schedule's job now, beside its due times. Gives the queue and the job, or the one
    /// that holds its unique key.
    pub fn run_schedule(&self, name: &str) -> Gated<(String, Offset)> {
        let found = self.meta().view(|turn| turn.schedule(name).cloned());
        found.and_then(|Schedule { plan, .. }| {
            let broker = self.of(&plan.queue);
            let enqueued = with_batch(&plan, |batch| broker.enqueue(&plan.queue, true, batch));
            enqueued.map(|job| (plan.queue.to_string(), holder(&job).unwrap_or(job.first)))
        })
    }

    /// Waits until all that these gates stand for is released; false if that fails.
    pub(super) fn await_release(&self, gates: &Gates) -> bool {
        let is_released = |gate: &Gate| self.broker(gate.log).await_release(*gate);
        gates.iter().all(is_released)
    }
}

impl NamedSchedule {
    fn new(name: String, schedule: Schedule, times: usize, now: Stamp) -> Self {
        let wall_ms = |due| match due {
            Due::Wall(ms) => ms,
            Due::Log(ms) if ms >= now.log_ms => now.wall_ms + (ms - now.log_ms),
            Due::Log(ms) => now.wall_ms.saturating_sub(now.log_ms - ms),
        };
        let timing = &schedule.plan.timing;
        let timetable = Recurrence::of(timing).ok();
        let next_after = |due: &Due| {
            let (Due::Log(ms) | Due::Wall(ms)) = *due;
            timetable.as_ref()?.next_after(ms).map(|ms| timing.due(ms))
        };
        let dues = std::iter::successors(schedule.next, next_after);
        let next_wall_ms = dues.take(times).map(wall_ms).collect();
        let fired_due_wall_ms = schedule.last_firing.as_ref().map(|firing| wall_ms(firing.due));
        Self { name, next_wall_ms, fired_due_wall_ms, schedule }
    }
}

/// What the scheduler does in the log of the schedules, and in that of a queue.
impl Broker {
    /// The schedules that are to be looked at.
    pub(super) fn due_schedules(&self) -> Result<Vec<(Box<str>, Schedule)>, BrokerError> {
        let due = self.view(|turn| {
            let machine = &turn.core.machine;
            let names = machine.due_schedules(turn.stamp);
            let due = names.filter_map(|name| Some((name.into(), machine.schedule(name)?.clone())));
            Ok(due.collect())
        });
        due.result
    }

    /// The job of a due time, if it is enqueued already.
    pub(super) fn fired(&self, name: &str, due: Due, plan: &Plan) -> Option<Gated<Option<Offset>>> {
        let Gated { result, gates } = self.view(|turn| {
            let machine = &turn.core.machine;
            let queue = machine.queue_id(&plan.queue);
            let mark = queue.and_then(|queue| machine.schedule_mark(queue, name));
            Ok(mark.filter(|mark| mark.due == due).map(|mark| mark.offset))
        });
        let offset = result.ok().flatten()?;
        Some(Gated { result: Ok(Some(offset)), gates })
    }

    /// Enqueues the job of a due time, which must not be enqueued. None if its unique key is held.
    pub(super) fn fire(&self, name: &str, due: Due, plan: &Plan) -> Gated<Option<Offset>> {
        self.turn(|turn| {
            turn.fires = Some((name.into(), due));
            let create = self.options.auto_create;
            let enqueued =
                with_batch(plan, |batch| turn.enqueue(&plan.queue, create, batch, None))?;
            Ok(holder(&enqueued).is_none().then_some(enqueued.first))
        })
    }

    /// Records what became of a due time. Gives the schedule as it stands then, if it is there.
    pub(super) fn settle_schedule(
        &self,
        name: &str,
        due: Due,
        settled: Settled,
    ) -> Result<Option<Schedule>, BrokerError> {
        let gated = self.turn(|turn| {
            let fact = turn.core.machine.settle_schedule(name, due, settled);
            turn.record_all(fact);
            Ok(turn.core.machine.schedule(name).cloned())
        });
        gated.result
    }

    /// The marks of all queues: each with its queue, the queue's name, and the schedule's.
    pub(super) fn schedule_marks(&self) -> Result<Vec<(QueueId, String, String)>, BrokerError> {
        let marks = self.view(|turn| {
            let machine = &turn.core.machine;
            let marks = machine.schedule_marks().filter_map(|(queue, name, _)| {
                let info = machine.queue(queue)?;
                Some((queue, info.name.to_owned(), name.to_owned()))
            });
            Ok(marks.collect())
        });
        marks.result
    }

    /// Forgets the mark of a schedule that does not enqueue to this queue any more.
    pub(super) fn forget_mark(&self, queue: QueueId, name: &str) {
        self.turn_unasked(|turn| {
            if turn.core.machine.schedule_mark(queue, name).is_some() {
                turn.record(&Fact::Schedule(ScheduleFact::Marked {
                    queue,
                    name: name.into(),
                    mark: None,
                }));
            }
        });
    }

    /// Writes, and at `fsync` syncs, until a gate of this log is released; false if that fails.
    fn await_release(&self, gate: Gate) -> bool {
        if self.release_of(gate.index) == GateState::Held {
            match self.options.durability {
                Durability::Fsync => {
                    if let Err(error) = self.log.sync() {
                        tracing::error!(%error, "a sync failed; no more writes are taken");
                    }
                    self.notify_shards();
                }
                Durability::Interval { .. } | Durability::Os => self.flush(),
            }
        }
        self.release_of(gate.index) == GateState::Released
    }
}

impl Turn<'_> {
    fn schedule(&self, name: &str) -> Result<&Schedule, BrokerError> {
        let found = self.core.machine.schedule(name);
        found.ok_or_else(|| refused(name, Refusal::NoSuchSchedule))
    }

    /// The mark for jobs that are about to be appended, if a schedule enqueues them.
    pub(super) fn take_mark(&mut self, queue: QueueId, offset: Offset) -> Option<Fact> {
        let (name, due) = self.fires.take()?;
        Some(Fact::Schedule(ScheduleFact::Marked {
            queue,
            name,
            mark: Some(ScheduleMark { due, offset }),
        }))
    }
}

/// The job that holds the unique key of a batch of one, which is then not enqueued.
fn holder(enqueued: &Enqueued) -> Option<Offset> {
    enqueued.hits.iter().find(|hit| !hit.replaced).map(|hit| hit.offset)
}

/// Gives the job of a plan to `enqueue`.
fn with_batch<T>(plan: &Plan, enqueue: impl FnOnce(JobBatch<'_>) -> T) -> T {
    let jobs = Batch { count: 1, table: &plan.table, bodies: &plan.body };
    // It was checked when the schedule was added.
    let asked = jobs.asked(plan.body.len()).unwrap_or_default();
    enqueue(JobBatch { asked: &asked, ..JobBatch::plain(jobs) })
}

fn refused(name: &str, refusal: Refusal) -> BrokerError {
    BrokerError::Refused { what: format!("schedule {name:?}"), refusal }
}

/// The text of an error, as far as a schedule keeps it.
pub(super) fn kept_text(error: &BrokerError) -> String {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    text
}
