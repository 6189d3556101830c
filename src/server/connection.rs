//! One connection's task: it reads, acts on all complete frames, holds replies until they may
//! leave, and writes. No channel, no timer, no task of its own for any request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use joblog_protocol::frame::{Header, Peek};
use joblog_protocol::limits::{FRAME_HEADER_BYTES, FRAME_LENGTH_MAX};
use joblog_protocol::{ErrorCode, Opcode};
use rustc_hash::FxHashMap;
use smallvec::{SmallVec, smallvec};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use super::ServerOptions;
use super::commands::{cancel_notice, wait_reply};
use super::errors::Refused;
use super::reply::{Body, HeldReplies, OUTPUT_BYTES_MAX, Reply};
use crate::broker::{Caller, Event, Gate, GateState, Gates, Logs, Mailbox, WaiterId};
use crate::types::LogId;

/// Bytes asked of the socket in one read.
const READ_BYTES: usize = 64 * 1024;

/// Requests that one connection has acted on before the others of its thread have their turn.
const REQUESTS_PER_TURN_MAX: usize = 64;

/// Bytes of them, but for one that is larger alone.
const BYTES_PER_TURN_MAX: usize = 256 * 1024;

/// A receive buffer that has grown beyond this is given back when it is empty.
const INPUT_KEPT_BYTES: usize = 256 * 1024;

/// Replies that may be held on one connection; beyond this nothing more is read from it.
const HELD_REPLIES_MAX: usize = 4_096;

/// How long a client may take to close after the last reply.
const LINGER_WAIT: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Connection {
    pub(super) logs: Arc<Logs>,
    pub(super) options: ServerOptions,
    pub(super) mailbox: Arc<Mailbox>,
    /// The session, once it has been greeted.
    pub(super) session: Option<Caller>,
    /// The FETCHes that wait, by ticket.
    pub(super) waiting: FxHashMap<u64, WaitingFetch>,
    /// The correlation ids of the WAITs that wait, by ticket.
    pub(super) waits: FxHashMap<u64, u64>,
    /// The last ticket given.
    last_ticket: u64,
    /// The client takes no more jobs.
    pub(super) draining: bool,
    /// No more requests are acted on; what is held is written, and then the connection closes.
    pub(super) closing: bool,
    /// The client is not there any more: what the socket does not take at once is dropped.
    gone: bool,
    stream: TcpStream,
    events: Vec<Event>,
    input: BytesMut,
    /// There may be whole requests in `input` that had to wait for the next turn.
    has_requests: bool,
    /// Bytes of a refused frame that are still to come and are passed over.
    skip_bytes: usize,
    held: HeldReplies,
    /// The gate for whose release this connection is to be woken.
    awaited: Option<Gate>,
    output: BytesMut,
}

/// What is left of a turn of a connection.
struct Turn {
    requests: usize,
    bytes: usize,
}

impl Turn {
    fn spend(&mut self, bytes: usize) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn is_over(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }
}

/// A FETCH that waits.
pub(super) struct WaitingFetch {
    pub(super) correlation: u64,
    /// The logs that it waits in.
    pub(super) places: SmallVec<[(LogId, WaiterId); 1]>,
}

impl Connection {
    /// A connection of the I/O thread with this number.
    pub(super) fn new(
        stream: TcpStream,
        logs: Arc<Logs>,
        io_thread: usize,
        options: ServerOptions,
    ) -> Self {
        Self {
            mailbox: logs.mailbox(io_thread),
            logs,
            options,
            session: None,
            waiting: FxHashMap::default(),
            waits: FxHashMap::default(),
            last_ticket: 0,
            draining: false,
            closing: false,
            gone: false,
            stream,
            events: Vec::new(),
            input: BytesMut::new(),
            has_requests: false,
            skip_bytes: 0,
            held: HeldReplies::default(),
            awaited: None,
            output: BytesMut::new(),
        }
    }

