//! SPEC.md's tables of commands, errors and limits say what the code says, row by row.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use joblog_protocol::limits::LIMITS;
use joblog_protocol::{ErrorCode, Opcode};

const SPEC: &str = include_str!("../SPEC.md");

const SECTIONS: [&str; 15] = [
    "1. Scope and goals",
    "2. Terms",
    "3. Conventions",
    "4. Connection",
    "5. Frame",
    "6. Job life cycle",
    "7. Guarantees",
    "8. Command index",
    "9. Commands",
    "10. Server-initiated messages and flow control",
    "11. Errors",
    "12. Limits",
    "13. Versioning",
    "14. Annotated session",
    "15. Notes for client authors, security, change log",
];

/// The text of a section, from its heading to the next one of the same level.
fn section(title: &str) -> &'static str {
    let heading = format!("\n## {title}\n");
    let start = SPEC.find(&heading).unwrap_or_else(|| panic!("no {title:?}")) + heading.len();
    let rest = &SPEC[start..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// The rows of the first table in `text` as cells, without its head.
fn table(text: &'static str, head: &[&str]) -> Vec<Vec<&'static str>> {
    let cells = |line: &'static str| -> Vec<&'static str> {
        line.trim_matches('|').split('|').map(str::trim).collect()
    };
    let mut lines = text.lines().skip_while(|line| !line.starts_with('|'));
    let found = cells(lines.next().expect("a table"));
    assert_eq!(found, head, "the head of the table");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(cells).collect();
    assert!(
        rows.iter().all(|row| row.len() == head.len()),
        "a row has other columns than its head"
    );
    rows
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn yes(text: &str) -> bool {
    match text {
        "yes" => true,
        "no" => false,
        other => panic!("{other:?} is neither yes nor no"),
    }
}

#[test]
fn the_sections_stand_in_their_order() {
    let found: Vec<_> = SPEC.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(found, SECTIONS);
}

#[test]
fn the_commands_are_those_of_the_code() {
    let head = ["Opcode", "Name", "Purpose", "Request body", "Reply body", "Before HELLO", "Since"];
    let rows = table(section("8. Command index"), &head);
    let stated: Vec<_> = rows
        .iter()
        .map(|row| {
            let code = u8::from_str_radix(row[0].strip_prefix("0x").unwrap(), 16).unwrap();
            assert_eq!(yes(row[5]), row[1] == "HELLO", "only HELLO may come first");
            (code, row[1])
        })
        .collect();
    let coded: Vec<_> = Opcode::ALL.iter().map(|opcode| (*opcode as u8, opcode.name())).collect();
    assert_eq!(stated, coded);
    for code in 0..=u8::MAX {
        let found = Opcode::from_code(code).map(Opcode::name);
        let listed = stated.iter().find(|(stated, _)| *stated == code).map(|(_, name)| *name);
        assert_eq!(found, listed, "{code:#04x}");
    }
}

#[test]
fn every_command_has_its_heading() {
    let headings: Vec<_> =
        section("9. Commands").lines().filter_map(|line| line.strip_prefix("#### ")).collect();
    for opcode in Opcode::ALL {
        let count = headings.iter().filter(|heading| **heading == opcode.name()).count();
        assert_eq!(count, 1, "headings of {}", opcode.name());
    }
    assert_eq!(headings.len(), Opcode::ALL.len(), "{headings:?}");
}

#[test]
fn the_errors_are_those_of_the_code() {
    let head = ["Number", "Name", "Retryable", "Closes", "Cause", "What the client does"];
    let rows = table(section("11. Errors"), &head);
    let stated: Vec<_> =
        rows.iter().map(|row| (number(row[0]) as u16, row[1], yes(row[2]), yes(row[3]))).collect();
    let coded: Vec<_> = ErrorCode::ALL
        .iter()
        .map(|code| (*code as u16, code.name(), code.retryable(), code.closes()))
        .collect();
    assert_eq!(stated, coded);
    for number in 0..=u16::MAX {
        let found = ErrorCode::from_code(number).map(ErrorCode::name);
        let listed = stated.iter().find(|row| row.0 == number).map(|row| row.1);
        assert_eq!(found, listed, "{number}");
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let head = ["Name", "Value", "Unit", "Configurable", "When it is exceeded"];
    let rows = table(section("12. Limits"), &head);
    let stated: Vec<_> = rows.iter().map(|row| (row[0], number(row[1]))).collect();
    let coded: Vec<_> = LIMITS.iter().map(|limit| (limit.name, limit.value)).collect();
    assert_eq!(stated, coded);
    for row in &rows {
        assert_eq!(row[0].contains("_MS_"), row[2] == "ms", "{row:?}");
        let bytes = row[0].contains("_BYTES") || row[0].contains("_LENGTH_");
        assert_eq!(bytes, row[2] == "bytes", "{row:?}");
    }
}

/// A word in capitals between backticks is an error, a limit or a flag, and must be spelt right.
#[test]
fn every_error_that_the_text_names_exists() {
    let known = |word: &str| {
        ErrorCode::ALL.iter().any(|code| code.name() == word)
            || Opcode::ALL.iter().any(|opcode| opcode.name() == word)
            || LIMITS.iter().any(|limit| limit.name == word)
            || word == "JLOG"
    };
    let capitals = |word: &&str| {
        word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let named: Vec<_> =
        SPEC.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(capitals).collect();
    assert!(named.len() > 50, "only {} names found", named.len());
    let unknown: Vec<_> = named.iter().filter(|word| !known(word)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
