//! The requests that are not answered yet, in the order in which they were made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use joblog_protocol::frame::put_request;
use joblog_protocol::limits::FRAME_HEADER_BYTES;
use joblog_protocol::messages::fetch::Fetch;
use joblog_protocol::messages::wait::Wait;
use joblog_protocol::opcode::Opcode;
use joblog_protocol::wire::{DecodeError, Token};
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::ClientError;
use super::grant::{FetchNames, Grant};
use super::sequence::Sequence;

/// What becomes of leases by a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changes {
    Nothing,
    /// They end, by COMMIT or RELEASE.
    Ended,
    /// They end by FAIL, whose reply has a layout of its own.
    Failed,
    /// They are so long from now.
    Extended(Duration),
}

/// What a caller gets for its request.
#[derive(Debug)]
pub(crate) struct Reply {
    /// What it asked for.
    pub(crate) opcode: Opcode,
    /// The reply's body.
    pub(crate) body: Bytes,
    /// Whether the request was sent twice, and the first may have been done.
    pub(crate) repeated: bool,
    /// Hands back the jobs of a FETCH that are not taken.
    pub(crate) grant: Option<Grant>,
}

impl Reply {
    /// What the body says.
    pub(crate) fn read<'a, T>(
        &'a self,
        decode: impl FnOnce(&'a [u8]) -> Result<T, DecodeError>,
    ) -> Result<T, ClientError> {
        let command = self.opcode.name();
        decode(&self.body).map_err(|cause| ClientError::Protocol { command, cause })
    }
}

/// The other end of a call.
pub(crate) type ReplyTo<T> = oneshot::Sender<Result<T, ClientError>>;

/// What only a FETCH has.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub(crate) names: Arc<FetchNames>,
    pub(crate) jobs_max: usize,
    /// When its wait ends.
    pub(crate) wait_end: Instant,
    /// Where the statuses of the commits that it carries go.
    pub(crate) carried: Option<ReplyTo<Bytes>>,
}

/// A request with all that its answer needs.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) correlation: u64,
    pub(crate) opcode: Opcode,
    /// The whole frame.
    pub(crate) frame: Bytes,
    /// The tokens that it names, in its order.
    pub(crate) tokens: SmallVec<[Token; 1]>,
    /// What becomes of the leases that have these tokens, if the answer does not refuse it.
    pub(crate) changes: Changes,
    pub(crate) fetching: Option<Fetching>,
    /// In a WAIT: when its wait ends.
    pub(crate) wait_end: Option<Instant>,
    /// `None` in what the driver asks on its own.
    pub(crate) reply: Option<ReplyTo<Reply>>,
    /// Its places within the bounds, given back with it.
    pub(crate) permits: SmallVec<[OwnedSemaphorePermit; 2]>,
    /// Where its last byte stands in the connection's outgoing stream.
    pub(crate) ends_at: Option<u64>,
    /// Whether an earlier connection may have carried it to the server.
    pub(crate) repeated: bool,
    /// Whether it was put on a connection at all; shared with whoever waits for it.
    pub(crate) sent_once: Arc<AtomicBool>,
    /// In an ENQUEUE: its number, which is free again when it is answered.
    pub(crate) sequence: Option<Arc<Sequence>>,
}

impl Request {
    /// Whether a caller waits for it, or for the commits that it carries, or the driver itself.
    pub(crate) fn is_wanted(&self) -> bool {
        let carried = self.fetching.as_ref().and_then(|f| f.carried.as_ref());
        self.reply.as_ref().is_none_or(|reply| !reply.is_closed())
            || carried.is_some_and(|carried| !carried.is_closed())
    }

    /// Whether doing it twice is the same as doing it once, or is told apart by the reply.
    fn is_repeatable(&self) -> bool {
        use Opcode::{CreateGroup, CreateQueue, DeleteGroup, DeleteQueue, SeekGroup};
        use Opcode::{ScheduleAdd, ScheduleRemove, ScheduleRun};
        let of_groups = [CreateGroup, CreateQueue, DeleteGroup, DeleteQueue, SeekGroup];
        let of_schedules = [ScheduleAdd, ScheduleRemove, ScheduleRun];
        !of_groups.contains(&self.opcode) && !of_schedules.contains(&self.opcode)
    }

    pub(crate) fn fail(mut self, error: ClientError) {
        if let Some(carried) = self.fetching.as_mut().and_then(|f| f.carried.take()) {
            drop(carried.send(Err(error.clone())));
        }
        if let Some(reply) = self.reply {
            drop(reply.send(Err(error)));
        }
    }

    /// Notes that it goes out, and where its last byte stands in the outgoing stream.
    pub(crate) fn sent(&mut self, ends_at: u64) {
        self.ends_at = Some(ends_at);
        self.sent_once.store(true, Ordering::Relaxed);
    }