    /// Whether HELLO has been answered.
    pub(super) fn is_greeted(&self) -> bool {
        self.session.is_some()
    }

    /// Serves until the connection is over, or, with `until_greeted`, until HELLO has come.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn poll_serve(
        &mut self,
        cx: &mut Context<'_>,
        until_greeted: bool,
    ) -> Poll<io::Result<()>> {
        let mut left = Turn { requests: REQUESTS_PER_TURN_MAX, bytes: BYTES_PER_TURN_MAX };
        loop {
            self.take_events(cx);
            let full = self.is_full();
            let read = if full { Poll::Pending } else { self.poll_input(cx, &mut left)? };
            let held_back = self.release();
            let written = self.poll_output(cx)?;
            let drained = self.held.len() == 0 && self.output.is_empty();
            if self.gone || (self.closing && drained) || (until_greeted && self.is_greeted()) {
                return Poll::Ready(Ok(()));
            }
            // What left made room for more replies, or for more to read.
            let more_to_write = written.is_ready() && !held_back && self.held.len() > 0;
            let more_to_read = read.is_ready() || (full && !self.is_full());
            if !more_to_read && !more_to_write {
                return Poll::Pending;
            }
            if left.is_over() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Whether so much is to be written that nothing more is read. A connection that holds replies
    /// is woken when they are released; one that holds none must not wait for a slow disk.
    fn is_full(&self) -> bool {
        self.held.len() >= HELD_REPLIES_MAX
            || self.output.len() >= OUTPUT_BYTES_MAX
            || (self.held.len() > 0 && self.logs.is_congested())
    }

    /// Waits until the client has read what was sent and closes, or for a moment: closing with
    /// unread input would have the kernel take back the last replies.
    pub(super) async fn linger(&mut self) {
        let mut sink = [0; 4096];
        let drained = async {
            self.stream.shutdown().await?;
            while self.stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        // Whatever it ends with, the connection is over.
        drop(timeout(LINGER_WAIT, drained).await);
    }

    fn take_events(&mut self, cx: &Context<'_>) {
        self.mailbox.take(cx, &mut self.events);
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Granted { ticket, grants, gates } => {
                    self.answer_wait(ticket, gates, Body::Jobs(grants));
                }
                Event::JobEnded { ticket, ended, gates } => {
                    self.answer_wait(ticket, gates, wait_reply(&ended));
                }
                Event::WaitFailed { ticket, error } => {
                    self.answer_wait(ticket, Gates::new(), Body::Error((&*error).into()));
                }
                Event::Cancelled { job, gate } => {
                    self.push(smallvec![gate], Opcode::Cancel as u8, 0, cancel_notice(&job));
                }
                // Each log says so.
                Event::Replaced if self.gone => {}
                Event::Replaced => {
                    self.push_error(0, 0, Refused::new(ErrorCode::SessionReplaced, REPLACED));
                    self.gone = true;
                }
                Event::Silent => self.gone = true,
                Event::Stopping => self.closing = true,
            }
        }
    }

    /// Answers a FETCH or a WAIT that has waited.
    fn answer_wait(&mut self, ticket: u64, gates: Gates, body: Body) {
        if let Some(WaitingFetch { correlation, places }) = self.waiting.remove(&ticket) {
            self.logs.forget_waits(&places);
            self.push(gates, Opcode::Fetch as u8, correlation, body);
        } else if let Some(correlation) = self.waits.remove(&ticket) {
            self.push(gates, Opcode::Wait as u8, correlation, body);
        }
    }

    /// Reads once and acts on what came, or on what is left of what came before.
    fn poll_input(&mut self, cx: &mut Context<'_>, left: &mut Turn) -> Poll<io::Result<()>> {
        if self.closing {
            return Poll::Pending;
        }
        if self.has_requests {
            self.act_on_input(left);
            return Poll::Ready(Ok(()));
        }
        if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
            self.input.reserve(READ_BYTES);
        }
        let stream = Pin::new(&mut self.stream);
        match ready!(poll_read_buf(stream, cx, &mut self.input))? {
            0 => self.client_gone(),
            _ => self.act_on_input(left),
        }
        Poll::Ready(Ok(()))
    }

    /// The client sends nothing more: it can't commit, so jobs on their way to it go back. Other
    /// replies still leave.
    fn client_gone(&mut self) {
        self.closing = true;
        self.leave();
    }

    /// Takes leave of the broker. To be called once more when the connection is dropped.
    pub(super) fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            let grants = self.held.take_grants();
            self.logs.disconnect(&session, &self.mailbox, grants);
        }
    }

    fn act_on_input(&mut self, left: &mut Turn) {
        if let Some(session) = &self.session {
            self.logs.heard(session);
        }
        let mut input = std::mem::take(&mut self.input);
        self.has_requests = loop {
            let before = input.len();
            if self.closing || !self.act_on_frame(&mut input) {
                break false;
            }
            left.spend(before - input.len());
            if left.is_over() {
                break true;
            }
        };
        if input.is_empty() && input.capacity() > INPUT_KEPT_BYTES {
            input = BytesMut::new();
        }
        self.input = input;
        self.logs.flush();
    }

    /// Acts on the frame at the front; false if it is not complete.
    fn act_on_frame(&mut self, input: &mut BytesMut) -> bool {
        let skipped = self.skip_bytes.min(input.len());
        input.advance(skipped);
        self.skip_bytes -= skipped;
        match Header::peek(input) {
            Peek::NeedMore => return false,
            Peek::Whole(header) => {
                let end = FRAME_HEADER_BYTES + header.body_bytes();
                let body = input.get(FRAME_HEADER_BYTES..end).unwrap_or_default();
                self.act(header, body);
                input.advance(end);
            }
            Peek::TooLarge(header) => {
                self.skip_bytes = header.length as usize + 4;
                let text = format!(
                    "a frame of length {} is over the limit; allowed are 12 to {FRAME_LENGTH_MAX}; \
                     split the batch",
                    header.length
                );
                let refused = Refused::new(ErrorCode::FrameTooLarge, text);
                self.push_error(header.opcode, header.correlation, refused);
            }
            Peek::Malformed { length } => {
                let text = format!(
                    "a frame of length {length} is shorter than its header; allowed are 12 to \
                     {FRAME_LENGTH_MAX}"
                );
                self.push_error(0, 0, Refused::new(ErrorCode::MalformedFrame, text));
            }
        }
        true
    }

    /// Encodes what may leave. Whether something is held back until a release.
    fn release(&mut self) -> bool {
        loop {
            let Some(gate) = self.held.release(&self.logs, &mut self.output) else {
                self.awaited = None;
                return false;
            };
            if self.awaited != Some(gate) {
                self.awaited = Some(gate);
                self.mailbox.wake_when_released(gate);
                // It may have been released just before it was put on the list.
                if self.logs.release_of(&[gate]).0 != GateState::Held {
                    continue;
                }
            }
            return true;
        }
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(cx, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(written);
        }
        if self.output.capacity() > 2 * OUTPUT_BYTES_MAX {
            self.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Has a reply leave when its gates are released. An error that closes the connection is its
    /// last reply.
    pub(super) fn push(&mut self, gates: Gates, opcode: u8, correlation: u64, body: Body) {
        if let Body::Error(refused) = &body
            && refused.code.closes()
        {
            self.closing = true;
        }
        self.held.push(Reply { gates, opcode, correlation, body });
    }

    /// Answers with an error that depends on no state.
    pub(super) fn push_error(&mut self, opcode: u8, correlation: u64, refused: Refused) {
        self.push(Gates::new(), opcode, correlation, Body::Error(refused));
    }

    /// A ticket for what is to wait.
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }
}

const REPLACED: &str = "another connection has greeted with this session; it goes on there";

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}
