//! `qctl enqueue`: one job, or one for each line of a file.

use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use joblog::client::{Client, EnqueueOutcome, Job, NotBefore, Terms, Unique};
use serde::Serialize;

use crate::args::{EnqueueArgs, JobOptions};
use crate::bulk::{Enqueuer, Lines, ReadLine, Source, cannot_read, tell_created};
use crate::confirm::counted;
use crate::error::{CliError, Exit, Outcome};
use crate::job::wait_for_end;
use crate::output::Output;
use crate::server::Server;
use crate::values::parse_header;

#[derive(Serialize)]
struct JobPlace {
    job: String,
    /// Whether it is another one, which has the unique key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    /// The job that gave way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced: Option<String>,
}

#[derive(Serialize)]
struct LinesDone<'a> {
    queue: &'a str,
    jobs: u64,
}

/// `qctl enqueue`.
pub(crate) async fn run(server: &Server, mut args: EnqueueArgs, out: &Output) -> Outcome {
    let unique = unique(&mut args);
    let mut model = model(args.job)?;
    model.terms.due = model.terms.due.or_else(|| args.at.map(NotBefore::At));
    model.unique = unique;
    let create = !args.no_create;
    if let Some(path) = &args.lines {
        let source = Source::open(path)?;
        let client = server.connect_with(|options| options.create_queues(create));
        return enqueue_lines(client.await?, &args.queue, source, model, out).await;
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
    let outcome = enqueued.outcomes().next();
    let offset = outcome.map_or(enqueued.first_offset, EnqueueOutcome::offset);
    let place = place(&args.queue, offset, outcome);
    if place.duplicate {
        tell!("Nothing is enqueued: job {} has this unique key.", place.job);
    }
    if let Some(replaced) = &place.replaced {
        tell!("Job {replaced} gave way.");
    }
    if let Some(wait) = args.wait {
        if !place.duplicate {
            tell!("{} is enqueued.", place.job);
        }
        return wait_for_end(client, &args.queue, offset, wait, out).await;
    }
    out.print(&place, |place| place.job.clone().into_bytes())?;
    Ok(Exit::Done)
}

/// Where the job of a batch of one is.
fn place(queue: &str, offset: u64, outcome: Option<EnqueueOutcome>) -> JobPlace {
    let name = |offset: u64| format!("{queue}:{offset}");
    let replaced = match outcome {
        Some(EnqueueOutcome::Replaced { old, .. }) => Some(name(old)),
        _ => None,
    };
    let duplicate = matches!(outcome, Some(EnqueueOutcome::Duplicate { .. }));
    JobPlace { job: name(offset), duplicate, replaced }
}

fn unique(args: &mut EnqueueArgs) -> Option<Unique> {
    Some(Unique {
        key: args.unique.take()?.into_vec(),
        window_ms: args.unique_for.map(|window| window.as_millis() as u64),
        replace: args.replace,
    })
}

async fn enqueue_lines(
    client: &Client,
    queue: &str,
    source: Source,
    model: Job,
    out: &Output,
) -> Outcome {
    let read_line: ReadLine = Box::new(|line, job| {
        line.clone_into(&mut job.payload);
        Ok(())
    });
    let lines = Lines { source, model, read_line, line_scale: 1 };
    let sum = Enqueuer::new(client, queue).run(lines).await;
    let done = LinesDone { queue, jobs: sum.jobs };
    out.print(&done, |done| {
        format!("{} enqueued to {}", counted(done.jobs, "job"), done.queue).into_bytes()
    })?;
    sum.failure.map_or(Ok(Exit::Done), Err)
}

/// A job without a payload.
pub(crate) fn model(options: JobOptions) -> Result<Job, CliError> {
    let JobOptions { key, headers, delay, ttl, priority, front } = options;
    let headers = headers.into_iter();
    Ok(Job {
        payload: Vec::new(),
        key: key.map(OsStringExt::into_vec),
        headers: headers
            .map(|header| parse_header(header).map_err(CliError::Usage))
            .collect::<Result<_, _>>()?,
        terms: Terms {
            due: delay.map(|delay| NotBefore::In(delay.as_millis() as u64)),
            ttl_ms: ttl.map(|ttl| ttl.as_millis() as u64),
            priority,
            front,
        },
        unique: None,
    })
}

pub(crate) fn read_whole(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut payload = Vec::new();
    let mut source = Source::open(path)?;
    let read = source.reader.read_to_end(&mut payload);
    read.map_err(|error| cannot_read(path, &error))?;
    Ok(payload)
}
