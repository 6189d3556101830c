//! `qctl move` and `qctl copy`, and what `qctl dead retry --to` has in common with them.

use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use joblog::client::{BatchBuilder, Client, Job, MoveOutcome, NotBefore, StoredJob};
use serde::Serialize;

use crate::args::MoveArgs;
use crate::error::{CliError, Exit, Outcome};
use crate::output::Output;
use crate::server::Server;
use crate::values::{parse_header, unix_now_ms};
use crate::{confirm, progress};

/// Jobs, and bytes of them, that are read and moved at once.
const PAGE_JOBS: u32 = 1000;
const PAGE_BYTES: u32 = 1024 * 1024;

#[derive(Debug, Serialize)]
struct MoveView<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copied: Option<u64>,
    leased: u64,
}

/// What is done to the jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Move,
    Copy,
}

/// Which jobs are meant.
struct Filter {
    key: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    /// Enqueued before, and after, these times.
    before_ms: u64,
    after_ms: u64,
}

impl Filter {
    fn new(args: &MoveArgs) -> Result<Self, CliError> {
        let now_ms = unix_now_ms();
        let ago = |time: Duration| now_ms.saturating_sub(time.as_millis() as u64);
        let headers = args.headers.iter().cloned();
        Ok(Self {
            key: args.key.clone().map(OsStringExt::into_vec),
            headers: headers
                .map(|header| parse_header(header).map_err(CliError::Usage))
                .collect::<Result<_, _>>()?,
            before_ms: args.older.map_or(u64::MAX, ago),
            after_ms: args.younger.map_or(0, ago),
        })
    }

    fn passes(&self, stored: &StoredJob) -> bool {
        let at_ms = stored.enqueued_at_ms;
        (self.key.is_none() || self.key == stored.job.key)
            && self.headers.iter().all(|header| stored.job.headers.contains(header))
            && at_ms < self.before_ms
            && at_ms >= self.after_ms
    }
}

/// A job as it goes on in another queue: what is left of its delay and of its time to live. None if
/// that is over.
pub(crate) fn going_on(stored: StoredJob, now_ms: u64) -> Option<Job> {
    let StoredJob { enqueued_at_ms, mut job, .. } = stored;
    let due_ms = job.terms.due.map(|due| match due {
        NotBefore::In(delay_ms) => enqueued_at_ms.saturating_add(delay_ms),
        NotBefore::At(at_ms) => at_ms,
    });
    job.terms.due = due_ms.filter(|due_ms| *due_ms > now_ms).map(NotBefore::At);
    if let Some(ttl_ms) = &mut job.terms.ttl_ms {
        *ttl_ms = enqueued_at_ms.saturating_add(*ttl_ms).checked_sub(now_ms)?;
        if *ttl_ms == 0 {
            return None;
        }
    }
    Some(job)
}

/// What became of jobs that were to be moved.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) count: u64,
    /// Those that are out with a worker.
    pub(crate) leased: u64,
    /// Those that are not there any more, or not dead.
    pub(crate) gone: Vec<u64>,
}

/// Moves jobs in one step, but for those that can't be.
pub(crate) async fn move_jobs(
    client: &Client,
    (queue, dead_for): (&str, Option<&str>),
    mut jobs: Vec<(u64, Job)>,
    to: &str,
) -> Result<Moved, CliError> {
    let mut moved = Moved::default();
    // Each round takes out at least one job, or is the last.
    while !jobs.is_empty() {
        let mut batch = BatchBuilder::default();
        for (_, job) in &jobs {
            let pushed = batch.push(job);
            pushed.map_err(|error| CliError::Failed(format!("a job can't be moved: {error}")))?;
        }
        let offsets: Vec<u64> = jobs.iter().map(|(offset, _)| *offset).collect();
        let reply = client.move_jobs(queue, dead_for, &offsets, to, &batch).await?;
        if reply.enqueued.count > 0 {
            moved.count += u64::from(reply.enqueued.count);
            break;
        }
        let mut outcomes = reply.outcomes.into_iter();
        jobs.retain(|(offset, _)| match outcomes.next() {
            Some(MoveOutcome::Movable) => true,
            Some(MoveOutcome::Leased) => {
                moved.leased += 1;
                false
            }
            Some(MoveOutcome::Gone) | None => {
                moved.gone.push(*offset);
                false
            }
        });
    }
    Ok(moved)
}

