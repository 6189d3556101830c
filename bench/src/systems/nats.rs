//! NATS JetStream: a work-queue stream on disk, acknowledged publishes, and pull consumers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, BytesMut};

use super::{Class, Event, Payloads, Setup, Sink, System, Talk};
use crate::children::first_line;

const STREAM: &str = "QBENCH";
/// The first subscription id of takes; slot 0 has this one.
const TAKE_SIDS: usize = 10;

pub(crate) struct Nats;

impl System for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn how(&self) -> &'static str {
        "JetStream work queue on disk: acknowledged publish; ACK of the job before with a pull"
    }

    fn program(&self) -> &'static str {
        "nats-server"
    }

    fn package(&self) -> &'static str {
        "install nats-server (Debian: apt-get install nats-server)"
    }

    fn version(&self, program: &Path) -> String {
        first_line(program, &["--version"])
    }

    fn loses(&self, class: Class) -> Result<&'static str, &'static str> {
        Ok(match class {
            Class::Memory => "a killed server loses nothing; a power cut up to two minutes",
            Class::Second => "a killed server loses nothing; a power cut about the last second",
            Class::Synced => "nothing",
        })
    }

    fn command(&self, program: &Path, class: Class, dir: &Path, port: u16) -> Result<Command> {
        let sync = match class {
            Class::Memory => "",
            Class::Second => ", sync_interval: \"1s\"",
            Class::Synced => ", sync_interval: always",
        };
        let version = self.version(program);
        ensure!(
            class == Class::Memory || has_sync_interval(&version),
            "class {} needs nats-server 2.10 or later for its sync_interval; this is {version}",
            class.name()
        );
        let config = dir.join("nats.conf");
        let store = dir.join("store");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\"{sync} }}\n",
            store.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(config);
        Ok(command)
    }

    fn talk(&self, setup: Setup) -> Box<dyn Talk> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the kernel gives random bytes");
        Box::new(NatsTalk {
            inbox: format!("_INBOX.{:016x}", u64::from_le_bytes(random)),
            slots: vec![Slot::default(); setup.in_flight],
            answers: 0,
            ready: false,
            finishing: 0,
            setup,
        })
    }
}

fn has_sync_interval(version: &str) -> bool {
    let numbers = version.rsplit('v').next().unwrap_or_default();
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    (major, minor) >= (2, 10)
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// Publishes without an acknowledgement.
    publishing: usize,
    /// Jobs asked for, and those that have come.
    asked: usize,
    taken: usize,
    /// Where to acknowledge the jobs that the slot took last.
    held: Vec<String>,
}

struct NatsTalk {
    setup: Setup,
    inbox: String,
    slots: Vec<Slot>,
    /// Answers of the greeting that have not come.
    answers: usize,
    ready: bool,
    /// Acknowledgements at the end that are not confirmed, and the answer to a PING behind all.
    finishing: usize,
}

/// A message to this connection.
struct Message<'a> {
    subject: &'a str,
    sid: usize,
    reply: &'a str,
    headers: &'a [u8],
    body: &'a [u8],
}

impl NatsTalk {
    fn put(&self, out: &mut BytesMut, subject: &str, answer: &str, body: &[u8]) {
        let inbox = &self.inbox;
        out.put_slice(b"PUB ");
        out.put_slice(subject.as_bytes());
        if !answer.is_empty() {
            out.put_slice(format!(" {inbox}.{answer}").as_bytes());
        }
        out.put_slice(format!(" {}\r\n", body.len()).as_bytes());
        out.put_slice(body);
        out.put_slice(b"\r\n");
    }

    fn put_declarations(&mut self, out: &mut BytesMut) {
        let stream = format!(
            "{{\"name\":\"{STREAM}\",\"subjects\":[\"q.>\"],\"retention\":\"workqueue\",\
             \"storage\":\"file\",\"num_replicas\":1}}"
        );
        self.put(out, &format!("$JS.API.STREAM.CREATE.{STREAM}"), "api", stream.as_bytes());
        self.answers += 1;
        for queue in self.setup.queues.clone() {
            let consumer = format!(
                "{{\"stream_name\":\"{STREAM}\",\"config\":{{\"durable_name\":\"{queue}\",\
                 \"ack_policy\":\"explicit\",\"ack_wait\":120000000000,\
                 \"max_ack_pending\":1000000,\"max_waiting\":100000,\
                 \"filter_subject\":\"q.{queue}\"}}}}"
            );
            let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{queue}");
            self.put(out, &subject, "api", consumer.as_bytes());
            self.answers += 1;
        }
    }

    fn on_message(&mut self, message: &Message<'_>, sink: &mut Sink<'_>) -> Result<()> {
        if message.sid >= TAKE_SIDS {
            return self.on_taken(message.sid - TAKE_SIDS, message, sink);
        }
        let text = String::from_utf8_lossy(message.body);
        ensure!(!text.contains("\"error\""), "nats answered {text}");
        let what = message.subject.rsplit('.').next().unwrap_or_default();
        match what.split_at_checked(1) {
            Some(("p", slot)) => {
                let slot: usize = slot.parse()?;
                let Some(state) = self.slots.get_mut(slot) else { return Ok(()) };
                state.publishing -= 1;
                if state.publishing == 0 { sink(Event::Enqueued { slot }) } else { Ok(()) }
            }
            Some(("f", _)) => self.on_finished(sink),
            _ => self.on_answer(sink),
        }
    }

