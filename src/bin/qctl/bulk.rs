//! Lines of a file as jobs: read on a thread of their own, sent in batches, several under way.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use indicatif::ProgressBar;
use joblog::client::{BatchBuilder, Client, ClientError, ErrorCode, Job, PendingEnqueue};
use tokio::sync::mpsc;

use crate::error::CliError;
use crate::progress;

/// A batch is full with so many jobs, or so many bytes. What `qctl import --once` has done it knows
/// by the numbers of its batches, so another size needs another way to make producer ids.
const BATCH_JOBS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches on their way to the server at once.
const BATCHES_IN_FLIGHT: usize = 4;

/// Says that a queue is there now.
pub(crate) fn tell_created(queue: &str) {
    tell!("Queue {queue} is created.");
}

/// The error for a file.
pub(crate) fn cannot_read(path: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("{} can't be read: {error}", path.display()))
}

/// A file, or standard input.
pub(crate) struct Source {
    name: String,
    pub(crate) reader: Box<dyn BufRead + Send>,
    /// How long it is, as far as that is known.
    bytes: Option<u64>,
}

impl Source {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        if path == Path::new("-") {
            return Ok(Self {
                name: "standard input".to_owned(),
                reader: Box::new(BufReader::new(io::stdin())),
                bytes: None,
            });
        }
        let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
        let metadata = file.metadata().map_err(|error| cannot_read(path, &error))?;
        Ok(Self {
            name: path.display().to_string(),
            reader: Box::new(BufReader::with_capacity(256 * 1024, file)),
            bytes: metadata.is_file().then_some(metadata.len()),
        })
    }
}

/// What makes a job of a line; what it says of a line that is none goes behind "line 7 of FILE".
pub(crate) type ReadLine = Box<dyn FnMut(&[u8], &mut Job) -> Result<(), String> + Send>;

/// How lines are read.
pub(crate) struct Lines {
    pub(crate) source: Source,
    /// The job that each line changes.
    pub(crate) model: Job,
    pub(crate) read_line: ReadLine,
    /// Bytes of a line for each byte of the largest job.
    pub(crate) line_scale: usize,
}

/// What became of the lines.
pub(crate) struct Sum {
    /// Jobs that were enqueued.
    pub(crate) jobs: u64,
    /// Jobs of which the server knows that this producer has enqueued them long ago.
    pub(crate) known: u64,
    /// Why not all were.
    pub(crate) failure: Option<CliError>,
}

/// Some lines as a batch.
struct PendingBatch {
    jobs: BatchBuilder,
    /// The number of its first line, from 1.
    first_line: u64,
    /// Bytes of the source that it stands for.
    source_bytes: u64,
}

/// Reads lines and makes batches of them, on a thread of its own, since reading may block.
struct Batcher {
    lines: Lines,
    job_bytes_max: usize,
    line: Vec<u8>,
}

impl Batcher {
    fn new(lines: Lines, job_bytes_max: usize) -> Self {
        Self { lines, job_bytes_max, line: Vec::new() }
    }

    fn run(mut self, batches: &mpsc::Sender<Result<PendingBatch, CliError>>) {
        let mut next_line = 1;
        loop {
            let batch = self.next(next_line);
            let is_last = match &batch {
                Ok(batch) if batch.jobs.is_empty() => return,
                Ok(batch) => {
                    next_line += batch.jobs.len() as u64;
                    false
                }
                Err(_) => true,
            };
            // Nobody listens any more if a batch failed; then there is no more to read either.
            if batches.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    }

    fn next(&mut self, first_line: u64) -> Result<PendingBatch, CliError> {
        let mut batch = PendingBatch { jobs: BatchBuilder::default(), first_line, source_bytes: 0 };
        while batch.jobs.len() < BATCH_JOBS && batch.jobs.bodies_bytes() < BATCH_BYTES {
            let line = first_line + batch.jobs.len() as u64;
            if !self.add_line(&mut batch, line)? {
                break;
            }
        }
        Ok(batch)
    }

    /// Adds one line. Returns whether there was one.
    fn add_line(&mut self, batch: &mut PendingBatch, number: u64) -> Result<bool, CliError> {
        let Lines { source, model, read_line, line_scale } = &mut self.lines;
        let name = &source.name;
        let failed = |what: String| CliError::Failed(format!("line {number} of {name} {what}"));
        let line_bytes_max = self.job_bytes_max.saturating_mul(*line_scale);
        let line = &mut self.line;
        line.clear();
        // One byte over the limit is enough to see that a line is too long.
        let mut limited = (&mut source.reader).take(line_bytes_max as u64 + 1);
        let read = limited.read_until(b'\n', line);
        let bytes = read.map_err(|error| failed(format!("can't be read: {error}")))?;
        if bytes == 0 {
            return Ok(false);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        let max = self.job_bytes_max;
        let too_long = || format!("is too long: the server takes at most {max} bytes a job");
        if line.len() > line_bytes_max {
            return Err(failed(too_long()));
        }
        read_line(line, model).map_err(failed)?;
        if model.body_bytes() > max {
            return Err(failed(too_long()));
        }
        let pushed = batch.jobs.push(model);
        pushed.map_err(|error| failed(format!("can't be a job: {error}")))?;
        batch.source_bytes += bytes as u64;
        Ok(true)
    }
}

/// A batch that the server has not answered yet.
struct Sent {
    pending: PendingEnqueue,
    first_line: u64,
    jobs: u64,
    source_bytes: u64,
}

/// Enqueues lines.
pub(crate) struct Enqueuer<'a> {
    client: &'a Client,
    queue: &'a str,
    progress: ProgressBar,
    in_flight: VecDeque<Sent>,
    sum: Sum,
}

impl<'a> Enqueuer<'a> {
    pub(crate) fn new(client: &'a Client, queue: &'a str) -> Self {
        Self {
            client,
            queue,
            progress: ProgressBar::hidden(),
            in_flight: VecDeque::new(),
            sum: Sum { jobs: 0, known: 0, failure: None },
        }
    }

