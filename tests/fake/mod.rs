//! A server that does what a test tells it, frame by frame.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test binary uses a part, and a test may stop at what it did not expect"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use joblog::client::{Client, Job, Options, Token};
use joblog_protocol::frame::{Header, Peek, put_error, put_reply};
use joblog_protocol::limits::FRAME_HEADER_BYTES;
use joblog_protocol::messages::fetch::{Delivery, Fetch, FetchReply};
use joblog_protocol::messages::lease::{Commit, Release, encode_statuses};
use joblog_protocol::messages::session::{Hello, HelloReply};
use joblog_protocol::{ErrorCode, Opcode};

/// How long a test waits for what must come. Never slept through.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a client's script against a server's script, each on its own thread.
pub(crate) fn run(
    options: Options,
    server: impl FnOnce(&Fake) + Send + 'static,
    client: impl AsyncFnOnce(Client),
) {
    let fake = Fake::new();
    let address = fake.address.to_string();
    let server = thread::spawn(move || server(&fake));
    block_on(async {
        client(Client::connect(address, options).await.unwrap()).await;
    });
    server.join().unwrap();
}

/// Runs a future on a runtime of this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

/// The listening side.
pub(crate) struct Fake {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Fake {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// Accepts a connection and answers its HELLO.
    pub(crate) fn greet(&self) -> Peer {
        let mut peer = self.accept();
        let asked = Duration::from_millis(peer.hello.silence_ms.into());
        let silence = if asked.is_zero() { PATIENCE } else { asked };
        let reply = HelloReply {
            version: 1,
            resumed: false,
            silence_ms: silence.as_millis() as u32,
            leases_kept: 0,
            leases_released: 0,
            job_bytes_max: 1 << 20,
            agent: "fake",
        };
        let hello = peer.hello.request.clone();
        peer.reply(&hello, |out| reply.encode(out));
        peer
    }

    /// Accepts a connection and reads its HELLO, without an answer.
    pub(crate) fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peer = Peer { stream, input: BytesMut::new(), hello: Greeting::default() };
        let request = peer.read().unwrap();
        assert_eq!(request.opcode, Opcode::Hello);
        let hello = Hello::decode(&request.body).unwrap();
        peer.hello = Greeting {
            session: hello.session,
            silence_ms: hello.silence_ms,
            held: hello.held.to_vec(),
            request: request.clone(),
        };
        peer
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) opcode: Opcode,
    pub(crate) correlation: u64,
    pub(crate) body: Bytes,
}

impl Default for Request {
    fn default() -> Self {
        Self { opcode: Opcode::Hello, correlation: 0, body: Bytes::new() }
    }
}

impl Request {
    pub(crate) fn expect(self, opcode: Opcode) -> Self {
        assert_eq!(self.opcode, opcode, "{self:?}");
        self
    }

    pub(crate) fn is_heartbeat(&self) -> bool {
        self.opcode == Opcode::Ping && self.body.is_empty()
    }

    /// The wait of a FETCH in milliseconds.
    pub(crate) fn wait_ms(&self) -> u32 {
        Fetch::decode(&self.body).unwrap().wait_ms
    }

    /// The delay of a RELEASE in milliseconds.
    pub(crate) fn delay_ms(&self) -> u64 {
        Release::decode(&self.body).unwrap().delay_ms
    }

    /// The offsets that a RELEASE, or a COMMIT of one queue, names.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        let set = match self.opcode {
            Opcode::Release => Release::decode(&self.body).unwrap().jobs,
            Opcode::Commit => match Commit::decode(&self.body).unwrap() {
                Commit::Jobs(sets) => sets[0].clone(),
                through => panic!("{through:?}"),
            },
            _ => panic!("{self:?}"),
        };
        set.handles.iter().map(|handle| handle.offset).collect()
    }
}

/// What a HELLO said.
#[derive(Default)]
pub(crate) struct Greeting {
    pub(crate) session: [u8; 16],
    pub(crate) silence_ms: u32,
    pub(crate) held: Vec<Token>,
    request: Request,
}

