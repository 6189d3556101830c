//! `qctl tail`: jobs as they are enqueued, and the place of a job by its time.

use std::fmt::Write as _;
use std::io;
use std::str;

use joblog::client::{Client, ClientError, GroupSeek, Job, ReadJobs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use crate::args::TailArgs;
use crate::error::{CliError, Exit, Outcome};
use crate::fetch::{READ_BYTES, READ_JOBS};
use crate::output::{JobView, Output};
use crate::server::Server;

/// `qctl tail`.
pub(crate) async fn run(server: &Server, args: TailArgs, out: &Output) -> Outcome {
    let mut signals = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let client = server.connect().await?;
    let end = end_of(client, &args.queue).await?;
    let first = match args.from {
        None => end.saturating_sub(args.lines),
        Some(place) => find(client, &args.queue, place, end).await?,
    };
    let mut tail = Tail { queue: &args.queue, next: first, told_from: end, out };
    loop {
        let read = client.read(tail.queue, tail.next, READ_JOBS as u32, READ_BYTES).await?;
        let is_behind = read.next < read.end && !(read.jobs.is_empty() && read.damaged.is_empty());
        tail.show(read)?;
        if is_behind {
            continue;
        }
        let [interrupt, terminate] = &mut signals;
        tokio::select! {
            () = sleep(args.interval) => {}
            () = got(interrupt) => return Ok(Exit::Done),
            () = got(terminate) => return Ok(Exit::Done),
        }
        if is_unread()? {
            return Ok(Exit::Done);
        }
    }
}

async fn got(signal: &mut Signal) {
    signal.recv().await;
}

/// Whether standard output is a pipe that nobody reads any more.
fn is_unread() -> io::Result<bool> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let gone = PollFlags::ERR | PollFlags::HUP;
    Ok(polled.iter().any(|polled| polled.revents().intersects(gone)))
}

/// How far a queue was shown.
struct Tail<'a> {
    queue: &'a str,
    next: u64,
    /// Jobs from here on were enqueued while it was followed: those that are missed are told.
    told_from: u64,
    out: &'a Output,
}

impl Tail<'_> {
    fn show(&mut self, read: ReadJobs) -> Result<(), CliError> {
        let queue = self.queue;
        let seen = (read.jobs.len() + read.damaged.len()) as u64;
        let asked = self.next.max(self.told_from);
        if self.next >= self.told_from && read.next.saturating_sub(asked) > seen {
            let gone = read.next - asked - seen;
            tell!(
                "qctl: {gone} of the jobs from {queue}:{asked} on were consumed before they could \
                 be shown; `qctl queue set {queue} --keep-consumed-for DURATION` keeps them"
            );
        }
        for job in read.jobs {
            let view = JobView::new(queue, job.offset, job.enqueued_at_ms, job.job.clone());
            let line = |view: &JobView| line(view, &job.job).into_bytes();
            self.out.print(&view, line)?;
        }
        read.damaged.iter().for_each(|damaged| tell!("qctl: {damaged}"));
        self.out.flush()?;
        self.next = read.next;
        Ok(())
    }
}

/// A job on one line, without bytes that a terminal would act on.
fn line(view: &JobView, job: &Job) -> String {
    let mut line = format!("{}  {}", view.job, view.enqueued_at);
    if let Some(key) = &job.key {
        line.push_str("  key=");
        push_escaped(&mut line, key);
    }
    line.push_str("  ");
    push_escaped(&mut line, &job.payload);
    line
}

fn push_escaped(line: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter.is_control() || letter == '\\' {
                true => line.extend(letter.escape_default()),
                false => line.push(letter),
            }
        }
        for byte in chunk.invalid() {
            write!(line, "\\x{byte:02x}").expect("a String takes what is written");
        }
    }
}

/// The offset that the next job of a queue will have.
pub(crate) async fn end_of(client: &Client, queue: &str) -> Result<u64, ClientError> {
    Ok(client.read(queue, u64::MAX, 1, 1).await?.end)
}

/// The offset of a place in a queue that ends at `end`. A time is found by looking at some jobs.
pub(crate) async fn find(
    client: &Client,
    queue: &str,
    place: GroupSeek,
    end: u64,
) -> Result<u64, ClientError> {
    let time_ms = match place {
        GroupSeek::Start => return Ok(0),
        GroupSeek::End => return Ok(end),
        GroupSeek::Offset(offset) => return Ok(offset),
        GroupSeek::TimeMs(time_ms) => time_ms,
    };
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let read = client.read(queue, middle, 1, 1).await?;
        match read.jobs.first() {
            Some(job) if job.offset < high && job.enqueued_at_ms < time_ms => low = job.offset + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_takes_one_line_whatever_its_bytes() {
        let payload = b"a\nb\x1b[2J\xff\\ \xc3\xa4".to_vec();
        let job = Job { key: Some(b"k\0".to_vec()), payload, ..Job::default() };
        let view = JobView::new("q", 7, 0, job.clone());
        let expected =
            "q:7  1970-01-01T00:00:00.000Z  key=k\\u{0}  a\\nb\\u{1b}[2J\\xff\\\\ \u{e4}";
        assert_eq!(line(&view, &job), expected);
    }
}
