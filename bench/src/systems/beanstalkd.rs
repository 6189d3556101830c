//! beanstalkd: `put`, `reserve` and `delete`, pipelined.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use bytes::{BufMut, BytesMut};

use super::{Class, Event, Payloads, Setup, Sink, System, Talk};
use crate::children::first_line;

pub(crate) struct Beanstalkd;

impl System for Beanstalkd {
    fn name(&self) -> &'static str {
        "beanstalkd"
    }

    fn how(&self) -> &'static str {
        "put; delete of the job before with reserve"
    }

    fn program(&self) -> &'static str {
        "beanstalkd"
    }

    fn package(&self) -> &'static str {
        "install beanstalkd (Debian: apt-get install beanstalkd)"
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["-v"])
    }

    fn loses(&self, class: Class) -> Result<&'static str, &'static str> {
        Ok(match class {
            Class::Memory => "a killed server loses everything",
            Class::Second => "a killed server loses nothing; a power cut about the last second",
            Class::Synced => "nothing",
        })
    }

    fn command(&self, program: &Path, class: Class, dir: &Path, port: u16) -> Result<Command> {
        let mut command = Command::new(program);
        command.args(["-l", "127.0.0.1", "-p", &port.to_string()]);
        let interval_ms = match class {
            Class::Memory => return Ok(command),
            Class::Second => "1000",
            Class::Synced => "0",
        };
        let log = dir.join("binlog");
        std::fs::create_dir_all(&log)?;
        command.arg("-b").arg(log).args(["-f", interval_ms]);
        Ok(command)
    }

    fn talk(&self, setup: Setup) -> Box<dyn Talk> {
        Box::new(BeanstalkdTalk {
            held: vec![Vec::new(); setup.in_flight],
            taken: vec![0; setup.in_flight],
            using: String::new(),
            expected: VecDeque::new(),
            setup,
        })
    }
}

/// Which reply comes next; beanstalkd answers in order.
#[derive(Clone, Copy, Debug)]
enum Expect {
    Ignored,
    Ready,
    Put { slot: usize, last: bool },
    Reserve { slot: usize, last: bool },
    Delete,
    LastDelete,
}

struct BeanstalkdTalk {
    setup: Setup,
    /// The tube that `put` goes to.
    using: String,
    /// Ids that each slot took last.
    held: Vec<Vec<u64>>,
    /// Jobs that the answers to a slot's reserves have brought so far.
    taken: Vec<usize>,
    expected: VecDeque<Expect>,
}

impl BeanstalkdTalk {
    fn put_deletes(&mut self, slot: usize, out: &mut BytesMut) -> bool {
        let ids = self.held.get_mut(slot).map(std::mem::take).unwrap_or_default();
        for id in &ids {
            out.put_slice(format!("delete {id}\r\n").as_bytes());
            self.expected.push_back(Expect::Delete);
        }
        !ids.is_empty()
    }

    /// Handles one reply. `body` is that of a job.
    fn on_reply(&mut self, line: &str, body: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let Some(expect) = self.expected.pop_front() else {
            bail!("beanstalkd sent a reply to nothing: {line}");
        };
        let word = line.split(' ').next().unwrap_or_default();
        match (expect, word) {
            (Expect::Ignored, "USING" | "WATCHING" | "NOT_IGNORED") => Ok(()),
            (Expect::Ready, "USING" | "WATCHING" | "NOT_IGNORED") => sink(Event::Ready),
            (Expect::Put { last: false, .. }, "INSERTED") => Ok(()),
            (Expect::Put { slot, last: true }, "INSERTED") => sink(Event::Enqueued { slot }),
            (Expect::Delete, "DELETED") => Ok(()),
            (Expect::LastDelete, "DELETED") => sink(Event::Finished),
            (Expect::Reserve { slot, last }, "RESERVED" | "TIMED_OUT") => {
                if word == "RESERVED" {
                    let id = line.split(' ').nth(1).context("RESERVED without an id")?.parse()?;
                    if let Some(held) = self.held.get_mut(slot) {
                        held.push(id);
                    }
                    if let Some(taken) = self.taken.get_mut(slot) {
                        *taken += 1;
                    }
                    sink(Event::Job { slot, payload: body })?;
                }
                if last {
                    let jobs = self.taken.get_mut(slot).map_or(0, std::mem::take);
                    sink(Event::Taken { slot, jobs })?;
                }
                Ok(())
            }
            (expect, _) => bail!("beanstalkd answered {line} to {expect:?}"),
        }
    }
}

impl Talk for BeanstalkdTalk {
    fn put_greeting(&mut self, out: &mut BytesMut) {
        for queue in self.setup.queues.iter().filter(|_| self.setup.consumes) {
            out.put_slice(format!("watch {queue}\r\n").as_bytes());
            self.expected.push_back(Expect::Ignored);
        }
        out.put_slice(b"ignore default\r\n");
        self.expected.push_back(Expect::Ready);
    }

    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut) {
        if self.using != queue {
            queue.clone_into(&mut self.using);
            out.put_slice(format!("use {queue}\r\n").as_bytes());
            self.expected.push_back(Expect::Ignored);
        }
        let count = jobs.iter().len();
        for (ordinal, payload) in jobs.iter().enumerate() {
            out.put_slice(format!("put 0 0 120 {}\r\n", payload.len()).as_bytes());
            out.put_slice(payload);
            out.put_slice(b"\r\n");
            self.expected.push_back(Expect::Put { slot, last: ordinal + 1 == count });
        }
    }

    fn put_take(&mut self, slot: usize, _queue: &str, max: usize, wait: bool, out: &mut BytesMut) {
        self.put_deletes(slot, out);
        // Waiting for the first job only: what is waited for may never fill a batch.
        let count = if wait { 1 } else { max };
        for ordinal in 1..=count {
            let request: &[u8] = if wait { b"reserve\r\n" } else { b"reserve-with-timeout 0\r\n" };
            out.put_slice(request);
            self.expected.push_back(Expect::Reserve { slot, last: ordinal == count });
        }
    }

    fn put_finish(&mut self, out: &mut BytesMut) -> bool {
        let mut any = false;
        for slot in 0..self.held.len() {
            any |= self.put_deletes(slot, out);
        }
        if any {
            self.expected.pop_back();
            self.expected.push_back(Expect::LastDelete);
        }
        any
    }

    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
        while let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") {
            let line = String::from_utf8(input.get(..end).unwrap_or_default().to_vec())?;
            let mut length = end + 2;
            let mut body = 0;
            if line.starts_with("RESERVED ") {
                body = line.split(' ').nth(2).context("RESERVED without a length")?.parse()?;
                length += body + 2;
            }
            if input.len() < length {
                return Ok(());
            }
            let reply = input.split_to(length);
            let body = reply.get(end + 2..end + 2 + body).unwrap_or_default();
            self.on_reply(&line, body, sink)?;
        }
        Ok(())
    }
}
