//! The driver: a thread of its own that owns the connection, and all that outlives one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use joblog_protocol::codec::Frame;
use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::frame::{FLAG_MORE, Header};
use joblog_protocol::limits::{FETCH_JOBS_MAX, HANDLES_MAX};
use joblog_protocol::messages::fetch::FetchReply;
use joblog_protocol::messages::lease::{
    CancelNotice, ChainReply, FailOutcome, decode_fail_reply, decode_statuses,
};
use joblog_protocol::messages::session::HelloReply;
use joblog_protocol::opcode::Opcode;
use joblog_protocol::wire::{Reader, Token};
use smallvec::smallvec;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::addresses::Addresses;
use super::backoff::Backoff;
use super::connection::Connection;
use super::error::ClientError;
use super::grant::{Abandoned, Grant};
use super::in_flight::{Changes, InFlight, Reply, Request};
use super::options::Options;
use super::request::{protocol, runs};
use super::session::Session;
use super::types::{ConnectionState, JobHandle, ServerInfo};

/// Longest time that a server which accepted a reconnect may take to greet.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);
/// Longest time that closing takes: for the answers that are awaited, and for the GOODBYE.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(5);
/// While more than this waits to be written, no further requests are taken on.
const OUTGOING_BYTES_MAX: usize = 1024 * 1024;
/// Requests taken from the channel at once.
const REQUESTS_PER_TURN: usize = 256;

const CLOSED_BY_CALLER: &str = "close() was called, or the last handle on it is gone";
const SESSION_TAKEN: &str = "another client has taken its session over";

/// What the driver and its client share.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Where callers send requests; a GOODBYE among them closes the client.
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) state: watch::Sender<ConnectionState>,
    pub(crate) abandoned: Arc<Abandoned>,
    pub(crate) next_correlation: Arc<AtomicU64>,
    /// Where jobs are told of that were cancelled while a caller has them.
    pub(crate) cancelled: broadcast::Sender<JobHandle>,
}

/// Why the work on one connection ended.
enum End {
    Cut(io::Error),
    Closed(&'static str),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Cut(error)
    }
}

#[derive(Debug)]
struct Closing {
    /// When it is given up.
    deadline: tokio::time::Instant,
    /// Its caller learns that all is done when it is dropped, with the driver.
    goodbye: Request,
    sent: bool,
}

/// The state that outlives a connection.
#[derive(Debug)]
pub(crate) struct Driver {
    addresses: Addresses,
    options: Options,
    ends: Ends,
    session: Session,
    in_flight: InFlight,
    backoff: Backoff,
    closing: Option<Closing>,
    /// Whether no more jobs are taken; each connection has to be told.
    draining: bool,
    /// What the server said last without being asked, most likely why it closes.
    complaint: Option<(ErrorCode, String)>,
}

impl Driver {
    pub(crate) fn new(addresses: Addresses, options: Options, id: [u8; 16], ends: Ends) -> Self {
        Self {
            addresses,
            options,
            ends,
            session: Session::new(id),
            in_flight: InFlight::default(),
            backoff: Backoff::new(),
            closing: None,
            draining: false,
            complaint: None,
        }
    }

    /// Runs until the client is closed. `connected` is told how the first attempt ended; if it
    /// failed, there is no second one.
    pub(crate) async fn run(mut self, connected: oneshot::Sender<Result<(), ClientError>>) {
        let mut connection = match self.open_first().await {
            Ok(connection) => connection,
            Err(error) => {
                drop(connected.send(Err(error)));
                return;
            }
        };
        drop(connected.send(Ok(())));
        let reason = loop {
            let cause = match self.serve(connection).await {
                End::Closed(reason) => break reason,
                End::Cut(cause) => cause,
            };
            if self.closing.is_some() {
                break CLOSED_BY_CALLER;
            }
            self.disconnected(cause);
            match self.reconnect().await {
                Ok(next) => connection = next,
                Err(reason) => break reason,
            }
        };
        self.in_flight.fail_all(&ClientError::Closed { reason });
        self.ends.state.send_replace(ConnectionState::Closed { reason });
    }

