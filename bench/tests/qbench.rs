//! `qbench` as a user drives it, with real servers and few jobs. No time is asserted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The server beside `qbench`; built if these tests are run without the others.
fn joblogd() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let path = Path::new(env!("CARGO_BIN_EXE_qbench")).with_file_name("joblogd");
        if !path.is_file() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--package", "joblog", "--bin", "joblogd"]);
            build.args(path.iter().any(|part| part == "release").then_some("--release"));
            assert!(build.status().unwrap().success());
        }
        assert!(path.is_file(), "{} is missing: run `cargo build`", path.display());
        path
    })
}

fn need_redis() {
    let found = Command::new("redis-server").arg("--version").output();
    assert!(found.is_ok(), "install redis-server (Debian: apt-get install redis-server)");
}

fn qbench(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qbench"));
    command.args(arguments).arg("--joblogd").arg(joblogd());
    command.arg("--dir").arg(dir.join("data"));
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    output
}

/// The paths of all fields, with `[]` for the elements of arrays.
fn paths(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                let path = format!("{prefix}{dot}{name}");
                found.insert(path.clone());
                paths(field, &path, found);
            }
        }
        Value::Array(elements) => {
            elements.iter().for_each(|element| paths(element, &format!("{prefix}[]"), found));
        }
        _ => {}
    }
}

/// The fields that `README.md` documents: rows that begin with a path in backticks.
fn documented() -> BTreeSet<String> {
    let text = include_str!("../README.md");
    let (_, text) = text.split_once("## The JSON").unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(path, _)| path.to_owned()).collect()
}

fn left_behind(dir: &Path) -> usize {
    fs::read_dir(dir.join("data")).map_or(0, Iterator::count)
}

#[test]
fn compare_writes_every_round_as_documented_and_leaves_nothing_behind() {
    need_redis();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("result.json");
    let mut command = qbench(
        dir.path(),
        &["compare", "--workloads", "c50,hand-off,backlog-10k", "--jobs", "500"],
    );
    command.args(["--rounds", "2", "--classes", "memory,synced", "--no-baseline", "--json"]);
    run(command.arg(&json));

    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let mut found = BTreeSet::new();
    paths(&report, "", &mut found);
    let documented = documented();
    assert!(documented.len() > 40, "{documented:?}");
    for path in &found {
        assert!(documented.contains(path), "README.md does not document `{path}`");
    }
    let elsewhere = ["missing[].", "baselines[].", "losses[].", "growth[]."];
    for path in documented.difference(&found) {
        assert!(elsewhere.iter().any(|prefix| path.starts_with(prefix)), "there is no `{path}`");
    }
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    for result in results {
        let rounds = if result["workload"] == "backlog-10k" { 1 } else { 2 };
        let names: Vec<_> = result["order"].as_array().unwrap().iter().collect();
        assert_eq!(names, ["joblog", "redis"]);
        for measure in result["measures"].as_array().unwrap() {
            assert_eq!(measure["systems"].as_array().unwrap().len(), 2);
            assert_eq!(measure["ratios"].as_array().unwrap().len(), 1);
            for system in measure["systems"].as_array().unwrap() {
                assert_eq!(system["rounds"].as_array().unwrap().len(), rounds);
                assert!(system["jobs_per_second"].as_f64().unwrap() > 0.0);
                assert!(system["latency_us"]["p50"].as_f64().unwrap() > 0.0);
                assert!(!system["loses"].as_str().unwrap().is_empty());
            }
        }
    }
    assert_eq!(left_behind(dir.path()), 0);
    check_page(dir.path(), &json);
}

/// The page made of a result names every plot that it shows.
fn check_page(dir: &Path, json: &Path) {
    let out = dir.join("page");
    let mut command = Command::new(env!("CARGO_BIN_EXE_qbench"));
    run(command.arg("report").arg(json).arg("--out").arg(&out));
    let page = fs::read_to_string(out.join("results.md")).unwrap();
    let plots: Vec<_> =
        page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(plots.len() >= 5, "{plots:?}");
    for plot in plots {
        let svg = fs::read_to_string(out.join(plot)).unwrap();
        assert!(svg.starts_with("<svg ") && !svg.contains("NaN"), "{plot}");
    }
    assert!(page.contains("lost with the server"), "redis without AOF keeps no backlog: {page}");
}

#[test]
fn loss_finds_what_a_pop_loses_and_what_a_commit_keeps() {
    need_redis();
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("loss.json");
    let mut command = qbench(dir.path(), &["loss", "--systems", "joblog,redis"]);
    command.args(["--faults", "cut", "--jobs", "150", "--patience", "2", "--json"]);
    run(command.arg(&json));
    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let losses = report["losses"].as_array().unwrap();
    assert_eq!(losses[0]["system"], "joblog");
    assert_eq!(losses[0]["lost"], 0);
    assert!(losses[0]["faults"].as_u64().unwrap() > 0);
    // Each reply that is cut is a job that Redis has forgotten already.
    assert_eq!(losses[1]["system"], "redis");
    assert_eq!(losses[1]["lost"], losses[1]["faults"]);
    assert!(losses[1]["lost"].as_u64().unwrap() > 0);
    assert_eq!(left_behind(dir.path()), 0);
}