    /// Enqueues all lines, or those before the first that can't be.
    pub(crate) async fn run(mut self, lines: Lines) -> Sum {
        self.progress = progress::of_bytes(lines.source.bytes);
        let job_bytes_max =
            self.client.state().borrow().server().map_or(u32::MAX, |server| server.job_bytes_max);
        let batcher = Batcher::new(lines, job_bytes_max as usize);
        let (sender, mut batches) = mpsc::channel(BATCHES_IN_FLIGHT);
        std::thread::spawn(move || batcher.run(&sender));
        while self.sum.failure.is_none() {
            match batches.recv().await {
                None => break,
                Some(Ok(batch)) => self.send(batch).await,
                Some(Err(error)) => self.sum.failure = Some(error),
            }
            if self.in_flight.len() >= BATCHES_IN_FLIGHT {
                self.settle_oldest().await;
            }
        }
        drop(batches);
        while !self.in_flight.is_empty() {
            self.settle_oldest().await;
        }
        self.progress.finish_and_clear();
        self.sum
    }

    async fn send(&mut self, batch: PendingBatch) {
        let jobs = batch.jobs.len() as u64;
        match self.client.enqueue_later(self.queue, &batch.jobs).await {
            Ok(pending) => self.in_flight.push_back(Sent {
                pending,
                first_line: batch.first_line,
                jobs,
                source_bytes: batch.source_bytes,
            }),
            Err(error) => self.failed(batch.first_line, jobs, error),
        }
    }

    async fn settle_oldest(&mut self) {
        let Some(sent) = self.in_flight.pop_front() else {
            return;
        };
        match sent.pending.enqueued().await {
            Ok(enqueued) => {
                if enqueued.created {
                    self.progress.suspend(|| tell_created(self.queue));
                }
                self.sum.jobs += sent.jobs;
            }
            // The numbers go up by one from 1, and never were more than a few under way: what lies
            // below the window was enqueued before what lies in it.
            Err(ClientError::Server { code: ErrorCode::SequenceTooOld, .. }) => {
                self.sum.known += sent.jobs;
            }
            Err(error) => return self.failed(sent.first_line, sent.jobs, error),
        }
        self.progress.inc(sent.source_bytes);
        self.progress.set_message(format!("{} jobs", self.sum.jobs + self.sum.known));
    }

    /// Keeps the first error, which decides the exit code; others are only told.
    fn failed(&mut self, first_line: u64, jobs: u64, error: ClientError) {
        let error = CliError::Lines { first: first_line, last: first_line + jobs - 1, error };
        if self.sum.failure.is_some() {
            self.progress.suspend(|| tell!("qctl: {error}"));
        }
        self.sum.failure.get_or_insert(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &[u8], job_bytes_max: usize) -> Result<Vec<Vec<Vec<u8>>>, CliError> {
        let source = Source {
            name: "test".to_owned(),
            reader: Box::new(io::Cursor::new(text.to_vec())),
            bytes: None,
        };
        let read_line: ReadLine = Box::new(|line, job| {
            job.payload = line.to_vec();
            Ok(())
        });
        let lines = Lines { source, model: Job::default(), read_line, line_scale: 1 };
        let mut batcher = Batcher::new(lines, job_bytes_max);
        let mut all = Vec::new();
        let mut line = 1;
        loop {
            let batch = batcher.next(line)?;
            if batch.jobs.is_empty() {
                return Ok(all);
            }
            line += batch.jobs.len() as u64;
            let rows = batch.jobs.batch().jobs();
            all.push(rows.map(|row| Job::from_body(row.body).unwrap().payload).collect());
        }
    }

    #[test]
    fn each_line_is_a_job_whatever_its_bytes() {
        let lines = batches(b"a\n\n\xff\0\r\nlast", 1000).unwrap();
        let expected: Vec<Vec<u8>> =
            vec![b"a".to_vec(), Vec::new(), b"\xff\0\r".to_vec(), b"last".to_vec()];
        assert_eq!(lines, [expected]);
        assert!(batches(b"", 1000).unwrap().is_empty());
    }

    #[test]
    fn batches_are_cut_by_jobs_and_by_bytes() {
        let many = b"x\n".repeat(2 * BATCH_JOBS + 1);
        let counts: Vec<usize> = batches(&many, 1000).unwrap().iter().map(Vec::len).collect();
        assert_eq!(counts, [BATCH_JOBS, BATCH_JOBS, 1]);
        let mut long = vec![b'x'; BATCH_BYTES / 2];
        long.push(b'\n');
        let counts: Vec<usize> =
            batches(&long.repeat(3), BATCH_BYTES).unwrap().iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_one_at_it_passes() {
        // A body has four bytes before the payload.
        let lines = b"12345678\n123456789\n";
        let error = batches(lines, 12).unwrap_err().to_string();
        assert!(error.contains("line 2 of test is too long"), "{error}");
        assert_eq!(batches(lines, 13).unwrap().len(), 1);
    }
}
