//! `qctl dead`: what became of jobs that ran out of retries, and what is to become of them.

use joblog::client::{BulkDone, Client, DeadJob, DeadQuery};
use serde::Serialize;

use crate::args::{DeadActArgs, DeadCommand, DeadFilter};
use crate::error::{CliError, Exit, Outcome};
use crate::job_name::JobName;
use crate::moving::{going_on, move_jobs};
use crate::output::{JobView, Output};
use crate::server::Server;
use crate::values::{format_time, unix_now_ms};
use crate::{confirm, progress};

/// Jobs asked for, or acted on, at once.
const PAGE: u64 = 1000;
/// Bytes of jobs that are moved at once.
const STEP_BYTES: u32 = 1024 * 1024;
/// Columns of a table that a reason takes at most.
const REASON_COLUMNS: usize = 60;

/// A dead job as JSON.
#[derive(Debug, Serialize)]
struct DeadView {
    job: String,
    group: String,
    #[serde(flatten)]
    dead: DeadJob,
    died_at: String,
}

impl DeadView {
    fn new(query: &DeadQuery, dead: DeadJob) -> Self {
        Self {
            job: format!("{}:{}", query.queue, dead.offset),
            group: query.group.clone(),
            died_at: format_time(dead.died_at_ms),
            dead,
        }
    }

    fn text(&self) -> Vec<u8> {
        let Self { job, group, dead, died_at } = self;
        let DeadJob { cause, reason, attempts, failures, crashes, .. } = dead;
        let counts = format!("{attempts} attempts, {failures} failures, {crashes} crashes");
        format!(
            "job       {job}\ndead      for {group} since {died_at}, by {cause} ({counts})\n\
                 reason    {reason}"
        )
        .into_bytes()
    }
}

#[derive(Debug, Serialize)]
struct DoneView {
    done: &'static str,
    jobs: u64,
}

/// `qctl dead`.
pub(crate) async fn run(server: &Server, command: DeadCommand, out: &Output) -> Outcome {
    match command {
        DeadCommand::List { filter, limit } => list(server, &filter, limit, out).await,
        DeadCommand::Show { job, group } => show(server, &job, group, out).await,
        DeadCommand::Retry { act: args, to: None } => act(server, &args, Action::Retry, out).await,
        DeadCommand::Retry { act: args, to: Some(to) } => {
            act(server, &args, Action::Move(&to), out).await
        }
        DeadCommand::Drop(args) => act(server, &args, Action::Drop, out).await,
    }
}

fn query(filter: &DeadFilter) -> Result<DeadQuery, CliError> {
    let millis = |time: Option<std::time::Duration>| time.map(|time| time.as_millis() as u64);
    let (queue, jobs) = match filter.target.contains(':') {
        true => {
            let job: JobName = filter.target.parse().map_err(CliError::Usage)?;
            (job.queue, Some(vec![job.offset]))
        }
        false => (filter.target.clone(), None),
    };
    Ok(DeadQuery {
        queue,
        group: filter.group.clone(),
        jobs,
        error: filter.error.clone(),
        older_than_ms: millis(filter.older),
        younger_than_ms: millis(filter.younger),
        from: 0,
        limit: PAGE as u32,
    })
}

async fn list(server: &Server, filter: &DeadFilter, limit: u64, out: &Output) -> Outcome {
    let mut query = query(filter)?;
    let client = server.connect().await?;
    let mut pages = out.pages(&["JOB", "DIED", "CAUSE", "ATTEMPTS", "REASON"]);
    let (mut left, mut more) = (limit, true);
    while more && left > 0 {
        query.limit = PAGE.min(left) as u32;
        let page = client.dead_list(&query).await?;
        left = left.saturating_sub(page.jobs.len() as u64);
        let views: Vec<_> = page.jobs.into_iter().map(|dead| DeadView::new(&query, dead)).collect();
        pages.print(&views, row)?;
        (query.from, more) = (page.next, page.more);
    }
    if more {
        tell!("There are more; --limit shows them.");
    }
    Ok(Exit::Done)
}

fn row(DeadView { job, dead, died_at, .. }: &DeadView) -> Vec<String> {
    let first_line = dead.reason.lines().next().unwrap_or_default();
    vec![
        job.clone(),
        died_at.clone(),
        dead.cause.clone(),
        dead.attempts.to_string(),
        first_line.chars().take(REASON_COLUMNS).collect(),
    ]
}

