//! The commands on schedules: jobs that the server enqueues by itself. Their bodies are JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::job::Job;
use crate::limits::{
    SCHEDULE_BODY_BYTES_MAX, SCHEDULE_CRON_BYTES_MAX, SCHEDULE_EVERY_MS_MAX, SCHEDULE_EVERY_MS_MIN,
};
use crate::name;
use crate::wire::DecodeError;

/// What becomes of a due time that passes while the server is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// When the server is back, the last one that has passed fires.
    #[default]
    Once,
    /// None of those fires that passed more than a minute ago.
    Skip,
}

/// SCHEDULE_ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleAdd {
    /// The schedule's name.
    pub schedule: String,
    /// The queue that its jobs go to.
    pub queue: String,
    /// A cron expression; this or `every_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of the cron expression by its IANA name; UTC if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Milliseconds from one due time to the next; this or `cron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// What becomes of a due time that is missed.
    #[serde(default)]
    pub missed: Missed,
    /// Whether it is paused from the start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Whether a schedule of this name that is there already gets this plan.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// The body of its jobs as in ENQUEUE, in base64: see [`body_of`].
    pub body_base64: String,
}

/// When a schedule is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing<'a> {
    /// As a cron expression says, in a time zone.
    Cron {
        /// The expression.
        expression: &'a str,
        /// The zone's IANA name.
        zone: &'a str,
    },
    /// Again and again after so many milliseconds.
    Every {
        /// The milliseconds.
        every_ms: u64,
    },
}

impl ScheduleAdd {
    /// Checks the names, and says when the schedule is due.
    ///
    /// # Errors
    /// [`DecodeError::Name`], or [`DecodeError::Schedule`] if not exactly one timing is given, or
    /// it is over its limits.
    pub fn timing(&self) -> Result<Timing<'_>, DecodeError> {
        name::check(&self.schedule)?;
        name::check(&self.queue)?;
        let bad = |reason| Err(DecodeError::Schedule { reason });
        match (self.cron.as_deref(), self.every_ms) {
            (Some(expression), None) => {
                let zone = self.zone.as_deref().unwrap_or("UTC");
                if expression.len().max(zone.len()) > SCHEDULE_CRON_BYTES_MAX {
                    return bad("a cron expression and a zone have at most 255 bytes");
                }
                Ok(Timing::Cron { expression, zone })
            }
            (None, Some(every_ms)) => {
                let allowed = SCHEDULE_EVERY_MS_MIN as u64..=SCHEDULE_EVERY_MS_MAX as u64;
                match allowed.contains(&every_ms) && self.zone.is_none() {
                    true => Ok(Timing::Every { every_ms }),
                    false => bad("every_ms is 1 s to 366 days, and goes without a zone"),
                }
            }
            _ => bad("a schedule has either cron or every_ms"),
        }
    }

    /// The body of its jobs.
    ///
    /// # Errors
    /// [`DecodeError::Schedule`] if it is not base64, or over its limit.
    pub fn body(&self) -> Result<Vec<u8>, DecodeError> {
        let decoded = STANDARD.decode(&self.body_base64);
        match decoded {
            Ok(body) if body.len() <= SCHEDULE_BODY_BYTES_MAX => Ok(body),
            Ok(_) => Err(DecodeError::Schedule { reason: "its job has at most 32768 bytes" }),
            Err(_) => Err(DecodeError::Schedule { reason: "its job is not in base64" }),
        }
    }
}

/// The body of a job as it stands in SCHEDULE_ADD.
///
/// # Errors
/// As [`Job::put_body`].
pub fn body_of(job: &Job) -> Result<String, DecodeError> {
    let mut body = Vec::new();
    job.put_body(&mut body)?;
    Ok(STANDARD.encode(body))
}

/// Bytes as they stand in a schedule.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The job of a schedule, from its body.
///
/// # Errors
/// [`DecodeError`] if that is not base64, or no body.
pub fn job_of(body_base64: &str) -> Result<Job, DecodeError> {
    let decoded = STANDARD.decode(body_base64);
    let body = decoded.map_err(|_| DecodeError::Schedule { reason: "its job is not in base64" })?;
    Job::from_body(&body)
}

/// SCHEDULE_PAUSE, SCHEDULE_RESUME, SCHEDULE_REMOVE and SCHEDULE_RUN: one schedule by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleName {
    /// The schedule.
    pub schedule: String,
}

