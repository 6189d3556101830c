//! RabbitMQ: a quorum queue, publisher confirms, and consumers with a prefetch; AMQP 0-9-1 as
//! bytes.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use bytes::{BufMut, BytesMut};

use super::{Class, Event, Payloads, Setup, Sink, System, Talk};
use crate::children::{find_program, first_line, free_port};

/// The server without the wrapper that changes to another user.
const DEBIAN_PROGRAM: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

const FRAME_METHOD: u8 = 1;
const FRAME_HEADER: u8 = 2;
const FRAME_BODY: u8 = 3;
const FRAME_END: u8 = 0xce;
const FRAME_BYTES_MAX: u32 = 131_072;

const QUEUE_DECLARE: (u16, u16) = (50, 10);
const BASIC_ACK: (u16, u16) = (60, 80);

pub(crate) struct RabbitMq;

impl System for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn how(&self) -> &'static str {
        "quorum queue of one node: confirmed publish; ack of each job, prefetch as in flight"
    }

    fn program(&self) -> &'static str {
        "rabbitmq-server"
    }

    fn package(&self) -> &'static str {
        "install rabbitmq-server (Debian: apt-get install rabbitmq-server)"
    }

    fn version(&self, _program: &Path) -> String {
        // The server has no option that only tells its version.
        let query = ["-W", "-f", "${Package} ${Version}", "rabbitmq-server"];
        first_line(Path::new("dpkg-query"), &query)
    }

    fn loses(&self, class: Class) -> Result<&'static str, &'static str> {
        match class {
            Class::Synced => Ok("nothing"),
            _ => Err("a quorum queue always syncs before it confirms"),
        }
    }

    fn command(&self, program: &Path, _class: Class, dir: &Path, port: u16) -> Result<Command> {
        let debian = Path::new(DEBIAN_PROGRAM);
        let program = if debian.is_file() { debian } else { program };
        let empty = dir.join("empty.conf");
        fs::write(&empty, "")?;
        let plugins = dir.join("plugins");
        fs::write(&plugins, "[].\n")?;
        let mut command = Command::new(program);
        command.env("HOME", dir);
        command.env("RABBITMQ_NODENAME", format!("qbench{port}@localhost"));
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", port.to_string());
        command.env("RABBITMQ_DIST_PORT", free_port()?.to_string());
        command.env("ERL_EPMD_PORT", fs::read_to_string(dir.join("epmd-port"))?);
        command.env("RABBITMQ_MNESIA_BASE", dir.join("data"));
        command.env("RABBITMQ_LOG_BASE", dir.join("log"));
        command.env("RABBITMQ_PID_FILE", dir.join("pid"));
        command.env("RABBITMQ_CONF_ENV_FILE", &empty);
        command.env("RABBITMQ_CONFIG_FILE", &empty);
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins);
        Ok(command)
    }

    fn companion(&self, _program: &Path, dir: &Path) -> Result<Option<Command>> {
        // The port mapper of Erlang, which would otherwise stay behind as a daemon.
        let port = free_port()?.to_string();
        fs::write(dir.join("epmd-port"), &port)?;
        let Some(program) = find_program("epmd") else { bail!("epmd of Erlang is not installed") };
        let mut command = Command::new(program);
        command.args(["-port", &port, "-address", "127.0.0.1"]);
        Ok(Some(command))
    }

    fn talk(&self, setup: Setup) -> Box<dyn Talk> {
        Box::new(RabbitTalk {
            publishing: vec![0; setup.in_flight],
            held: vec![Vec::new(); setup.in_flight],
            setup,
            ready: false,
            answers: 0,
            confirms: VecDeque::new(),
            confirmed: 0,
            takes: VecDeque::new(),
            consuming: false,
            delivery: None,
        })
    }

    fn pushes(&self) -> bool {
        true
    }

    fn one_queue(&self) -> Option<&'static str> {
        Some("it would need a subscription of each worker to each queue")
    }
}

/// A job whose body is on its way.
struct Delivery {
    tag: u64,
    bytes: u64,
    body: Vec<u8>,
}

/// Jobs that a slot waits for.
struct Take {
    slot: usize,
    max: usize,
    taken: usize,
}

struct RabbitTalk {
    setup: Setup,
    ready: bool,
    /// Answers of the greeting that have not come.
    answers: usize,
    /// Publishes of each slot that are not confirmed.
    publishing: Vec<usize>,
    /// The slots of publishes in their order; nothing once confirmed.
    confirms: VecDeque<Option<usize>>,
    /// Publishes that have left `confirms`.
    confirmed: u64,
    takes: VecDeque<Take>,
    held: Vec<Vec<u64>>,
    consuming: bool,
    delivery: Option<Delivery>,
}

