//! `qctl log`: looks into the files of a server that is stopped, and repairs them.

use std::fs;
use std::path::{Path, PathBuf};

use joblog::log::{self, Item, LogError, Verified};
use serde_json::{Value, json};

use crate::args::LogCommand;
use crate::error::{CliError, Exit, Outcome};
use crate::output::Output;
use crate::{confirm, progress};

/// `qctl log`.
pub(crate) fn run(command: LogCommand, out: &Output) -> Outcome {
    let (LogCommand::Verify { dir } | LogCommand::Dump { dir } | LogCommand::Repair { dir, .. }) =
        &command;
    let mut failed = false;
    for dir in logs_in(dir)? {
        failed |= match &command {
            LogCommand::Verify { .. } => verify(&dir, out)?,
            LogCommand::Dump { .. } => dump(&dir, out)?,
            LogCommand::Repair { yes, .. } => repair(&dir, *yes, out)?,
        };
    }
    Ok(Exit::failed_if(failed))
}

/// The logs that a data directory has by its own account, or that there are; or the directory
/// itself if it is that of a log.
fn logs_in(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let count = fs::read_to_string(dir.join("LOGS")).ok();
    if let Some(count) = count.and_then(|text| text.trim().parse::<u16>().ok()) {
        return Ok((0..count).map(|log| dir.join(format!("log-{log}"))).collect());
    }
    let failed = |error| CliError::Failed(format!("{} can't be read: {error}", dir.display()));
    let items = fs::read_dir(dir).map_err(failed)?;
    let mut logs: Vec<_> = items.flatten().map(|item| item.path()).collect();
    let is_log = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        path.is_dir() && name.is_some_and(|name| name.starts_with("log-"))
    };
    logs.retain(is_log);
    logs.sort();
    Ok(if logs.is_empty() { vec![dir.to_owned()] } else { logs })
}

fn failed(error: LogError) -> CliError {
    let is_locked = matches!(error, LogError::Locked { .. });
    let why = if is_locked { ": only a stopped server's log can be read" } else { "" };
    CliError::Failed(format!("{error}{why}"))
}

/// Whether something is wrong.
fn verify(dir: &Path, out: &Output) -> Result<bool, CliError> {
    let progress = progress::of_time(format!("checking {}", dir.display()));
    let found = log::verify(dir).map_err(failed);
    progress.finish_and_clear();
    let found = found?;
    out.print(&verified(dir, &found), |_| text_of(dir, &found).into_bytes())?;
    Ok(!found.is_whole())
}

fn verified(dir: &Path, found: &Verified) -> Value {
    let damage = found.damage.iter().map(|damage| {
        json!({"file": damage.file, "position": damage.position, "end": damage.end,
            "reason": damage.reason})
    });
    let jobs = found.damaged_jobs.iter().map(|job| {
        json!({"queue_id": job.queue.0, "offset": job.offset.0, "file": job.file,
            "position": job.position})
    });
    json!({
        "log": dir, "whole": found.is_whole(), "files": found.files, "entries": found.entries,
        "jobs": found.jobs, "bytes": found.bytes, "last_index": found.last_index.0,
        "torn": found.torn.as_ref().map(|torn| json!({"file": torn.file,
            "position": torn.position, "bytes": torn.bytes, "reason": torn.reason})),
        "damage": damage.collect::<Vec<_>>(), "damaged_jobs": jobs.collect::<Vec<_>>(),
        "refusal": found.refusal.as_ref().map(ToString::to_string),
    })
}

fn text_of(dir: &Path, found: &Verified) -> String {
    let Verified { files, entries, jobs, bytes, last_index, .. } = found;
    let mut lines = vec![format!(
        "{}: {entries} entries with {jobs} jobs in {files} files, {bytes} bytes, up to entry \
         {last_index}",
        dir.display()
    )];
    if let Some(torn) = &found.torn {
        lines.push(format!(
            "A start will cut {} bytes that were never synced, in {} at byte {}: {}",
            torn.bytes,
            torn.file.display(),
            torn.position,
            torn.reason
        ));
    }
    for damage in &found.damage {
        let file = damage.file.display();
        let (position, end, reason) = (damage.position, damage.end, damage.reason);
        lines.push(format!("{file} is damaged from byte {position} to {end}: {reason}"));
    }
    for job in &found.damaged_jobs {
        let (file, position) = (job.file.display(), job.position);
        lines.push(format!(
            "The body of the job at offset {} of queue {} is damaged, in {file} at byte {position}",
            job.offset, job.queue
        ));
    }
    lines.push(match &found.refusal {
        Some(refusal) => format!("A start will refuse it: {refusal}"),
        None if found.is_whole() => "All is whole.".to_owned(),
        None => "A start will serve the rest.".to_owned(),
    });
    lines.join("\n")
}

