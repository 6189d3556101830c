//! `qctl ping` and `qctl queue`.

use joblog::client::{
    Client, QueueDescription, QueueSettings, QueueSummary, ResultCounts, UniqueKeys,
};
use serde::Serialize;

use crate::args::QueueCommand;
use crate::color::{Colors, PAUSED};
use crate::error::{CliError, Exit, Outcome};
use crate::output::Output;
use crate::server::Server;
use crate::values::format_millis;
use crate::{cancel, confirm, group};

/// Queues asked for at once.
const PAGE: u32 = 1000;

#[derive(Serialize)]
struct PingView {
    server: String,
    protocol: u16,
    round_trip_us: u64,
}

/// `qctl ping`.
pub(crate) async fn ping(server: &Server, out: &Output) -> Outcome {
    let client = server.connect().await?;
    let round_trip = client.ping().await?;
    let greeted = client.state().borrow().server().map(|info| (info.agent.clone(), info.version));
    let (server, protocol) = greeted.unwrap_or_default();
    let view = PingView { server, protocol, round_trip_us: round_trip.as_micros() as u64 };
    out.print(&view, |view| {
        let PingView { server, protocol, round_trip_us } = view;
        format!("{server} answered in {round_trip_us} us (protocol {protocol})").into_bytes()
    })?;
    Ok(Exit::Done)
}

/// `qctl queue`.
pub(crate) async fn run(server: &Server, command: QueueCommand, out: &Output) -> Outcome {
    match command {
        QueueCommand::Create(args) => {
            let client = server.connect().await?;
            client.create_queue(&args.queue, args.settings.settings()).await?;
            out.did(&args.queue, None, "created", "is created")?;
        }
        QueueCommand::Set(args) => {
            let settings = args.settings.settings();
            if settings == QueueSettings::default() && args.reset.is_empty() {
                let text = "no setting is named; `qctl queue set --help` lists them";
                return Err(CliError::Usage(text.to_owned()));
            }
            let client = server.connect().await?;
            client.update_queue(&args.queue, settings, &args.reset).await?;
            out.did(&args.queue, None, "changed", "is changed")?;
        }
        QueueCommand::List => {
            list(server.connect().await?, out).await?;
        }
        QueueCommand::Show { queue } => {
            let description = server.connect().await?.describe_queue(&queue).await?;
            out.print(&description, |description| show(description, out.colors()).into_bytes())?;
        }
        QueueCommand::Pause { queue, group } => {
            let group = group.as_deref();
            server.connect().await?.pause(&queue, group).await?;
            out.did(&queue, group, "paused", "is paused")?;
        }
        QueueCommand::Resume { queue, group } => {
            let group = group.as_deref();
            server.connect().await?.resume(&queue, group).await?;
            out.did(&queue, group, "resumed", "goes on")?;
        }
        QueueCommand::Purge { queue, yes } => return cancel::purge(server, &queue, yes, out).await,
        QueueCommand::Delete { queue, yes } => return delete(server, &queue, yes, out).await,
    }
    Ok(Exit::Done)
}

async fn delete(server: &Server, queue: &str, yes: bool, out: &Output) -> Outcome {
    let name = format!("queue {queue} with its groups and all of its jobs");
    if !yes {
        confirm::needs_terminal("delete", &name)?;
        let found = server.connect().await?.describe_queue(queue).await?;
        let groups = confirm::counted(found.groups.len() as u64, "group");
        let jobs = confirm::counted(found.unconsumed, "job");
        let what = format!("queue {queue} with {groups}, and {jobs} that are not consumed");
        if !confirm::ask("delete", &what)? {
            return Ok(Exit::Failed);
        }
    }
    server.connect().await?.delete_queue(queue).await?;
    out.did(queue, None, "deleted", "is deleted")?;
    Ok(Exit::Done)
}

async fn list(client: &Client, out: &Output) -> Result<(), CliError> {
    let mut pages = out.pages(&["QUEUE", "FIRST", "NEXT", "GROUPS"]);
    let mut after = String::new();
    loop {
        let page = client.list_queues(&after, PAGE).await?;
        pages.print(&page.queues, queue_row)?;
        match page.queues.last() {
            Some(last) if page.more => after.clone_from(&last.queue),
            _ => return Ok(()),
        }
    }
}

fn queue_row(queue: &QueueSummary) -> Vec<String> {
    vec![
        queue.queue.clone(),
        queue.first_offset.to_string(),
        queue.next_offset.to_string(),
        queue.groups.join(", "),
    ]
}

