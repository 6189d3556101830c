//! `qctl schedule`: jobs that the server enqueues by itself.

use std::os::unix::ffi::OsStringExt;

use joblog::client::{
    Client, Job, Missed, ScheduleAdd, ScheduleDescription, ScheduleQuery, schedule_body,
    schedule_job,
};
use serde::Serialize;

use crate::args::{MissedArg, ScheduleAddArgs, ScheduleCommand};
use crate::confirm;
use crate::enqueue::{model, read_whole};
use crate::error::{CliError, Exit, Outcome};
use crate::output::{Output, Text, content};
use crate::server::Server;
use crate::values::{format_millis, format_time};

/// Schedules asked for at once.
const PAGE: u32 = 1000;
const HEAD: [&str; 8] =
    ["NAME", "QUEUE", "DUE", "NEXT", "FIRED", "SKIPPED", "FAILED", "LAST ERROR"];
/// Columns of a table that an error takes at most.
const ERROR_COLUMNS: usize = 60;

/// A schedule as JSON.
#[derive(Serialize)]
struct ScheduleView {
    #[serde(flatten)]
    schedule: ScheduleDescription,
    /// The next due times, for people.
    next: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip)]
    job: Option<Job>,
}

#[derive(Serialize)]
struct DoneView<'a> {
    schedule: &'a str,
    done: &'a str,
}

#[derive(Serialize)]
struct JobPlace {
    job: String,
}

/// `qctl schedule`.
pub(crate) async fn run(server: &Server, command: ScheduleCommand, out: &Output) -> Outcome {
    match command {
        ScheduleCommand::Add(args) => add(server, *args, out).await?,
        ScheduleCommand::List => {
            list(server.connect().await?, out).await?;
        }
        ScheduleCommand::Show { schedule, times } => {
            let client = server.connect().await?;
            let view = ScheduleView::new(client.schedule(&schedule, times).await?)?;
            out.print(&view, ScheduleView::text)?;
        }
        ScheduleCommand::Pause { schedule } => {
            server.connect().await?.pause_schedule(&schedule).await?;
            done(out, &schedule, "paused", "is paused.")?;
        }
        ScheduleCommand::Resume { schedule } => {
            server.connect().await?.resume_schedule(&schedule).await?;
            done(out, &schedule, "resumed", "goes on.")?;
        }
        ScheduleCommand::Remove { schedule, yes } => {
            if !yes && !confirm::confirm("remove", &format!("schedule {schedule}"))? {
                return Ok(Exit::Failed);
            }
            server.connect().await?.remove_schedule(&schedule).await?;
            done(out, &schedule, "removed", "is removed.")?;
        }
        ScheduleCommand::Run { schedule } => {
            let run = server.connect().await?.run_schedule(&schedule).await?;
            let place = JobPlace { job: format!("{}:{}", run.queue, run.offset) };
            out.print(&place, |place| place.job.clone().into_bytes())?;
        }
    }
    Ok(Exit::Done)
}

async fn add(server: &Server, args: ScheduleAddArgs, out: &Output) -> Result<(), CliError> {
    let payload = match (args.payload, &args.file) {
        (Some(payload), _) => payload.into_vec(),
        (None, Some(path)) => read_whole(path)?,
        (None, None) => Vec::new(),
    };
    let job = Job { payload, ..model(args.job)? };
    let add = ScheduleAdd {
        schedule: args.schedule,
        queue: args.queue,
        cron: args.cron,
        zone: args.zone,
        every_ms: args.every.map(|every| every.as_millis() as u64),
        missed: match args.missed {
            MissedArg::Once => Missed::Once,
            MissedArg::Skip => Missed::Skip,
        },
        paused: args.paused,
        replace: args.replace,
        body_base64: schedule_body(&job).map_err(|error| CliError::Usage(error.to_string()))?,
    };
    let client = server.connect().await?;
    client.add_schedule(&add).await?;
    let next = client.schedule(&add.schedule, 1).await?.next_ms;
    let next = next.first().map_or_else(String::new, |ms| {
        let at = format_time(*ms);
        format!(" It is due at {at}.")
    });
    done(out, &add.schedule, "added", &format!("is added.{next}"))
}

