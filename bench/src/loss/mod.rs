//! The loss experiment: jobs are enqueued, things go wrong while they are worked off, and what
//! never got done is counted. Every server runs at the class that syncs before it replies.

mod proxy;
mod rq;
pub(crate) mod worker;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::children::Running;
use crate::compare::{progress, take_roll};
use crate::engine;
use crate::machine::Machine;
use crate::payload::{Ledger, MARK};
use crate::result::{Loss, Report};
use crate::systems::{Class, Places, Server, System};
use crate::workload;
use proxy::Proxy;

const QUEUE: &str = "loss";
/// The share of replies with a job that is cut, or of jobs whose worker is killed.
const FAULT_SHARE: f64 = 0.06;
/// How often the server is killed.
const SERVER_KILLS: u64 = 3;
/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// Connections are cut while a reply with a job travels.
    Cut,
    /// Workers are killed while they hold a job.
    Worker,
    /// The server is killed and started again.
    Server,
}

impl Fault {
    fn title(self) -> &'static str {
        match self {
            Self::Cut => "connections cut while a job travels",
            Self::Worker => "workers killed while they hold a job",
            Self::Server => "server killed and started again",
        }
    }
}

/// What to do.
pub(crate) struct Options {
    pub(crate) systems: Vec<&'static dyn System>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) jobs: u64,
    pub(crate) workers: usize,
    pub(crate) rq: bool,
    /// When nothing was done for so long, what is not done is lost. Joblog is the slowest to hand
    /// back the job of a killed worker: a second of silence, and 5 s of backoff, 10 s after a
    /// second crash.
    pub(crate) patience: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) places: Places,
}

/// Runs all experiments, and saves the report after each.
pub(crate) fn run(options: Options) -> Result<()> {
    let mut report = Report::new(Machine::here(&options.places.dir)?);
    let systems = take_roll(&options.systems, &options.places, &mut report);
    let steps = systems.len() * options.faults.len() + usize::from(options.rq);
    let bar = progress(steps as u64);
    for system in systems {
        for fault in &options.faults {
            bar.set_message(format!("{}: {}", system.name(), fault.title()));
            let loss = experiment(system, *fault, &options)
                .with_context(|| format!("{}: {}", system.name(), fault.title()))?;
            bar.suspend(|| print(&loss));
            report.losses.push(loss);
            report.save(options.json.as_deref())?;
            bar.inc(1);
        }
    }
    if options.rq {
        bar.set_message("rq: connections cut while a job travels");
        let loss = rq::experiment(options.jobs, FAULT_SHARE, &options.places)?;
        bar.suspend(|| print(&loss));
        report.losses.push(loss);
        report.save(options.json.as_deref())?;
    }
    bar.finish_and_clear();
    for missing in &report.missing {
        eprintln!("not tried: {}: {}", missing.system, missing.why);
    }
    report.check_complete()
}

fn print(loss: &Loss) {
    println!(
        "{:15} {} {}: of {} jobs lost {}, done twice {}, last done {:.2} s after the last fault",
        loss.system,
        loss.faults,
        loss.fault,
        loss.enqueued,
        loss.lost,
        loss.run_twice,
        loss.seconds_until_last,
    );
}

/// A line that a worker wrote.
struct Word {
    worker: usize,
    started: bool,
    number: u64,
}

