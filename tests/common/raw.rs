//! A client that blocks: bytes to a server, frames from it, and the few requests that tests need.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use joblog_protocol::frame::{FLAG_MORE, Header, Peek, put_request};
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::limits::FRAME_HEADER_BYTES;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply, Producer};
use joblog_protocol::messages::fetch::{Fetch, FetchReply, LeaseKind};
use joblog_protocol::messages::handles::{Handle, HandleSet, Statuses};
use joblog_protocol::messages::lease::{
    Commit, Extend, Fail, FailReply, Release, decode_fail_reply, decode_statuses,
};
use joblog_protocol::messages::session::{Hello, HelloReply};
use joblog_protocol::wire::Reader;
use joblog_protocol::{ErrorCode, Opcode, Token};
use smallvec::{SmallVec, smallvec};

use super::PATIENCE;

/// One frame of a server.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// The error that it says; nothing if it succeeded.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        let known = || ErrorCode::from_code(self.header.status).expect("a known error number");
        (self.header.status != 0).then(known)
    }

    /// The text of an error.
    pub(crate) fn text(&self) -> String {
        let mut reader = Reader::new(&self.body);
        let text = reader.text("message").unwrap().to_owned();
        reader.finish().unwrap();
        text
    }

    /// Whether another reply to the same request follows.
    pub(crate) fn more(&self) -> bool {
        self.header.flags & FLAG_MORE != 0
    }

    /// The statuses in it.
    pub(crate) fn statuses(&self) -> Statuses {
        assert_eq!(self.code(), None, "{:?}", self.body);
        decode_statuses(&self.body).unwrap()
    }

    /// The jobs in it.
    pub(crate) fn jobs(&self) -> Vec<Job> {
        assert_eq!(self.code(), None, "{:?}", self.body);
        let reply = FetchReply::decode(&self.body).unwrap();
        reply
            .jobs
            .iter()
            .map(|job| {
                assert_eq!(crc32fast::hash(job.body), job.crc32, "the checksum of {job:?}");
                Job {
                    queue_ordinal: job.queue_ordinal,
                    offset: job.offset,
                    token: job.token.expect("a fetched job has a token"),
                    attempt: job.attempt,
                    payload: joblog_protocol::Job::from_body(job.body).unwrap().payload,
                }
            })
            .collect()
    }

    pub(crate) fn ok(self) -> io::Result<Self> {
        match self.code() {
            None => Ok(self),
            Some(code) => Err(io::Error::other(format!("{code}: {}", self.text()))),
        }
    }
}

/// A fetched job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) queue_ordinal: u8,
    pub(crate) offset: u64,
    pub(crate) token: Token,
    pub(crate) attempt: u32,
    pub(crate) payload: Vec<u8>,
}

/// A session id that no other has had in this process.
pub(crate) fn new_session() -> [u8; 16] {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    let both = [number.to_le_bytes(), u64::from(std::process::id()).to_le_bytes()];
    both.concat().try_into().unwrap()
}

/// Jobs of a queue's group `default`.
pub(crate) fn of_default<'a>(
    queue: &'a str,
    jobs: impl IntoIterator<Item = (u64, Token)>,
) -> HandleSet<'a> {
    let handles = jobs.into_iter().map(|(offset, token)| Handle { offset, token }).collect();
    HandleSet { queue, group: "", handles }
}

/// A HELLO of the one version that there is, for a session with the server's own silence.
pub(crate) fn hello_of<'a>(session: [u8; 16]) -> Hello<'a> {
    let (silence_ms, held) = (0, SmallVec::new());
    Hello { version_min: 1, version_max: 1, session, silence_ms, agent: "test", held }
}

