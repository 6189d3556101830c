//! `docs/configuration.md` and the code say the same, and the binary refuses what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at what it did not expect"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use joblog::broker::QueueSettings;
use joblog::config::Config;

/// The rows of the document's tables whose first cell is one of `keys`: key and default.
fn documented() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split('|').map(str::trim).map(str::to_owned).collect());
    cells
        .map(|cells: Vec<String>| {
            // The settings of a queue have neither flag nor environment.
            let default = if cells.len() > 6 { &cells[4] } else { &cells[2] };
            (cells[1].replace('`', ""), default.replace('`', ""))
        })
        .collect()
}

#[test]
fn the_documented_defaults_are_those_of_the_code() {
    let config = Config::defaults();
    let expected = [
        ("listen", config.listen.to_string()),
        ("data", config.data.display().to_string()),
        ("durability", config.durability.to_string()),
        ("logs", config.logs.map_or_else(|| "none".to_owned(), |logs| logs.to_string())),
        ("insecure", config.insecure.to_string()),
        ("auto_create", config.auto_create.to_string()),
        ("session_silence_ms", config.session_silence_ms.to_string()),
        ("session_run_ms_max", config.session_run_ms_max.to_string()),
        ("job_bytes_max", config.job_bytes_max.to_string()),
        ("segment_bytes", config.segment_bytes.to_string()),
        ("checkpoint_bytes", config.checkpoint_bytes.to_string()),
        ("connections_max", config.connections_max.to_string()),
        ("io_threads", "half of the cores, at least 1".to_owned()),
    ];
    let expected = expected.map(|(key, default)| (key.to_owned(), default));
    let mut documented = documented();
    let mut of_queues = documented.split_off(expected.len());
    assert_eq!(documented, expected);
    of_queues.sort();
    assert_eq!(of_queues, queue_defaults());
}

/// The settings of a queue with their defaults, by name.
fn queue_defaults() -> Vec<(String, String)> {
    let settings = serde_json::to_value(QueueSettings::default()).unwrap();
    let settings = settings.as_object().unwrap().clone().into_iter();
    let text = |value| match value {
        serde_json::Value::String(text) => text,
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::Bool(value) => value.to_string(),
        _ => "none".to_owned(),
    };
    let mut defaults: Vec<_> = settings.map(|(name, value)| (name, text(value))).collect();
    defaults.sort();
    defaults
}

fn joblogd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joblogd"));
    command.args(arguments).output().unwrap()
}

fn refused(arguments: &[&str], names: &[&str]) {
    let output = joblogd(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    for name in names {
        assert!(text.contains(name), "{arguments:?}: {text}");
    }
    assert_eq!(output.stdout, b"", "nothing is ready");
}

#[test]
fn a_wrong_setting_stops_the_start_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    refused(&["--data", data, "--listen", "0.0.0.0:0"], &["listen", "--insecure"]);
    refused(&["--data", data, "--listen", "here"], &["listen", "127.0.0.1:7411"]);
    refused(&["--data", data, "--durability", "maybe"], &["durability", "interval:<ms>"]);

    let file = dir.path().join("joblog.toml");
    let path = file.to_str().unwrap();
    for (text, names) in [
        ("lisen = 'x'", ["joblog.toml", "lisen"]),
        ("io_threads = 'two'", ["joblog.toml", "io_threads"]),
        ("io_threads = 0", ["io_threads", "1 to 256"]),
        ("segment_bytes = 16777217", ["segment_bytes", "4096"]),
    ] {
        fs::write(&file, text).unwrap();
        refused(&["--data", data, "--listen", "127.0.0.1:0", "--config", path], &names);
    }
    let missing = dir.path().join("none.toml");
    refused(&["--config", missing.to_str().unwrap()], &["none.toml"]);
}
