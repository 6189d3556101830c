//! `qctl job`: one job, and its end.

use std::time::Duration;

use joblog::client::{Client, DeathCause, JobDescription, JobEnd, LeaseInfo, PromoteOutcome};
use serde::Serialize;

use crate::args::JobCommand;
use crate::error::{Exit, Outcome};
use crate::job_name::JobName;
use crate::output::{Output, Text};
use crate::server::Server;
use crate::values::{format_millis, format_time};

/// `qctl job`.
pub(crate) async fn run(server: &Server, command: JobCommand, out: &Output) -> Outcome {
    let client = server.connect().await?;
    match command {
        JobCommand::Show { job, group } => {
            let info = client.job_info(&job.queue, job.offset, group.as_deref()).await?;
            out.print(&info, |info| text(info).into_bytes())?;
            Ok(Exit::Done)
        }
        JobCommand::Wait { job: JobName { queue, offset, .. }, wait } => {
            wait_for_end(client, &queue, offset, wait, out).await
        }
        JobCommand::Promote { jobs } => promote(client, &jobs, out).await,
    }
}

fn text(info: &JobDescription) -> String {
    let state = serde_json::to_value(info.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![("job", format!("{}:{}", info.queue, info.offset))];
    lines.push(("state", format!("{state} for {}{}", info.group, detail(info))));
    if let Some(ms) = info.enqueued_at_ms {
        lines.push(("enqueued", format_time(ms)));
    }
    if let (Some(attempts), Some(failures), Some(crashes)) =
        (info.attempts, info.failures, info.crashes)
    {
        let counts = format!("{attempts}, with {failures} failures and {crashes} crashes");
        lines.push(("attempts", counts));
    }
    if let Some(LeaseInfo { session, lease_ms, left_ms, cancel_requested }) = &info.lease {
        let holder = session
            .as_ref()
            .map_or_else(|| "timed".to_owned(), |session| format!("of session {session}..."));
        let (age, left) = (format_millis(lease_ms - left_ms), format_millis(*left_ms));
        let asked = if *cancel_requested { "; its worker is asked to stop" } else { "" };
        lines.push(("lease", format!("{holder}, for {age}, {left} left{asked}")));
    }
    let said = [("progress", &info.progress), ("error", &info.last_error)];
    lines.extend(said.into_iter().filter_map(|(label, said)| Some((label, said.clone()?))));
    if let Some(bytes) = info.result_bytes {
        lines.push(("result", format!("{bytes} bytes are kept; `qctl job wait` prints them")));
    }
    let lines: Vec<_> = lines.iter().map(|(label, value)| format!("{label:<9} {value}")).collect();
    lines.join("\n")
}

fn detail(info: &JobDescription) -> String {
    match (info.due_in_ms, &info.cause, info.died_at_ms) {
        (Some(ms), ..) => format!(", ready in {}", format_millis(ms)),
        (_, Some(cause), Some(at_ms)) => format!(" by {cause}, since {}", format_time(at_ms)),
        _ => String::new(),
    }
}

#[derive(Debug, Serialize)]
struct PromoteView {
    job: String,
    status: PromoteOutcome,
}

async fn promote(client: &Client, jobs: &[JobName], out: &Output) -> Outcome {
    let mut is_refused = false;
    for run in jobs.chunk_by(|one, next| one.queue == next.queue) {
        let queue = run.first().map_or("", |job| &job.queue);
        let offsets: Vec<u64> = run.iter().map(|job| job.offset).collect();
        for (offset, status) in offsets.iter().zip(client.promote(queue, &offsets).await?) {
            let view = PromoteView { job: format!("{queue}:{offset}"), status };
            let text = match status {
                PromoteOutcome::Promoted => "is ready",
                PromoteOutcome::NotDelayed => "was not delayed",
                PromoteOutcome::NoSuchJob => "does not exist",
            };
            is_refused |= status != PromoteOutcome::Promoted;
            out.print(&view, |view| format!("{}  {text}", view.job).into_bytes())?;
        }
    }
    Ok(Exit::failed_if(is_refused))
}

/// How a job ended, as JSON.
#[derive(Debug, Default, Serialize)]
struct EndView {
    job: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip)]
    raw: Option<Vec<u8>>,
}

impl EndView {
    fn new(job: String, end: Option<JobEnd>) -> Self {
        let is = |outcome| Self { outcome, ..Self::default() };
        let view = match end {
            None => is("not_ended"),
            Some(JobEnd::Done { result: None }) => is("done"),
            Some(JobEnd::Done { result: Some(raw) }) => {
                let (result, result_base64) = Text::new(&raw).split();
                Self { result, result_base64, raw: Some(raw), ..is("done") }
            }
            Some(JobEnd::Dead { cause, reason }) => {
                let cause = Some(match cause {
                    DeathCause::Failures => "failures",
                    DeathCause::Crashes => "crashes",
                    DeathCause::Damaged => "damaged",
                });
                Self { cause, reason: Some(reason), ..is("dead") }
            }
            Some(JobEnd::Cancelled) => is("cancelled"),
            Some(JobEnd::Expired) => is("expired"),
            Some(JobEnd::Gone) => is("gone"),
        };
        Self { job, ..view }
    }

    /// The result alone, if there is one.
    fn text(&self) -> Vec<u8> {
        let Self { job, outcome, cause, reason, raw, .. } = self;
        if let Some(raw) = raw {
            return raw.clone();
        }
        let cause = cause.map(|cause| format!(" by {cause}")).unwrap_or_default();
        let reason = reason.as_ref().filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let more = match *outcome {
            "not_ended" => "; it has not within the time",
            "gone" => "; it has ended, and its result, if it had one, is not kept any more",
            _ => "",
        };
        format!("{job}  {outcome}{cause}{reason}{more}").into_bytes()
    }
}

/// Waits for the end of a job, and prints it.
pub(crate) async fn wait_for_end(
    client: &Client,
    queue: &str,
    offset: u64,
    wait: Duration,
    out: &Output,
) -> Outcome {
    let end = client.wait(queue, offset, wait).await?;
    let is_done = matches!(end, Some(JobEnd::Done { .. } | JobEnd::Gone));
    let view = EndView::new(format!("{queue}:{offset}"), end);
    out.print(&view, EndView::text)?;
    Ok(Exit::failed_if(!is_done))
}
