//! What can be set per queue, with the defaults and what is allowed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest backoff that can be set: 365 days, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 365 * 24 * 3_600 * 1_000;

/// The longest time that can be set for keeping consumed jobs: 365 days, in milliseconds.
pub const KEEP_MS_MAX: u64 = 365 * 24 * 3_600 * 1_000;

/// The highest age that can be set: 3,650 days, in milliseconds.
pub const AGE_MS_MAX: u64 = 3_650 * 24 * 3_600 * 1_000;

/// The highest rate that can be set, in jobs per second, and the largest burst.
pub const RATE_PER_SECOND_MAX: u64 = 1_000_000;

/// The shortest of both, in milliseconds.
const RETENTION_MS_MIN: u64 = 1_000;

/// How long dead jobs are kept where nothing else is set: 90 days, in milliseconds.
pub const DEAD_KEPT_MS: u64 = 90 * 24 * 3_600 * 1_000;

/// How many jobs of a group may wait for others of their keys where nothing else is set.
pub const PARKED_MAX: u64 = 1_000_000;
/// How many delays a list of them can have: the rest of a job's failures waits as the last one.
pub const BACKOFF_DELAYS_MAX: usize = 100;

/// The least room for results: one of any length has a place.
const RESULTS_BYTES_LEAST: u64 = 128 * 1024;

/// The group that has the last word on a job where nothing else is set.
const PRIMARY_GROUP: &str = "default";

/// How a queue treats the jobs that come back, and what it keeps.
///
/// The names of the fields are those of the settings in the log and on the wire, and what the log
/// does not have gets its default; so a new setting is a field here with its default and its
/// check, and a line in the protocol's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// How many failures a job may have; one more and it is dead.
    pub failures_max: u32,
    /// The wait after the first failure, in milliseconds; it doubles with each further one.
    pub backoff_first_ms: u64,
    /// Where the doubling ends, in milliseconds, before jitter.
    pub backoff_longest_ms: u64,
    /// The waits after the first failure, the second, and so on, in milliseconds, instead of the
    /// doubling; the last one is that of all further ones, too. Empty for the doubling.
    pub backoff_delays_ms: Vec<u64>,
    /// How many crashes a job may have; one more and it is dead.
    pub crashes_max: u32,
    /// The wait after the second crash, in milliseconds; it doubles with each further one. After
    /// the first crash there is none.
    pub crash_backoff_first_ms: u64,
    /// Where the doubling ends, in milliseconds, before jitter.
    pub crash_backoff_longest_ms: u64,
    /// How long a dead job is kept, in milliseconds of the log's clock; 0 for ever.
    pub dead_kept_ms: u64,
    /// How long consumed jobs are kept at least, in milliseconds, so that a group can be set back
    /// to them; 0 for not at all.
    pub keep_consumed_for_ms: u64,
    /// The age in milliseconds at which a job ends although nobody has consumed it; none for never.
    pub max_age_ms: Option<u64>,
    /// How many jobs may wait to be consumed; more are refused. None for any number.
    pub max_jobs: Option<u64>,
    /// How many bytes of bodies may wait to be consumed; more are refused. None for any number.
    pub max_bytes: Option<u64>,
    /// How many jobs a group may have out at once. None for any number.
    pub max_in_flight: Option<u64>,
    /// How many jobs a group is given per second. None for any number.
    pub rate_per_second: Option<u64>,
    /// How many of these it is given at once at most; none for those of a second.
    pub rate_burst: Option<u64>,
    /// Whether each group is given the jobs of one key in their order, and one at a time.
    pub ordered_by_key: bool,
    /// How many jobs of one key may be out at a time in each group. None for any number; one, if
    /// the queue is ordered by key.
    pub key_concurrency_max: Option<u32>,
    /// Whether a dead job goes on to hold the place of its key.
    pub dead_keeps_key: bool,
    /// How many jobs of each group may wait for others of their keys.
    pub parked_max: u64,
    /// The group that says when a job is done, where that matters beyond its groups: for unique
    /// keys, for results, and for those who wait for the end of a job.
    pub primary_group: Box<str>,
    /// How long the result of a job is kept, in milliseconds of the log's clock.
    pub result_kept_ms: u64,
    /// How many bytes of results are kept, each counted with
    /// [`RESULT_OVERHEAD_BYTES`](super::RESULT_OVERHEAD_BYTES) more; for a new one, those go that
    /// would have gone first.
    pub result_bytes_max: u64,
}

/// A setting that is not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{field} is {found}; allowed is {least} to {most}")]
pub struct SettingsError {
    /// The name of the field.
    pub field: &'static str,
    /// What it was set to.
    pub found: u64,
    /// The lowest value allowed.
    pub least: u64,
    /// The highest value allowed, given the other fields.
    pub most: u64,
}

