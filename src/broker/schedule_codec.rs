//! Schedules as bytes in facts and records, and back.

use std::sync::Arc;

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use super::fields::*;
use crate::queue::{
    Due, Fact, Failure, Firing, Missed, Plan, Record, Schedule, ScheduleFact, ScheduleMark,
    ScheduleRecord, Settled, Timing,
};
use crate::types::{Offset, QueueId};

const FACT_SET: u8 = 59;
const FACT_REMOVED: u8 = 60;
const FACT_PAUSED: u8 = 61;
const FACT_SETTLED: u8 = 62;
const FACT_MARKED: u8 = 63;

const RECORD_SCHEDULE: u8 = 26;
const RECORD_FIRED: u8 = 27;

const UNKNOWN_TAG: &str = "its tag is unknown; a newer version may have written it";

const DUE_NONE: u8 = 0;
const DUE_LOG: u8 = 1;
const DUE_WALL: u8 = 2;

const SETTLED_FIRED: u8 = 1;
const SETTLED_SKIPPED: u8 = 2;
const SETTLED_FAILED: u8 = 3;

/// A plan but for its job as it stands in the log: by name, so that new parts can be added.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPlan<'a> {
    queue: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    missed: &'a str,
}

const MISSED_ONCE: &str = "once";
const MISSED_SKIP: &str = "skip";

/// Appends a fact about schedules.
pub(super) fn encode_fact(out: &mut Vec<u8>, fact: &Fact) {
    match fact {
        Fact::Schedule(ScheduleFact::Set { name, plan, paused, next }) => {
            out.put_u8(FACT_SET);
            put_text(out, name);
            put_plan(out, plan);
            out.put_u8(u8::from(*paused));
            put_due(out, *next);
        }
        Fact::Schedule(ScheduleFact::Removed { name }) => {
            out.put_u8(FACT_REMOVED);
            put_text(out, name);
        }
        Fact::Schedule(ScheduleFact::Paused { name, paused, next }) => {
            out.put_u8(FACT_PAUSED);
            put_text(out, name);
            out.put_u8(u8::from(*paused));
            put_due(out, *next);
        }
        Fact::Schedule(ScheduleFact::Settled { name, due, settled }) => {
            out.put_u8(FACT_SETTLED);
            put_text(out, name);
            put_due(out, Some(*due));
            put_settled(out, settled);
        }
        Fact::Schedule(ScheduleFact::Marked { queue, name, mark }) => {
            out.put_u8(FACT_MARKED);
            out.put_u32_le(queue.0);
            put_text(out, name);
            put_due(out, mark.map(|mark| mark.due));
            mark.iter().for_each(|mark| out.put_u64_le(mark.offset.0));
        }
        _ => unreachable!("the other facts are encoded by fact_codec"),
    }
}

/// Reads a fact about schedules behind its tag.
pub(super) fn fact(tag: u8, bytes: &mut &[u8]) -> Read<Fact> {
    Ok(match tag {
        FACT_SET => Fact::Schedule(ScheduleFact::Set {
            name: text(bytes)?,
            plan: Arc::new(plan(bytes)?),
            paused: flag(bytes)?,
            next: due(bytes)?,
        }),
        FACT_REMOVED => Fact::Schedule(ScheduleFact::Removed { name: text(bytes)? }),
        FACT_PAUSED => Fact::Schedule(ScheduleFact::Paused {
            name: text(bytes)?,
            paused: flag(bytes)?,
            next: due(bytes)?,
        }),
        FACT_SETTLED => Fact::Schedule(ScheduleFact::Settled {
            name: text(bytes)?,
            due: some_due(bytes)?,
            settled: settled(bytes)?,
        }),
        FACT_MARKED => Fact::Schedule(ScheduleFact::Marked {
            queue: QueueId(u32(bytes)?),
            name: text(bytes)?,
            mark: match due(bytes)? {
                None => None,
                Some(due) => Some(ScheduleMark { due, offset: Offset(u64(bytes)?) }),
            },
        }),
        _ => return Err(UNKNOWN_TAG),
    })
}

/// Appends a record about schedules.
pub(super) fn encode_record(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Schedule(ScheduleRecord::Schedule { name, schedule }) => {
            out.put_u8(RECORD_SCHEDULE);
            put_text(out, name);
            put_schedule(out, schedule);
        }
        Record::Schedule(ScheduleRecord::Fired { queue, schedule, mark }) => {
            out.put_u8(RECORD_FIRED);
            out.put_u32_le(queue.0);
            put_text(out, schedule);
            put_due(out, Some(mark.due));
            out.put_u64_le(mark.offset.0);
        }
        _ => unreachable!("the other records are encoded by record_codec"),
    }
}