/// Says what was done to a schedule.
fn done(out: &Output, schedule: &str, done: &str, text: &str) -> Result<(), CliError> {
    out.done(&DoneView { schedule, done }, &format!("Schedule {schedule} {text}"))?;
    Ok(())
}

async fn list(client: &Client, out: &Output) -> Result<(), CliError> {
    let mut pages = out.pages(&HEAD);
    let mut after = String::new();
    loop {
        let query = ScheduleQuery { schedule: None, after, limit: PAGE, times: 1 };
        let page = client.list_schedules(&query).await?;
        let last = page.schedules.last().map(|last| last.schedule.clone());
        let views = page.schedules.into_iter().map(ScheduleView::new);
        pages.print(&views.collect::<Result<Vec<_>, _>>()?, row)?;
        match last {
            Some(last) if page.more => after = last,
            _ => return Ok(()),
        }
    }
}

fn row(view: &ScheduleView) -> Vec<String> {
    let ScheduleView { schedule, next, .. } = view;
    let next = match (schedule.paused, next.first()) {
        (true, _) => "paused".to_owned(),
        (false, Some(next)) => next.clone(),
        (false, None) => "never".to_owned(),
    };
    let error = schedule.last_failure.as_ref().map(|failure| failure.error.as_str());
    vec![
        schedule.schedule.clone(),
        schedule.queue.clone(),
        due(schedule),
        next,
        schedule.fired.to_string(),
        schedule.skipped.to_string(),
        schedule.failed.to_string(),
        error.unwrap_or_default().chars().take(ERROR_COLUMNS).collect(),
    ]
}

/// When it is due, in words.
fn due(schedule: &ScheduleDescription) -> String {
    match (&schedule.cron, &schedule.zone, schedule.every_ms) {
        (Some(cron), Some(zone), _) => format!("{cron} in {zone}"),
        (_, _, Some(every_ms)) => format!("every {}", format_millis(every_ms)),
        _ => "?".to_owned(),
    }
}

impl ScheduleView {
    fn new(mut schedule: ScheduleDescription) -> Result<Self, CliError> {
        let body = schedule.body_base64.take();
        let job = body.map(|body| schedule_job(&body)).transpose();
        let job =
            job.map_err(|error| CliError::Failed(format!("its job can't be read: {error}")))?;
        let text = job.as_ref().map(|job| Text::new(&job.payload).split());
        let (payload, payload_base64) = text.unwrap_or_default();
        let next = schedule.next_ms.iter().copied().map(format_time).collect();
        Ok(Self { schedule, next, payload, payload_base64, job })
    }

    fn text(&self) -> Vec<u8> {
        let Self { schedule, next, job, .. } = self;
        let mut text = format!(
            "schedule  {}\nqueue     {}\ndue       {}\nmissed    {}\n",
            schedule.schedule,
            schedule.queue,
            due(schedule),
            match schedule.missed {
                Missed::Once => "the last of those that were missed fires",
                Missed::Skip => "what was missed is skipped",
            },
        );
        if schedule.paused {
            text.push_str("paused    nothing fires until it is resumed\n");
        }
        for (ordinal, at) in next.iter().enumerate() {
            let label = if ordinal == 0 { "next" } else { "" };
            text.push_str(&format!("{label:<9} {at}\n"));
        }
        text.push_str(&format!("fired     {}", schedule.fired));
        if let Some(last) = &schedule.last_firing {
            let (job, due) = (last.offset, format_time(last.due_ms));
            text.push_str(&format!("; last {}:{job}, due at {due}", schedule.queue));
        }
        text.push_str(&format!("\nskipped   {}\nfailed    {}", schedule.skipped, schedule.failed));
        if let Some(last) = &schedule.last_failure {
            let again = if last.retried { ", to be tried again" } else { "" };
            text.push_str(&format!("; last at {}{again}", format_time(last.failed_ms)));
            text.push_str(&format!("\nerror     {}", last.error));
        }
        let mut bytes = text.into_bytes();
        if let Some(job) = job {
            for (label, value) in content(job) {
                bytes.extend_from_slice(format!("\n{label:<9} ").as_bytes());
                bytes.extend_from_slice(&value);
            }
        }
        bytes
    }
}