impl QueueSettings {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let (longest_ms, crash_longest_ms) =
            (self.backoff_longest_ms, self.crash_backoff_longest_ms);
        check("backoff_longest_ms", longest_ms, BACKOFF_MS_MAX)?;
        check("backoff_first_ms", self.backoff_first_ms, longest_ms)?;
        let delays = self.backoff_delays_ms.len() as u64;
        check_from("the length of backoff_delays_ms", delays, 0, BACKOFF_DELAYS_MAX as u64)?;
        for delay_ms in &self.backoff_delays_ms {
            check("backoff_delays_ms", *delay_ms, BACKOFF_MS_MAX)?;
        }
        check("crash_backoff_longest_ms", crash_longest_ms, BACKOFF_MS_MAX)?;
        check("crash_backoff_first_ms", self.crash_backoff_first_ms, crash_longest_ms)?;
        if self.keep_consumed_for_ms > 0 {
            let keep_ms = self.keep_consumed_for_ms;
            check_from("keep_consumed_for_ms", keep_ms, RETENTION_MS_MIN, KEEP_MS_MAX)?;
        }
        if let Some(age_ms) = self.max_age_ms {
            check_from("max_age_ms", age_ms, RETENTION_MS_MIN, AGE_MS_MAX)?;
        }
        check("max_jobs", self.max_jobs.unwrap_or(1), u64::MAX)?;
        check("max_bytes", self.max_bytes.unwrap_or(1), u64::MAX)?;
        check_from("result_kept_ms", self.result_kept_ms, 0, KEEP_MS_MAX)?;
        check_from("result_bytes_max", self.result_bytes_max, RESULTS_BYTES_LEAST, u64::MAX)?;
        let places_max = if self.ordered_by_key { 1 } else { u32::MAX };
        let places = u64::from(self.key_concurrency_max.unwrap_or(1));
        check("key_concurrency_max", places, u64::from(places_max))?;
        check("parked_max", self.parked_max, u64::MAX)?;
        check("max_in_flight", self.max_in_flight.unwrap_or(1), u64::MAX)?;
        check("rate_per_second", self.rate_per_second.unwrap_or(1), RATE_PER_SECOND_MAX)?;
        match (self.rate_per_second, self.rate_burst) {
            (None, Some(burst)) => check_from("rate_burst without rate_per_second", burst, 0, 0),
            (_, burst) => check("rate_burst", burst.unwrap_or(1), RATE_PER_SECOND_MAX),
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            failures_max: 25,
            backoff_first_ms: 1_000,
            backoff_longest_ms: 3_600_000,
            backoff_delays_ms: Vec::new(),
            crashes_max: 5,
            crash_backoff_first_ms: 5_000,
            crash_backoff_longest_ms: 300_000,
            dead_kept_ms: DEAD_KEPT_MS,
            keep_consumed_for_ms: 0,
            max_age_ms: None,
            max_jobs: None,
            max_bytes: None,
            max_in_flight: None,
            rate_per_second: None,
            rate_burst: None,
            ordered_by_key: false,
            key_concurrency_max: None,
            dead_keeps_key: false,
            parked_max: PARKED_MAX,
            primary_group: PRIMARY_GROUP.into(),
            result_kept_ms: 500_000,
            result_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A wait of 0 is not allowed: a job that always fails would turn without a pause.
fn check(field: &'static str, found: u64, most: u64) -> Result<(), SettingsError> {
    check_from(field, found, 1, most)
}

fn check_from(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), SettingsError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(SettingsError { field, found, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_and_what_is_allowed() {
        let base = QueueSettings::default();
        assert_eq!(base.validate(), Ok(()));
        let wrong = QueueSettings { backoff_first_ms: 3_600_001, ..base.clone() };
        let text = wrong.validate().unwrap_err().to_string();
        assert_eq!(text, "backoff_first_ms is 3600001; allowed is 1 to 3600000");
        let wrong = QueueSettings { crash_backoff_first_ms: 0, ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "crash_backoff_first_ms");
        let wrong = QueueSettings { crash_backoff_longest_ms: u64::MAX, ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().most, BACKOFF_MS_MAX);
        for keep_ms in [999, KEEP_MS_MAX + 1] {
            let wrong = QueueSettings { keep_consumed_for_ms: keep_ms, ..base.clone() };
            assert_eq!(wrong.validate().unwrap_err().least, 1_000);
        }
        let wrong = QueueSettings { max_age_ms: Some(0), ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "max_age_ms");
        let wrong = QueueSettings { max_jobs: Some(0), ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "max_jobs");
        for wrong in [Some(0), Some(RATE_PER_SECOND_MAX + 1)] {
            let wrong = QueueSettings { rate_per_second: wrong, ..base.clone() };
            assert_eq!(wrong.validate().unwrap_err().field, "rate_per_second");
            let (rate_per_second, rate_burst) = (Some(1), wrong.rate_per_second);
            let wrong = QueueSettings { rate_per_second, rate_burst, ..base.clone() };
            assert_eq!(wrong.validate().unwrap_err().field, "rate_burst");
        }
        let wrong = QueueSettings { max_in_flight: Some(0), ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "max_in_flight");
        let wrong = QueueSettings { rate_burst: Some(5), ..base.clone() };
        let text = wrong.validate().unwrap_err().to_string();
        assert!(text.starts_with("rate_burst without rate_per_second is 5"), "{text}");
        let wrong = QueueSettings { parked_max: 0, ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "parked_max");
        let ordered = QueueSettings { ordered_by_key: true, ..base.clone() };
        assert_eq!(ordered.validate(), Ok(()));
        let wrong = QueueSettings { key_concurrency_max: Some(2), ..ordered };
        assert_eq!(wrong.validate().unwrap_err().most, 1);
        let wrong = QueueSettings { backoff_delays_ms: vec![1; 101], ..base.clone() };
        let text = wrong.validate().unwrap_err().to_string();
        assert_eq!(text, "the length of backoff_delays_ms is 101; allowed is 0 to 100");
        let wrong = QueueSettings { backoff_delays_ms: vec![5, 0], ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "backoff_delays_ms");
        let wrong = QueueSettings { result_bytes_max: 131_071, ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().least, 131_072);
        let wrong = QueueSettings { result_kept_ms: KEEP_MS_MAX + 1, ..base.clone() };
        assert_eq!(wrong.validate().unwrap_err().field, "result_kept_ms");
        let wrong = QueueSettings { backoff_longest_ms: 0, ..base };
        assert_eq!(wrong.validate().unwrap_err().field, "backoff_longest_ms");
    }
}
