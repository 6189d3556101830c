//! When a cron expression is due in a time zone. A leaf: it knows no schedule, and not what time it
//! is.
//!
//! Where a time zone leaves local times out or repeats them, this follows Vixie's cron: what is due
//! at a fixed time of day comes at the first moment after a gap that swallows it, and once, the
//! first time, where its hour is repeated. What is due several times an hour, or in several hours,
//! follows the clock on the wall: nothing in the gap, and both times in a repeated hour.

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    zone: TimeZone,
}

/// Why there is no such thing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// The expression can't be read.
    #[error(
        "the cron expression {expression:?} can't be read: {reason} (allowed are five fields: \
         minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, \
         @monthly, @yearly)"
    )]
    Expression {
        /// The expression.
        expression: String,
        /// What is wrong.
        reason: String,
    },
    /// The time zone is not known.
    #[error("the time zone {zone:?} is not known; allowed is an IANA name, as in Europe/Zurich")]
    Zone {
        /// The name.
        zone: String,
    },
}

impl Cron {
    /// Reads an expression of five fields, or a nickname such as `@daily`, and looks the zone up:
    /// in the system's time zone database, or else in the one that was built in.
    ///
    /// # Errors
    /// [`CronError`].
    pub fn parse(expression: &str, zone: &str) -> Result<Self, CronError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let pattern = parser.build().parse(expression).map_err(|error| CronError::Expression {
            expression: expression.to_owned(),
            reason: error.to_string(),
        })?;
        let zone = TimeZone::get(zone).map_err(|_| CronError::Zone { zone: zone.to_owned() })?;
        Ok(Self { pattern, zone })
    }

    /// The first due time after a moment, both in milliseconds since the Unix epoch; none if none
    /// ever comes.
    pub fn next_after(&self, wall_ms: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?).ok()?;
        let local = after.to_zoned(self.zone.clone());
        let next = self.pattern.find_next_occurrence(&local, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    /// The first due times behind `after`, in UTC, without the date where that is the same.
    fn dues(expression: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(expression, "Europe/Zurich").unwrap();
        let next = |at: &u64| cron.next_after(*at);
        let dues = std::iter::successors(next(&ms(after)), next).take(count);
        let text = |at| Timestamp::from_millisecond(at as i64).unwrap().to_string();
        dues.map(text).collect()
    }

    /// On 2026-03-29 the clocks in Zurich go from 02:00 (UTC+1) to 03:00 (UTC+2).
    #[test]
    fn a_fixed_time_that_a_dst_change_leaves_out_comes_right_after_the_gap() {
        let daily = dues("30 2 * * *", "2026-03-28T00:00:00Z", 3);
        let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(daily, expected);
    }

    #[test]
    fn what_is_due_all_the_time_passes_over_the_gap() {
        let half_hourly = dues("*/30 * * * *", "2026-03-29T00:00:00Z", 3);
        let expected = ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"];
        assert_eq!(half_hourly, expected);
        let in_the_gap_alone = dues("15,45 2 * * *", "2026-03-28T23:00:00Z", 1);
        assert_eq!(in_the_gap_alone, ["2026-03-30T00:15:00Z"]);
    }

    /// On 2026-10-25 the clocks in Zurich go from 03:00 (UTC+2) back to 02:00 (UTC+1).
    #[test]
    fn a_fixed_time_that_a_dst_change_repeats_comes_once() {
        let daily = dues("30 2 * * *", "2026-10-24T01:00:00Z", 3);
        let expected = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"];
        assert_eq!(daily, expected);
    }

    #[test]
    fn what_is_due_all_the_time_comes_twice_in_a_repeated_hour() {
        let hourly = dues("0 * * * *", "2026-10-24T23:30:00Z", 4);
        let expected = [
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z",
            "2026-10-25T03:00:00Z",
        ];
        assert_eq!(hourly, expected);
    }

    #[test]
    fn a_due_time_lies_behind_the_moment_that_was_asked_for() {
        let at = |after| dues("0 12 * * *", after, 1).remove(0);
        assert_eq!(at("2026-07-01T09:59:59.999Z"), "2026-07-01T10:00:00Z");
        assert_eq!(at("2026-07-01T10:00:00Z"), "2026-07-02T10:00:00Z");
        assert_eq!(at("2026-07-01T10:00:00.001Z"), "2026-07-02T10:00:00Z");
    }

    #[test]
    fn what_can_t_be_read_is_refused_with_its_reason() {
        for wrong in ["", "* * * *", "61 * * * *", "0 0 0 * * *", "@often", "a b c d e"] {
            let error = Cron::parse(wrong, "UTC").unwrap_err().to_string();
            assert!(error.contains("five fields"), "{error}");
        }
        let error = Cron::parse("@daily", "Europe/Atlantis").unwrap_err().to_string();
        assert!(error.contains("Europe/Atlantis"), "{error}");
        let never = Cron::parse("0 0 30 2 *", "UTC").unwrap();
        assert_eq!(never.next_after(ms("2026-01-01T00:00:00Z")), None);
    }
}
