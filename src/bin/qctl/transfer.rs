//! `qctl export` and `qctl import`: jobs as JSON, one on each line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use joblog::client::{Job, NotBefore, ReadJobs, Terms, Unique};
use serde::{Deserialize, Serialize};

use crate::args::{ExportArgs, ImportArgs};
use crate::bulk::{Enqueuer, Lines, ReadLine, Source};
use crate::error::{Exit, Outcome};
use crate::fetch::{READ_BYTES, READ_JOBS};
use crate::output::{JobView, Output, UniqueView};
use crate::server::Server;
use crate::values::parse_time;
use crate::{confirm, progress, tail};

/// A byte of a job is at most `\u0000` in its line, and what stands around them is less than the
/// smallest limit of a server.
const LINE_SCALE: usize = 8;

/// `qctl export`.
pub(crate) async fn export(server: &Server, args: ExportArgs, out: &Output) -> Outcome {
    let ExportArgs { queue, from, to, unconsumed_by } = args;
    let client = server.connect().await?;
    let end = tail::end_of(client, &queue).await?;
    let mut next = tail::find(client, &queue, from, end).await?;
    let to = to.unwrap_or(end).min(end);
    let progress = progress::of_count("jobs", Some(to.saturating_sub(next)));
    let mut is_damaged = false;
    while next < to {
        let jobs_max = READ_JOBS.min(to - next) as u32;
        let read = match &unconsumed_by {
            None => client.read(&queue, next, jobs_max, READ_BYTES).await?,
            Some(group) => {
                client.read_unconsumed(&queue, group, next, jobs_max, READ_BYTES).await?
            }
        };
        let ReadJobs { next: after, jobs, damaged, .. } = read;
        for job in jobs.into_iter().filter(|job| job.offset < to) {
            let view = JobView::new(&queue, job.offset, job.enqueued_at_ms, job.job);
            out.print_json(&view)?;
        }
        for damaged in damaged.iter().filter(|damaged| damaged.offset < to) {
            progress.suspend(|| tell!("qctl: {damaged}; it is left out"));
            is_damaged = true;
        }
        out.flush()?;
        progress.inc(after.min(to) - next);
        next = after;
    }
    progress.finish_and_clear();
    Ok(Exit::failed_if(is_damaged))
}

#[derive(Serialize)]
struct ImportDone<'a> {
    queue: &'a str,
    jobs: u64,
}

/// `qctl import`.
pub(crate) async fn import(server: &Server, args: ImportArgs, out: &Output) -> Outcome {
    let source = Source::open(&args.file)?;
    let producer = args.once.as_deref().map(producer_id);
    let client = server.connect_with(|options| {
        let options = options.create_queues(!args.no_create);
        match producer {
            Some(id) => options.producer(id),
            None => options,
        }
    });
    let read_line: ReadLine = Box::new(|line, job| {
        *job = read_job(line)?;
        Ok(())
    });
    let lines = Lines { source, model: Job::default(), read_line, line_scale: LINE_SCALE };
    let sum = Enqueuer::new(client.await?, &args.queue).run(lines).await;
    let done = ImportDone { queue: &args.queue, jobs: sum.jobs + sum.known };
    let text = format!("{} imported to {}", confirm::counted(done.jobs, "job"), args.queue);
    out.print(&done, |_| text.into_bytes())?;
    sum.failure.map_or(Ok(Exit::Done), Err)
}

/// The producer that imports under a name: the 128-bit FNV-1a of it.
fn producer_id(name: &str) -> [u8; 16] {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = b"qctl import 1:".iter().chain(name.as_bytes());
    let hash = bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    hash.max(1).to_be_bytes()
}

/// A job as `qctl export`, `peek --json` and `fetch --json` write it. What a job can't be enqueued
/// with is passed over; a field that nobody knows is refused, as it would be lost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobLine {
    #[serde(default, rename = "job")]
    _job: Option<String>,
    #[serde(default, rename = "token")]
    _token: Option<String>,
    #[serde(default, rename = "attempt")]
    _attempt: Option<u32>,
    #[serde(default, rename = "enqueued_at")]
    _enqueued_at: Option<String>,
    #[serde(default, rename = "lease_ends_at")]
    _lease_ends_at: Option<String>,
    delay_ms: Option<u64>,
    at: Option<String>,
    ttl_ms: Option<u64>,
    #[serde(default)]
    priority: u8,
    #[serde(default)]
    front: bool,
    unique: Option<UniqueView>,
    key: Option<String>,
    key_base64: Option<String>,
    #[serde(default)]
    headers: Vec<HeaderLine>,
    payload: Option<String>,
    payload_base64: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderLine {
    name: String,
    value: Option<String>,
    value_base64: Option<String>,
}

