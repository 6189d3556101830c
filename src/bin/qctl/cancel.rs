//! `qctl cancel` and `qctl queue purge`.

use joblog::client::CancelOutcome;
use serde::Serialize;

use crate::error::{Exit, Outcome};
use crate::job_name::JobName;
use crate::output::Output;
use crate::server::Server;
use crate::{confirm, progress};

#[derive(Debug, Serialize)]
struct CancelView {
    job: String,
    status: CancelOutcome,
}

#[derive(Debug, Serialize)]
struct PurgeView {
    queue: String,
    purged: u64,
    leased: u64,
}

/// `qctl cancel`.
pub(crate) async fn cancel(server: &Server, jobs: &[JobName], out: &Output) -> Outcome {
    let client = server.connect().await?;
    let mut is_refused = false;
    for run in jobs.chunk_by(|one, next| one.queue == next.queue) {
        let queue = run.first().map_or("", |job| &job.queue);
        let offsets: Vec<u64> = run.iter().map(|job| job.offset).collect();
        let outcomes = client.cancel(queue, &offsets).await?;
        for (offset, status) in offsets.iter().zip(outcomes) {
            let view = CancelView { job: format!("{queue}:{offset}"), status };
            let text = match status {
                CancelOutcome::Cancelled => "cancelled",
                CancelOutcome::Requested => "is running; its worker is asked to stop",
                CancelOutcome::Consumed => "was consumed or cancelled before",
                CancelOutcome::NoSuchJob => "does not exist",
            };
            let done = [CancelOutcome::Cancelled, CancelOutcome::Requested];
            is_refused |= !done.contains(&status);
            out.print(&view, |view| format!("{}  {text}", view.job).into_bytes())?;
        }
    }
    Ok(Exit::failed_if(is_refused))
}

/// `qctl queue purge`.
pub(crate) async fn purge(server: &Server, queue: &str, yes: bool, out: &Output) -> Outcome {
    let client = match yes {
        true => server.connect().await?,
        false => {
            let what = format!("all jobs of queue {queue}, for all groups");
            confirm::needs_terminal("purge", &what)?;
            let client = server.connect().await?;
            let found = client.describe_queue(queue).await?;
            let count = confirm::counted(found.unconsumed, "job");
            if !confirm::ask("purge", &format!("{what}: {count} that are not consumed"))? {
                return Ok(Exit::Failed);
            }
            client
        }
    };
    let mut view = PurgeView { queue: queue.to_owned(), purged: 0, leased: 0 };
    let progress = progress::of_count("jobs purged", None);
    let (mut from, mut end) = (0, None);
    loop {
        let step = client.purge(queue, from, end).await?;
        view.purged += step.count;
        view.leased += step.leased;
        progress.set_position(view.purged);
        if step.next >= step.end {
            break;
        }
        (from, end) = (step.next, Some(step.end));
    }
    progress.finish_and_clear();
    out.print(&view, |PurgeView { purged, leased, .. }| {
        let left = if *leased > 0 { format!("; {leased} running are left") } else { String::new() };
        format!("{} purged{left}", confirm::counted(*purged, "job")).into_bytes()
    })?;
    Ok(Exit::Done)
}
