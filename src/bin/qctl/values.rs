//! How durations, times and bytes are written on the command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAYS_OF_400_YEARS: u64 = 146_097;
/// Up to 1970-01-01.
const DAYS_FROM_MARCH_OF_YEAR_0: u64 = 719_468;
/// Later times do not fit into 64 bits of milliseconds.
const YEAR_MAX: u64 = 600_000_000;

/// Units from the longest to the shortest, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration: a whole number and its unit; 0 needs none.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is no duration: allowed is a whole number with its unit, as in 500ms, 30s, \
             5m, 2h or 7d"
        )
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let scale = UNITS.iter().find(|(name, _)| *name == unit);
    let millis = scale.and_then(|(_, scale)| number.checked_mul(*scale));
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

/// Writes a duration in the longest unit that needs no fraction.
pub(crate) fn format_millis(millis: u64) -> String {
    let whole = |(_, scale): &&(&str, u64)| millis.is_multiple_of(*scale);
    match UNITS.iter().find(whole) {
        Some((unit, scale)) if millis > 0 => format!("{}{unit}", millis / scale),
        _ => "0s".to_owned(),
    }
}

/// Writes a point in time, given in milliseconds since the Unix epoch, as RFC 3339 in UTC.
pub(crate) fn format_time(unix_ms: u64) -> String {
    let (days, in_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil_date(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The date of a day counted from 1970-01-01. Years begin in March here, so that the leap day is
/// the last of its year, and the months' lengths follow one formula.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..=9 => (year, month + 3),
        _ => (year + 1, month - 9),
    };
    (era * 400 + year, month, day_of_month)
}

/// Reads a time as RFC 3339 has it, with its offset from UTC: milliseconds since the Unix epoch.
pub(crate) fn parse_time(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is no time: allowed is a date and a time with its offset from UTC, as in \
             2026-12-24T18:00:00+01:00 or 2026-12-24T17:00:00Z, from 1970 on"
        )
    };
    read_time(text).ok_or_else(wrong)
}

fn read_time(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(text.find(['T', 't', ' '])?)?;
    let rest = rest.get(1..)?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at_checked(zone_at)?;
    let (year, month_and_day) = date.split_once('-')?;
    let [year] = numbers(year, '-', [year.len().max(4)])?;
    let [month, day] = numbers(month_and_day, '-', [2, 2])?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(whole, ':', [2, 2, 2])?;
    let thousandths = format!("{fraction:0<3}").get(..3)?.parse::<u64>().ok()?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !(1970..=YEAR_MAX).contains(&year) || hour > 23 || minute > 59 || second > 59 || !digits {
        return None;
    }
    let days = days_of(year, month, day)?;
    let in_day_ms = ((hour * 60 + minute) * 60 + second) * 1000 + thousandths;
    let local_ms = days.checked_mul(86_400_000)?.checked_add(in_day_ms)?;
    let (sign, zone) = zone.split_at_checked(1)?;
    if ["Z", "z"].contains(&sign) {
        return zone.is_empty().then_some(local_ms);
    }
    let [hours, minutes] = numbers(zone, ':', [2, 2])?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset_ms = (hours * 60 + minutes) * 60_000;
    if sign == "+" { local_ms.checked_sub(offset_ms) } else { local_ms.checked_add(offset_ms) }
}

/// Numbers of so many digits, with a separator between them.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(between);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(numbers)
}

/// The days from 1970-01-01 to a date from then on, if there is such a date: the way back from
/// [`civil_date`].
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year_from_march, month_from_march) = match month {
        3.. => (year, month - 3),
        _ => (year.checked_sub(1)?, month + 9),
    };
    let day_of_year = (153 * month_from_march + 2) / 5 + day.checked_sub(1)?;
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * DAYS_OF_400_YEARS + day_of_era).checked_sub(DAYS_FROM_MARCH_OF_YEAR_0)?;
    (civil_date(days) == (year, month, day)).then_some(days)
}

/// The time of day now, in milliseconds since the Unix epoch.
pub(crate) fn unix_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Reads a header, `NAME=VALUE`. The value may be any bytes.
pub(crate) fn parse_header(header: OsString) -> Result<(String, Vec<u8>), String> {
    let bytes = header.into_vec();
    let split = bytes.iter().position(|byte| *byte == b'=');
    let parts = split.and_then(|at| bytes.split_at_checked(at));
    let shown = || String::from_utf8_lossy(&bytes).into_owned();
    let Some((name, [_, value @ ..])) = parts else {
        return Err(format!("{:?} is no header: allowed is NAME=VALUE", shown()));
    };
    match std::str::from_utf8(name) {
        Ok(name) if (1..=255).contains(&name.len()) => Ok((name.to_owned(), value.to_vec())),
        _ => Err(format!(
            "the header {:?} has no good name: allowed are 1 to 255 bytes of UTF-8",
            shown()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_come_back_as_they_were_written() {
        for text in ["1ms", "500ms", "30s", "5m", "2h", "7d"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_millis(duration.as_millis() as u64), text);
        }
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        assert_eq!(format_millis(90_000), "90s");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        let overflow = format!("{}d", u64::MAX);
        for text in ["", "s", "5", "-5s", "1.5s", "5 s", "5S", "5weeks", &overflow] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        let at = |unix_s: u64| format_time(unix_s * 1000);
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59.000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00.000Z");
        assert_eq!(at(1_709_164_800), "2024-02-29T00:00:00.000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000Z");
        assert_eq!(format_time(1_795_410_943_120), "2026-11-23T05:15:43.120Z");
    }

    #[test]
    fn a_time_is_read_with_its_offset_from_utc() {
        let at = |text: &str| parse_time(text).map(format_time);
        assert_eq!(at("2026-12-24T18:00:00+01:00").unwrap(), "2026-12-24T17:00:00.000Z");
        assert_eq!(at("2026-12-31T23:30:00.5-01:00").unwrap(), "2027-01-01T00:30:00.500Z");
        assert_eq!(at("1970-01-01T00:00:00Z").unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(at("2000-02-29T12:00:00.123456Z").unwrap(), "2000-02-29T12:00:00.123Z");
        assert_eq!(at("9999-12-31 23:59:59z").unwrap(), "9999-12-31T23:59:59.000Z");
        assert_eq!(at("12026-01-02T00:00:00Z").unwrap(), "12026-01-02T00:00:00.000Z");
        assert_eq!(parse_time(&format_time(u64::MAX)), Ok(u64::MAX));
        for wrong in [
            "",
            "tomorrow",
            "2026-12-24",
            "2026-12-24T18:00:00",
            "2026-12-24T18:00+01:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-12-24T24:00:00Z",
            "2026-12-24T18:00:00+0100",
            "2026-12-24T18:00:00.xZ",
            "1969-12-31T23:59:59Z",
            "126-01-01T00:00:00Z",
            "700000000-01-01T00:00:00Z",
            "584556019-12-31T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
        ] {
            assert!(parse_time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_header_is_split_at_the_first_equals_sign() {
        let header = parse_header("a=b=c".into()).unwrap();
        assert_eq!(header, ("a".to_owned(), b"b=c".to_vec()));
        assert_eq!(parse_header("a=".into()).unwrap().1, b"");
        assert!(parse_header("a".into()).is_err());
        assert!(parse_header("=b".into()).is_err());
    }
}
