//! `qctl ping` and `qctl queue`.

use std::io::{self, IsTerminal, Write};

use joblog::client::{Client, ConnectionState, QueueDescription, QueueSettings, QueueSummary};
use serde::Serialize;

use crate::args::QueueCommand;
use crate::error::{CliError, Exit};
use crate::output::{Output, Table};
use crate::server::Server;
use crate::values::format_millis;
use crate::{cancel, group};

/// Queues asked for at once.
const PAGE: u32 = 1000;

#[derive(Serialize)]
struct PingView {
    server: String,
    protocol: u16,
    round_trip_us: u64,
}

/// `qctl ping`.
pub(crate) async fn ping(server: &Server, out: &Output) -> Result<Exit, CliError> {
    let client = server.connect().await?;
    let round_trip = client.ping().await?;
    let (server, protocol) = match &*client.state().borrow() {
        ConnectionState::Connected(info) => (info.agent.clone(), info.version),
        _ => (String::new(), 0),
    };
    let view = PingView { server, protocol, round_trip_us: round_trip.as_micros() as u64 };
    out.print(&view, |view| {
        let PingView { server, protocol, round_trip_us } = view;
        format!("{server} answered in {round_trip_us} us (protocol {protocol})").into_bytes()
    })?;
    Ok(Exit::Done)
}

/// `qctl queue`.
pub(crate) async fn run(
    server: &Server,
    command: QueueCommand,
    out: &Output,
) -> Result<Exit, CliError> {
    match command {
        QueueCommand::Create(args) => {
            let client = server.connect().await?;
            client.create_queue(&args.queue, args.settings.settings()).await?;
            tell!("Queue {} is created.", args.queue);
        }
        QueueCommand::Set(args) => {
            let settings = args.settings.settings();
            if settings == QueueSettings::default() && args.reset.is_empty() {
                let text = "no setting is named; `qctl queue set --help` lists them";
                return Err(CliError::Usage(text.to_owned()));
            }
            let client = server.connect().await?;
            client.update_queue(&args.queue, settings, &args.reset).await?;
            tell!("Queue {} is changed.", args.queue);
        }
        QueueCommand::List => {
            let queues = list(server.connect().await?).await?;
            out.print_table(&queues, queue_table)?;
        }
        QueueCommand::Show { queue } => {
            let description = server.connect().await?.describe_queue(&queue).await?;
            out.print(&description, |description| show(description).into_bytes())?;
        }
        QueueCommand::Pause { queue, group } => {
            server.connect().await?.pause(&queue, group.as_deref()).await?;
            tell!("{} is paused.", paused_name(&queue, group.as_deref()));
        }
        QueueCommand::Resume { queue, group } => {
            server.connect().await?.resume(&queue, group.as_deref()).await?;
            tell!("{} goes on.", paused_name(&queue, group.as_deref()));
        }
        QueueCommand::Purge { queue, yes } => return cancel::purge(server, &queue, yes, out).await,
        QueueCommand::Delete { queue, yes } => {
            let what = format!("queue {queue} with its groups and all of its jobs");
            if !yes && !confirm(&what)? {
                return Ok(Exit::Failed);
            }
            server.connect().await?.delete_queue(&queue).await?;
            tell!("Queue {queue} is deleted.");
        }
    }
    Ok(Exit::Done)
}

fn paused_name(queue: &str, group: Option<&str>) -> String {
    match group {
        Some(group) => format!("Group {group} of queue {queue}"),
        None => format!("Queue {queue}"),
    }
}

async fn list(client: &Client) -> Result<Vec<QueueSummary>, CliError> {
    let mut queues: Vec<QueueSummary> = Vec::new();
    loop {
        let after = queues.last().map_or("", |last| last.queue.as_str());
        let page = client.list_queues(after, PAGE).await?;
        let is_last = !page.more || page.queues.is_empty();
        queues.extend(page.queues);
        if is_last {
            return Ok(queues);
        }
    }
}

fn queue_table(queues: &[QueueSummary]) -> Table {
    let mut table = Table::new(&["QUEUE", "FIRST", "NEXT", "GROUPS"]);
    for queue in queues {
        table.row(vec![
            queue.queue.clone(),
            queue.first_offset.to_string(),
            queue.next_offset.to_string(),
            queue.groups.join(", "),
        ]);
    }
    table
}

fn show(queue: &QueueDescription) -> String {
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
        text.push_str("paused      nothing is fetched until it is resumed\n");
    }
    text.push_str(&retention(queue));
    text.push('\n');
    if queue.groups.is_empty() {
        text.push_str("No group yet: `default` is born with its first FETCH.");
        return text;
    }
    text.push_str(&group::table(&queue.groups).text());
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
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Asks whether something is to be deleted.
pub(crate) fn confirm(what: &str) -> Result<bool, CliError> {
    confirm_to("delete", what)
}

/// Asks whether something is to be done. Nobody is asked where nobody can answer.
pub(crate) fn confirm_to(verb: &str, what: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        let text = format!("--yes is needed to {verb} {what}, as nobody can be asked here");
        return Err(CliError::Usage(text));
    }
    eprint!("Really {verb} {what}? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if !yes {
        tell!("Nothing was done.");
    }
    Ok(yes)
}