fn read_job(line: &[u8]) -> Result<Job, String> {
    let line: JobLine =
        serde_json::from_slice(line).map_err(|error| format!("is no job: {error}"))?;
    let due = match (line.delay_ms, line.at) {
        (None, None) => None,
        (Some(delay_ms), None) => Some(NotBefore::In(delay_ms)),
        (None, Some(at)) => {
            Some(NotBefore::At(parse_time(&at).map_err(|error| format!("at: {error}"))?))
        }
        (Some(_), Some(_)) => return Err("has both delay_ms and at; allowed is one".to_owned()),
    };
    let header = |header: HeaderLine| {
        let value = bytes("value", header.value, header.value_base64)?;
        let missing = || format!("has the header {:?} without a value", header.name);
        Ok((header.name.clone(), value.ok_or_else(missing)?))
    };
    let unique = |unique: UniqueView| {
        let UniqueView { key, key_base64, window_ms, replace } = unique;
        let key = bytes("key", key, key_base64)?.ok_or("has a unique without a key")?;
        Ok::<_, String>(Unique { key, window_ms, replace })
    };
    let payload = bytes("payload", line.payload, line.payload_base64)?;
    Ok(Job {
        payload: payload.ok_or("has no payload, nor payload_base64")?,
        key: bytes("key", line.key, line.key_base64)?,
        headers: line.headers.into_iter().map(header).collect::<Result<_, String>>()?,
        terms: Terms { due, ttl_ms: line.ttl_ms, priority: line.priority, front: line.front },
        unique: line.unique.map(unique).transpose()?,
    })
}

/// What stands under one of two names.
fn bytes(
    name: &str,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("has both {name} and {name}_base64; allowed is one")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(text);
            bytes.map(Some).map_err(|error| format!("has a wrong {name}_base64: {error}"))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_job() -> impl Strategy<Value = Job> {
        let bytes = || prop_oneof![any::<Vec<u8>>(), any::<String>().prop_map(String::into_bytes),];
        let due = prop_oneof![
            any::<u64>().prop_map(NotBefore::In),
            (0..=u64::MAX).prop_map(NotBefore::At)
        ];
        let headers = prop::collection::vec((any::<String>(), bytes()), 0..4);
        let rank = (any::<u8>(), any::<bool>());
        let terms = (prop::option::of(due), prop::option::of(any::<u64>()), rank);
        let unique = (bytes(), prop::option::of(any::<u64>()), any::<bool>());
        let unique =
            unique.prop_map(|(key, window_ms, replace)| Unique { key, window_ms, replace });
        let unique = prop::option::of(unique);
        (bytes(), prop::option::of(bytes()), headers, terms, unique).prop_map(
            |(payload, key, headers, (due, ttl_ms, (priority, front)), unique)| {
                let terms = Terms { due, ttl_ms, priority, front };
                Job { payload, key, headers, terms, unique }
            },
        )
    }

    proptest! {
        #[test]
        fn a_job_comes_back_as_it_was(job in a_job()) {
            let line = serde_json::to_vec(&JobView::new("q", 1, 2, job.clone())).unwrap();
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(read_job(&line).unwrap(), job);
        }
    }

    #[test]
    fn what_is_no_job_is_refused_with_the_reason() {
        for (line, told) in [
            ("", "is no job"),
            ("{}", "has no payload"),
            (r#"{"payload":"a","payload_base64":"YQ=="}"#, "has both payload and payload_base64"),
            (r#"{"payload_base64":"*"}"#, "a wrong payload_base64"),
            (r#"{"payload":"a","colour":"red"}"#, "unknown field `colour`"),
            (r#"{"payload":"a","delay_ms":1,"at":"2026-01-01T00:00:00Z"}"#, "both delay_ms and at"),
            (r#"{"payload":"a","at":"soon"}"#, "is no time"),
            (r#"{"payload":"a","headers":[{"name":"h"}]}"#, "\"h\" without a value"),
        ] {
            let error = read_job(line.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn a_name_is_a_producer() {
        assert_ne!(producer_id("a"), producer_id("b"));
        assert_eq!(producer_id("a"), producer_id("a"));
    }
}