/// SCHEDULE_LIST: a page of the schedules by name, or one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleQuery {
    /// Only this one, whole: `after` and `limit` mean nothing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Only names behind this one; empty for the first page.
    #[serde(default)]
    pub after: String,
    /// Schedules at most; a server may give fewer, but then `more` is set.
    pub limit: u32,
    /// Next due times of each, at most.
    #[serde(default)]
    pub times: u32,
}

/// The reply to SCHEDULE_LIST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleList {
    /// The schedules by name.
    pub schedules: Vec<ScheduleDescription>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleDescription {
    /// Its name.
    pub schedule: String,
    /// The queue that its jobs go to.
    pub queue: String,
    /// Its cron expression, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Milliseconds from one due time to the next, if it has no cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// What becomes of a due time that is missed.
    pub missed: Missed,
    /// Whether it is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Its next due times, as many as were asked for: milliseconds since the Unix epoch.
    #[serde(default)]
    pub next_ms: Vec<u64>,
    /// Due times that have fired.
    pub fired: u64,
    /// Due times that have passed without firing.
    pub skipped: u64,
    /// Tries that have failed.
    pub failed: u64,
    /// The last due time that has fired, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_firing: Option<ScheduleFiring>,
    /// The last try that has failed, if one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<ScheduleFailure>,
    /// The body of its jobs in base64: see [`job_of`]. Only if the schedule was asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// A due time that has fired. All times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleFiring {
    /// The due time.
    pub due_ms: u64,
    /// When the job was enqueued.
    pub fired_ms: u64,
    /// The job.
    pub offset: u64,
}

/// A try that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleFailure {
    /// When: milliseconds since the Unix epoch.
    pub failed_ms: u64,
    /// Why, in English, for people.
    pub error: String,
    /// Whether the due time is still to be tried again.
    pub retried: bool,
}

/// The reply to SCHEDULE_RUN: the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRun {
    /// The queue.
    pub queue: String,
    /// Its offset.
    pub offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(cron: Option<&str>, zone: Option<&str>, every_ms: Option<u64>) -> ScheduleAdd {
        ScheduleAdd {
            schedule: "nightly".into(),
            queue: "reports".into(),
            cron: cron.map(str::to_owned),
            zone: zone.map(str::to_owned),
            every_ms,
            missed: Missed::Once,
            paused: false,
            replace: false,
            body_base64: body_of(&Job::new("hello")).unwrap(),
        }
    }

    #[test]
    fn a_schedule_has_one_timing_within_its_limits() {
        let utc = Timing::Cron { expression: "@daily", zone: "UTC" };
        assert_eq!(add(Some("@daily"), None, None).timing(), Ok(utc));
        let every = Timing::Every { every_ms: 1_000 };
        assert_eq!(add(None, None, Some(1_000)).timing(), Ok(every));
        let long = "x".repeat(256);
        for wrong in [
            add(None, None, None),
            add(Some("@daily"), None, Some(1_000)),
            add(None, Some("UTC"), Some(1_000)),
            add(None, None, Some(999)),
            add(None, None, Some(SCHEDULE_EVERY_MS_MAX as u64 + 1)),
            add(Some(&long), None, None),
            add(Some("@daily"), Some(&long), None),
        ] {
            assert!(matches!(wrong.timing(), Err(DecodeError::Schedule { .. })), "{wrong:?}");
        }
        let named = |schedule: &str, queue: &str| ScheduleAdd {
            schedule: schedule.into(),
            queue: queue.into(),
            ..add(Some("@daily"), None, None)
        };
        for wrong in [named("", "q"), named("a b", "q"), named("a", "")] {
            assert!(matches!(wrong.timing(), Err(DecodeError::Name(_))), "{wrong:?}");
        }
    }

    #[test]
    fn the_job_of_a_schedule_comes_back_and_has_a_limit() {
        let job = Job { key: Some(vec![0xff]), ..Job::new("hello") };
        assert_eq!(job_of(&body_of(&job).unwrap()), Ok(job));
        assert!(job_of("*").is_err());
        let with = |bytes: usize| ScheduleAdd {
            body_base64: to_base64(&vec![0; bytes]),
            ..add(Some("@daily"), None, None)
        };
        assert_eq!(with(SCHEDULE_BODY_BYTES_MAX).body().unwrap().len(), SCHEDULE_BODY_BYTES_MAX);
        assert!(with(SCHEDULE_BODY_BYTES_MAX + 1).body().is_err());
    }
}
