//! Facts and records there and back, against the document, and against bytes of old.

pub(in crate::queue) mod samples;

use std::fmt::Debug;

use self::samples::Sample;
use super::{Codec, encode_bytes};
use crate::queue::{DEAD_KEPT_MS, Fact, PARKED_MAX, QueueSettings, Record};

const DOCUMENT: &str = include_str!("../../../docs/log-format.md");

/// A line for each: its bytes, and how it is printed. What has settings is left out, since new
/// settings change both.
const OLD: &str = include_str!("../../../tests/fixtures/facts-and-records-v1.txt");

/// Samples of each form: more than any field has forms.
const SAMPLES: usize = 24;

/// The rows of a section's table: tag and name.
fn rows(section: &str) -> Vec<(u8, &'static str)> {
    let section = DOCUMENT.split(section).nth(1).expect("the document has the section");
    let lines = section.lines().take_while(|line| !line.starts_with('#'));
    let row = |line: &'static str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?.parse().ok()?, cells.next()?))
    };
    lines.filter_map(row).collect()
}

fn encoded<T>(item: &T, encode: impl Fn(&T, &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(item, &mut bytes);
    bytes
}

/// Each sample comes back, and no beginning of it is read as one.
fn check<T: Sample + Debug + PartialEq>(
    tags: &[(u8, &str)],
    encode: impl Fn(&T, &mut Vec<u8>) + Copy,
    decode: impl Fn(&mut &[u8]) -> super::Read<T>,
) {
    let mut seen = Vec::new();
    for seed in 0..tags.len() * SAMPLES {
        let item = T::sample(seed);
        let bytes = encoded(&item, encode);
        let mut rest = &bytes[..];
        assert_eq!(decode(&mut rest).as_ref(), Ok(&item));
        assert!(rest.is_empty(), "{item:?}");
        for end in (0..bytes.len()).filter(|end| end % 97 == 0 || end + 300 > bytes.len()) {
            assert!(decode(&mut &bytes[..end]).is_err(), "{item:?} cut at {end}");
        }
        seen.push(bytes[0]);
    }
    assert!(tags.iter().all(|(tag, _)| seen.contains(tag)));
    assert!(decode(&mut &[0_u8; 99][..]).is_err(), "zero is no tag");
}

#[test]
fn every_fact_and_record_comes_back_and_no_beginning_of_one_passes() {
    check(Fact::TAGS, Fact::encode, Fact::decode);
    check(Record::TAGS, Record::encode, Record::decode);
}

#[test]
fn the_document_has_the_tags_of_the_code() {
    let mut facts = Fact::TAGS.to_vec();
    facts.sort_unstable();
    assert_eq!(rows("\n## Facts\n"), facts);
    assert_eq!(rows("\n## Checkpoint records\n"), Record::TAGS, "in this order");
}

#[test]
fn the_bytes_are_those_of_old() {
    let mut tags = [Vec::new(), Vec::new()];
    for line in OLD.lines() {
        let mut parts = line.splitn(3, ' ');
        let (kind, hex, printed) =
            (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<_> = (0..hex.len()).step_by(2).map(byte).collect();
        let (found, again) = match kind {
            "fact" => {
                let fact = Fact::decode(&mut &bytes[..]).unwrap();
                (format!("{fact:?}"), encoded(&fact, Fact::encode))
            }
            _ => {
                let record = Record::decode(&mut &bytes[..]).unwrap();
                (format!("{record:?}"), encoded(&record, Record::encode))
            }
        };
        assert_eq!(found, printed);
        assert_eq!(again, bytes, "{printed}");
        tags[usize::from(kind != "fact")].push(bytes[0]);
    }
    let has_settings = ["queue created", "queue updated", "queue"];
    for (found, all) in tags.iter().zip([Fact::TAGS, Record::TAGS]) {
        let is_missing =
            |(tag, name): &&(u8, &str)| !found.contains(tag) && !has_settings.contains(name);
        let missing: Vec<_> = all.iter().filter(is_missing).collect();
        assert!(missing.is_empty(), "write down the bytes of {missing:?}");
    }
}

#[test]
fn settings_of_older_logs_are_read_with_defaults_and_all_come_back() {
    let old = r#"{"failures_max":3,"backoff_first_ms":1,"backoff_longest_ms":2,
        "crashes_max":4,"crash_backoff_first_ms":5,"crash_backoff_longest_ms":6}"#;
    let read = |text: &str| {
        let mut bytes = Vec::new();
        encode_bytes(text.as_bytes(), &mut bytes);
        QueueSettings::decode(&mut &bytes[..])
    };
    let found = read(old).unwrap();
    assert_eq!((found.failures_max, found.crash_backoff_longest_ms), (3, 6));
    assert_eq!((found.keep_consumed_for_ms, found.max_age_ms), (0, None));
    assert_eq!((found.dead_kept_ms, found.parked_max), (DEAD_KEPT_MS, PARKED_MAX));
    assert!(!found.ordered_by_key && found.key_concurrency_max.is_none());
    let new = QueueSettings {
        backoff_delays_ms: vec![1, 2],
        primary_group: "main".into(),
        result_kept_ms: 5,
        result_bytes_max: 200_000,
        dead_kept_ms: 10,
        keep_consumed_for_ms: 9,
        max_age_ms: Some(8),
        max_jobs: Some(7),
        max_bytes: Some(6),
        ordered_by_key: true,
        key_concurrency_max: Some(1),
        dead_keeps_key: true,
        parked_max: 5,
        ..found
    };
    let bytes = encoded(&new, QueueSettings::encode);
    assert_eq!(QueueSettings::decode(&mut &bytes[..]), Ok(new));
    assert!(read(&old.replace('}', r#","later":1}"#)).is_err());
}