fn show(queue: &QueueDescription, colors: Colors) -> String {
    let settings = &queue.settings;
    let count = |value: Option<u32>| value.map_or_else(|| "?".to_owned(), |n| n.to_string());
    let time = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), format_millis);
    let jobs = match queue.next_offset.saturating_sub(queue.first_offset) {
        0 => format!("none; the next one gets offset {}", queue.next_offset),
        kept => format!("{kept}, from offset {}", queue.first_offset),
    };
    let retried = match settings.backoff_delays_ms.as_deref() {
        None | Some([]) => {
            let (first, longest) = (settings.backoff_first_ms, settings.backoff_longest_ms);
            format!("{}, doubling to {}", time(first), time(longest))
        }
        Some(delays) => delays.iter().copied().map(format_millis).collect::<Vec<_>>().join(", "),
    };
    let mut text = format!(
        "queue       {}\njobs        {jobs}\ndurability  {}\n\
         failures    dead after more than {}; retried after {retried}\n\
         crashes     dead after more than {}; from the second on redelivered after {}, doubling to \
         {}\n\
         dead jobs   {}\n",
        queue.queue,
        queue.durability,
        count(settings.failures_max),
        count(settings.crashes_max),
        time(settings.crash_backoff_first_ms),
        time(settings.crash_backoff_longest_ms),
        match settings.dead_kept_ms {
            Some(0) => "kept for ever".to_owned(),
            kept => format!("kept for {}", time(kept)),
        },
    );
    if queue.paused {
        let paused = "paused      nothing is fetched until it is resumed";
        text.push_str(&colors.paint(PAUSED, paused));
        text.push('\n');
    }
    text.push_str(&retention(queue));
    text.push_str(&keys(&queue.settings));
    text.push('\n');
    if queue.groups.is_empty() {
        text.push_str("No group yet: `default` is born with its first FETCH.");
        return text;
    }
    text.push_str(&group::table(&queue.groups).text(colors));
    queue.groups.iter().for_each(|group| text.push_str(&group::parked(group)));
    queue.groups.iter().for_each(|group| text.push_str(&group::dead_jobs(group)));
    text.truncate(text.trim_end().len());
    text
}

/// What the queue keeps and how much it takes, where that was set, and what it has lost by it.
fn retention(queue: &QueueDescription) -> String {
    let settings = &queue.settings;
    let mut lines = Vec::new();
    match settings.keep_consumed_for_ms {
        Some(keep_ms) if keep_ms > 0 => {
            lines.push(format!("kept        consumed jobs for {}", format_millis(keep_ms)));
        }
        _ => {}
    }
    if settings.max_age_ms.is_some() || queue.expired > 0 {
        let age = settings.max_age_ms.map_or_else(|| "any age".to_owned(), format_millis);
        lines.push(format!("max age     {age}; {} expired", queue.expired));
    }
    if let Some(max_jobs) = settings.max_jobs {
        lines.push(format!("max jobs    {max_jobs}; {} not consumed", queue.unconsumed));
    }
    if let Some(max_bytes) = settings.max_bytes {
        let bytes = queue.unconsumed_bytes.unwrap_or(0);
        lines.push(format!("max bytes   {max_bytes}; {bytes} not consumed"));
    }
    if let Some(max_in_flight) = settings.max_in_flight {
        lines.push(format!("in flight   at most {max_in_flight} of each group"));
    }
    if let Some(rate) = settings.rate_per_second {
        let burst = settings.rate_burst.unwrap_or(rate);
        lines.push(format!("rate        {rate} per second to each group, at most {burst} at once"));
    }
    let ResultCounts { kept, bytes, displaced } = queue.results;
    if queue.results != ResultCounts::default() {
        lines.push(format!("results     {kept} kept, {bytes} bytes; {displaced} went for others"));
    }
    if let Some(UniqueKeys { held, duplicates, replaced }) = queue.unique {
        let met = format!("{duplicates} duplicates not enqueued, {replaced} replaced");
        lines.push(format!("unique      {held} keys held; {met}"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What the queue promises about the jobs of one key, where that was set.
fn keys(settings: &QueueSettings) -> String {
    let dead = match settings.dead_keeps_key {
        Some(true) => "holds back the others of its key",
        _ => "frees its key",
    };
    let rule = match settings.key_concurrency_max {
        _ if settings.ordered_by_key == Some(true) => "one job of a key after the other".to_owned(),
        Some(places) => format!("at most {places} jobs of a key at a time"),
        None => return String::new(),
    };
    let parked_max = settings.parked_max.unwrap_or_default();
    format!("keys        {rule}; a dead job {dead}; at most {parked_max} parked in each group\n")
}