fn put_frame(out: &mut BytesMut, kind: u8, channel: u16, content: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    out.put_u16(channel);
    let start = out.len();
    out.put_u32(0);
    content(out);
    let bytes = (out.len() - start - 4) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&bytes.to_be_bytes());
    }
    out.put_u8(FRAME_END);
}

fn put_method(
    out: &mut BytesMut,
    channel: u16,
    (class, method): (u16, u16),
    arguments: impl FnOnce(&mut BytesMut),
) {
    put_frame(out, FRAME_METHOD, channel, |out| {
        out.put_u16(class);
        out.put_u16(method);
        arguments(out);
    });
}

fn put_short(out: &mut BytesMut, text: &str) {
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

fn put_long(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_declare(out: &mut BytesMut, queue: &str, passive: bool) {
    put_method(out, 1, QUEUE_DECLARE, |out| {
        out.put_u16(0);
        put_short(out, queue);
        // Bit 0 is passive, bit 1 durable.
        out.put_u8(if passive { 1 } else { 2 });
        let mut table = BytesMut::new();
        put_short(&mut table, "x-queue-type");
        table.put_u8(b'S');
        put_long(&mut table, b"quorum");
        put_long(out, &table);
    });
}

/// Acks a job, or with `through` all up to it.
fn put_ack(out: &mut BytesMut, tag: u64, through: bool) {
    put_method(out, 1, BASIC_ACK, |out| {
        out.put_u64(tag);
        out.put_u8(u8::from(through));
    });
}

/// Reads a big-endian number from the front.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl RabbitTalk {
    fn on_confirm(&mut self, tag: u64, multiple: bool, sink: &mut Sink<'_>) -> Result<()> {
        let last = tag.saturating_sub(self.confirmed + 1) as usize;
        let first = if multiple { 0 } else { last };
        for place in first..=last {
            let slot = self.confirms.get_mut(place).and_then(Option::take);
            let Some(slot) = slot else { continue };
            let Some(left) = self.publishing.get_mut(slot) else { continue };
            *left -= 1;
            if *left == 0 {
                sink(Event::Enqueued { slot })?;
            }
        }
        while self.confirms.front().is_some_and(Option::is_none) {
            self.confirms.pop_front();
            self.confirmed += 1;
        }
        Ok(())
    }

    fn on_method(&mut self, content: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let Some((head, arguments)) = content.split_first_chunk::<4>() else {
            bail!("rabbitmq sent a method without a number");
        };
        let [c0, c1, m0, m1] = *head;
        let tag_at = |start: usize| number(arguments.get(start..start + 8).unwrap_or_default());
        match (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])) {
            BASIC_ACK => {
                let multiple = arguments.get(8).is_some_and(|bits| bits & 1 == 1);
                self.on_confirm(tag_at(0), multiple, sink)
            }
            (60, 60) => {
                let tag = tag_at(1 + usize::from(arguments.first().copied().unwrap_or(0)));
                self.delivery = Some(Delivery { tag, bytes: 0, body: Vec::new() });
                Ok(())
            }
            (60, 71) => {
                self.delivery = Some(Delivery { tag: tag_at(0), bytes: 0, body: Vec::new() });
                Ok(())
            }
            (60, 72) => {
                let slot = self.takes.pop_front().map_or(0, |take| take.slot);
                sink(Event::Taken { slot, jobs: 0 })
            }
            (50, 11) if self.ready => sink(Event::Finished),
            (20, 11) | (85, 11) | (50, 11) | (60, 11) => {
                self.answers -= 1;
                self.ready = self.answers == 0;
                if self.ready { sink(Event::Ready) } else { Ok(()) }
            }
            (10, 10 | 30 | 41) | (60, 21) => Ok(()),
            (class, method) => {
                let text = String::from_utf8_lossy(arguments);
                bail!("rabbitmq sent method {class}.{method}: {text}")
            }
        }
    }

    fn on_body(&mut self, content: &[u8], sink: &mut Sink<'_>) -> Result<()> {
        let Some(delivery) = &mut self.delivery else { bail!("rabbitmq sent a body for nothing") };
        delivery.body.extend_from_slice(content);
        if (delivery.body.len() as u64) < delivery.bytes {
            return Ok(());
        }
        let Some(delivery) = self.delivery.take() else { return Ok(()) };
        let Some(take) = self.takes.front_mut() else {
            bail!("rabbitmq pushed a job beyond the prefetch");
        };
        let slot = take.slot;
        take.taken += 1;
        let is_full = (take.taken == take.max).then_some(take.taken);
        if let Some(held) = self.held.get_mut(slot) {
            held.push(delivery.tag);
        }
        sink(Event::Job { slot, payload: &delivery.body })?;
        if let Some(jobs) = is_full {
            self.takes.pop_front();
            sink(Event::Taken { slot, jobs })?;
        }
        Ok(())
    }
}

