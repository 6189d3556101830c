//! Joblog: ENQUEUE, and FETCH with the commits of the jobs before.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use bytes::{Buf, BytesMut};
use joblog_protocol::frame::{FLAG_MORE, Header, Peek, put_request};
use joblog_protocol::job::Batch;
use joblog_protocol::limits::FRAME_HEADER_BYTES;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use joblog_protocol::messages::fetch::{Fetch, FetchReply, LeaseKind};
use joblog_protocol::messages::handles::{Handle, HandleSet, HandleSets};
use joblog_protocol::messages::lease::{Commit, decode_statuses};
use joblog_protocol::messages::session::{Hello, VERSION};
use joblog_protocol::{ErrorCode, Opcode};
use smallvec::{SmallVec, smallvec};

use super::{Class, Event, Payloads, Setup, Sink, System, Talk};
use crate::children::first_line;

/// Bytes of an empty attribute section in front of a payload.
const NO_ATTRIBUTES: [u8; 4] = [0; 4];

pub(crate) struct Joblog;

impl System for Joblog {
    fn name(&self) -> &'static str {
        "joblog"
    }

    fn how(&self) -> &'static str {
        "ENQUEUE; FETCH that carries the commit of the job before"
    }

    fn program(&self) -> &'static str {
        "joblogd"
    }

    fn package(&self) -> &'static str {
        "build it with `cargo build --release`, or name it with --joblogd PATH"
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn loses(&self, class: Class) -> Result<&'static str, &'static str> {
        Ok(match class {
            Class::Memory => "a killed server loses nothing; a power cut what was not yet on disk",
            Class::Second => "a killed server loses nothing; a power cut about the last second",
            Class::Synced => "nothing",
        })
    }

    fn command(&self, program: &Path, class: Class, dir: &Path, port: u16) -> Result<Command> {
        let mut command = Command::new(program);
        let durability = match class {
            Class::Memory => "os",
            Class::Second => "interval:1000",
            Class::Synced => "fsync",
        };
        command.arg("--data").arg(dir.join("data"));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--durability", durability]);
        command.args(["--log", "warn"]);
        Ok(command)
    }

    fn talk(&self, setup: Setup) -> Box<dyn Talk> {
        let held = vec![Held::default(); setup.in_flight];
        let mut session = [0; 16];
        getrandom::fill(&mut session).expect("the kernel gives random bytes");
        Box::new(JoblogTalk {
            session,
            silence_ms: setup.silence_ms,
            held,
            finishing: 0,
            ending: false,
            table: Vec::new(),
            bodies: Vec::new(),
        })
    }
}

/// What a slot took last.
#[derive(Clone, Debug, Default)]
struct Held {
    queue: String,
    handles: SmallVec<[Handle; 1]>,
    /// What the request on its way commits.
    committing: SmallVec<[Handle; 1]>,
}

struct JoblogTalk {
    session: [u8; 16],
    silence_ms: u32,
    held: Vec<Held>,
    /// COMMITs of `put_finish` that have no answer yet.
    finishing: usize,
    /// Whether `put_finish` waits for these and for the commits of FETCHes on their way.
    ending: bool,
    table: Vec<u8>,
    bodies: Vec<u8>,
}

impl JoblogTalk {
    fn on_fetched(&mut self, slot: usize, body: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let reply = FetchReply::decode(body)?;
        let Some(held) = self.held.get_mut(slot) else {
            bail!("joblog answered a request that was not sent");
        };
        held.committing.clear();
        for job in &reply.jobs {
            ensure!(crc32fast::hash(job.body) == job.crc32, "a job body is damaged");
            let token = job.token.ok_or_else(|| anyhow::anyhow!("a job came without a token"))?;
            held.handles.push(Handle { offset: job.offset, token });
            let Some(payload) = job.body.strip_prefix(&NO_ATTRIBUTES) else {
                bail!("a job came back with attributes that it was not given");
            };
            sink(Event::Job { slot, payload })?;
        }
        sink(Event::Taken { slot, jobs: reply.jobs.len() })
    }

    fn is_committing(&self) -> bool {
        self.finishing > 0 || self.held.iter().any(|held| !held.committing.is_empty())
    }

    fn on_committed(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let is_end = self.ending && !self.is_committing();
        if is_end { sink(Event::Finished) } else { Ok(()) }
    }

