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
    pub(crate) fn hello(&mut self, correlation: u64, options: &Options, now: Instant) -> Bytes {
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
        put_request(&mut frame, Opcode::Hello, correlation, |out| hello.encode(out));
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

#[cfg(test)]
mod tests {
    use joblog_protocol::limits::FRAME_HEADER_BYTES;
    use joblog_protocol::messages::fetch::Delivery;

    use super::*;

    const LEASE_MS: u64 = 1000;

    fn token(number: u32) -> Token {
        Token::new(&number.to_be_bytes()).unwrap()
    }

    fn grant(session: &mut Session, numbers: std::ops::Range<u32>, now: Instant) {
        let job = |number| Delivery {
            queue_ordinal: 0,
            offset: 0,
            token: Some(token(number)),
            attempt: 1,
            enqueued_at_ms: 0,
            flags: 0,
            crc32: 0,
            body: &[],
        };
        let reply = FetchReply { lease_ms: LEASE_MS, jobs: numbers.map(job).collect() };
        session.granted(&reply, now);
    }

    fn named(session: &mut Session, now: Instant) -> usize {
        let frame = session.hello(1, &Options::default(), now);
        Hello::decode(&frame[FRAME_HEADER_BYTES..]).unwrap().held.len()
    }

    #[test]
    fn a_lease_that_has_surely_lapsed_is_not_named() {
        let (mut session, start) = (Session::new([1; 16]), Instant::now());
        grant(&mut session, 0..2, start);
        let over = start + Duration::from_millis(2 * LEASE_MS) + LAPSE_MARGIN;
        assert_eq!(named(&mut session, over - Duration::from_millis(1)), 2);
        session.extended(&token(0), Duration::from_millis(LEASE_MS), over);
        assert_eq!(named(&mut session, over), 1);
    }

    #[test]
    fn no_more_is_held_than_a_greeting_can_name() {
        let (mut session, start) = (Session::new([1; 16]), Instant::now());
        grant(&mut session, 0..HELD_TOKENS_MAX as u32 - 1, start);
        session.check_room(1, start).unwrap();
        let error = session.check_room(2, start).unwrap_err();
        assert!(matches!(error, ClientError::TooManyHeld { more: 2, .. }), "{error}");
        // One reply may still be on its way: then the greeting names as many as it can.
        grant(&mut session, 100_000..100_002, start);
        assert_eq!(named(&mut session, start), HELD_TOKENS_MAX);
        session.check_room(2, start + Duration::from_secs(3600)).unwrap();
    }

    #[test]
    fn lapsed_tokens_do_not_pile_up() {
        let (mut session, mut now) = (Session::new([1; 16]), Instant::now());
        for round in 0..100 {
            grant(&mut session, round * 1000..(round + 1) * 1000, now);
            now += Duration::from_secs(3600);
        }
        assert!(session.held.len() <= 3000, "{} are held", session.held.len());
    }

    #[test]
    fn only_what_ends_a_lease_takes_its_token_out() {
        let (mut session, now) = (Session::new([1; 16]), Instant::now());
        grant(&mut session, 0..3, now);
        session.refused(&token(0), ErrorCode::DiskFull);
        session.refused(&token(1), ErrorCode::LeaseLost);
        session.settled(&token(2));
        assert_eq!(session.held.keys().collect::<Vec<_>>(), [&token(0)]);
    }
}
