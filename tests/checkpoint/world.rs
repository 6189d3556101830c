//! A broker under a random load, and what can be seen of its state.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use joblog::broker::{
    Broker, FetchedJobs, GroupKind, JobBatch, LeaseRefs, Logs, QueueSettings, RetryTerms,
    SessionHandle, Start,
};
use joblog::types::{EntryIndex, Grant, LeaseRef, Offset};
use joblog_protocol::job::{BatchBuilder, EncodedJob};
use smallvec::SmallVec;
use tempfile::{TempDir, tempdir};

use crate::broker::{self, SESSION};
use crate::support::{Disk, Random};

const QUEUES: [&str; 3] = ["mail", "images", "bills"];

pub(crate) fn open(dir: &Path, disk: &Disk) -> Arc<Broker> {
    broker::open(dir, &disk.options())
}

/// The checkpoint files, oldest first, without twins.
pub(crate) fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    with_extension(dir, "checkpoint")
}

/// The twins of checkpoints.
pub(crate) fn twins(dir: &Path) -> Vec<PathBuf> {
    with_extension(dir, "twin")
}

fn with_extension(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    paths.sort();
    paths
}

pub(crate) fn copy_dir(dir: &Path) -> TempDir {
    let copy = tempdir().unwrap();
    for item in fs::read_dir(dir).unwrap() {
        let item = item.unwrap();
        fs::copy(item.path(), copy.path().join(item.file_name())).unwrap();
    }
    copy
}

/// All that can be seen of the queues, with every job's group states in counts.
pub(crate) fn describe(broker: &Broker) -> String {
    let mut text = String::new();
    let (queues, more) = broker.list_queues("", 1_000).result.unwrap();
    assert!(!more);
    for queue in queues {
        let mut description = broker.describe_queue(&queue.name).result.unwrap();
        for group in &mut description.summary.groups {
            // The room of a vector depends on how it grew.
            group.counts.consumed_heap_bytes = 0;
        }
        writeln!(text, "{description:?}").unwrap();
    }
    text
}

/// Reads every job that somebody may still need, and says which there are.
pub(crate) fn read_all(broker: &Broker) -> Vec<(String, Offset)> {
    let mut all = Vec::new();
    for queue in broker.list_queues("", 1_000).result.unwrap().0 {
        let read = broker.read(&queue.name, Offset(0), usize::MAX, u64::MAX, None).result.unwrap();
        assert_eq!(read.next, read.end);
        let unconsumed = broker.describe_queue(&queue.name).result.unwrap().summary.unconsumed;
        assert_eq!(read.jobs.len() as u64, unconsumed);
        for (offset, location) in read.jobs {
            assert!(location.read().unwrap().verify(), "job {offset} of {}", queue.name);
            all.push((queue.name.clone(), offset));
        }
    }
    all
}

pub(crate) struct World {
    pub(crate) broker: Arc<Broker>,
    session: SessionHandle,
    random: Random,
    held: Vec<(&'static str, Offset, Grant)>,
    /// Bytes of each job.
    pub(crate) job_bytes: u64,
}

impl World {
    pub(crate) fn new(broker: Arc<Broker>, seed: u64) -> Self {
        let mailbox = Logs::new(vec![Arc::clone(&broker)]).mailbox(0);
        let session = broker.hello(SESSION, None, &[], &mailbox).result.unwrap().handle;
        Self { broker, session, random: Random(seed), held: Vec::new(), job_bytes: 40 }
    }

    /// The last entry so far.
    pub(crate) fn last_index(&self) -> EntryIndex {
        self.broker.list_queues("", 1).gates[0].index
    }

    pub(crate) fn work(&mut self, steps: u64) {
        for _ in 0..steps {
            let queue = QUEUES[self.random.below(3) as usize];
            match self.random.below(20) {
                0..8 => drop(self.enqueue(queue, 1 + self.random.0 % 4)),
                8..14 => self.fetch(queue),
                14..17 => self.end_one(),
                17 if self.random.below(3) == 0 => {
                    let group = ["audit", "tail"][self.random.below(2) as usize];
                    let kind = if group == "tail" { GroupKind::Stream } else { GroupKind::Work };
                    drop(self.broker.create_group(queue, group, kind, Start::Beginning));
                }
                18 if self.random.below(8) == 0 => {
                    self.held.retain(|(held, ..)| *held != queue);
                    drop(self.broker.delete_queue(queue));
                    drop(self.broker.create_queue(queue, QueueSettings::default()));
                }
                _ => {}
            }
        }
    }

    pub(crate) fn enqueue(&mut self, queue: &str, count: u64) -> Offset {
        let body = self.random.bytes(self.job_bytes);
        let mut jobs = BatchBuilder::default();
        (0..count).for_each(|_| jobs.push_encoded(EncodedJob::new(&body)));
        let batch = JobBatch::plain(jobs.batch());
        self.broker.enqueue(queue, true, batch).result.unwrap().first
    }

    fn fetch(&mut self, queue: &'static str) {
        let fetched =
            self.broker.fetch(&self.session, &broker::fetch_of(&[queue], 3)).result.unwrap();
        let FetchedJobs::Now(grants) = fetched.jobs else { panic!("it does not wait") };
        self.held.extend(grants.jobs.iter().map(|job| (queue, job.offset, job.grant)));
    }

    /// Fetches all jobs of a queue, and consumes those that are not to be left.
    pub(crate) fn consume(&mut self, queue: &'static str, is_left: impl Fn(Offset) -> bool) {
        loop {
            self.fetch(queue);
            let mine = |held: &(&str, Offset, Grant)| held.0 == queue && !is_left(held.1);
            let held: Vec<_> = self.held.extract_if(.., |held| mine(held)).collect();
            if held.is_empty() {
                return;
            }
            for (_, offset, grant) in held {
                let jobs = SmallVec::from_iter([LeaseRef { offset, grant }]);
                let done = self.broker.commit(&[LeaseRefs { queue, group: "default", jobs }]);
                assert!(done.result.unwrap().iter().all(Result::is_ok));
            }
        }
    }

    fn end_one(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.random.below(self.held.len() as u64) as usize;
        let (queue, offset, grant) = self.held.swap_remove(at);
        let jobs = SmallVec::from_iter([LeaseRef { offset, grant }]);
        let set = LeaseRefs { queue, group: "default", jobs };
        match self.random.below(5) {
            0 => drop(self.broker.release(&set, self.random.below(2) * 3_600_000)),
            1 => drop(self.broker.fail(&set, RetryTerms::NEVER, "no ink")),
            _ => drop(self.broker.commit(&[set])),
        }
    }
}