/// Whether something is wrong.
fn dump(dir: &Path, out: &Output) -> Result<bool, CliError> {
    let mut wrong = false;
    log::dump(dir, &mut |file, item| {
        wrong |= matches!(item, Item::NoFrame { .. });
        wrong |= matches!(item, Item::Entry { bodies_are_whole: false, .. });
        out.print(&dumped(file, &item), |_| line_of(file, &item).into_bytes())
    })
    .map_err(failed)?;
    Ok(wrong)
}

fn dumped(file: &Path, item: &Item<'_>) -> Value {
    match item {
        Item::File { compacted, term, first_index, durable } => json!({
            "file": file, "compacted": compacted, "term": term.0, "first_index": first_index.0,
            "durable": durable.0,
        }),
        Item::Entry { position, durable, view, bodies_are_whole } => json!({
            "position": position, "index": view.index.0, "term": view.term.0,
            "durable": durable.0, "queue_id": view.queue.0, "base_offset": view.base_offset.0,
            "jobs": view.count, "facts_bytes": view.facts.len(),
            "bodies_bytes": view.bodies.len(), "wall_ms": view.stamp.wall_ms,
            "log_ms": view.stamp.log_ms, "whole": bodies_are_whole,
        }),
        Item::Mark { position, durable } => json!({"position": position, "mark": durable.0}),
        Item::NoFrame { position, end, reason } => {
            json!({"position": position, "end": end, "damage": reason})
        }
    }
}

fn line_of(file: &Path, item: &Item<'_>) -> String {
    match item {
        Item::File { compacted, term, first_index, durable } => {
            let compacted = if *compacted { ", compacted" } else { "" };
            let file = file.display();
            format!("{file}: term {term}, from entry {first_index}, durable {durable}{compacted}")
        }
        Item::Entry { position, durable, view, bodies_are_whole } => {
            let jobs = match view.count {
                0 => String::new(),
                count => {
                    let last = view.base_offset.plus(u64::from(count) - 1);
                    let (queue, base) = (view.queue, view.base_offset);
                    format!(", queue {queue} offsets {base} to {last}")
                }
            };
            let (index, term, facts) = (view.index, view.term, view.facts.len());
            let bodies = view.bodies.len();
            let damaged = if *bodies_are_whole { "" } else { ", BODIES DAMAGED" };
            format!(
                "{position:>10}  entry {index}, term {term}, durable {durable}{jobs}, \
                 {facts} bytes of facts, {bodies} of bodies{damaged}"
            )
        }
        Item::Mark { position, durable } => format!("{position:>10}  mark, durable {durable}"),
        Item::NoFrame { position, end, reason } => {
            format!("{position:>10}  DAMAGED up to {end}: {reason}")
        }
    }
}

/// Whether the log is still not to be opened.
fn repair(dir: &Path, yes: bool, out: &Output) -> Result<bool, CliError> {
    let Some(plan) = log::repair_plan(dir).map_err(failed)? else {
        let nothing = json!({"log": dir, "repaired": false});
        out.print(&nothing, |_| format!("{}: nothing to repair.", dir.display()).into_bytes())?;
        return Ok(false);
    };
    tell!("{plan}");
    if !plan.state_is_left {
        return Err(CliError::Failed("Restore the directory from a backup.".to_owned()));
    }
    if !yes && !confirm::confirm("cut", &dir.display().to_string())? {
        return Ok(true);
    }
    let aside = log::repair(dir, &plan).map_err(failed)?;
    let done = json!({"log": dir, "repaired": true, "aside": aside});
    out.print(&done, |_| format!("Repaired. What was cut is in {}", aside.display()).into_bytes())?;
    Ok(false)
}
