//! The systems that are compared: how each is started, and what it promises.

mod beanstalkd;
mod kafka;
mod kafka_wire;
mod nats;
mod ours;
mod rabbitmq;
mod redis;
mod resp;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::BytesMut;
use clap::ValueEnum;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cap;
use crate::children::{FreshDir, Running, find_program, free_port};
use crate::proc::{self, Memory, Usage};

pub(crate) use redis::Pattern;

/// What is on the disk when a reply comes. Results of different classes are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// Nothing is synced: memory, or the kernel's page cache.
    #[value(alias = "os")]
    Memory,
    /// Synced about once a second, in the background.
    Second,
    /// Synced before the reply.
    #[value(alias = "fsync")]
    Synced,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Second, Self::Synced];

    /// The name used in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Second => "second",
            Self::Synced => "synced",
        }
    }

    /// What the class means, for people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory or page cache: nothing is synced before the reply",
            Self::Second => "about a second: synced in the background",
            Self::Synced => "synced before the reply",
        }
    }
}

/// How one connection speaks.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Which connection it is, counted from 0 within its phase.
    pub(crate) id: usize,
    /// The queues of the phase.
    pub(crate) queues: Vec<String>,
    /// Whether this connection creates them.
    pub(crate) declares: bool,
    /// Whether it consumes.
    pub(crate) consumes: bool,
    /// Which of how many consumers it is, for systems that share a queue out among them.
    pub(crate) share: (usize, usize),
    /// Requests that it may have in flight.
    pub(crate) in_flight: usize,
    /// Jobs in one request.
    pub(crate) batch: usize,
    /// Milliseconds of silence after which its jobs are another's; 0 for the system's default.
    pub(crate) silence_ms: u32,
}

/// Jobs to enqueue with one request: payloads of the same size, one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payloads<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) each: usize,
}

impl<'a> Payloads<'a> {
    pub(crate) fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.bytes.chunks_exact(self.each)
    }
}

/// What came from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The greeting is answered; queues that were to be created are there.
    Ready,
    /// The enqueue request in this slot is answered.
    Enqueued { slot: usize },
    /// A job for the take request in this slot.
    Job { slot: usize, payload: &'a [u8] },
    /// The take request in this slot is answered, with so many jobs.
    Taken { slot: usize, jobs: usize },
    /// All that was handed back by `put_finish` is consumed.
    Finished,
}

/// Where events go.
pub(crate) type Sink<'a> = dyn FnMut(Event<'_>) -> Result<()> + 'a;

/// One connection's side of a protocol: bytes out, bytes in, no I/O. A slot is one of the requests
/// that may be in flight at once.
pub(crate) trait Talk {
    /// What to send first; [`Event::Ready`] follows.
    fn put_greeting(&mut self, out: &mut BytesMut);

    /// Enqueues jobs.
    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut);

    /// Takes up to `max` jobs, and marks as consumed what this slot took before. With `wait` the
    /// answer comes when there is a job.
    fn put_take(&mut self, slot: usize, queue: &str, max: usize, wait: bool, out: &mut BytesMut);

    /// Marks as consumed what the slots took last. Gives whether [`Event::Finished`] will follow;
    /// if not, nothing was left to do.
    fn put_finish(&mut self, out: &mut BytesMut) -> bool;

    /// Reads all replies that are there in full.
    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()>;

    /// The connection is lost and the next greeting goes over a new one. What was marked as
    /// consumed without an answer is marked again with the next take.
    fn lose_connection(&mut self) {}

    /// Asks for jobs that workers took and never finished, as an expert would with this system:
    /// answered as a take. Gives false if the system has no such thing, or needs none.
    fn put_recover(&mut self, _slot: usize, _queue: &str, _out: &mut BytesMut) -> bool {
        false
    }
}

/// A queue server, used in one way.
pub(crate) trait System: Sync {
    /// The name in commands and results.
    fn name(&self) -> &'static str;
    /// What a job costs in commands, for people.
    fn how(&self) -> &'static str;
    /// The program to start.
    fn program(&self) -> &'static str;
    /// The Debian package with it, or what else to do.
    fn package(&self) -> &'static str;
    /// Its version.
    fn version(&self, program: &Path) -> String;
    /// What is lost in a crash at this class; why not, if it can't be had.
    fn loses(&self, class: Class) -> Result<&'static str, &'static str>;
    /// The command that starts it.
    fn command(&self, program: &Path, class: Class, dir: &Path, port: u16) -> Result<Command>;
    /// Opens a dialogue.
    fn talk(&self, setup: Setup) -> Box<dyn Talk>;

    /// Whether what is there comes to its workers as the system shares it out, rather than to those
    /// who ask for it.
    fn pushes(&self) -> bool {
        false
    }

    /// Why workloads with more than one queue can't be had, if so.
    fn one_queue(&self) -> Option<&'static str> {
        None
    }

    /// Why `loss` can't be run with it, if so.
    fn fixed_workers(&self) -> Option<&'static str> {
        None
    }

    /// Makes queues before the connections of a phase are opened, where that takes more than a
    /// greeting.
    fn declare(&self, _address: &str, _queues: &[String]) -> Result<()> {
        Ok(())
    }

    /// Waits until a server that takes connections also takes requests.
    fn await_ready(&self, _address: &str) -> Result<()> {
        Ok(())
    }

    /// A program that must run beside it, and is started first.
    fn companion(&self, _program: &Path, _dir: &Path) -> Result<Option<Command>> {
        Ok(None)
    }
}