/// Kinds that need no rights, with the rows that each size gives.
const GROWTH: [(&str, usize); 11] = [
    ("queues", 2),
    ("groups", 2),
    ("connections", 2),
    ("leases", 1),
    ("sessions", 3),
    ("delays", 3),
    ("reasons", 2),
    ("dead", 3),
    ("crashes", 3),
    ("pipelined", 1),
    ("frames", 1),
];

#[test]
fn growth_measures_each_kind_beside_a_small_client() {
    let dir = tempfile::tempdir().unwrap();
    let json = |kind: &str| dir.path().join(format!("{kind}.json"));
    // Side by side: what takes time is waiting.
    let children = GROWTH.map(|(kind, _)| {
        let mut command = qbench(dir.path(), &["growth", kind, "--sizes", "3,20"]);
        command.arg("--json").arg(json(kind));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let documented = documented();
    for ((kind, per_size), child) in GROWTH.into_iter().zip(children) {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{kind}: {errors}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.starts_with("| kind "), "{table}");
        assert_eq!(table.lines().count(), 2 + 2 * per_size, "{table}");

        let report: Value = serde_json::from_slice(&fs::read(json(kind)).unwrap()).unwrap();
        let mut found = BTreeSet::new();
        paths(&report, "", &mut found);
        assert!(found.is_subset(&documented), "{:?}", found.difference(&documented));
        let rows = report["growth"].as_array().unwrap();
        assert_eq!(rows.len(), 2 * per_size, "{kind}");
        for (place, row) in rows.iter().enumerate() {
            assert_eq!(row["kind"], kind);
            assert_eq!(row["size"], if place < per_size { 3 } else { 20 });
            assert_eq!(row["ended"], true, "{row}");
            assert!(row["memory_peak_bytes"].as_u64() >= row["memory_before_bytes"].as_u64());
            let is_beside = row["beside"]["requests"].as_u64().unwrap_or(0) > 0;
            assert!(is_beside || row["next_start_ms"].is_number() || kind == "connections");
        }
        assert!(rows.iter().any(|row| row["beside"]["longest_ms"].as_f64() > Some(0.0)));
        assert_eq!(rows.iter().any(|row| row["idle_cpu_percent"].is_number()), kind == "queues");
    }
    assert_eq!(left_behind(dir.path()), 0);
}

#[test]
fn growth_refuses_sizes_and_kinds_that_it_does_not_have() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (["trees", "--sizes", "1"], "nothing called 'trees' grows here; there are queues, groups"),
        (["reasons", "--sizes", "65537"], "--sizes of reasons: 65537; allowed are 1 to 65536"),
        (["leases", "--sizes", "0"], "--sizes of leases: 0; allowed are 1 to 5000000"),
    ] {
        let mut command = qbench(dir.path(), &["growth"]);
        let output = command.args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn an_interrupt_stops_the_server_and_removes_its_directory() {
    need_redis();
    let dir = tempfile::tempdir().unwrap();
    let mut command = qbench(dir.path(), &["run", "c1", "--system", "redis"]);
    command.args(["--jobs", "100000000", "--classes", "memory"]);
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let server = loop {
        if let Some(server) = server_in(dir.path()) {
            break server;
        }
        assert!(Instant::now() < until, "no server was started");
        thread::sleep(Duration::from_millis(5));
    };
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(left_behind(dir.path()), 0);
    while fs::read_link(format!("/proc/{server}/cwd")).is_ok() {
        assert!(Instant::now() < until, "the server goes on");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The process that works in the directory of a server.
fn server_in(dir: &Path) -> Option<u32> {
    let data = dir.join("data").canonicalize().ok()?;
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let place = fs::read_link(format!("/proc/{id}/cwd"));
        place.is_ok_and(|place| place.starts_with(&data))
    })
}

#[test]
fn what_is_not_installed_is_named_with_its_package_and_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = qbench(dir.path(), &["run", "c1", "--system", "redis", "--jobs", "10"]);
    let output = command.env("PATH", dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("apt-get install redis-server"), "{text}");

    for (workload, system, words) in [
        ("c99", "redis", "there is no workload 'c99'; there are c1, c50"),
        ("c1", "postgres", "there is no system 'postgres'; there are joblog, redis"),
        ("c1", "kafka", "--kafka DIR or QBENCH_KAFKA"),
    ] {
        let output = qbench(dir.path(), &["run", workload, "--system", system]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn list_names_workloads_and_systems() {
    let output = run(Command::new(env!("CARGO_BIN_EXE_qbench")).args(["list", "--json"]));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(list["workloads"].as_array().unwrap().len() >= 15);
    assert!(list["grows"].as_array().unwrap().len() >= 6);
    let names: Vec<_> = list["systems"].as_array().unwrap().iter().collect();
    assert_eq!(names[0]["name"], "joblog");
    assert_eq!(names[1]["classes"].as_array().unwrap().len(), 3);
}
