//! SCHEDULE_ADD, SCHEDULE_LIST, SCHEDULE_PAUSE, SCHEDULE_RESUME, SCHEDULE_REMOVE and SCHEDULE_RUN.

use joblog_protocol::job::{BatchBuilder, EncodedJob, JobError};
use joblog_protocol::limits::SCHEDULE_TIMES_MAX;
use joblog_protocol::messages::admin::decode;
use joblog_protocol::messages::schedule::{self, ScheduleDescription, ScheduleList};

use super::{Answer, done, json};
use crate::broker::{Logs, Missed, NamedSchedule, Plan, Timing};

/// Schedules in one page of SCHEDULE_LIST: with 100 due times each they fit a frame.
const LIST_SCHEDULES_MAX: usize = 1_000;

pub(super) fn add(logs: &Logs, job_bytes_max: usize, body: &[u8]) -> Answer {
    let add: schedule::ScheduleAdd = decode(body)?;
    let plan = plan(&add, job_bytes_max)?;
    done(logs.add_schedule(&add.schedule, plan, add.replace, add.paused))
}

pub(super) fn list(logs: &Logs, body: &[u8]) -> Answer {
    let query: schedule::ScheduleQuery = decode(body)?;
    let times = (query.times as usize).min(SCHEDULE_TIMES_MAX);
    if let Some(name) = &query.schedule {
        return json(logs.schedule(name, times), |named| ScheduleList {
            schedules: vec![describe(named, true)],
            more: false,
        });
    }
    let limit = (query.limit as usize).clamp(1, LIST_SCHEDULES_MAX);
    json(logs.list_schedules(&query.after, limit, times), |(list, more)| {
        let schedules = list.into_iter().map(|named| describe(named, false));
        ScheduleList { schedules: schedules.collect(), more }
    })
}

/// SCHEDULE_PAUSE and SCHEDULE_RESUME.
pub(super) fn pause(logs: &Logs, body: &[u8], paused: bool) -> Answer {
    let schedule::ScheduleName { schedule } = decode(body)?;
    done(logs.pause_schedule(&schedule, paused))
}

pub(super) fn remove(logs: &Logs, body: &[u8]) -> Answer {
    let schedule::ScheduleName { schedule } = decode(body)?;
    done(logs.remove_schedule(&schedule))
}

pub(super) fn run(logs: &Logs, body: &[u8]) -> Answer {
    let schedule::ScheduleName { schedule } = decode(body)?;
    json(logs.run_schedule(&schedule), |(queue, job)| schedule::ScheduleRun {
        queue,
        offset: job.0,
    })
}

/// What a schedule is to do; the job is checked as an ENQUEUE's is.
fn plan(add: &schedule::ScheduleAdd, job_bytes_max: usize) -> Result<Plan, JobError> {
    let timing = match add.timing()? {
        schedule::Timing::Cron { expression, zone } => {
            Timing::Cron { expression: expression.into(), zone: zone.into() }
        }
        schedule::Timing::Every { every_ms } => Timing::Every { every_ms },
    };
    let body = add.body()?;
    let mut jobs = BatchBuilder::default();
    jobs.push_encoded(EncodedJob::new(&body));
    jobs.batch().check(job_bytes_max)?;
    let table = jobs.batch().table.into();
    let missed = match add.missed {
        schedule::Missed::Once => Missed::Once,
        schedule::Missed::Skip => Missed::Skip,
    };
    let queue = add.queue.as_str().into();
    Ok(Plan { queue, timing, missed, table, body: body.into() })
}

/// A schedule, with its job if `whole`.
fn describe(named: NamedSchedule, whole: bool) -> ScheduleDescription {
    let NamedSchedule { name, schedule: state, next_wall_ms, fired_due_wall_ms } = named;
    let plan = &state.plan;
    let (cron, zone, every_ms) = match &plan.timing {
        Timing::Cron { expression, zone } => (Some(expression), Some(zone), None),
        Timing::Every { every_ms } => (None, None, Some(*every_ms)),
    };
    let firing = state.last_firing.as_ref().zip(fired_due_wall_ms);
    ScheduleDescription {
        schedule: name,
        queue: plan.queue.to_string(),
        cron: cron.map(ToString::to_string),
        zone: zone.map(ToString::to_string),
        every_ms,
        missed: match plan.missed {
            Missed::Once => schedule::Missed::Once,
            Missed::Skip => schedule::Missed::Skip,
        },
        paused: state.paused,
        next_ms: next_wall_ms,
        fired: state.fired,
        skipped: state.skipped,
        failed: state.failed,
        last_firing: firing.map(|(firing, due_ms)| schedule::ScheduleFiring {
            due_ms,
            fired_ms: firing.wall_ms,
            offset: firing.offset.0,
        }),
        last_failure: state.last_failure.as_ref().map(|failure| schedule::ScheduleFailure {
            failed_ms: failure.wall_ms,
            error: failure.error.to_string(),
            retried: state.retry_log_ms.is_some(),
        }),
        body_base64: whole.then(|| schedule::to_base64(&plan.body)),
    }
}
