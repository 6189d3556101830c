//! The real rq from PyPI, with workers on two queues, in a virtual environment made for it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::proxy::Proxy;
use crate::children::{FreshDir, Running, first_line};
use crate::result::Loss;
use crate::systems::{self, Class, Places, Server};

const WORKERS: usize = 4;
/// rq's own time-outs are longer than those of the other systems here.
const PATIENCE: Duration = Duration::from_secs(20);

const TASKS: &str = "\
import os

def run(number):
    with open(os.environ['QBENCH_RAN'], 'a') as file:
        file.write(f'{number}\\n')
";

const ENQUEUE: &str = "\
import sys
from redis import Redis
from rq import Queue

port, jobs = int(sys.argv[1]), int(sys.argv[2])
redis = Redis(port=port)
queues = [Queue(name, connection=redis) for name in ('high', 'low')]
for number in range(jobs):
    queues[number % 2].enqueue('tasks.run', number, job_id=f'QBJOB-{number}')
";

const LEFT: &str = "\
import sys
from redis import Redis
from rq import Queue

redis = Redis(port=int(sys.argv[1]))
left = 0
for name in ('high', 'low'):
    queue = Queue(name, connection=redis)
    registries = (queue.started_job_registry, queue.failed_job_registry,
                  queue.deferred_job_registry, queue.scheduled_job_registry)
    left += queue.count + sum(registry.count for registry in registries)
print(left)
";

/// Cuts the connections of rq's workers while the reply of a pop travels.
pub(crate) fn experiment(jobs: u64, share: f64, places: &Places) -> Result<Loss> {
    let server = Server::start(systems::find("redis")?, Class::Synced, places)?;
    let dir = FreshDir::new(&places.dir)?;
    let python = environment(dir.path())?;
    for (name, text) in [("tasks.py", TASKS), ("enqueue.py", ENQUEUE), ("left.py", LEFT)] {
        fs::write(dir.path().join(name), text)?;
    }
    let port = server.address.rsplit(':').next().unwrap_or_default();
    let script = |arguments: &[&str]| {
        let output = Command::new(&python).current_dir(dir.path()).args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {error}");
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    script(&["enqueue.py", port, &jobs.to_string()])?;

    // Only a reply that carries both the key of a queue and a job is that of a pop.
    let proxy = Proxy::start(&server.address, &[b"rq:queue:", b"QBJOB"], share)?;
    let ran = dir.path().join("ran");
    fs::write(&ran, "")?;
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(hire(&python, dir.path(), &proxy, &ran)?);
    }
    let (mut news, mut seen, mut last_done) = (Instant::now(), 0, Instant::now());
    let (mut cuts, mut last_cut) = (0, Instant::now());
    while news.elapsed() < PATIENCE && seen < jobs as usize {
        thread::sleep(Duration::from_millis(100));
        for worker in &mut workers {
            if worker.has_ended() {
                *worker = hire(&python, dir.path(), &proxy, &ran)?;
            }
        }
        let count = runs(&ran)?.len();
        if count > seen {
            (seen, news, last_done) = (count, Instant::now(), Instant::now());
        }
        if proxy.cuts() > cuts {
            (cuts, last_cut) = (proxy.cuts(), Instant::now());
        }
    }
    drop(workers);
    let version = script(&["-c", "import rq; print(rq.VERSION)"])?;
    let left: u64 = script(&["left.py", port])?.parse().context("counting what is left")?;
    let runs = runs(&ran)?;
    ensure!(proxy.cuts() > 0, "nothing went wrong: the experiment shows nothing");
    Ok(Loss {
        system: format!("rq {version}"),
        how: format!(
            "workers on two queues; {left} of the jobs not run are in a queue or registry"
        ),
        fault: "connections cut while a job travels".into(),
        faults: proxy.cuts(),
        enqueued: jobs,
        lost: jobs - runs.len() as u64,
        run_twice: runs.values().filter(|times| **times > 1).count() as u64,
        seconds_until_last: last_done.saturating_duration_since(last_cut).as_secs_f64(),
    })
}

/// Makes a virtual environment with rq, and gives its Python.
fn environment(dir: &Path) -> Result<std::path::PathBuf> {
    let venv = dir.join("venv");
    let status = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
    let made = status.is_ok_and(|status| status.success());
    ensure!(made, "python3 -m venv failed (Debian: apt-get install python3-venv)");
    let python = venv.join("bin/python");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "rq"];
    let output = Command::new(&python).args(install).output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "rq could not be installed from PyPI: {error}");
    eprintln!("{}", first_line(&venv.join("bin/rq"), &["--version"]));
    Ok(python)
}

fn hire(python: &Path, dir: &Path, proxy: &Proxy, ran: &Path) -> Result<Running> {
    let mut command = Command::new(python.with_file_name("rq"));
    let url = format!("redis://{}", proxy.address());
    command.current_dir(dir).args(["worker", "high", "low", "--url", &url, "--path", "."]);
    command.env("QBENCH_RAN", ran);
    // One process for each job would take minutes; what is lost, is lost before a job is run.
    command.args(["--worker-class", "rq.worker.SimpleWorker"]);
    Running::start(command, &dir.join("worker.log"))
}

/// How often each job was run.
fn runs(ran: &Path) -> Result<HashMap<u64, u64>> {
    let mut runs = HashMap::new();
    for line in fs::read_to_string(ran)?.lines() {
        if let Ok(number) = line.parse() {
            *runs.entry(number).or_default() += 1;
        }
    }
    Ok(runs)
}
