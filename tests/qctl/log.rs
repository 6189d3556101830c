//! `qctl log`: on a server's files, while it is stopped.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::Server;
use crate::support::{Place, Run, parse, qctl};

fn log(arguments: &[&str], dir: &Path) -> Run {
    let arguments = [&["log"], arguments, &[dir.to_str().unwrap()]].concat();
    Run::of(qctl("127.0.0.1:1", &arguments).output().unwrap())
}

/// The segment with entries in it.
fn segment(data: &Path) -> PathBuf {
    let names = fs::read_dir(data.join("log-0")).unwrap().map(|item| item.unwrap().path());
    let is_used = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "segment")
            && fs::read(path).unwrap()[0] != 0
    };
    names.into_iter().find(is_used).unwrap()
}

#[test]
fn a_stopped_servers_log_is_verified_printed_and_repaired() {
    let mut place = Place::new();
    for line in ["one\n", "two\n", "three\n"] {
        place.enqueue("q", line);
    }
    let data = place.path("data");
    let busy = log(&["verify"], &data);
    assert_eq!(busy.code, 1, "{busy:?}");
    assert!(busy.stderr.contains("only a stopped server's log"), "{busy:?}");
    place.server.kill9();
    let whole = log(&["verify"], &data);
    assert_eq!(whole.code, 0, "{whole:?}");
    assert!(whole.stdout.contains("3 jobs") && whole.stdout.contains("All is whole."), "{whole:?}");
    let dump = log(&["dump"], &data);
    assert!(dump.stdout.contains("queue 1 offsets 2 to 2"), "{dump:?}");
    let dump = log(&["--json", "dump"], &data);
    let entries: Vec<_> = dump.stdout.lines().map(parse).collect();
    let second = entries.iter().find(|entry| entry["base_offset"] == 1 && entry["jobs"] == 1);
    let position = second.unwrap()["position"].as_u64().unwrap() as usize;
    let index = second.unwrap()["index"].as_u64().unwrap();
    assert!(log(&["repair"], &data).stdout.contains("nothing to repair"));

    let path = segment(&data);
    let mut bytes = fs::read(&path).unwrap();
    bytes[position + 30] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damaged = log(&["--json", "verify"], &data);
    assert_eq!(damaged.code, 1, "{damaged:?}");
    let found = parse(&damaged.stdout);
    assert_eq!(found["damage"][0]["position"], position, "{found}");
    assert!(found["refusal"].as_str().unwrap().contains("is damaged"), "{found}");
    let unasked = log(&["repair"], &data);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(unasked.stderr.contains(&format!("end with entry {}.", index - 1)), "{unasked:?}");
    let repaired = log(&["repair", "--yes"], &data);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    assert_eq!(log(&["verify"], &data).code, 0);
    let server = Server::start(&data, &[]);
    let run =
        qctl(&server.address().to_string(), &["--json", "fetch", "q", "--jobs", "9"]).output();
    assert_eq!(Run::of(run.unwrap()).stdout.lines().count(), 1);
}

/// The server stops with a checkpoint, so it would miss what is taken away.
#[test]
fn a_log_whose_newest_segment_is_missing_is_refused_as_a_start_refuses_it() {
    let mut place = Place::new();
    place.enqueue("q", "one\n");
    let data = place.path("data");
    assert!(place.server.stop().success());
    fs::remove_file(segment(&data)).unwrap();
    let found = log(&["verify"], &data);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("A start will refuse it"), "{found:?}");
    let refused = Server::refused(&data);
    let reason = found.stdout.split_once("A start will refuse it: ").unwrap().1.trim();
    assert!(refused.contains(reason), "{refused}\n{found:?}");
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = log(&["verify"], &empty);
    assert!(empty.code == 1 && empty.stderr.contains("there is no log"), "{empty:?}");
}