/// A FETCH for one job of the group `default`, under a session lease, which does not wait.
pub(crate) fn fetch_of<'a>(queues: &[&'a str]) -> Fetch<'a> {
    Fetch {
        queues: queues.into(),
        group: "",
        jobs_max: 1,
        bytes_max: u32::MAX,
        wait_ms: 0,
        lease: LeaseKind::Session { run_ms_max: None },
        by_turns: false,
        commits: SmallVec::new(),
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Raw {
    stream: TcpStream,
    input: BytesMut,
    /// Frames that came while another was waited for.
    kept: VecDeque<Frame>,
    correlation: u64,
}

/// Bytes and frames.
impl Raw {
    /// Connects, and says nothing yet.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: BytesMut::new(), kept: VecDeque::new(), correlation: 0 })
    }

    /// Connects and greets with a new session.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).unwrap();
        raw.hello(new_session(), 0, &[]).unwrap();
        raw
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The connection itself, for a thread that only sends.
    pub(crate) fn second_handle(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Sends nothing more, but still reads.
    pub(crate) fn shut_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame, if one comes within `patience`; an error if the connection ends before.
    pub(crate) fn frame_within(&mut self, patience: Duration) -> io::Result<Option<Frame>> {
        if let Some(frame) = self.kept.pop_front() {
            return Ok(Some(frame));
        }
        self.read_frame(patience)
    }

    fn read_frame(&mut self, patience: Duration) -> io::Result<Option<Frame>> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Peek::Whole(header) = Header::peek(&self.input) {
                let mut bytes = self.input.split_to(FRAME_HEADER_BYTES + header.body_bytes());
                let body = bytes.split_off(FRAME_HEADER_BYTES).to_vec();
                return Ok(Some(Frame { header, body }));
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> io::Result<Frame> {
        self.frame_within(PATIENCE)?.ok_or_else(|| ErrorKind::TimedOut.into())
    }

    /// Says that nothing more comes: the server has closed the connection.
    pub(crate) fn assert_closed(&mut self) {
        match self.frame_within(PATIENCE) {
            Err(error) if error.kind() != ErrorKind::TimedOut => {}
            other => panic!("the connection is not closed: {other:?}"),
        }
    }

    /// Says that the connection still answers.
    pub(crate) fn assert_open(&mut self) {
        let reply = self.ask(Opcode::Ping, b"still there?").expect("the connection is closed");
        assert_eq!((reply.code(), &reply.body[..]), (None, &b"still there?"[..]));
    }

    /// Sends a request, and gives its correlation id.
    pub(crate) fn request(&mut self, opcode: Opcode, body: &[u8]) -> io::Result<u64> {
        self.correlation += 1;
        let mut out = BytesMut::new();
        put_request(&mut out, opcode, self.correlation, |out| out.extend_from_slice(body));
        self.send(&out)?;
        Ok(self.correlation)
    }

    /// The next reply to this request; others are kept.
    pub(crate) fn reply_to(&mut self, correlation: u64) -> io::Result<Frame> {
        let of = |frame: &Frame| frame.header.correlation == correlation;
        if let Some(at) = self.kept.iter().position(of) {
            return Ok(self.kept.remove(at).unwrap());
        }
        loop {
            let frame = self.read_frame(PATIENCE)?.ok_or(ErrorKind::TimedOut)?;
            if of(&frame) {
                return Ok(frame);
            }
            self.kept.push_back(frame);
        }
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn ask(&mut self, opcode: Opcode, body: &[u8]) -> io::Result<Frame> {
        let correlation = self.request(opcode, body)?;
        self.reply_to(correlation)
    }

    /// As [`Raw::ask`], with the body that `put` writes.
    pub(crate) fn ask_with(
        &mut self,
        opcode: Opcode,
        put: impl FnOnce(&mut BytesMut),
    ) -> io::Result<Frame> {
        let mut body = BytesMut::new();
        put(&mut body);
        self.ask(opcode, &body)
    }
}

/// Requests. An error reply is an error here, with its name in the text.
impl Raw {
    /// Greets. Gives how many leases were kept and released.
    pub(crate) fn hello(
        &mut self,
        session: [u8; 16],
        silence_ms: u32,
        held: &[Token],
    ) -> io::Result<(u32, u32)> {
        let held = held.iter().copied().collect();
        let hello = Hello { silence_ms, held, ..hello_of(session) };
        let reply = self.ask_with(Opcode::Hello, |out| hello.encode(out))?.ok()?;
        let reply = HelloReply::decode(&reply.body).unwrap();
        Ok((reply.leases_kept, reply.leases_released))
    }

    /// Ends the session.
    pub(crate) fn goodbye(&mut self) -> io::Result<()> {
        self.ask(Opcode::Goodbye, &[])?.ok().map(drop)
    }

    /// Enqueues payloads in one batch. Gives the first offset.
    pub(crate) fn enqueue(
        &mut self,
        queue: &str,
        payloads: &[impl AsRef<[u8]>],
    ) -> io::Result<u64> {
        let mut builder = BatchBuilder::default();
        for payload in payloads {
            builder.push(&joblog_protocol::Job::new(payload.as_ref())).unwrap();
        }
        let enqueue = Enqueue { queue, create: true, producer: None, batch: builder.batch() };
        let reply = self.ask_with(Opcode::Enqueue, |out| enqueue.encode(out))?.ok()?;
        let reply = EnqueueReply::decode(&reply.body).unwrap();
        assert_eq!(reply.count as usize, payloads.len());
        Ok(reply.first_offset)
    }

    /// Enqueues one job as batch `sequence` of a producer. Gives its offset, or the error.
    pub(crate) fn enqueue_numbered(
        &mut self,
        queue: &str,
        payload: &str,
        (id, sequence): ([u8; 16], u64),
    ) -> io::Result<Result<u64, ErrorCode>> {
        let mut builder = BatchBuilder::default();
        builder.push(&joblog_protocol::Job::new(payload)).unwrap();
        let producer = Some(Producer { id, sequence });
        let enqueue = Enqueue { queue, create: true, producer, batch: builder.batch() };
        let reply = self.ask_with(Opcode::Enqueue, |out| enqueue.encode(out))?;
        Ok(match reply.code() {
            Some(code) => Err(code),
            None => Ok(EnqueueReply::decode(&reply.body).unwrap().first_offset),
        })
    }

    /// Sends a FETCH for the group `default`.
    pub(crate) fn request_fetch(
        &mut self,
        queues: &[&str],
        jobs_max: u32,
        wait_ms: u32,
        lease: LeaseKind,
        commits: &[HandleSet<'_>],
    ) -> io::Result<u64> {
        let commits = commits.iter().cloned().collect();
        let fetch = Fetch { jobs_max, wait_ms, lease, commits, ..fetch_of(queues) };
        let mut body = BytesMut::new();
        fetch.encode(&mut body);
        self.request(Opcode::Fetch, &body)
    }

    /// Fetches from the group `default` under a session lease.
    pub(crate) fn fetch(
        &mut self,
        queues: &[&str],
        jobs_max: u32,
        wait_ms: u32,
    ) -> io::Result<Vec<Job>> {
        let lease = LeaseKind::Session { run_ms_max: None };
        let correlation = self.request_fetch(queues, jobs_max, wait_ms, lease, &[])?;
        Ok(self.reply_to(correlation)?.ok()?.jobs())
    }

    /// Fetches from the group `default` under a timed lease.
    pub(crate) fn fetch_timed(
        &mut self,
        queue: &str,
        jobs_max: u32,
        lease_ms: u64,
    ) -> io::Result<Vec<Job>> {
        let lease = LeaseKind::Timed { lease_ms };
        let correlation = self.request_fetch(&[queue], jobs_max, 0, lease, &[])?;
        Ok(self.reply_to(correlation)?.ok()?.jobs())
    }

    /// Sends a COMMIT.
    pub(crate) fn request_commit(&mut self, jobs: HandleSet<'_>) -> io::Result<u64> {
        let mut body = BytesMut::new();
        Commit::Jobs(smallvec![jobs]).encode(&mut body);
        self.request(Opcode::Commit, &body)
    }

    /// Commits jobs.
    pub(crate) fn commit(&mut self, jobs: HandleSet<'_>) -> io::Result<Statuses> {
        let correlation = self.request_commit(jobs)?;
        Ok(self.reply_to(correlation)?.ok()?.statuses())
    }

    /// Hands jobs back without fault.
    pub(crate) fn release(&mut self, jobs: HandleSet<'_>, delay_ms: u64) -> io::Result<Statuses> {
        let release = Release { jobs, delay_ms };
        let reply = self.ask_with(Opcode::Release, |out| release.encode(out))?.ok()?;
        Ok(reply.statuses())
    }

    /// Hands jobs back with a reason.
    pub(crate) fn fail(&mut self, jobs: HandleSet<'_>, reason: &str) -> io::Result<FailReply> {
        let fail = Fail { jobs, failures_max: None, delay_ms: Some(0), reason };
        let reply = self.ask_with(Opcode::Fail, |out| fail.encode(out))?.ok()?;
        Ok(decode_fail_reply(&reply.body).unwrap())
    }

    /// Renews leases.
    pub(crate) fn extend(&mut self, jobs: HandleSet<'_>, lease_ms: u64) -> io::Result<Statuses> {
        let extend = Extend { jobs, lease_ms, progress: None };
        let reply = self.ask_with(Opcode::Extend, |out| extend.encode(out))?.ok()?;
        Ok(reply.statuses())
    }

    /// A command whose body is JSON.
    pub(crate) fn ask_json(&mut self, opcode: Opcode, body: &str) -> io::Result<Frame> {
        self.ask(opcode, body.as_bytes())
    }

    /// The numbers of a queue's group `default`, by their names in DESCRIBE_GROUP.
    pub(crate) fn count(&mut self, queue: &str, name: &str) -> u64 {
        let body = format!("{{\"queue\":\"{queue}\",\"group\":\"default\"}}");
        let reply = self.ask_json(Opcode::DescribeGroup, &body).unwrap().ok().unwrap();
        let group: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        group[name].as_u64().unwrap_or_else(|| panic!("no {name} in {group}"))
    }
}

/// Nothing to say about any job: all were done.
pub(crate) fn all_done(statuses: &[Option<ErrorCode>]) -> bool {
    statuses.iter().all(Option::is_none)
}

/// The handles of fetched jobs.
impl Job {
    pub(crate) fn handle(&self) -> (u64, Token) {
        (self.offset, self.token)
    }
}

/// A list of one status, to compare with.
pub(crate) fn only(code: Option<ErrorCode>) -> SmallVec<[Option<ErrorCode>; 4]> {
    smallvec![code]
}