    fn disconnected(&mut self, cause: io::Error) {
        let error = self.unreachable(cause);
        self.ends.state.send_replace(ConnectionState::Disconnected(error));
    }

    fn unreachable(&self, cause: io::Error) -> ClientError {
        let address = self.addresses.current().to_owned();
        ClientError::Unreachable { address, cause: Arc::new(cause) }
    }

    fn hello(&mut self) -> Bytes {
        let correlation = self.next_correlation();
        self.session.hello(correlation, &self.options, Instant::now())
    }

    /// Connects and greets: tries each address once.
    async fn open_first(&mut self) -> Result<Connection, ClientError> {
        let mut errors = Vec::new();
        for _ in 0..self.addresses.count() {
            match self.open(self.options.connect_timeout).await {
                Ok(connection) => return Ok(connection),
                Err(error) => errors.push(error),
            }
            self.addresses.turn();
        }
        Err(self.addresses.all_failed(errors))
    }

    /// Connects to the current address and greets once.
    async fn open(&mut self, patience: Duration) -> Result<Connection, ClientError> {
        let hello = self.hello();
        let address = self.addresses.current().to_owned();
        let opening = Connection::open(address, hello, self.options.connect_timeout, patience);
        let opened = opening.await;
        self.greeted(opened)
    }

    /// A server that accepts but does not answer is stalled: if there is no other one to turn to,
    /// more connections would not help it.
    fn hello_patience(&self) -> Duration {
        match self.addresses.count() {
            1 => HELLO_PATIENCE,
            _ => self.options.connect_timeout,
        }
    }

    /// Reads the server's greeting.
    fn greeted(
        &mut self,
        opened: io::Result<(Connection, Frame)>,
    ) -> Result<Connection, ClientError> {
        let (connection, frame) = opened.map_err(|cause| self.unreachable(cause))?;
        if frame.header.status != 0 {
            return Err(refusal(Opcode::Hello, frame.header.status, &frame.body));
        }
        let reply =
            HelloReply::decode(&frame.body).map_err(|cause| protocol(Opcode::Hello, cause))?;
        self.ends.state.send_replace(ConnectionState::Connected(ServerInfo {
            agent: reply.agent.to_owned(),
            version: reply.version,
            resumed: reply.resumed,
            silence: Duration::from_millis(reply.silence_ms.into()),
            job_bytes_max: reply.job_bytes_max,
        }));
        Ok(connection)
    }