    fn on_answer(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if self.ready {
            return self.on_finished(sink);
        }
        self.answers -= 1;
        self.ready = self.answers == 0;
        if self.ready { sink(Event::Ready) } else { Ok(()) }
    }

    fn on_finished(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        self.finishing -= 1;
        if self.finishing == 0 { sink(Event::Finished) } else { Ok(()) }
    }

    fn on_taken(&mut self, slot: usize, message: &Message<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let Some(state) = self.slots.get_mut(slot) else { return Ok(()) };
        // A message with headers and no reply subject is a status: the wait is over.
        let is_status = message.headers.starts_with(b"NATS/1.0 ");
        if !is_status {
            state.held.push(message.reply.to_owned());
            state.taken += 1;
            sink(Event::Job { slot, payload: message.body })?;
        }
        if is_status || state.taken == state.asked {
            sink(Event::Taken { slot, jobs: std::mem::take(&mut state.taken) })?;
        }
        Ok(())
    }

    /// Handles the line or message at the front, and gives its length; 0 if it is not whole.
    fn read_one(&mut self, input: &[u8], sink: &mut Sink<'_>) -> Result<usize> {
        let Some(end) = input.windows(2).position(|pair| pair == b"\r\n") else { return Ok(0) };
        let line = std::str::from_utf8(input.get(..end).unwrap_or_default())?;
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let number = |back: usize| {
            let word = words.len().checked_sub(back).and_then(|place| words.get(place));
            word.and_then(|word| word.parse::<usize>().ok()).context("a message without a length")
        };
        let (header_bytes, bytes) = match verb {
            "MSG" => (0, number(1)?),
            "HMSG" => (number(2)?, number(1)?),
            "PONG" => {
                self.on_answer(sink)?;
                return Ok(end + 2);
            }
            "-ERR" => bail!("nats answered {line}"),
            _ => return Ok(end + 2),
        };
        let start = end + 2;
        let Some(content) = input.get(start..start + bytes + 2) else { return Ok(0) };
        let numbers = if verb == "HMSG" { 2 } else { 1 };
        let has_reply = words.len() > 2 + numbers;
        self.on_message(
            &Message {
                subject: words.first().copied().unwrap_or_default(),
                sid: words.get(1).copied().unwrap_or_default().parse()?,
                reply: words.get(2).copied().filter(|_| has_reply).unwrap_or_default(),
                headers: content.get(..header_bytes).unwrap_or_default(),
                body: content.get(header_bytes..bytes).unwrap_or_default(),
            },
            sink,
        )?;
        Ok(start + bytes + 2)
    }
}

impl Talk for NatsTalk {
    fn put_greeting(&mut self, out: &mut BytesMut) {
        out.put_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\
              \"lang\":\"rust\",\"version\":\"0\",\"name\":\"qbench\",\"protocol\":1}\r\n",
        );
        let inbox = &self.inbox;
        out.put_slice(format!("SUB {inbox}.* 1\r\n").as_bytes());
        for slot in 0..self.slots.len() {
            let sid = TAKE_SIDS + slot;
            out.put_slice(format!("SUB {inbox}.t.{slot} {sid}\r\n").as_bytes());
        }
        if self.setup.declares {
            self.put_declarations(out);
        }
        out.put_slice(b"PING\r\n");
        self.answers += 1;
    }

    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut) {
        let (subject, answer) = (format!("q.{queue}"), format!("p{slot}"));
        for payload in jobs.iter() {
            self.put(out, &subject, &answer, payload);
        }
        if let Some(state) = self.slots.get_mut(slot) {
            state.publishing = jobs.iter().len();
        }
    }

    fn put_take(&mut self, slot: usize, queue: &str, max: usize, wait: bool, out: &mut BytesMut) {
        let held = self.slots.get_mut(slot).map(|state| std::mem::take(&mut state.held));
        for ack in held.unwrap_or_default() {
            self.put(out, &ack, "", b"+ACK");
        }
        if let Some(state) = self.slots.get_mut(slot) {
            state.asked = max;
        }
        let how = if wait { "\"expires\":25000000000" } else { "\"no_wait\":true" };
        let body = format!("{{\"batch\":{max},{how}}}");
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{queue}");
        self.put(out, &subject, &format!("t.{slot}"), body.as_bytes());
    }

    fn put_finish(&mut self, out: &mut BytesMut) -> bool {
        let held: Vec<String> =
            self.slots.iter_mut().flat_map(|state| std::mem::take(&mut state.held)).collect();
        for ack in &held {
            self.put(out, ack, "f", b"+ACK");
        }
        // Acknowledgements on the way have no answer; that to a PING behind them shows that they
        // have been read.
        out.put_slice(b"PING\r\n");
        self.finishing = held.len() + 1;
        true
    }

    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
        loop {
            let length = self.read_one(input, sink)?;
            if length == 0 {
                return Ok(());
            }
            drop(input.split_to(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_about_syncing() {
        assert!(!has_sync_interval("nats-server: v2.9.10"));
        assert!(has_sync_interval("nats-server: v2.10.0"));
        assert!(has_sync_interval("nats-server: v3.0.1"));
        assert!(!has_sync_interval("unknown"));
    }
}
