//! `qctl fetch` and `qctl peek`: printing jobs.

use joblog::client::{FetchRequest, Lease};

use crate::args::{FetchArgs, PeekArgs};
use crate::error::{Exit, Outcome};
use crate::output::{JobView, Output};
use crate::server::Server;
use crate::values::{format_millis, unix_now_ms};

/// Bytes read at once.
pub(crate) const READ_BYTES: u32 = 1024 * 1024;
/// Jobs read at once.
pub(crate) const READ_JOBS: u64 = 1000;

/// `qctl fetch`.
pub(crate) async fn fetch(server: &Server, args: FetchArgs, out: &Output) -> Outcome {
    let client = server.connect().await?;
    let request = FetchRequest {
        group: args.group.as_str().into(),
        jobs_max: args.jobs,
        wait: args.wait,
        lease: Lease::Timed(args.lease),
        by_turns: args.by_turns,
        ..FetchRequest::new(args.queues)
    };
    let fetched = client.fetch(&request).await?;
    let ends_at_ms = unix_now_ms().saturating_add(fetched.lease.as_millis() as u64);
    let is_empty = fetched.jobs.is_empty();
    for leased in fetched.jobs {
        let view = JobView::leased(leased, fetched.lease, ends_at_ms);
        out.print(&view, JobView::text)?;
    }
    for damaged in &fetched.damaged {
        tell!("qctl: {damaged}; it is handed back");
    }
    if is_empty && fetched.damaged.is_empty() {
        let wait = format_millis(args.wait.as_millis() as u64);
        tell!("qctl: no job was ready within {wait}");
    }
    Ok(Exit::failed_if(is_empty || !fetched.damaged.is_empty()))
}

/// `qctl peek`.
pub(crate) async fn peek(server: &Server, args: PeekArgs, out: &Output) -> Outcome {
    let client = server.connect().await?;
    let (mut from, mut left) = (args.from, args.limit);
    let mut is_damaged = false;
    while left > 0 {
        let jobs_max = left.min(READ_JOBS) as u32;
        let read = client.read(&args.queue, from, jobs_max, READ_BYTES).await?;
        left = left.saturating_sub((read.jobs.len() + read.damaged.len()) as u64);
        for job in read.jobs {
            let view = JobView::new(&args.queue, job.offset, job.enqueued_at_ms, job.job);
            out.print(&view, JobView::text)?;
        }
        for damaged in &read.damaged {
            tell!("qctl: {damaged}");
            is_damaged = true;
        }
        out.flush()?;
        if read.next >= read.end || read.next <= from {
            break;
        }
        from = read.next;
    }
    Ok(Exit::failed_if(is_damaged))
}