    /// Tries until there is a connection again: the addresses in turn, with a pause before each
    /// round. Meanwhile requests are taken in, to wait.
    async fn reconnect(&mut self) -> Result<Connection, &'static str> {
        loop {
            let delay = self.backoff.delay();
            tokio::select! {
                () = sleep(delay) => {}
                () = take_in(&mut self.ends.requests, &mut self.in_flight) => {
                    return Err(CLOSED_BY_CALLER);
                }
            }
            for _ in 0..self.addresses.count() {
                if let Some(connection) = self.try_again().await? {
                    return Ok(connection);
                }
                self.addresses.turn();
            }
        }
    }

    /// One attempt at the current address.
    async fn try_again(&mut self) -> Result<Option<Connection>, &'static str> {
        self.forget_abandoned();
        let hello = self.hello();
        let opening = Connection::open(
            self.addresses.current().to_owned(),
            hello,
            self.options.connect_timeout,
            self.hello_patience(),
        );
        let opened = tokio::select! {
            opened = opening => opened,
            () = take_in(&mut self.ends.requests, &mut self.in_flight) => {
                return Err(CLOSED_BY_CALLER);
            }
        };
        match self.greeted(opened) {
            Ok(connection) => Ok(Some(connection)),
            Err(error) => {
                self.in_flight.drop_unwanted();
                self.ends.state.send_replace(ConnectionState::Disconnected(error));
                Ok(None)
            }
        }
    }

    /// Works on one connection until it is cut or the client is closed.
    async fn serve(&mut self, mut connection: Connection) -> End {
        self.complaint = None;
        match self.exchange(&mut connection).await {
            Err(End::Cut(cause)) => {
                let cause = self.explain(cause);
                self.in_flight.cut(connection.written(), &cause.to_string());
                match self.complaint {
                    Some((ErrorCode::SessionReplaced, _)) if self.options.session.is_some() => {
                        End::Closed(SESSION_TAKEN)
                    }
                    _ => End::Cut(cause),
                }
            }
            Err(end) => end,
            Ok(never) => match never {},
        }
    }

    /// A server that closes says why beforehand: that is the better text.
    fn explain(&self, cause: io::Error) -> io::Error {
        match &self.complaint {
            Some((code, text)) => io::Error::new(cause.kind(), format!("{text} ({code})")),
            None => cause,
        }
    }

    async fn exchange(
        &mut self,
        connection: &mut Connection,
    ) -> Result<std::convert::Infallible, End> {
        if self.draining {
            let drain = Request::new(Opcode::Drain, self.next_correlation(), |_| {});
            connection.push(&drain.frame);
        }
        for request in self.in_flight.resend(Instant::now()) {
            request.sent(connection.push(&request.frame));
        }
        let silence = self.silence();
        let mut heartbeat = heartbeat(silence);
        let mut requests = Vec::with_capacity(REQUESTS_PER_TURN);
        loop {
            // Some may have come with the greeting.
            while let Some(frame) = connection.next_frame()? {
                self.on_frame(frame)?;
            }
            self.release_abandoned(connection);
            self.say_goodbye(connection);
            let room = connection.outgoing_bytes() < OUTGOING_BYTES_MAX;
            tokio::select! {
                turned = connection.turn() => turned?,
                count = self.ends.requests.recv_many(&mut requests, REQUESTS_PER_TURN),
                    if room && self.closing.is_none() =>
                {
                    if count == 0 {
                        let correlation = self.next_correlation();
                        self.close(Request::new(Opcode::Goodbye, correlation, |_| {}));
                    }
                    // What a caller dropped goes out before what it asked for later.
                    self.release_abandoned(connection);
                    for request in requests.drain(..) {
                        self.on_request(request, connection);
                    }
                }
                () = self.ends.abandoned.added() => {}
                () = closing_is_late(&self.closing) => return Err(End::Closed(CLOSED_BY_CALLER)),
                _ = heartbeat.tick() => self.on_heartbeat(connection, silence)?,
            }
        }
    }

    fn silence(&self) -> Duration {
        let silence = self.ends.state.borrow().server().map(|server| server.silence);
        silence.map_or(Duration::from_secs(10), |silence| silence.max(Duration::from_millis(3)))
    }

    fn on_heartbeat(&mut self, connection: &mut Connection, silence: Duration) -> Result<(), End> {
        connection.check_heard(silence)?;
        if connection.outgoing_bytes() == 0 {
            // Its answer is heard, and belongs to no one.
            let ping = Request::new(Opcode::Ping, self.next_correlation(), |_| {});
            connection.push(&ping.frame);
        }
        Ok(())
    }

    fn on_request(&mut self, mut request: Request, connection: &mut Connection) {
        if request.opcode == Opcode::Goodbye {
            return self.close(request);
        }
        if !request.is_wanted() {
            return;
        }
        self.draining |= request.opcode == Opcode::Drain;
        let jobs = request.fetching.as_ref().map_or(0, |f| f.jobs_max);
        let room = match jobs.min(FETCH_JOBS_MAX) {
            0 => Ok(()),
            jobs => self.session.check_room(jobs, Instant::now()),
        };
        match room {
            Err(error) => request.fail(error),
            Ok(()) => {
                request.sent(connection.push(&request.frame));
                self.in_flight.insert(request);
            }
        }
    }

    fn close(&mut self, goodbye: Request) {
        self.ends.requests.close();
        let deadline = tokio::time::Instant::now() + GOODBYE_PATIENCE;
        self.closing.get_or_insert(Closing { deadline, goodbye, sent: false });
    }

    fn next_correlation(&self) -> u64 {
        self.ends.next_correlation.fetch_add(1, Ordering::Relaxed)
    }

    /// The GOODBYE follows when everything but FETCHes is answered, so that it ends no lease under
    /// a commit that is on its way.
    fn say_goodbye(&mut self, connection: &mut Connection) {
        if let Some(closing) = &mut self.closing
            && !closing.sent
            && self.in_flight.only_fetches()
        {
            connection.push(&closing.goodbye.frame);
            closing.sent = true;
        }
    }

    /// Jobs that no caller took go back at once.
    fn release_abandoned(&mut self, connection: &mut Connection) {
        let handles = self.ends.abandoned.take();
        let chunks = runs(&handles).flat_map(|run| run.chunks(HANDLES_MAX));
        for run in chunks {
            let correlation = self.next_correlation();
            let mut request = Request::release(correlation, run, 0);
            request.tokens.iter().for_each(|token| self.session.settled(token));
            request.sent(connection.push(&request.frame));
            self.in_flight.insert(request);
        }
    }

    /// Before a HELLO: it must not name what nobody took. The RELEASE follows on the connection,
    /// for the timed leases, which a HELLO does not end.
    fn forget_abandoned(&mut self) {
        let handles = self.ends.abandoned.take();
        handles.iter().for_each(|handle| self.session.settled(&handle.token));
        if !handles.is_empty() {
            self.ends.abandoned.add(handles);
        }
    }

    fn on_frame(&mut self, frame: Frame) -> Result<(), End> {
        let Frame { header, body } = frame;
        let goodbye = self.closing.as_ref().map(|closing| &closing.goodbye);
        if goodbye.is_some_and(|goodbye| goodbye.correlation == header.correlation) {
            return Err(End::Closed(CLOSED_BY_CALLER));
        }
        if header.status == 0 {
            self.backoff.reset();
        }
        if header.flags & FLAG_MORE != 0 {
            self.on_carried(header.correlation, body);
            return Ok(());
        }
        match self.in_flight.remove(header.correlation) {
            None => self.on_unasked(header, &body),
            Some(request) if header.status == 0 => self.on_success(request, body),
            Some(request) => self.on_error(request, header.status, &body),
        }
        Ok(())
    }

    /// What belongs to no request: the answer to a heartbeat, or why the server closes.
    fn on_unasked(&mut self, header: Header, body: &[u8]) {
        if header.opcode == Opcode::Cancel as u8 && header.status == 0 {
            return self.on_cancelled(body);
        }
        if let Some(code) = ErrorCode::from_code(header.status) {
            self.complaint = Some((code, error_text(body)));
        }
    }

    fn on_cancelled(&self, body: &[u8]) {
        if let Ok(notice) = CancelNotice::decode(body) {
            let handle = JobHandle {
                queue: notice.queue.into(),
                group: notice.group.into(),
                offset: notice.handle.offset,
                token: notice.handle.token,
            };
            // Nobody may be listening.
            drop(self.ends.cancelled.send(handle));
        }
    }

    fn on_carried(&mut self, correlation: u64, body: Bytes) {
        let Some(request) = self.in_flight.get_mut(correlation) else {
            return;
        };
        let tokens = request.tokens.clone();
        let fetching = request.fetching.as_mut();
        if let Some(carried) = fetching.and_then(|fetching| fetching.carried.take()) {
            drop(carried.send(Ok(body.clone())));
        }
        self.settle(&tokens, &body);
    }

    fn on_success(&mut self, mut request: Request, body: Bytes) {
        let now = Instant::now();
        match request.changes {
            Changes::Nothing => {}
            Changes::Ended => self.settle(&request.tokens, &body),
            Changes::Failed => self.settle_failed(&request.tokens, &body),
            Changes::Extended(lease) => self.extend(&request.tokens, lease, &body, now),
        }
        let grant = request.fetching.take().map(|fetching| {
            if let Ok(reply) = FetchReply::decode(&body) {
                self.session.granted(&reply, now);
            }
            Grant::new(fetching.names, body.clone(), Arc::clone(&self.ends.abandoned))
        });
        if let Some(reply) = request.reply {
            let (opcode, repeated) = (request.opcode, request.repeated);
            drop(reply.send(Ok(Reply { opcode, body, repeated, grant })));
        }
    }

    fn on_error(&mut self, mut request: Request, status: u16, body: &[u8]) {
        let error = refusal(request.opcode, status, body);
        match error.code() {
            // Nothing of it was done, and the server is about to close: it goes out again after
            // the reconnect, within its time.
            Some(ErrorCode::ShuttingDown) => {
                request.ends_at = None;
                self.in_flight.insert(request);
                return;
            }
            Some(code) => {
                let tokens = request.tokens.iter();
                tokens.for_each(|token| self.session.refused(token, code));
            }
            None => {}
        }
        request.fail(error);
    }

    /// COMMIT and RELEASE end a lease, unless they say that it goes on.
    fn settle(&mut self, tokens: &[Token], body: &[u8]) {
        let chained = || ChainReply::decode(body).map(|reply| smallvec![reply.status]);
        let statuses = decode_statuses(body).or_else(|_| chained()).unwrap_or_default();
        for (token, status) in tokens.iter().zip(statuses) {
            match status {
                None => self.session.settled(token),
                Some(code) => self.session.refused(token, code),
            }
        }
    }

    fn settle_failed(&mut self, tokens: &[Token], body: &[u8]) {
        for (token, outcome) in tokens.iter().zip(decode_fail_reply(body).unwrap_or_default()) {
            match outcome {
                FailOutcome::Refused(code) => self.session.refused(token, code),
                FailOutcome::Retry { .. } | FailOutcome::Dead => self.session.settled(token),
            }
        }
    }

    fn extend(&mut self, tokens: &[Token], lease: Duration, body: &[u8], now: Instant) {
        for (token, status) in tokens.iter().zip(decode_statuses(body).unwrap_or_default()) {
            match status {
                None => self.session.extended(token, lease, now),
                Some(code) => self.session.refused(token, code),
            }
        }
    }
}