    fn on_frame(&mut self, header: Header, body: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        if let Some(code) = ErrorCode::from_code(header.status) {
            bail!("joblog answered {code}: {}", String::from_utf8_lossy(body));
        }
        let slot = header.correlation as usize;
        match Opcode::from_code(header.opcode) {
            Some(Opcode::Hello) => sink(Event::Ready),
            Some(Opcode::Enqueue) => {
                EnqueueReply::decode(body)?;
                sink(Event::Enqueued { slot })
            }
            Some(Opcode::Fetch) if header.flags & FLAG_MORE == 0 => {
                self.on_fetched(slot, body, sink)
            }
            Some(Opcode::Fetch) => {
                check_commits(body)?;
                if let Some(held) = self.held.get_mut(slot) {
                    held.committing.clear();
                }
                self.on_committed(sink)
            }
            Some(Opcode::Commit) => {
                check_commits(body)?;
                self.finishing -= 1;
                self.on_committed(sink)
            }
            other => bail!("joblog answered {other:?}, which was not asked"),
        }
    }
}

fn check_commits(body: &[u8]) -> Result<()> {
    let statuses = decode_statuses(body)?;
    let done = |code: &&ErrorCode| **code != ErrorCode::AlreadyConsumed;
    let refused = statuses.iter().flatten().find(done).copied();
    refused.map_or(Ok(()), |code| bail!("joblog refused a commit: {code}"))
}

impl Talk for JoblogTalk {
    fn put_greeting(&mut self, out: &mut BytesMut) {
        let held = self.held.iter().flat_map(|held| &held.handles);
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            session: self.session,
            silence_ms: self.silence_ms,
            agent: "qbench",
            held: held.map(|handle| handle.token).collect(),
        };
        put_request(out, Opcode::Hello, 0, |out| hello.encode(out));
    }

    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut) {
        self.table.clear();
        self.bodies.clear();
        for payload in jobs.iter() {
            let start = self.bodies.len();
            self.bodies.extend_from_slice(&NO_ATTRIBUTES);
            self.bodies.extend_from_slice(payload);
            let crc = crc32fast::hash(self.bodies.get(start..).unwrap_or_default());
            self.table.extend_from_slice(&(self.bodies.len() as u32).to_le_bytes());
            self.table.extend_from_slice(&[0; 4]);
            self.table.extend_from_slice(&crc.to_le_bytes());
        }
        let count = jobs.iter().len() as u32;
        let batch = Batch { count, table: &self.table, bodies: &self.bodies };
        let request = Enqueue { queue, create: true, producer: None, batch };
        put_request(out, Opcode::Enqueue, slot as u64, |out| request.encode(out));
    }

    fn put_take(&mut self, slot: usize, queue: &str, max: usize, wait: bool, out: &mut BytesMut) {
        let Some(held) = self.held.get_mut(slot) else { return };
        held.committing = std::mem::take(&mut held.handles);
        let mut commits = HandleSets::new();
        if !held.committing.is_empty() {
            let handles = held.committing.clone();
            commits.push(HandleSet { queue: &held.queue, group: "", handles });
        }
        let fetch = Fetch {
            queues: smallvec![queue],
            group: "",
            jobs_max: max as u32,
            bytes_max: u32::MAX,
            wait_ms: if wait { 600_000 } else { 0 },
            lease: LeaseKind::Session { run_ms_max: None },
            by_turns: false,
            commits,
        };
        put_request(out, Opcode::Fetch, slot as u64, |out| fetch.encode(out));
        drop(fetch);
        if held.queue != queue {
            queue.clone_into(&mut held.queue);
        }
    }

    fn put_finish(&mut self, out: &mut BytesMut) -> bool {
        for held in &mut self.held {
            let handles = std::mem::take(&mut held.handles);
            if handles.is_empty() {
                continue;
            }
            let set = HandleSet { queue: &held.queue, group: "", handles };
            let commit = Commit::Jobs(smallvec![set]);
            put_request(out, Opcode::Commit, 0, |out| commit.encode(out));
            self.finishing += 1;
        }
        self.ending = self.is_committing();
        self.ending
    }

    fn lose_connection(&mut self) {
        for held in &mut self.held {
            held.handles.append(&mut held.committing);
        }
    }

    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
        loop {
            match Header::peek(input) {
                Peek::Whole(header) => {
                    let mut frame = input.split_to(FRAME_HEADER_BYTES + header.body_bytes());
                    frame.advance(FRAME_HEADER_BYTES);
                    self.on_frame(header, &frame, sink)?;
                }
                Peek::NeedMore => return Ok(()),
                peek => bail!("joblog sent a wrong frame: {peek:?}"),
            }
        }
    }
}
