//! A client that waits for its replies: requests out, one or many in flight, and replies in.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Buf, BytesMut};
use joblog_protocol::frame::{FLAG_MORE, Header, Peek, put_request};
use joblog_protocol::limits::{FRAME_HEADER_BYTES, SILENCE_MS_MAX};
use joblog_protocol::messages::admin;
use joblog_protocol::messages::session::{Hello, VERSION};
use joblog_protocol::{ErrorCode, Opcode};
use serde::Serialize;
use smallvec::SmallVec;

const READ_BYTES: usize = 256 * 1024;

/// A request that the server refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: ErrorCode,
    text: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "joblog answered {}: {}", self.code, self.text)
    }
}

impl std::error::Error for Refused {}

/// The name of a session that nobody else has.
pub(super) fn new_session() -> [u8; 16] {
    let mut session = [0; 16];
    getrandom::fill(&mut session).expect("the kernel gives random bytes");
    session
}

/// A connection that is greeted.
pub(super) struct Client {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    scratch: Vec<u8>,
}

impl Client {
    /// Connects with a session of its own, which may be silent for an hour. A reply that does not
    /// come within `patience` is an error, here and later.
    pub(super) fn connect(address: &str, patience: Duration) -> Result<Self> {
        Self::connect_as(address, patience, new_session(), SILENCE_MS_MAX as u32)
    }

    /// Connects as this session, and names none of its leases.
    pub(super) fn connect_as(
        address: &str,
        patience: Duration,
        session: [u8; 16],
        silence_ms: u32,
    ) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connecting to the server")?;
        let mut client = Self::over(stream, patience)?;
        client.greet(session, silence_ms)?;
        Ok(client)
    }

    /// A client over a connection, which may still be about to be made; not greeted yet.
    pub(super) fn over(stream: TcpStream, patience: Duration) -> Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream, input: BytesMut::new(), output: BytesMut::new(), scratch: Vec::new() })
    }

    /// Sends HELLO and waits for the reply.
    pub(super) fn greet(&mut self, session: [u8; 16], silence_ms: u32) -> Result<()> {
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            session,
            silence_ms,
            agent: "qbench growth",
            held: SmallVec::new(),
        };
        self.ask(Opcode::Hello, |out| hello.encode(out)).map(drop)
    }

    /// Sends a request and gives the body of its last reply.
    ///
    /// # Errors
    /// [`Refused`], or the connection's end.
    pub(super) fn ask(
        &mut self,
        opcode: Opcode,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<BytesMut> {
        self.send(opcode, body)?;
        self.reply()
    }

    /// Sends a request whose body is JSON.
    pub(super) fn ask_json<T: Serialize>(&mut self, opcode: Opcode, body: &T) -> Result<BytesMut> {
        self.ask(opcode, |out| admin::encode(out, body))
    }

    /// Sends a request and does not wait.
    pub(super) fn send(&mut self, opcode: Opcode, body: impl FnOnce(&mut BytesMut)) -> Result<()> {
        put_request(&mut self.output, opcode, 0, body);
        let output = self.output.split();
        self.stream.write_all(&output).context("writing to the server")
    }

    /// Sends so many requests, numbered from 0, in writes of `in_flight` each, and waits for the
    /// replies of each write before the next.
    pub(super) fn ask_many(
        &mut self,
        opcode: Opcode,
        count: u64,
        in_flight: u64,
        mut body: impl FnMut(u64, &mut BytesMut),
    ) -> Result<()> {
        let mut next = 0;
        while next < count {
            let end = (next + in_flight.max(1)).min(count);
            for number in next..end {
                put_request(&mut self.output, opcode, number, |out| body(number, out));
            }
            self.burst(end - next)?;
            next = end;
        }
        Ok(())
    }

    /// Writes all that is put, and reads the replies meanwhile, so that neither side waits for the
    /// other to make room.
    fn burst(&mut self, replies: u64) -> Result<()> {
        let output = self.output.split();
        let mut stream = self.stream.try_clone()?;
        thread::scope(|scope| {
            let writing = scope.spawn(move || stream.write_all(&output));
            let read = self.replies(replies);
            let written = writing.join().map_err(|_| anyhow!("a writing thread panicked"))?;
            written.context("writing to the server")?;
            read
        })
    }

    /// Waits for the replies to so many requests; if some are refused, the first one's error.
    fn replies(&mut self, count: u64) -> Result<()> {
        let mut outcome = Ok(());
        for _ in 0..count {
            match self.reply() {
                Err(error) if error.is::<Refused>() => outcome = outcome.and(Err(error)),
                other => drop(other?),
            }
        }
        outcome
    }

    /// Waits for the last reply to a request.
    pub(super) fn reply(&mut self) -> Result<BytesMut> {
        loop {
            let (header, body) = self.frame()?;
            if let Some(code) = ErrorCode::from_code(header.status) {
                let text = String::from_utf8_lossy(&body).into_owned();
                return Err(Refused { code, text }.into());
            }
            if header.flags & FLAG_MORE == 0 {
                return Ok(body);
            }
        }
    }

    fn frame(&mut self) -> Result<(Header, BytesMut)> {
        loop {
            match Header::peek(&self.input) {
                Peek::Whole(header) => {
                    let mut frame = self.input.split_to(FRAME_HEADER_BYTES + header.body_bytes());
                    frame.advance(FRAME_HEADER_BYTES);
                    return Ok((header, frame));
                }
                Peek::NeedMore => self.fill()?,
                peek => bail!("joblog sent a wrong frame: {peek:?}"),
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        self.scratch.resize(READ_BYTES, 0);
        match self.stream.read(&mut self.scratch) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(count) => {
                self.input.extend_from_slice(self.scratch.get(..count).unwrap_or_default());
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error).context("no reply came from the server"),
        }
    }
}
