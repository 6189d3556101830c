//! The reader: a queue in order, and one committed offset, as those know it who come from Kafka.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::error::ClientError;
use super::face::Client;
use super::types::{CommitStatus, ReadJobs};

/// Reads a queue in order for a stream group, and commits *through* an offset: everything up to it
/// at once. Jobs have no leases here; two readers of one group read the same jobs.
///
/// ```no_run
/// # use joblog::client::{Client, ClientError, GroupKind, GroupStart, Reader};
/// # async fn example(client: Client) -> Result<(), ClientError> {
/// client.create_group("events", "search", GroupKind::Stream, GroupStart::Start).await?;
/// let mut reader = Reader::open(client, "events", "search").await?;
/// loop {
///     for job in reader.read().await?.jobs {
///         println!("{}: {} bytes", job.offset, job.job.payload.len());
///     }
///     reader.commit().await?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Reader {
    client: Client,
    queue: Arc<str>,
    group: Arc<str>,
    next: u64,
    jobs_max: u32,
    bytes_max: u32,
    look_every: Duration,
}

impl Reader {
    /// Begins at the group's committed offset.
    ///
    /// # Errors
    /// [`ClientError`]: `NO_SUCH_GROUP` if the group was not created.
    pub async fn open(
        client: Client,
        queue: impl Into<Arc<str>>,
        group: impl Into<Arc<str>>,
    ) -> Result<Self, ClientError> {
        let (queue, group) = (queue.into(), group.into());
        let next = client.describe_group(&queue, &group).await?.committed_offset;
        Ok(Self {
            client,
            queue,
            group,
            next,
            jobs_max: 1000,
            bytes_max: 1024 * 1024,
            look_every: Duration::from_millis(100),
        })
    }

    /// Jobs of one [`Reader::read`] at most, 1 to 10,000. Default: 1,000.
    pub fn jobs_max(mut self, jobs: u32) -> Self {
        self.jobs_max = jobs.max(1);
        self
    }

    /// Bytes of job bodies of one [`Reader::read`] at most, up to 4 MiB, but for a first job that
    /// is larger. Default: 1 MiB.
    pub fn bytes_max(mut self, bytes: u32) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// How often it looks for new jobs at the end of the queue. Default: every 100 ms.
    pub fn look_every(mut self, pause: Duration) -> Self {
        self.look_every = pause.max(Duration::from_millis(1));
        self
    }

    /// The offset that is read next.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// Reads on from this offset, whatever is committed.
    pub fn seek(&mut self, offset: u64) {
        self.next = offset;
    }

    /// The next jobs, at least one, damaged ones counted; waits for them at the end of the queue.
    /// If the future is dropped, nothing is passed over.
    ///
    /// # Errors
    /// [`ClientError`]; the next call reads the same jobs.
    pub async fn read(&mut self) -> Result<ReadJobs, ClientError> {
        loop {
            let (jobs_max, bytes_max) = (self.jobs_max, self.bytes_max);
            let read = self.client.read(&self.queue, self.next, jobs_max, bytes_max).await?;
            let has_moved = read.next > self.next;
            self.next = read.next;
            if !read.jobs.is_empty() || !read.damaged.is_empty() {
                return Ok(read);
            }
            if !has_moved {
                sleep(self.look_every).await;
            }
        }
    }

    /// Commits everything that was read.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to commit again.
    pub async fn commit(&self) -> Result<CommitStatus, ClientError> {
        match self.next.checked_sub(1) {
            Some(last) => self.commit_through(last).await,
            None => Ok(CommitStatus::AlreadyConsumed),
        }
    }

    /// Commits everything up to and with `offset`.
    ///
    /// # Errors
    /// [`ClientError`]; after any of them it is safe to commit again.
    pub async fn commit_through(&self, offset: u64) -> Result<CommitStatus, ClientError> {
        self.client.commit_through(&self.queue, &self.group, offset).await
    }
}