/// All systems that this tool knows.
pub(crate) const ALL: [&dyn System; 8] = [
    &ours::Joblog,
    &redis::Redis(Pattern::List),
    &redis::Redis(Pattern::Reliable),
    &redis::Redis(Pattern::Streams),
    &beanstalkd::Beanstalkd,
    &rabbitmq::RabbitMq,
    &nats::Nats,
    &kafka::Kafka,
];

/// The system with this name.
pub(crate) fn find(name: &str) -> Result<&'static dyn System> {
    let names = || ALL.map(|system| system.name()).join(", ");
    let found = ALL.into_iter().find(|system| system.name() == name);
    found.ok_or_else(|| anyhow!("there is no system '{name}'; there are {}", names()))
}

/// Where to find programs and put data.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The server of Joblog; else the one beside this program.
    pub(crate) joblogd: Option<PathBuf>,
    /// The directory of a release of Kafka.
    pub(crate) kafka: Option<PathBuf>,
    /// Directories of servers are made here.
    pub(crate) dir: PathBuf,
    /// Run the server on the first core and the generator on the second.
    pub(crate) pinned: bool,
    /// Give each server at most so many bytes of memory.
    pub(crate) memory_cap: Option<u64>,
}

impl Places {
    /// The program of a system.
    ///
    /// # Errors
    /// It is not installed; the text says what to install.
    pub(crate) fn program(&self, system: &dyn System) -> Result<PathBuf> {
        let found = match (system.name(), &self.joblogd) {
            ("joblog", Some(path)) => Some(path.clone()).filter(|path| path.is_file()),
            ("joblog", None) => beside("joblogd"),
            ("kafka", _) => self.kafka.clone().filter(|dir| {
                dir.join("libs").is_dir() && find_program(system.program()).is_some()
            }),
            _ => find_program(system.program()),
        };
        let name = system.name();
        found.with_context(|| format!("{name} is not installed: {}", system.package()))
    }
}

/// A program in the directory of this one, or in the one above, where tests run.
fn beside(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A server that was started here.
pub(crate) struct Server {
    pub(crate) system: &'static dyn System,
    pub(crate) class: Class,
    pub(crate) address: String,
    program: PathBuf,
    running: Running,
    /// Ends with the server.
    _companion: Option<Running>,
    port: u16,
    pinned: bool,
    dir: FreshDir,
    cap: Option<Cap>,
}

impl Server {
    /// Starts a server in a fresh directory.
    pub(crate) fn start(
        system: &'static dyn System,
        class: Class,
        places: &Places,
    ) -> Result<Self> {
        if let Err(why) = system.loses(class) {
            return Err(anyhow!("{} at class {}: {why}", system.name(), class.name()));
        }
        let program = places.program(system)?;
        let dir = FreshDir::new(&places.dir)?;
        let port = free_port()?;
        let companion = match system.companion(&program, dir.path())? {
            Some(command) => Some(Running::start(command, &dir.path().join("companion.log"))?),
            None => None,
        };
        let cap = places.memory_cap.map(Cap::new).transpose()?;
        let where_to = WhereTo { pinned: places.pinned, cap: cap.as_ref() };
        let running = launch(system, &program, class, &dir, port, where_to)?;
        let address = format!("127.0.0.1:{port}");
        let pinned = places.pinned;
        Ok(Self {
            system,
            class,
            address,
            program,
            running,
            _companion: companion,
            port,
            pinned,
            dir,
            cap,
        })
    }

    /// The processes of the server: some are started by a script.
    pub(crate) fn pids(&self) -> Vec<u32> {
        proc::group_members(self.running.pid())
    }

    /// What its processes have used.
    pub(crate) fn usage(&self) -> Usage {
        self.pids().into_iter().map(proc::usage).fold(Usage::default(), Usage::plus)
    }

    /// The memory that its processes have.
    pub(crate) fn memory(&self) -> Memory {
        self.pids().into_iter().map(proc::memory).fold(Memory::default(), Memory::plus)
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it again on the same data and port, after [`kill`](Self::kill).
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let (program, dir) = (&self.program, &self.dir);
        let where_to = WhereTo { pinned: self.pinned, cap: self.cap.as_ref() };
        self.running = launch(self.system, program, self.class, dir, self.port, where_to)?;
        Ok(())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Ends it with SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// It did not end within `patience`.
    pub(crate) fn stop(&mut self, patience: Duration) -> Result<()> {
        self.running.stop(patience)
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.running.kill();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.kill();
    }
}

/// The bounds of a server.
#[derive(Clone, Copy)]
struct WhereTo<'a> {
    pinned: bool,
    cap: Option<&'a Cap>,
}

/// Appends a command with its arguments and environment to one that starts it.
pub(crate) fn take_over(starter: &mut Command, command: &Command) {
    starter.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            starter.env(name, value);
        }
    }
}

fn launch(
    system: &dyn System,
    program: &Path,
    class: Class,
    dir: &FreshDir,
    port: u16,
    where_to: WhereTo<'_>,
) -> Result<Running> {
    let log = dir.path().join("server.log");
    let mut command = system.command(program, class, dir.path(), port)?;
    if where_to.pinned {
        let mut pinning = Command::new("taskset");
        pinning.args(["-c", "0"]);
        take_over(&mut pinning, &command);
        command = pinning;
    }
    if let Some(cap) = where_to.cap {
        command = cap.wrap(&command);
    }
    let mut running = Running::start(command, &log)?;
    let address = format!("127.0.0.1:{port}");
    running.await_port(&address, &log)?;
    system.await_ready(&address)?;
    Ok(running)
}
