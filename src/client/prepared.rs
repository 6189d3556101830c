//! A batch under its number: sent as often as needed, enqueued once.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply, Producer};
use joblog_protocol::opcode::Opcode;
use joblog_protocol::wire::DecodeError;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::error::ClientError;
use super::face::Client;
use super::in_flight::Request;
use super::options::TIMEOUT_LONGEST;
use super::request::{PendingEnqueue, check_queue};
use super::sequence::Sequence;

/// A batch that has its number. It can be sent again after any error, and is enqueued once: also
/// after a timeout, when nobody knows whether the first one was done.
///
/// One from [`Client::prepare`] takes one of the 64 places that a client has for each queue, until
/// it is dropped.
///
/// ```no_run
/// # use std::time::Duration;
/// # use joblog::client::{BatchBuilder, Client, ClientError, Job};
/// # async fn example(client: &Client) -> Result<(), ClientError> {
/// let mut batch = BatchBuilder::default();
/// batch.push(&Job::new("to: ada"))?;
/// let batch = client.prepare("mail", &batch).await?;
/// let enqueued = batch.send_within(Duration::from_secs(600)).await?;
/// println!("offset {}", enqueued.first_offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PreparedBatch {
    client: Client,
    /// The client's own number; none, if the caller gave it.
    sequence: Option<Arc<Sequence>>,
    body: Bytes,
}

impl Client {
    /// Gives a batch its number, when there is a place for it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the batch or the queue's name is not allowed;
    /// [`ClientError::Busy`] if there was no place within the request timeout.
    pub async fn prepare(
        &self,
        queue: &str,
        batch: &BatchBuilder,
    ) -> Result<PreparedBatch, ClientError> {
        check_queue(queue)?;
        let sequence = Arc::new(self.next_sequence(queue).await?);
        let body = self.numbered(queue, batch, sequence.producer())?;
        Ok(PreparedBatch { client: self.clone(), sequence: Some(sequence), body })
    }

    /// As [`Client::prepare`], under a producer's id and a number that the caller keeps: so that a
    /// program which starts anew can send a batch again that it may have sent before. `producer`
    /// is 16 random bytes, drawn once; `number` is at least 1, and higher for each new batch of the
    /// producer to the queue. A number must never come with other jobs.
    ///
    /// The server remembers the last 64 numbers of a producer and queue, for a day at least after
    /// the last one; one that is older is refused with `SEQUENCE_TOO_OLD`.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the batch, the producer, the number or the queue's name is not
    /// allowed.
    pub fn prepare_numbered(
        &self,
        queue: &str,
        batch: &BatchBuilder,
        producer: [u8; 16],
        number: u64,
    ) -> Result<PreparedBatch, ClientError> {
        check_queue(queue)?;
        let body = self.numbered(queue, batch, Producer { id: producer, sequence: number })?;
        Ok(PreparedBatch { client: self.clone(), sequence: None, body })
    }

    fn numbered(
        &self,
        queue: &str,
        batch: &BatchBuilder,
        producer: Producer,
    ) -> Result<Bytes, ClientError> {
        let create = self.options().create_queues;
        let enqueue = Enqueue { queue, create, producer: Some(producer), batch: batch.batch() };
        let mut body = BytesMut::new();
        enqueue.encode(&mut body);
        // What the server would refuse is not sent.
        Enqueue::decode(&body)?;
        Ok(body.freeze())
    }
}

impl PreparedBatch {
    /// Sends it, and waits for the answer.
    ///
    /// # Errors
    /// As [`Client::enqueue`]; after any of them it may be sent again.
    pub async fn send(&self) -> Result<EnqueueReply, ClientError> {
        self.submit().await?.enqueued().await
    }

    /// Sends it again, with growing pauses, until it is answered or `patience` is over. What the
    /// server refuses for good ends it at once.
    ///
    /// # Errors
    /// As [`Client::enqueue`]: the last error, or the last one that left the outcome unknown, if
    /// any did. The last attempt ends with its own timeout, so the call may take as much longer.
    pub async fn send_within(&self, patience: Duration) -> Result<EnqueueReply, ClientError> {
        let deadline = Instant::now() + patience.min(TIMEOUT_LONGEST);
        let mut backoff = Backoff::new();
        let mut unknown = None;
        loop {
            let error = match self.send().await {
                Ok(enqueued) => return Ok(enqueued),
                Err(error) => error,
            };
            let is_final = !error.retryable() && !error.outcome_unknown();
            let next = Instant::now() + backoff.delay();
            if error.outcome_unknown() {
                unknown = Some(error.clone());
            }
            if is_final || next > deadline {
                return Err(unknown.unwrap_or(error));
            }
            sleep_until(next).await;
        }
    }

    pub(crate) async fn submit(&self) -> Result<PendingEnqueue, ClientError> {
        let client = &self.client;
        let mut request = Request::new(Opcode::Enqueue, client.next_correlation(), |out| {
            out.extend_from_slice(&self.body);
        });
        request.sequence = self.sequence.clone();
        let timeout = client.options().request_timeout;
        Ok(PendingEnqueue { waiting: client.submit(request, timeout).await? })
    }
}

/// The error for an answer about another number of jobs than were sent.
pub(crate) fn check_enqueued(
    enqueued: EnqueueReply,
    jobs: usize,
) -> Result<EnqueueReply, ClientError> {
    if enqueued.count as usize == jobs {
        return Ok(enqueued);
    }
    let cause = DecodeError::Range {
        field: "count",
        value: enqueued.count.into(),
        allowed: "the number of jobs that were sent",
    };
    Err(super::request::protocol(Opcode::Enqueue, cause))
}