/// One connection. It is closed when this is dropped.
pub(crate) struct Peer {
    stream: TcpStream,
    input: BytesMut,
    pub(crate) hello: Greeting,
}

impl Peer {
    /// The next request, heartbeats included; nothing at the end of the connection.
    pub(crate) fn read(&mut self) -> Option<Request> {
        let mut buffer = [0; 64 * 1024];
        loop {
            if let Peek::Whole(header) = Header::peek(&self.input) {
                let mut frame = self.input.split_to(FRAME_HEADER_BYTES + header.body_bytes());
                let body = frame.split_off(FRAME_HEADER_BYTES).freeze();
                let opcode = Opcode::from_code(header.opcode).unwrap();
                return Some(Request { opcode, correlation: header.correlation, body });
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next request of a caller; heartbeats are answered.
    pub(crate) fn next(&mut self) -> Request {
        loop {
            let request = self.read().expect("the client closed the connection");
            if !request.is_heartbeat() {
                return request;
            }
            self.reply(&request, |_| {});
        }
    }

    /// The connection ends without another request of a caller.
    pub(crate) fn assert_closed(mut self) {
        while let Some(request) = self.read() {
            assert!(request.is_heartbeat(), "{request:?}");
        }
    }

    pub(crate) fn reply(&mut self, request: &Request, body: impl FnOnce(&mut BytesMut)) {
        self.send(|out| put_reply(out, request.opcode, request.correlation, false, body));
    }

    /// A reply that another one follows.
    pub(crate) fn reply_more(&mut self, request: &Request, body: impl FnOnce(&mut BytesMut)) {
        self.send(|out| put_reply(out, request.opcode, request.correlation, true, body));
    }

    pub(crate) fn statuses(&mut self, request: &Request, statuses: &[Option<ErrorCode>]) {
        self.reply(request, |out| encode_statuses(out, statuses));
    }

    /// Answers a FETCH with jobs of its first queue.
    pub(crate) fn grant(&mut self, request: &Request, jobs: &[Granted]) {
        self.reply(request, |out| {
            FetchReply::encode_head(out, 60_000, jobs.len() as u32);
            for job in jobs {
                let mut body = Vec::new();
                Job::new(job.payload).put_body(&mut body).unwrap();
                let delivery = Delivery {
                    queue_ordinal: 0,
                    offset: job.offset,
                    token: Some(token(job.offset)),
                    attempt: 1,
                    enqueued_at_ms: 7,
                    flags: 0,
                    crc32: crc32fast::hash(&body) ^ u32::from(job.is_damaged),
                    body: &body,
                };
                delivery.encode(out);
            }
        });
    }

    pub(crate) fn refuse(&mut self, request: &Request, code: ErrorCode) {
        let (opcode, correlation) = (request.opcode as u8, request.correlation);
        self.send(|out| put_error(out, opcode, correlation, code, "as the test says"));
    }

    /// Refuses the greeting.
    pub(crate) fn refuse_hello(&mut self, code: ErrorCode) {
        let hello = self.hello.request.clone();
        self.refuse(&hello, code);
    }

    /// Says why it closes the connection, and does.
    pub(crate) fn complain(mut self, code: ErrorCode) {
        self.send(|out| put_error(out, 0, 0, code, "as the test says"));
        self.stream.shutdown(Shutdown::Write).unwrap();
        self.assert_closed();
    }

    fn send(&mut self, frame: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        frame(&mut out);
        self.stream.write_all(&out).unwrap();
    }
}

/// A job to grant; its token follows from its offset.
#[derive(Clone, Copy, Default)]
pub(crate) struct Granted {
    pub(crate) offset: u64,
    pub(crate) payload: &'static str,
    pub(crate) is_damaged: bool,
}

pub(crate) fn job(offset: u64) -> Granted {
    Granted { offset, payload: "payload", is_damaged: false }
}

/// The token that [`Peer::grant`] gives a job.
pub(crate) fn token(offset: u64) -> Token {
    let mut bytes = BytesMut::new();
    bytes.put_u64(offset + 1);
    Token::new(&bytes).unwrap()
}