/// `qctl move` and `qctl copy`.
pub(crate) async fn run(server: &Server, args: MoveArgs, action: Action, out: &Output) -> Outcome {
    let filter = Filter::new(&args)?;
    let client = server.connect().await?;
    let (from, to) = (args.from_queue.as_str(), args.to_queue.as_str());
    let progress = progress::of_count("jobs", None);
    let mut done = Moved::default();
    let (mut at, mut end) = (args.from, u64::MAX);
    while at < end && done.count < args.limit {
        let page = client.read(from, at, PAGE_JOBS, PAGE_BYTES).await?;
        // What is enqueued from now on is not meant, least of all if it comes from here.
        end = end.min(page.end);
        for damaged in &page.damaged {
            progress.suspend(|| tell!("qctl: {damaged}; it is left"));
        }
        let left = args.limit - done.count;
        let meant = page.jobs.into_iter().filter(|job| job.offset < end && filter.passes(job));
        let now_ms = unix_now_ms();
        let going_on = meant.filter_map(|job| Some((job.offset, going_on(job, now_ms)?)));
        let jobs: Vec<_> = going_on.take(usize::try_from(left).unwrap_or(usize::MAX)).collect();
        let step = match action {
            Action::Move => move_jobs(client, (from, None), jobs, to).await?,
            Action::Copy => copy_jobs(client, jobs, to).await?,
        };
        done.count += step.count;
        done.leased += step.leased;
        progress.set_position(done.count);
        at = page.next;
    }
    progress.finish_and_clear();
    let count = Some(done.count);
    let (moved, copied, word) = match action {
        Action::Move => (count, None, "moved"),
        Action::Copy => (None, count, "copied"),
    };
    out.print(&MoveView { from, to, moved, copied, leased: done.leased }, |view| {
        let left = match view.leased {
            0 => String::new(),
            leased => format!("; {leased} running are left"),
        };
        let count = confirm::counted(done.count, "job");
        format!("{count} {word} from {from} to {to}{left}").into_bytes()
    })?;
    Ok(Exit::Done)
}

async fn copy_jobs(client: &Client, jobs: Vec<(u64, Job)>, to: &str) -> Result<Moved, CliError> {
    let mut batch = BatchBuilder::default();
    for (_, job) in &jobs {
        let pushed = batch.push(job);
        pushed.map_err(|error| CliError::Failed(format!("a job can't be copied: {error}")))?;
    }
    if !batch.is_empty() {
        client.enqueue_batch(to, &batch).await?;
    }
    Ok(Moved { count: jobs.len() as u64, ..Moved::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(due: Option<NotBefore>, ttl_ms: Option<u64>) -> StoredJob {
        let mut job = Job::new("x");
        (job.terms.due, job.terms.ttl_ms) = (due, ttl_ms);
        StoredJob { offset: 1, enqueued_at_ms: 1_000, job }
    }

    #[test]
    fn what_is_left_of_a_delay_and_of_a_time_to_live_goes_on() {
        let terms = |due, ttl_ms| going_on(stored(due, ttl_ms), 1_500).map(|job| job.terms);
        let left = |due, ttl_ms| terms(due, ttl_ms).map(|terms| (terms.due, terms.ttl_ms));
        assert_eq!(left(None, None), Some((None, None)));
        assert_eq!(left(Some(NotBefore::In(600)), None), Some((Some(NotBefore::At(1_600)), None)));
        assert_eq!(left(Some(NotBefore::In(500)), None), Some((None, None)));
        assert_eq!(
            left(Some(NotBefore::At(2_000)), None),
            Some((Some(NotBefore::At(2_000)), None))
        );
        assert_eq!(left(None, Some(501)), Some((None, Some(1))));
        assert_eq!(left(None, Some(500)), None);
    }
}