/// Reads a record about schedules behind its tag.
pub(super) fn record(tag: u8, bytes: &mut &[u8]) -> Read<Record> {
    match tag {
        RECORD_SCHEDULE => Ok(Record::Schedule(ScheduleRecord::Schedule {
            name: text(bytes)?,
            schedule: Box::new(schedule(bytes)?),
        })),
        RECORD_FIRED => {
            let (queue, schedule) = (QueueId(u32(bytes)?), text(bytes)?);
            let mark = ScheduleMark { due: some_due(bytes)?, offset: Offset(u64(bytes)?) };
            Ok(Record::Schedule(ScheduleRecord::Fired { queue, schedule, mark }))
        }
        _ => Err(UNKNOWN_TAG),
    }
}

fn put_plan(out: &mut Vec<u8>, plan: &Plan) {
    let (cron, zone, every_ms) = match plan.timing.clone() {
        Timing::Cron { expression, zone } => (Some(expression), Some(zone), None),
        Timing::Every { every_ms } => (None, None, Some(every_ms)),
    };
    let missed = match plan.missed {
        Missed::Once => MISSED_ONCE,
        Missed::Skip => MISSED_SKIP,
    };
    let stored = StoredPlan { queue: plan.queue.clone(), cron, zone, every_ms, missed };
    let json = serde_json::to_string(&stored).expect("a struct of texts has a JSON form");
    put_text(out, &json);
    put_bytes(out, &plan.table);
    put_bytes(out, &plan.body);
}

fn plan(bytes: &mut &[u8]) -> Read<Plan> {
    const UNKNOWN: &str = "its plan is unknown; a newer version may have written it";
    let json = text(bytes)?;
    let stored: StoredPlan<'_> = serde_json::from_str(&json).map_err(|_| UNKNOWN)?;
    let timing = match (stored.cron, stored.zone, stored.every_ms) {
        (Some(expression), Some(zone), None) => Timing::Cron { expression, zone },
        (None, None, Some(every_ms)) => Timing::Every { every_ms },
        _ => return Err(UNKNOWN),
    };
    let missed = match stored.missed {
        MISSED_ONCE => Missed::Once,
        MISSED_SKIP => Missed::Skip,
        _ => return Err(UNKNOWN),
    };
    let (table, body) = (boxed(bytes)?, boxed(bytes)?);
    Ok(Plan { queue: stored.queue, timing, missed, table, body })
}

fn put_schedule(out: &mut Vec<u8>, schedule: &Schedule) {
    put_plan(out, &schedule.plan);
    out.put_u8(u8::from(schedule.paused));
    put_due(out, schedule.next);
    put_due(out, schedule.retry_log_ms.map(Due::Log));
    out.put_u32_le(schedule.failed_in_row);
    out.put_u64_le(schedule.fired);
    out.put_u64_le(schedule.skipped);
    out.put_u64_le(schedule.failed);
    out.put_u8(u8::from(schedule.last_firing.is_some()));
    if let Some(Firing { due, wall_ms, offset }) = &schedule.last_firing {
        put_due(out, Some(*due));
        out.put_u64_le(*wall_ms);
        out.put_u64_le(offset.0);
    }
    out.put_u8(u8::from(schedule.last_failure.is_some()));
    if let Some(Failure { wall_ms, error }) = &schedule.last_failure {
        out.put_u64_le(*wall_ms);
        put_text(out, error);
    }
}

fn schedule(bytes: &mut &[u8]) -> Read<Schedule> {
    let (plan, paused, next) = (Arc::new(plan(bytes)?), flag(bytes)?, due(bytes)?);
    let retry_log_ms = match due(bytes)? {
        None => None,
        Some(Due::Log(ms)) => Some(ms),
        Some(Due::Wall(_)) => return Err("its retry is on the wrong clock"),
    };
    let failed_in_row = u32(bytes)?;
    let (fired, skipped, failed) = (u64(bytes)?, u64(bytes)?, u64(bytes)?);
    let last_firing = match flag(bytes)? {
        false => None,
        true => Some(Firing {
            due: some_due(bytes)?,
            wall_ms: u64(bytes)?,
            offset: Offset(u64(bytes)?),
        }),
    };
    let last_failure = match flag(bytes)? {
        false => None,
        true => Some(Failure { wall_ms: u64(bytes)?, error: text(bytes)? }),
    };
    Ok(Schedule {
        plan,
        paused,
        next,
        retry_log_ms,
        failed_in_row,
        fired,
        skipped,
        failed,
        last_firing,
        last_failure,
    })
}

fn put_settled(out: &mut Vec<u8>, settled: &Settled) {
    match settled {
        Settled::Fired { offset, next } => {
            out.put_u8(SETTLED_FIRED);
            out.put_u64_le(offset.0);
            put_due(out, *next);
        }
        Settled::Skipped { count, next } => {
            out.put_u8(SETTLED_SKIPPED);
            out.put_u64_le(*count);
            put_due(out, *next);
        }
        Settled::Failed { retry_log_ms, error } => {
            out.put_u8(SETTLED_FAILED);
            out.put_u64_le(*retry_log_ms);
            put_text(out, error);
        }
    }
}

