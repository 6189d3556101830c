//! The README's walk-through on real files, as a user runs it, with the worker and the server
//! killed in the middle: the set of results is what `sha256sum` gives directly.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::Server;
use rustix::pipe::fcntl_setpipe_size;

/// Files worked on: enough that a kill comes in the middle.
const FILES_MAX: usize = 400;

/// Real files: this project's own sources and manifests.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut dirs: Vec<PathBuf> =
        ["src", "protocol", "tests", "docs", "bench"].iter().map(|dir| root.join(dir)).collect();
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files.truncate(FILES_MAX);
    files
}

fn qctl(server: &Server) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qctl"));
    command.env("JOBLOG_SERVER", server.address().to_string()).stdin(Stdio::null());
    command
}

/// A worker whose output goes to a pipe, so that the test knows how far it is.
fn worker(server: &Server) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = qctl(server)
        .args(["work", "checksums", "--concurrency", "4", "--until-empty", "--", "sha256sum", "{}"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    // So small that the worker waits for the test: what is killed is in the middle of its work.
    fcntl_setpipe_size(&stdout, 4096).unwrap();
    (child, BufReader::new(stdout).lines().map_while(Result::ok))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_file_is_summed_though_worker_and_server_are_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&dir.path().join("data"), &[]);
    let files = files();
    assert!(files.len() > 100, "the tree has too few files for this test");
    let list = dir.path().join("files");
    let lines: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    fs::write(&list, lines).unwrap();

    run(qctl(&server).args(["enqueue", "checksums", "--lines", list.to_str().unwrap()]));

    // The first worker is killed in the middle, and so is the server, at once.
    let (mut first, mut lines) = worker(&server);
    let mut results: BTreeSet<String> = lines.by_ref().take(files.len() / 4).collect();
    first.kill().unwrap();
    first.wait().unwrap();
    results.extend(lines);
    assert!(results.len() < files.len() / 2, "the worker was killed in the middle");
    server.kill9();
    server.restart();

    // The second one lives through another kill of the server.
    let (mut second, mut lines) = worker(&server);
    results.extend(lines.by_ref().take(files.len() / 4));
    server.kill9();
    server.restart();
    results.extend(lines);
    assert!(second.wait().unwrap().success());

    let expected: BTreeSet<String> =
        run(Command::new("sha256sum").args(&files)).lines().map(str::to_owned).collect();
    assert_eq!(results, expected);

    let shown = run(qctl(&server).args(["--json", "group", "show", "checksums", "default"]));
    let group: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(group["committed_offset"], files.len());
    assert_eq!((&group["leased"], &group["dead"]), (&0.into(), &0.into()));
    assert_eq!(server.stop().code(), Some(0));
}