impl Talk for RabbitTalk {
    /// All at once: what the server says in between is known.
    fn put_greeting(&mut self, out: &mut BytesMut) {
        out.put_slice(b"AMQP\0\0\x09\x01");
        put_method(out, 0, (10, 11), |out| {
            out.put_u32(0);
            put_short(out, "PLAIN");
            put_long(out, b"\0guest\0guest");
            put_short(out, "en_US");
        });
        put_method(out, 0, (10, 31), |out| {
            out.put_u16(16);
            out.put_u32(FRAME_BYTES_MAX);
            out.put_u16(0);
        });
        put_method(out, 0, (10, 40), |out| {
            put_short(out, "/");
            out.put_slice(&[0, 0]);
        });
        put_method(out, 1, (20, 10), |out| out.put_u8(0));
        put_method(out, 1, (85, 10), |out| out.put_u8(0));
        let prefetch = (self.setup.in_flight * self.setup.batch).min(65_535) as u16;
        put_method(out, 1, (60, 10), |out| {
            out.put_u32(0);
            out.put_u16(prefetch);
            out.put_u8(0);
        });
        self.answers = 3;
        for queue in self.setup.queues.iter().filter(|_| self.setup.declares) {
            put_declare(out, queue, false);
            self.answers += 1;
        }
    }

    fn put_enqueue(&mut self, slot: usize, queue: &str, jobs: Payloads<'_>, out: &mut BytesMut) {
        for payload in jobs.iter() {
            put_method(out, 1, (60, 40), |out| {
                out.put_u16(0);
                put_short(out, "");
                put_short(out, queue);
                out.put_u8(0);
            });
            put_frame(out, FRAME_HEADER, 1, |out| {
                out.put_u16(60);
                out.put_u16(0);
                out.put_u64(payload.len() as u64);
                // Only the delivery mode is given: persistent.
                out.put_u16(0x1000);
                out.put_u8(2);
            });
            put_frame(out, FRAME_BODY, 1, |out| out.put_slice(payload));
            self.confirms.push_back(Some(slot));
        }
        if let Some(publishing) = self.publishing.get_mut(slot) {
            *publishing = jobs.iter().len();
        }
    }

    fn put_take(&mut self, slot: usize, queue: &str, max: usize, wait: bool, out: &mut BytesMut) {
        let held = self.held.get_mut(slot).map(std::mem::take).unwrap_or_default();
        match held.last() {
            // All that is out is this slot's.
            Some(last) if self.held.len() == 1 => put_ack(out, *last, true),
            _ => held.iter().for_each(|tag| put_ack(out, *tag, false)),
        }
        self.takes.push_back(Take { slot, max, taken: 0 });
        if !wait {
            put_method(out, 1, (60, 70), |out| {
                out.put_u16(0);
                put_short(out, queue);
                out.put_u8(0);
            });
        } else if !self.consuming {
            self.consuming = true;
            put_method(out, 1, (60, 20), |out| {
                out.put_u16(0);
                put_short(out, queue);
                put_short(out, "");
                out.put_u8(0);
                out.put_u32(0);
            });
        }
    }

    fn put_finish(&mut self, out: &mut BytesMut) -> bool {
        let held = self.held.iter_mut().flat_map(std::mem::take);
        if let Some(last) = held.max() {
            put_ack(out, last, true);
        }
        // Acks have no answer; one to what follows them on the channel shows that they are done.
        if let Some(queue) = self.setup.queues.first().filter(|_| self.consuming) {
            put_declare(out, queue, true);
        }
        self.consuming
    }

    fn read(&mut self, input: &mut BytesMut, sink: &mut Sink<'_>) -> Result<()> {
        while let Some((head, _)) = input.split_first_chunk::<7>() {
            let [kind, _, _, size @ ..] = *head;
            let bytes = u32::from_be_bytes(size) as usize;
            if input.len() < bytes + 8 {
                return Ok(());
            }
            let frame = input.split_to(bytes + 8);
            ensure!(frame.last() == Some(&FRAME_END), "rabbitmq sent a frame without an end");
            let content = frame.get(7..7 + bytes).unwrap_or_default();
            match kind {
                FRAME_METHOD => self.on_method(content, sink)?,
                FRAME_HEADER => {
                    if let Some(delivery) = &mut self.delivery {
                        delivery.bytes = number(content.get(4..12).unwrap_or_default());
                    }
                }
                FRAME_BODY => self.on_body(content, sink)?,
                _ => {}
            }
        }
        Ok(())
    }
}
