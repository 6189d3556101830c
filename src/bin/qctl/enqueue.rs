//! `qctl enqueue`: one job, or one for each line of a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use indicatif::ProgressBar;
use joblog::client::{
    BatchBuilder, Client, ClientError, ConnectionState, Due, Job, PendingEnqueue, Terms,
};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::args::EnqueueArgs;
use crate::error::{CliError, Exit};
use crate::job::wait_for_end;
use crate::output::Output;
use crate::progress;
use crate::server::Server;
use crate::values::parse_header;

/// A batch is full with so many jobs, or so many bytes.
const BATCH_JOBS: usize = 1000;
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches on their way to the server at once.
const BATCHES_IN_FLIGHT: usize = 4;

#[derive(Serialize)]
struct JobPlace {
    job: String,
}

#[derive(Serialize)]
struct LinesDone {
    queue: String,
    jobs: u64,
}

/// `qctl enqueue`.
pub(crate) async fn run(
    server: &Server,
    mut args: EnqueueArgs,
    out: &Output,
) -> Result<Exit, CliError> {
    let headers = std::mem::take(&mut args.headers).into_iter();
    let model = Job {
        payload: Vec::new(),
        key: args.key.take().map(OsStringExt::into_vec),
        headers: headers
            .map(|header| parse_header(header).map_err(CliError::Usage))
            .collect::<Result<_, _>>()?,
        terms: terms(&args),
    };
    let create = !args.no_create;
    if let Some(path) = &args.lines {
        let source = Source::open(path)?;
        let client = server.connect_with(|options| options.create_queues(create));
        return Lines::new(client.await?, &args.queue).run(source, model, out).await;
    }
    let payload = match (args.payload, &args.file) {
        (Some(payload), _) => payload.into_vec(),
        (None, Some(path)) => read_whole(path)?,
        (None, None) => Vec::new(),
    };
    let client = server.connect_with(|options| options.create_queues(create)).await?;
    let enqueued = client.enqueue(&args.queue, &Job { payload, ..model }).await?;
    if enqueued.created {
        tell_created(&args.queue);
    }
    let job = format!("{}:{}", args.queue, enqueued.first_offset);
    if let Some(wait) = args.wait {
        tell!("{job} is enqueued.");
        return wait_for_end(client, &args.queue, enqueued.first_offset, wait, out).await;
    }
    out.print(&JobPlace { job }, |place| place.job.clone().into_bytes())?;
    Ok(Exit::Done)
}

fn terms(args: &EnqueueArgs) -> Terms {
    let delay = args.delay.map(|delay| Due::In(delay.as_millis() as u64));
    Terms {
        due: delay.or_else(|| args.at.map(Due::At)),
        ttl_ms: args.ttl.map(|ttl| ttl.as_millis() as u64),
        priority: args.priority,
        front: args.front,
    }
}

fn tell_created(queue: &str) {
    tell!("Queue {queue} is created.");
}

fn cannot_read(path: &Path, error: &io::Error) -> CliError {
    CliError::Failed(format!("{} can't be read: {error}", path.display()))
}

fn read_whole(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut payload = Vec::new();
    let mut source = Source::open(path)?;
    let read = source.reader.read_to_end(&mut payload);
    read.map_err(|error| cannot_read(path, &error))?;
    Ok(payload)
}

/// A file, or standard input.
struct Source {
    name: String,
    reader: Box<dyn BufRead + Send>,
    /// How long it is, as far as that is known.
    bytes: Option<u64>,
}