async fn show(server: &Server, job: &JobName, group: String, out: &Output) -> Outcome {
    let client = server.connect().await?;
    let jobs = Some(vec![job.offset]);
    let query =
        DeadQuery { queue: job.queue.clone(), group, jobs, limit: 1, ..DeadQuery::default() };
    let Some(dead) = client.dead_list(&query).await?.jobs.pop() else {
        let text = format!("{}:{} is not dead for group {}", job.queue, job.offset, query.group);
        return Err(CliError::Failed(text));
    };
    out.print(&DeadView::new(&query, dead), DeadView::text)?;
    let read = client.read(&job.queue, job.offset, 1, u32::MAX).await?;
    for stored in read.jobs.into_iter().filter(|stored| stored.offset == job.offset) {
        let view = JobView::new(&job.queue, stored.offset, stored.enqueued_at_ms, stored.job);
        out.print(&view, JobView::text)?;
    }
    Ok(Exit::Done)
}

#[derive(Clone, Copy, Debug)]
enum Action<'a> {
    Retry,
    Drop,
    Move(&'a str),
}

impl Action<'_> {
    async fn act(self, client: &Client, query: &DeadQuery) -> Result<BulkDone, CliError> {
        Ok(match self {
            Self::Retry => client.dead_retry(query).await?,
            Self::Drop => client.dead_drop(query).await?,
            Self::Move(to) => move_dead(client, query, to).await?,
        })
    }
}

/// Moves the dead jobs of one page to another queue.
async fn move_dead(client: &Client, query: &DeadQuery, to: &str) -> Result<BulkDone, CliError> {
    let page = client.dead_list(query).await?;
    let offsets: Vec<u64> = page.jobs.iter().map(|dead| dead.offset).collect();
    let mut refused = match &query.jobs {
        Some(named) if !page.more => {
            named.iter().copied().filter(|job| !offsets.contains(job)).collect()
        }
        _ => Vec::new(),
    };
    let (mut count, mut at) = (0, 0);
    while let Some(&first) = offsets.get(at) {
        let stretch = (first..).zip(offsets.get(at..).unwrap_or_default());
        let length = stretch.take_while(|(expected, found)| expected == *found).count();
        let read = client.read(&query.queue, first, length as u32, STEP_BYTES).await?;
        let read_up_to = read.next;
        let now_ms = unix_now_ms();
        let stored = read.jobs.into_iter().filter(|job| offsets.contains(&job.offset));
        // A dead job comes as soon as it can.
        let jobs = stored.filter_map(|job| {
            let offset = job.offset;
            let mut job = going_on(job, now_ms)?;
            job.terms.due = None;
            Some((offset, job))
        });
        let jobs: Vec<_> = jobs.collect();
        let step = move_jobs(client, (&query.queue, Some(&query.group)), jobs, to).await?;
        count += step.count;
        refused.extend(step.gone);
        let behind = |offset: &&u64| **offset < read_up_to;
        at += offsets.get(at..).unwrap_or_default().iter().take_while(behind).count().max(1);
    }
    Ok(BulkDone { count, refused, next: page.next, more: page.more })
}

async fn act(server: &Server, args: &DeadActArgs, action: Action<'_>, out: &Output) -> Outcome {
    let mut query = query(&args.filter)?;
    let selects = query.jobs.is_some()
        || query.error.is_some()
        || query.older_than_ms.is_some()
        || query.younger_than_ms.is_some();
    if !selects && !args.all {
        let text = "which jobs? Name one as QUEUE:OFFSET, give --error, --older or --younger, or \
                    say --all";
        return Err(CliError::Usage(text.to_owned()));
    }
    if matches!(action, Action::Drop)
        && !args.yes
        && !confirm_drop(server, &query, &args.filter.target, selects).await?
    {
        return Ok(Exit::Failed);
    }
    let client = server.connect().await?;
    let (mut jobs, mut refused, mut more) = (0, Vec::new(), true);
    let progress = progress::of_count("dead jobs done", None);
    while more {
        let done = action.act(client, &query).await?;
        jobs += done.count;
        refused.extend(done.refused);
        (query.from, more) = (done.next, done.more);
        progress.set_position(jobs);
    }
    progress.finish_and_clear();
    let done = match action {
        Action::Retry => "retried",
        Action::Drop => "dropped",
        Action::Move(_) => "moved",
    };
    let count = confirm::counted(jobs, "job");
    out.print(&DoneView { done, jobs }, |_| format!("{count} {done}").into_bytes())?;
    for offset in &refused {
        tell!("qctl: {}:{offset} is not dead for group {}", query.queue, query.group);
    }
    Ok(Exit::failed_if(!refused.is_empty()))
}

/// Asks whether dead jobs are to be given up, and says how many there are.
async fn confirm_drop(
    server: &Server,
    query: &DeadQuery,
    target: &str,
    selects: bool,
) -> Result<bool, CliError> {
    let what = format!("dead jobs of {target}, group {}", query.group);
    confirm::needs_terminal("drop", &what)?;
    let found = server.connect().await?.describe_group(&query.queue, &query.group).await?;
    let count = confirm::counted(found.dead, "dead job");
    let which = if selects { "those that you named of the" } else { "all" };
    let what = format!("{which} {count} of queue {}, group {}", query.queue, query.group);
    confirm::ask("drop", &what)
}