fn settled(bytes: &mut &[u8]) -> Read<Settled> {
    match u8(bytes)? {
        SETTLED_FIRED => Ok(Settled::Fired { offset: Offset(u64(bytes)?), next: due(bytes)? }),
        SETTLED_SKIPPED => Ok(Settled::Skipped { count: u64(bytes)?, next: due(bytes)? }),
        SETTLED_FAILED => Ok(Settled::Failed { retry_log_ms: u64(bytes)?, error: text(bytes)? }),
        _ => Err("what became of its due time is unknown"),
    }
}

fn put_due(out: &mut Vec<u8>, due: Option<Due>) {
    let (code, ms) = match due {
        None => return out.put_u8(DUE_NONE),
        Some(Due::Log(ms)) => (DUE_LOG, ms),
        Some(Due::Wall(ms)) => (DUE_WALL, ms),
    };
    out.put_u8(code);
    out.put_u64_le(ms);
}

fn due(bytes: &mut &[u8]) -> Read<Option<Due>> {
    match u8(bytes)? {
        DUE_NONE => Ok(None),
        DUE_LOG => Ok(Some(Due::Log(u64(bytes)?))),
        DUE_WALL => Ok(Some(Due::Wall(u64(bytes)?))),
        _ => Err("the clock of its due time is unknown"),
    }
}

fn some_due(bytes: &mut &[u8]) -> Read<Due> {
    due(bytes)?.ok_or("its due time is missing")
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn boxed(bytes: &mut &[u8]) -> Read<Box<[u8]>> {
    let length = u32(bytes)? as usize;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(SHORT)?;
    *bytes = rest;
    Ok(taken.into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn plans() -> [Arc<Plan>; 2] {
        let cron = Timing::Cron { expression: "0 3 * * *".into(), zone: "Europe/Zurich".into() };
        let every = Timing::Every { every_ms: 60_000 };
        [(cron, Missed::Once), (every, Missed::Skip)].map(|(timing, missed)| {
            let (table, body) = (Box::from([1; 12]), Box::from([2; 30]));
            Arc::new(Plan { queue: "mail".into(), timing, missed, table, body })
        })
    }

    pub(in crate::broker) fn facts() -> Vec<Fact> {
        let name = || Box::<str>::from("nightly");
        let [cron, every] = plans();
        let (due, next) = (Due::Wall(1 << 41), Some(Due::Wall(1 << 42)));
        let mark = ScheduleMark { due, offset: Offset(1 << 40) };
        let settled = [
            Settled::Fired { offset: Offset(1 << 40), next },
            Settled::Skipped { count: 7, next: None },
            Settled::Failed { retry_log_ms: 9, error: "full".into() },
        ];
        let settled = settled
            .map(|settled| Fact::Schedule(ScheduleFact::Settled { name: name(), due, settled }));
        let mut facts = vec![
            Fact::Schedule(ScheduleFact::Set { name: name(), plan: cron, paused: false, next }),
            Fact::Schedule(ScheduleFact::Set {
                name: name(),
                plan: every,
                paused: true,
                next: None,
            }),
            Fact::Schedule(ScheduleFact::Removed { name: name() }),
            Fact::Schedule(ScheduleFact::Paused {
                name: name(),
                paused: false,
                next: Some(Due::Log(5)),
            }),
            Fact::Schedule(ScheduleFact::Marked {
                queue: QueueId(3),
                name: name(),
                mark: Some(mark),
            }),
            Fact::Schedule(ScheduleFact::Marked { queue: QueueId(3), name: name(), mark: None }),
        ];
        facts.extend(settled);
        facts
    }

    pub(in crate::broker) fn records() -> Vec<Record> {
        let [cron, every] = plans();
        let busy = Schedule {
            plan: cron,
            paused: false,
            next: Some(Due::Wall(1 << 41)),
            retry_log_ms: Some(8),
            failed_in_row: 2,
            fired: 3,
            skipped: 4,
            failed: 5,
            last_firing: Some(Firing { due: Due::Wall(7), wall_ms: 8, offset: Offset(9) }),
            last_failure: Some(Failure { wall_ms: 6, error: "full".into() }),
        };
        let idle = Schedule {
            plan: every,
            paused: true,
            next: None,
            retry_log_ms: None,
            last_firing: None,
            last_failure: None,
            ..busy.clone()
        };
        let named = |schedule| {
            Record::Schedule(ScheduleRecord::Schedule {
                name: "a".into(),
                schedule: Box::new(schedule),
            })
        };
        let mark = ScheduleMark { due: Due::Log(1 << 40), offset: Offset(1 << 39) };
        let fired = Record::Schedule(ScheduleRecord::Fired {
            queue: QueueId(3),
            schedule: "a".into(),
            mark,
        });
        vec![named(busy), named(idle), fired]
    }
}