impl Source {
    fn open(path: &Path) -> Result<Self, CliError> {
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

/// Some lines as a batch.
struct Batch {
    jobs: BatchBuilder,
    /// The number of its first line, from 1.
    first_line: u64,
    /// Bytes of the source that it stands for.
    source_bytes: u64,
}

/// Reads lines and makes batches of them, on a thread of its own, since reading may block.
struct Batcher {
    source: Source,
    model: Job,
    job_bytes_max: usize,
}

impl Batcher {
    fn run(mut self, batches: &mpsc::Sender<Result<Batch, CliError>>) {
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

    fn next(&mut self, first_line: u64) -> Result<Batch, CliError> {
        let mut batch = Batch { jobs: BatchBuilder::default(), first_line, source_bytes: 0 };
        while batch.jobs.len() < BATCH_JOBS && batch.jobs.bodies_bytes() < BATCH_BYTES {
            let line = first_line + batch.jobs.len() as u64;
            if !self.add_line(&mut batch, line)? {
                break;
            }
        }
        Ok(batch)
    }

    /// Adds one line. Returns whether there was one.
    fn add_line(&mut self, batch: &mut Batch, number: u64) -> Result<bool, CliError> {
        let name = &self.source.name;
        let failed = |what: String| CliError::Failed(format!("line {number} of {name} {what}"));
        let payload = &mut self.model.payload;
        payload.clear();
        // One byte over the limit is enough to see that a line is too long.
        let mut limited = (&mut self.source.reader).take(self.job_bytes_max as u64 + 1);
        let read = limited.read_until(b'\n', payload);
        let bytes = read.map_err(|error| failed(format!("can't be read: {error}")))?;
        if bytes == 0 {
            return Ok(false);
        }
        if payload.last() == Some(&b'\n') {
            payload.pop();
        }
        if self.model.body_bytes() > self.job_bytes_max {
            let max = self.job_bytes_max;
            let text = format!("is too long: the server takes at most {max} bytes a job");
            return Err(failed(text));
        }
        let pushed = batch.jobs.push(&self.model);
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
struct Lines<'a> {
    client: &'a Client,
    queue: &'a str,
    progress: ProgressBar,
    in_flight: VecDeque<Sent>,
    enqueued: u64,
    failure: Option<CliError>,
}

impl<'a> Lines<'a> {
    fn new(client: &'a Client, queue: &'a str) -> Self {
        Self {
            client,
            queue,
            progress: ProgressBar::hidden(),
            in_flight: VecDeque::new(),
            enqueued: 0,
            failure: None,
        }
    }

    async fn run(mut self, source: Source, model: Job, out: &Output) -> Result<Exit, CliError> {
        self.progress = progress::of_bytes(source.bytes);
        let job_bytes_max = match &*self.client.state().borrow() {
            ConnectionState::Connected(info) => info.job_bytes_max as usize,
            _ => u32::MAX as usize,
        };
        let batcher = Batcher { source, model, job_bytes_max };
        let (sender, mut batches) = mpsc::channel(BATCHES_IN_FLIGHT);
        std::thread::spawn(move || batcher.run(&sender));
        while self.failure.is_none() {
            match batches.recv().await {
                None => break,
                Some(Ok(batch)) => self.send(batch).await,
                Some(Err(error)) => self.failure = Some(error),
            }
            if self.in_flight.len() >= BATCHES_IN_FLIGHT {
                self.settle_oldest().await;
            }
        }
        drop(batches);
        while !self.in_flight.is_empty() {
            self.settle_oldest().await;
        }
        self.finish(out)
    }

    async fn send(&mut self, batch: Batch) {
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
                self.enqueued += sent.jobs;
                self.progress.inc(sent.source_bytes);
                self.progress.set_message(format!("{} jobs", self.enqueued));
            }
            Err(error) => self.failed(sent.first_line, sent.jobs, error),
        }
    }

    /// Keeps the first error, which decides the exit code; others are only told.
    fn failed(&mut self, first_line: u64, jobs: u64, error: ClientError) {
        let error = CliError::Lines { first: first_line, last: first_line + jobs - 1, error };
        if self.failure.is_some() {
            self.progress.suspend(|| tell!("qctl: {error}"));
        }
        self.failure.get_or_insert(error);
    }

    fn finish(self, out: &Output) -> Result<Exit, CliError> {
        self.progress.finish_and_clear();
        let done = LinesDone { queue: self.queue.to_owned(), jobs: self.enqueued };
        let plural = if self.enqueued == 1 { "" } else { "s" };
        out.print(&done, |done| {
            format!("{} job{plural} enqueued to {}", done.jobs, done.queue).into_bytes()
        })?;
        match self.failure {
            None => Ok(Exit::Done),
            Some(error) => Err(error),
        }
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
        let mut batcher = Batcher { source, model: Job::default(), job_bytes_max };
        let mut all = Vec::new();
        let mut line = 1;
        loop {
            let batch = batcher.next(line)?;
            if batch.jobs.is_empty() {
                return Ok(all);
            }
            line += batch.jobs.len() as u64;
            let rows = batch.jobs.batch().rows();
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
