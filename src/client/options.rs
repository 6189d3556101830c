//! How a client behaves: names, times and bounds.

use std::time::Duration;

use joblog_protocol::limits::{SILENCE_MS_MAX, SILENCE_MS_MIN};

/// Longer timeouts are cut to this (a year), so that every deadline is a time that exists.
pub(crate) const TIMEOUT_LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// How a client behaves. [`Options::default`] suits most; each method changes one thing.
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) agent: String,
    pub(crate) silence: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) session: Option<[u8; 16]>,
    pub(crate) producer: Option<[u8; 16]>,
    pub(crate) bytes_in_flight_max: usize,
    pub(crate) create_queues: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            agent: concat!("joblog-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            silence: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            session: None,
            producer: None,
            bytes_in_flight_max: 64 * 1024 * 1024,
            create_queues: true,
        }
    }
}

impl Options {
    /// What the client calls itself, for people who look at the server; at most 255 bytes of it
    /// are sent. Default: `joblog-rust/` and the version.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = agent.into();
        self
    }

    /// Silence after which the server may end the session and give its jobs to others, 500 ms to
    /// 1 h; what lies outside is cut to that. Default: the server's (10 s).
    pub fn silence(mut self, silence: Duration) -> Self {
        let [shortest, longest] =
            [SILENCE_MS_MIN, SILENCE_MS_MAX].map(|ms| Duration::from_millis(ms as u64));
        self.silence = Some(silence.clamp(shortest, longest));
        self
    }

    /// Longest time for one attempt to connect. Default: 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(TIMEOUT_LONGEST);
        self
    }

    /// Longest time until a request is answered, waiting for its turn and for a reconnect
    /// included; a FETCH has its own wait on top. Default: 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout.min(TIMEOUT_LONGEST);
        self
    }

    /// The session's id. Default: 128 random bits, which is what nearly everyone wants. Of two
    /// clients with one id the later one takes the session over, and the earlier one is closed.
    pub fn session(mut self, session: [u8; 16]) -> Self {
        self.session = Some(session);
        self
    }

    /// Under which id batches are enqueued, 128 bits that are not all zero. Default: random ones.
    ///
    /// The server knows the batches of a producer by their numbers, which each client counts from 1
    /// for each queue. So a program that is started again, with the same id and the same batches
    /// in the same order, enqueues none twice: those of the last day are answered as if they were
    /// new, and one that is older than the last 64 is refused with `SEQUENCE_TOO_OLD`. Anything
    /// else under an id that was used before is taken for what it was, or refused.
    pub fn producer(mut self, producer: [u8; 16]) -> Self {
        self.producer = Some(producer);
        self
    }

    /// Bytes of requests that may be under way; further calls wait. A request counts as 1 KiB at
    /// least and as the whole bound at most. Default: 64 MiB.
    pub fn bytes_in_flight_max(mut self, bytes: usize) -> Self {
        self.bytes_in_flight_max = bytes.clamp(1024, u32::MAX as usize);
        self
    }

    /// Whether an ENQUEUE may create its queue, if the server allows that. Default: yes.
    pub fn create_queues(mut self, create: bool) -> Self {
        self.create_queues = create;
        self
    }
}
