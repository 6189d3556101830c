//! `qctl group`, and how groups and their dead jobs are shown.

use std::fmt::Write as _;

use joblog::client::{GroupDescription, GroupKind, GroupStart};
use serde::Serialize;

use crate::args::{Begin, GroupCommand, Kind};
use crate::confirm;
use crate::error::{Exit, Outcome};
use crate::output::{Output, Table};
use crate::server::Server;
use crate::values::format_time;

/// Where a group goes on.
#[derive(Debug, Serialize)]
struct SoughtView<'a> {
    queue: &'a str,
    group: &'a str,
    committed_offset: u64,
}

/// `qctl group`.
pub(crate) async fn run(server: &Server, command: GroupCommand, out: &Output) -> Outcome {
    match command {
        GroupCommand::Create { queue, group, kind, from } => {
            let client = server.connect().await?;
            client.create_group(&queue, &group, kind_of(kind), start_of(from)).await?;
            out.did(&queue, Some(&group), "created", "is created")?;
        }
        GroupCommand::List { queue } => {
            let groups = server.connect().await?.list_groups(&queue).await?;
            out.print_table(&groups, table)?;
        }
        GroupCommand::Show { queue, group } => {
            let group = server.connect().await?.describe_group(&queue, &group).await?;
            out.print(&group, |group| {
                let row = table(std::slice::from_ref(group));
                let text = row.text(out.colors()) + &parked(group) + &dead_jobs(group);
                text.trim_end().as_bytes().to_vec()
            })?;
        }
        GroupCommand::Seek { queue, group, to } => {
            let sought = server.connect().await?.seek_group(&queue, &group, to).await?;
            let offset = sought.committed_offset;
            let view = SoughtView { queue: &queue, group: &group, committed_offset: offset };
            out.done(
                &view,
                &format!("Group {group} of queue {queue} goes on at offset {offset}."),
            )?;
        }
        GroupCommand::Delete { queue, group, yes } => {
            return delete(server, &queue, &group, yes, out).await;
        }
    }
    Ok(Exit::Done)
}

async fn delete(server: &Server, queue: &str, group: &str, yes: bool, out: &Output) -> Outcome {
    let name = format!("group {group} of queue {queue}, and what it has consumed");
    if !yes {
        confirm::needs_terminal("delete", &name)?;
        let found = server.connect().await?.describe_group(queue, group).await?;
        let (ready, leased) = (confirm::counted(found.ready, "ready job"), found.leased);
        let what = format!("{name}, with {ready} and {leased} leased");
        if !confirm::ask("delete", &what)? {
            return Ok(Exit::Failed);
        }
    }
    server.connect().await?.delete_group(queue, group).await?;
    out.did(queue, Some(group), "deleted", "is deleted")?;
    Ok(Exit::Done)
}

fn kind_of(kind: Kind) -> GroupKind {
    match kind {
        Kind::Work => GroupKind::Work,
        Kind::Stream => GroupKind::Stream,
    }
}

fn start_of(from: Begin) -> GroupStart {
    match from {
        Begin::First => GroupStart::Start,
        Begin::End => GroupStart::End,
        Begin::Offset(offset) => GroupStart::Offset(offset),
    }
}

/// One row for each group.
pub(crate) fn table(groups: &[GroupDescription]) -> Table {
    let head = ["GROUP", "KIND", "COMMITTED", "ABOVE", "READY", "LEASED", "DELAYED", "DEAD"];
    let mut table = Table::new(&head);
    for group in groups {
        let kind = match (group.kind, group.paused) {
            (GroupKind::Work, false) => "work",
            (GroupKind::Work, true) => "work, paused",
            (GroupKind::Stream, _) => "stream",
        };
        table.row(vec![
            group.group.clone(),
            kind.to_owned(),
            group.committed_offset.to_string(),
            group.consumed_above.to_string(),
            group.ready.to_string(),
            group.leased.to_string(),
            group.delayed.to_string(),
            group.dead.to_string(),
        ]);
    }
    table
}

/// How many jobs wait for others of their keys; nothing if none does.
pub(crate) fn parked(group: &GroupDescription) -> String {
    if group.parked == 0 {
        return String::new();
    }
    let full = match group.parked_full {
        true => "; as many as may, so the group waits at the next one",
        false => "",
    };
    format!("\nGroup {}: {} parked, behind others of their keys{full}\n", group.group, group.parked)
}

/// The dead jobs of a group with why they are dead; nothing if there are none.
pub(crate) fn dead_jobs(group: &GroupDescription) -> String {
    let mut text = String::new();
    if group.dead_jobs.is_empty() {
        return text;
    }
    let shown = group.dead_jobs.len();
    let which = match group.dead {
        dead if dead > shown as u64 => format!("{dead} dead jobs, of which the first {shown}"),
        dead => format!("{dead} dead"),
    };
    text.push_str(&format!("\nGroup {}: {which}\n", group.group));
    for job in &group.dead_jobs {
        let written = writeln!(
            text,
            "  {}:{}  by {} ({} attempts, {} failures, {} crashes), {}",
            group.queue,
            job.offset,
            job.cause,
            job.attempts,
            job.failures,
            job.crashes,
            format_time(job.died_at_ms),
        );
        written.expect("a String takes what is written");
        for line in job.reason.lines() {
            text.push_str("    ");
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
