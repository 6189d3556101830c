//! The session: its id, and the tokens of the jobs that callers hold.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use joblog_protocol::error_code::ErrorCode;
use joblog_protocol::frame::put_request;
use joblog_protocol::limits::{HELD_TOKENS_MAX, LEASE_MS_MAX};
use joblog_protocol::messages::fetch::FetchReply;
use joblog_protocol::messages::session::{Hello, VERSION};
use joblog_protocol::opcode::Opcode;
use joblog_protocol::wire::Token;

use super::error::ClientError;
use super::options::Options;

/// Added to twice its length, a lease is surely over, also if the server stalled or restarted.
const LAPSE_MARGIN: Duration = Duration::from_secs(60);

/// The driver's half of a session. A token is in from the moment when its job is handed to a
/// caller, until the job is settled or its lease has surely lapsed.
#[derive(Debug)]
pub(crate) struct Session {
    id: [u8; 16],
    held: HashMap<Token, Instant>,
    /// Lapsed tokens are looked for when there are so many, so that each is looked at seldom.
    prune_at: usize,
}

impl Session {
    pub(crate) fn new(id: [u8; 16]) -> Self {
        Self { id, held: HashMap::new(), prune_at: 1024 }
    }

    /// The frame that greets the server.
    pub(crate) fn hello(&mut self, options: &Options, now: Instant) -> Bytes {
        self.held.retain(|_, lapse| *lapse > now);
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            session: self.id,
            silence_ms: options.silence.map_or(0, |time| time.as_millis() as u32),
            agent: &options.agent,
            held: self.held.keys().copied().take(HELD_TOKENS_MAX).collect(),
        };
        let mut frame = BytesMut::new();
        put_request(&mut frame, Opcode::Hello, 0, |out| hello.encode(out));
        frame.freeze()
    }

    /// Checks that so many more jobs could be named at a reconnect.
    pub(crate) fn check_room(&mut self, more: usize, now: Instant) -> Result<(), ClientError> {
        if self.held.len() + more > HELD_TOKENS_MAX {
            self.held.retain(|_, lapse| *lapse > now);
        }
        let held = self.held.len();
        if held + more <= HELD_TOKENS_MAX {
            return Ok(());
        }
        Err(ClientError::TooManyHeld { held, more, max: HELD_TOKENS_MAX })
    }

    /// Takes in the jobs of a reply that goes to a caller.
    pub(crate) fn granted(&mut self, reply: &FetchReply<'_>, now: Instant) {
        let lapse = lapse(now, Duration::from_millis(reply.lease_ms));
        let tokens = reply.jobs.iter().filter_map(|job| job.token);
        self.held.extend(tokens.map(|token| (token, lapse)));
        if self.held.len() >= self.prune_at {
            self.held.retain(|_, lapse| *lapse > now);
            self.prune_at = (2 * self.held.len()).max(1024);
        }
    }

    /// A lease was extended by this length from now.
    pub(crate) fn extended(&mut self, token: &Token, length: Duration, now: Instant) {
        if let Some(end) = self.held.get_mut(token) {
            *end = lapse(now, length);
        }
    }

    /// The job is settled, or its lease is lost.
    pub(crate) fn settled(&mut self, token: &Token) {
        self.held.remove(token);
    }

    /// An error for one job: whether its lease can have survived what the error says.
    pub(crate) fn refused(&mut self, token: &Token, code: ErrorCode) {
        use ErrorCode::{
            AlreadyConsumed, BeyondEnd, LeaseLost, NoSuchGroup, NoSuchJob, NoSuchQueue,
        };
        let gone = [AlreadyConsumed, BeyondEnd, LeaseLost, NoSuchGroup, NoSuchJob, NoSuchQueue];
        if gone.contains(&code) {
            self.settled(token);
        }
    }
}

/// The server's number is cut to the protocol's limit, so that the sum is always a time.
fn lapse(now: Instant, length: Duration) -> Instant {
    let length = length.min(Duration::from_millis(LEASE_MS_MAX as u64));
    now + 2 * length + LAPSE_MARGIN
}
