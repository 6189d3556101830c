//! `qctl commit`, `release`, `fail` and `extend`: what to do with leased jobs.

use std::os::unix::ffi::OsStringExt;

use joblog::client::{CommitStatus, ErrorCode, FailStatus, Failure, JobHandle, ReleaseStatus};
use serde::Serialize;

use crate::args::{CommitArgs, ExtendArgs, FailArgs, JobArgs, ReleaseArgs};
use crate::error::{CliError, Exit, Outcome};
use crate::output::Output;
use crate::server::Server;
use crate::values::format_millis;

/// What became of one job.
#[derive(Debug, Default, Serialize)]
struct StatusView {
    job: String,
    /// One word.
    status: &'static str,
    /// The error's name, if the server refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// After a failure: milliseconds until the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_in_ms: Option<u64>,
}

impl StatusView {
    fn done(status: &'static str) -> Self {
        Self { status, ..Self::default() }
    }

    fn refused(code: ErrorCode) -> Self {
        Self { status: "refused", error: Some(code.name()), ..Self::default() }
    }

    fn unknown() -> Self {
        Self { status: "unknown", error: Some(ErrorCode::OutcomeUnknown.name()), ..Self::default() }
    }

    fn text(&self) -> Vec<u8> {
        let job = &self.job;
        let text = match (self.error, self.retry_in_ms) {
            (Some(error), _) => format!("{job}  {}: {}", self.status, meaning(error)),
            (None, Some(ms)) => format!("{job}  {}, retried in {}", self.status, format_millis(ms)),
            (None, None) => format!("{job}  {}", self.status),
        };
        text.into_bytes()
    }
}

/// What the usual refusals mean for a person.
fn meaning(error: &'static str) -> &'static str {
    match error {
        "LEASE_LOST" => "LEASE_LOST: the job is not leased under this token any more",
        "ALREADY_CONSUMED" => "ALREADY_CONSUMED: the group has consumed the job",
        "BEYOND_END" => "BEYOND_END: the queue has no such job yet",
        "NO_SUCH_JOB" => "NO_SUCH_JOB: the queue does not have the job any more",
        "OUTCOME_UNKNOWN" => "the connection was cut, and the lease is gone since",
        other => other,
    }
}

/// `qctl commit`.
pub(crate) async fn commit(server: &Server, args: CommitArgs, out: &Output) -> Outcome {
    let view = |status| match status {
        CommitStatus::Consumed => StatusView::done("consumed"),
        CommitStatus::AlreadyConsumed => StatusView::done("already_consumed"),
        CommitStatus::Refused(code) => StatusView::refused(code),
    };
    if args.through {
        if args.jobs.jobs.iter().any(|job| job.token.is_some()) {
            let text = "--through takes jobs without tokens, as QUEUE:OFFSET";
            return Err(CliError::Usage(text.to_owned()));
        }
        let mut views = Vec::new();
        let client = server.connect().await?;
        for job in &args.jobs.jobs {
            let group = &args.jobs.group;
            let status = client.commit_through(&job.queue, group, job.offset).await?;
            views.push((format!("{}:{}", job.queue, job.offset), view(status)));
        }
        return print(out, views);
    }
    let handles = handles(&args.jobs)?;
    let client = server.connect().await?;
    if let Some(result) = args.result {
        let [handle] = &handles[..] else {
            return Err(CliError::Usage("a result is for one job".to_owned()));
        };
        let status = client.commit_with_result(handle, &result.into_vec()).await?;
        return print(out, names(&handles).zip([view(status)]));
    }
    let statuses = client.commit(&handles).await?;
    print(out, names(&handles).zip(statuses.into_iter().map(view)))
}

/// `qctl release`.
pub(crate) async fn release(server: &Server, args: ReleaseArgs, out: &Output) -> Outcome {
    let handles = handles(&args.jobs)?;
    let client = server.connect().await?;
    let statuses = client.release(&handles, args.delay).await?;
    let view = |status| match status {
        ReleaseStatus::Released => StatusView::done("released"),
        ReleaseStatus::Unknown => StatusView::unknown(),
        ReleaseStatus::Refused(code) => StatusView::refused(code),
    };
    print(out, names(&handles).zip(statuses.into_iter().map(view)))
}

/// `qctl fail`.
pub(crate) async fn fail(server: &Server, args: FailArgs, out: &Output) -> Outcome {
    let handles = handles(&args.jobs)?;
    let failure = Failure { reason: args.reason, failures_max: args.retries, delay: args.delay };
    let statuses = server.connect().await?.fail(&handles, &failure).await?;
    let view = |status| match status {
        FailStatus::Retry { after } => {
            StatusView { retry_in_ms: Some(after.as_millis() as u64), ..StatusView::done("failed") }
        }
        FailStatus::Dead => StatusView::done("dead"),
        FailStatus::Unknown => StatusView::unknown(),
        FailStatus::Refused(code) => StatusView::refused(code),
    };
    print(out, names(&handles).zip(statuses.into_iter().map(view)))
}

/// `qctl extend`.
pub(crate) async fn extend(server: &Server, args: ExtendArgs, out: &Output) -> Outcome {
    let handles = handles(&args.jobs)?;
    let client = server.connect().await?;
    let statuses = match &args.progress {
        Some(note) => {
            let mut statuses = Vec::new();
            for handle in &handles {
                statuses.push(client.extend_with_progress(handle, args.lease, note).await?);
            }
            statuses
        }
        None => client.extend(&handles, args.lease).await?,
    };
    let view = |status: Result<(), ErrorCode>| match status {
        Ok(()) => StatusView::done("extended"),
        Err(code) => StatusView::refused(code),
    };
    print(out, names(&handles).zip(statuses.into_iter().map(view)))
}

fn handles(args: &JobArgs) -> Result<Vec<JobHandle>, CliError> {
    let handle = |job: &crate::job_name::JobName| job.handle(&args.group).map_err(CliError::Usage);
    args.jobs.iter().map(handle).collect()
}

fn names(handles: &[JobHandle]) -> impl Iterator<Item = String> {
    handles.iter().map(|handle| format!("{}:{}", handle.queue, handle.offset))
}

/// Prints what became of each job. One that was refused makes the run a failed one.
fn print(out: &Output, views: impl IntoIterator<Item = (String, StatusView)>) -> Outcome {
    let mut is_failed = false;
    for (job, view) in views {
        let view = StatusView { job, ..view };
        is_failed |= view.error.is_some();
        out.print(&view, StatusView::text)?;
    }
    Ok(Exit::failed_if(is_failed))
}
