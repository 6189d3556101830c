//! Exit codes, help, bad command lines, and a server that is not there.

use std::net::TcpListener;
use std::process::Stdio;

use crate::support::{Place, Run, qctl};

fn without_server(arguments: &[&str]) -> Run {
    // A port that was free a moment ago, and where nobody listens now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    Run::of(qctl(&address, arguments).output().unwrap())
}

#[test]
fn help_says_what_the_exit_codes_mean() {
    let run = without_server(&["--help"]);
    run.expect(0, &[]);
    for text in ["0  Everything was done.", "3  The server can't be reached.", "JOBLOG_SERVER"] {
        assert!(run.stdout.contains(text), "{}", run.stdout);
    }
    let run = without_server(&["work", "--help"]);
    assert!(run.stdout.contains("stands where {} stands"), "{}", run.stdout);
    let run = without_server(&["work", "-h"]);
    assert!(run.stdout.contains("Run up to N commands at once. [default: 1]"), "{}", run.stdout);
}

#[test]
fn a_wrong_command_line_is_told_with_what_is_allowed() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: qctl"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["fetch"], "<QUEUE>..."),
        (&["fetch", "q", "--lease", "30"], "500ms, 30s, 5m, 2h or 7d"),
        (&["fetch", "q", "--jobs", "0"], "0 is not in 1.."),
        (&["commit", "q"], "allowed is QUEUE:OFFSET"),
        (&["commit", "q:1"], "needed behind it, as in q:1@TOKEN"),
        (&["commit", "q:1@00", "--through"], "without tokens"),
        (&["enqueue", "q"], "<PAYLOAD|--file <FILE>|--lines <FILE>>"),
        (&["enqueue", "q", "x", "--file", "y"], "cannot be used with"),
        (&["enqueue", "q", "x", "--header", "h"], "allowed is NAME=VALUE"),
        (&["group", "create", "q", "g", "--from", "middle"], "start, end or an offset"),
        (&["work", "q"], "COMMAND"),
        (&["queue", "delete", "q"], "--yes is needed to delete queue q"),
        (&["group", "delete", "q", "g"], "--yes is needed to delete group g"),
    ];
    for (arguments, told) in cases {
        without_server(arguments).expect(2, &[told]);
    }
}

#[test]
fn a_bad_name_is_a_usage_error_too() {
    let place = Place::new();
    place.run(&["enqueue", "a:b", "x"]).expect(2, &["\"a:b\" is no name: allowed are"]);
    place.run(&["queue", "show", ""]).expect(2, &["is no name"]);
    place.run(&["fetch", "q", "--group", "a b"]).expect(2, &["is no name"]);
}

#[test]
fn a_server_that_is_not_there_has_its_own_exit_code() {
    for arguments in [&["ping"][..], &["enqueue", "q", "x"], &["work", "q", "--", "true"]] {
        without_server(arguments).expect(3, &["can't be reached", "--server or JOBLOG_SERVER"]);
    }
    without_server(&["ping", "--server", "nowhere.invalid:1"]).expect(3, &["nowhere.invalid:1"]);
}

#[test]
fn the_option_names_the_server_before_the_environment_does() {
    let place = Place::new();
    let address = place.server.address().to_string();
    let output = qctl("127.0.0.1:1", &["ping", "--server", &address]).output().unwrap();
    Run::of(output).expect(0, &[]);
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_output_quietly() {
    let place = Place::new();
    place.enqueue("q", &"a line that is long enough to fill a pipe soon\n".repeat(5000));
    let mut command = place.command(&["peek", "q", "--limit", "5000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}