fn experiment(system: &'static dyn System, fault: Fault, options: &Options) -> Result<Loss> {
    if let Some(why) = system.fixed_workers() {
        bail!(why);
    }
    let mut server = Server::start(system, Class::Synced, &options.places)?;
    let fill = workload::find("batch-c1")?;
    let queues = [String::from(QUEUE)];
    let plan = fill.fill(&queues, options.jobs);
    engine::run(&server, &plan, &mut Ledger::new(0, options.jobs), Instant::now())?;

    let share = if fault == Fault::Cut { FAULT_SHARE } else { 0.0 };
    let proxy = Proxy::start(&server.address, &[MARK], share)?;
    let (words, heard) = channel();
    let mut workers = Vec::new();
    for id in 0..options.workers {
        workers.push(hire(system, proxy.address(), id, words.clone())?);
    }
    let mut hire_again = |id: usize| -> Result<()> {
        if let Some(worker) = workers.get_mut(id) {
            worker.kill();
            *worker = hire(system, proxy.address(), id, words.clone())?;
        }
        Ok(())
    };
    let mut watch = Watch::new(options.jobs);
    watch.follow(&heard, options.patience, |word, watch| match fault {
        Fault::Worker if word.started && watch.dice.f64() < FAULT_SHARE => {
            watch.fault();
            hire_again(word.worker)
        }
        Fault::Server if watch.server_is_due() => {
            watch.fault();
            server.kill();
            server.start_again()
        }
        Fault::Cut if proxy.cuts() > watch.faults => {
            watch.fault();
            Ok(())
        }
        _ => Ok(()),
    })?;
    if fault == Fault::Cut {
        watch.faults = proxy.cuts();
    }
    ensure!(watch.faults > 0, "nothing went wrong: the experiment shows nothing");
    Ok(watch.loss(system.name(), system.how(), fault))
}

fn hire(system: &dyn System, address: &str, id: usize, words: Sender<Word>) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["loss-worker", "--system", system.name(), "--address", address]);
    command.args(["--id", &id.to_string(), "--queue", QUEUE]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut worker = Running::start_with(command)?;
    let lines = worker.take_stdout().context("a worker has no output")?;
    thread::spawn(move || {
        for line in BufReader::new(lines).lines().map_while(Result::ok) {
            let Some((verb, number)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse() else { continue };
            if words.send(Word { worker: id, started: verb == "start", number }).is_err() {
                return;
            }
        }
    });
    Ok(worker)
}

/// What the workers have done.
struct Watch {
    jobs: u64,
    done: HashMap<u64, u64>,
    faults: u64,
    last_fault: Instant,
    last_done: Instant,
    dice: fastrand::Rng,
}

impl Watch {
    fn new(jobs: u64) -> Self {
        let now = Instant::now();
        let dice = fastrand::Rng::with_seed(77);
        Self { jobs, done: HashMap::new(), faults: 0, last_fault: now, last_done: now, dice }
    }

    fn fault(&mut self) {
        self.faults += 1;
        self.last_fault = Instant::now();
    }

    /// The server is killed after each quarter of the jobs.
    fn server_is_due(&self) -> bool {
        let quarter = self.jobs / (SERVER_KILLS + 1);
        self.faults < SERVER_KILLS && self.done.len() as u64 >= quarter * (self.faults + 1)
    }

    /// Listens until all jobs are done, or nothing has been for a while.
    fn follow(
        &mut self,
        heard: &Receiver<Word>,
        patience: Duration,
        mut on_word: impl FnMut(&Word, &mut Self) -> Result<()>,
    ) -> Result<()> {
        let mut news = Instant::now();
        while (self.done.len() as u64) < self.jobs && news.elapsed() < patience {
            let word = match heard.recv_timeout(Duration::from_millis(50)) {
                Ok(word) => word,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            news = Instant::now();
            if !word.started {
                self.last_done = news;
                *self.done.entry(word.number).or_default() += 1;
            }
            on_word(&word, self)?;
        }
        // A job that comes back late, after all are done, is a second run too.
        let until = Instant::now() + Duration::from_millis(1_500);
        while let Ok(word) = heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if !word.started {
                *self.done.entry(word.number).or_default() += 1;
            }
        }
        Ok(())
    }

    fn loss(&self, system: &str, how: &str, fault: Fault) -> Loss {
        let late = self.last_done.saturating_duration_since(self.last_fault);
        Loss {
            system: system.into(),
            how: how.into(),
            fault: fault.title().into(),
            faults: self.faults,
            enqueued: self.jobs,
            lost: self.jobs - self.done.len() as u64,
            run_twice: self.done.values().filter(|times| **times > 1).count() as u64,
            seconds_until_last: late.as_secs_f64(),
        }
    }
}