    /// What is sent again waits only for what is left of its wait.
    fn shorten_wait(&mut self, now: Instant) {
        let fetch_end = self.fetching.as_ref().map(|fetching| fetching.wait_end);
        let Some(end) = fetch_end.or(self.wait_end) else {
            return;
        };
        let wait_ms = end.saturating_duration_since(now).as_millis() as u32;
        let body = self.frame.slice(FRAME_HEADER_BYTES..);
        let mut frame = BytesMut::new();
        if let Ok(fetch) = Fetch::decode(&body)
            && self.opcode == Opcode::Fetch
        {
            let fetch = Fetch { wait_ms, ..fetch };
            put_request(&mut frame, Opcode::Fetch, self.correlation, |out| fetch.encode(out));
        } else if let Ok(wait) = Wait::decode(&body) {
            let wait = Wait { wait_ms, ..wait };
            put_request(&mut frame, Opcode::Wait, self.correlation, |out| wait.encode(out));
        } else {
            return;
        }
        self.frame = frame.freeze();
    }
}

/// All unanswered requests by correlation id, which is the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    requests: BTreeMap<u64, Request>,
}

impl InFlight {
    pub(crate) fn insert(&mut self, request: Request) {
        self.requests.insert(request.correlation, request);
    }

    pub(crate) fn get_mut(&mut self, correlation: u64) -> Option<&mut Request> {
        self.requests.get_mut(&correlation)
    }

    pub(crate) fn remove(&mut self, correlation: u64) -> Option<Request> {
        self.requests.remove(&correlation)
    }

    /// Whether the client can be closed: someone waits for FETCHes and WAITs at most.
    pub(crate) fn only_fetches(&self) -> bool {
        let mut requests = self.requests.values();
        let waits = [Opcode::Fetch, Opcode::Wait];
        requests.all(|request| waits.contains(&request.opcode) || !request.is_wanted())
    }

    /// The connection is cut behind byte `written`. What can't be repeated and may have reached
    /// the server ends here.
    pub(crate) fn cut(&mut self, written: u64, cause: &str) {
        let mut unknown = Vec::new();
        for (correlation, request) in &mut self.requests {
            let sent = request.ends_at.take().is_some_and(|end| end <= written);
            request.repeated |= sent;
            if sent && !request.is_repeatable() {
                unknown.push(*correlation);
            }
        }
        for request in unknown.iter().filter_map(|id| self.requests.remove(id)) {
            let command = request.opcode.name();
            let cause = cause.to_owned();
            request.fail(ClientError::OutcomeUnknown { command, cause });
        }
    }

    /// Forgets what no caller waits for any more. Only between connections: on one, a FETCH may
    /// still be answered, and its jobs must be handed back.
    pub(crate) fn drop_unwanted(&mut self) {
        self.requests.retain(|_, request| request.is_wanted());
    }

    /// Prepares what goes out on a new connection, in order: all that is still wanted.
    pub(crate) fn resend(&mut self, now: Instant) -> impl Iterator<Item = &mut Request> {
        self.drop_unwanted();
        for request in self.requests.values_mut() {
            request.shorten_wait(now);
        }
        self.requests.values_mut()
    }

    pub(crate) fn fail_all(&mut self, error: &ClientError) {
        for request in std::mem::take(&mut self.requests).into_values() {
            if request.opcode == Opcode::Enqueue && request.sent_once.load(Ordering::Relaxed) {
                let (command, cause) = (request.opcode.name(), error.to_string());
                request.fail(ClientError::OutcomeUnknown { command, cause });
            } else {
                request.fail(error.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<Reply, ClientError>>;

    fn sent(opcode: Opcode, correlation: u64, ends_at: u64) -> (Request, Answer) {
        let (reply, answer) = oneshot::channel();
        let mut request = Request::new(opcode, correlation, |_| {});
        request.reply = Some(reply);
        request.ends_at = Some(ends_at);
        (request, answer)
    }

    #[test]
    fn only_a_request_whose_last_byte_is_written_may_have_been_done() {
        let mut in_flight = InFlight::default();
        let (whole, mut answer) = sent(Opcode::CreateQueue, 1, 100);
        let (partial, mut no_answer) = sent(Opcode::CreateQueue, 2, 200);
        let (repeatable, mut still_none) = sent(Opcode::Commit, 3, 50);
        for request in [whole, partial, repeatable] {
            in_flight.insert(request);
        }
        in_flight.cut(199, "cut");
        let error = answer.try_recv().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
        assert!(no_answer.try_recv().is_err() && still_none.try_recv().is_err());
        let again: Vec<_> = in_flight
            .resend(Instant::now())
            .map(|request| (request.correlation, request.repeated, request.ends_at))
            .collect();
        assert_eq!(again, [(2, false, None), (3, true, None)]);
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent_again() {
        let mut in_flight = InFlight::default();
        let (request, answer) = sent(Opcode::Commit, 1, 100);
        in_flight.insert(request);
        // The driver's own have no one who could stop waiting.
        in_flight.insert(Request::new(Opcode::Release, 2, |_| {}));
        drop(answer);
        assert!(!in_flight.only_fetches(), "the driver waits for its own");
        let again: Vec<_> = in_flight.resend(Instant::now()).map(|r| r.correlation).collect();
        assert_eq!(again, [2]);
    }
}