/// Takes requests in while there is no connection. Ends when the client is to be closed.
async fn take_in(requests: &mut mpsc::Receiver<Request>, in_flight: &mut InFlight) {
    while let Some(request) = requests.recv().await {
        if request.opcode == Opcode::Goodbye {
            return;
        }
        if request.is_wanted() {
            in_flight.insert(request);
        }
    }
}

/// Ends when closing has taken too long; never, if nothing is closing.
async fn closing_is_late(closing: &Option<Closing>) {
    match closing {
        Some(closing) => sleep_until(closing.deadline).await,
        None => std::future::pending().await,
    }
}

fn heartbeat(silence: Duration) -> Interval {
    let period = silence / 3;
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The error for an error reply.
fn refusal(opcode: Opcode, number: u16, body: &[u8]) -> ClientError {
    let command = opcode.name();
    let text = error_text(body);
    match ErrorCode::from_code(number) {
        Some(ErrorCode::OutcomeUnknown) => ClientError::OutcomeUnknown { command, cause: text },
        Some(code) => ClientError::Server { command, code, text },
        None => ClientError::UnknownCode { command, number, text },
    }
}

fn error_text(body: &[u8]) -> String {
    let text = Reader::new(body).text("error text").unwrap_or_default();
    text.to_owned()
}
