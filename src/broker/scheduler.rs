//! The thread that fires schedules. It sleeps until the timer of log 0 says that one is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::Broker;
use super::error::{BrokerError, OpenError};
use super::gate::Gated;
use super::logs::Logs;
use super::schedule_requests::{Recurrence, kept_text};
use crate::queue::{Due, Schedule, Settled, Step};
use crate::types::Offset;

/// The running thread.
#[derive(Debug)]
pub struct Scheduler {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// What the thread works with.
struct Pass {
    logs: Arc<Logs>,
}

/// A due time whose job is under way.
struct Fired {
    name: Box<str>,
    schedule: Schedule,
    due: Due,
    next: Option<Due>,
    job: Gated<Option<Offset>>,
}

impl Scheduler {
    /// Starts it.
    ///
    /// # Errors
    /// [`OpenError::Thread`] if the system has no thread to give.
    pub fn start(logs: &Arc<Logs>) -> Result<Self, OpenError> {
        let stop = Arc::new(AtomicBool::new(false));
        let pass = Pass { logs: Arc::clone(logs) };
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                pass.fire_due();
                pass.sweep();
                thread::park();
            }
        };
        let handle = thread::Builder::new().name("joblog-schedule".into()).spawn(run)?;
        logs.meta().set_scheduler(handle.thread().clone());
        Ok(Self { stop, handle })
    }

    /// Ends it; to be called before the logs are closed.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.handle.thread().unpark();
        if self.handle.join().is_err() {
            tracing::error!("the thread of the schedules has panicked");
        }
    }
}

impl Pass {
    /// Fires all that is due: first all jobs, then one sync for each log, and then each due time
    /// is settled, which must not be known before its job is released.
    fn fire_due(&self) {
        let meta = self.logs.meta();
        // A log that takes no writes could not say that anything has fired.
        let Ok(due) = meta.due_schedules() else { return };
        if due.is_empty() || meta.is_poisoned() {
            return;
        }
        let under_way: Vec<_> =
            due.into_iter().filter_map(|(name, schedule)| self.advance(name, schedule)).collect();
        for Fired { name, schedule, due, next, job } in under_way {
            let settled = match job.result {
                Ok(Some(offset)) if self.logs.await_release(&job.gates) => {
                    Settled::Fired { offset, next }
                }
                // Another job holds its unique key.
                Ok(None) => Settled::Skipped { count: 1, next },
                // Whether the job survives is not known yet; its mark will tell.
                Ok(_) => continue,
                Err(error) => self.failed(&name, &schedule, &error),
            };
            // If it can't be recorded, the due time is tried again, and the mark tells.
            drop(meta.settle_schedule(&name, due, settled));
        }
        meta.flush();
    }

    /// Takes a schedule past the due times that do not fire, and enqueues the job of the one that
    /// does, if there is one. What the last run of the server has enqueued and not settled comes
    /// before all else.
    fn advance(&self, name: Box<str>, mut schedule: Schedule) -> Option<Fired> {
        let meta = self.logs.meta();
        loop {
            let due = schedule.next?;
            let timing = schedule.plan.timing.clone();
            let timetable = Recurrence::of(&timing);
            let next_after = |ms| timetable.as_ref().ok()?.next_after(ms);
            let (Due::Log(due_ms) | Due::Wall(due_ms)) = due;
            let next = || next_after(due_ms).map(|ms| timing.due(ms));
            let queue = self.logs.of(&schedule.plan.queue);
            if let Some(job) = queue.fired(&name, due, &schedule.plan) {
                return Some(Fired { name, due, next: next(), schedule, job });
            }
            let now = meta.now();
            let settled = match (schedule.step(now, &next_after)?, &timetable) {
                (Step::Settle(settled), _) => settled,
                (Step::Fire, Err(error)) => self.failed(&name, &schedule, error),
                (Step::Fire, Ok(_)) => {
                    let job = queue.fire(&name, due, &schedule.plan);
                    return Some(Fired { name, due, next: next(), schedule, job });
                }
            };
            schedule = meta.settle_schedule(&name, due, settled).ok()??;
        }
    }

    fn failed(&self, name: &str, schedule: &Schedule, error: &BrokerError) -> Settled {
        tracing::warn!(schedule = name, %error, "a schedule could not enqueue its job");
        schedule.failed(&kept_text(error), self.logs.meta().now().log_ms)
    }

    /// Forgets the marks that no schedule needs any more: it was removed, or has another queue.
    fn sweep(&self) {
        let meta = self.logs.meta();
        for broker in self.logs.iter() {
            let Ok(marks) = broker.schedule_marks() else { continue };
            for (id, queue, name) in marks {
                if let Ok(needed) = meta.schedule_fires_to(&name, &queue)
                    && !needed
                {
                    broker.forget_mark(id, &name);
                }
            }
        }
    }
}

impl Broker {
    /// Whether a schedule of this name is there and enqueues to this queue.
    fn schedule_fires_to(&self, name: &str, queue: &str) -> Result<bool, BrokerError> {
        let gated = self.view(|turn| {
            let schedule = turn.core.machine.schedule(name);
            Ok(schedule.is_some_and(|schedule| &*schedule.plan.queue == queue))
        });
        gated.result
    }
}
