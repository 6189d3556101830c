//! What `qctl` prints: text for people, or one JSON object per line.

use std::cell::RefCell;
use std::io::{self, BufWriter, Stdout, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use joblog::client::{Job, LeasedJob, NotBefore, Unique};
use serde::{Deserialize, Serialize};

use crate::color::{ALARM, Colors, HEAD, When};
use crate::values::{format_millis, format_time};

/// Writes a line to standard error. If nobody reads it any more, that is no reason to stop.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::output::tell_line(format_args!($($text)*))
    };
}

/// See [`tell!`].
pub(crate) fn tell_line(line: std::fmt::Arguments<'_>) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Standard output in the form that was asked for. What is printed is written out when it is much,
/// and by [`flush`](Self::flush), which whoever goes on for long calls after each piece.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    colors: Colors,
    stdout: RefCell<BufWriter<Stdout>>,
}

impl Output {
    pub(crate) fn new(json: bool, colors: When) -> Self {
        let stdout = io::stdout();
        let colors = Colors::new(colors, &stdout);
        Self { json, colors, stdout: RefCell::new(BufWriter::with_capacity(64 * 1024, stdout)) }
    }

    /// Whether JSON was asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The colours of the text.
    pub(crate) fn colors(&self) -> Colors {
        self.colors
    }

    /// Prints one thing: as an object, or as the text that `text` makes of it.
    pub(crate) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> Vec<u8>,
    ) -> io::Result<()> {
        let mut bytes = if self.json { serde_json::to_vec(value)? } else { text(value) };
        bytes.push(b'\n');
        self.write(&bytes)
    }

    /// Prints one thing as an object, whatever was asked for.
    pub(crate) fn print_json<T: Serialize>(&self, value: &T) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(value)?;
        bytes.push(b'\n');
        self.write(&bytes)
    }

    /// Prints many things: an object for each, or one table of them.
    pub(crate) fn print_table<T: Serialize>(
        &self,
        values: &[T],
        table: impl FnOnce(&[T]) -> Table,
    ) -> io::Result<()> {
        if self.json {
            return values.iter().try_for_each(|value| self.print(value, |_| Vec::new()));
        }
        self.write(table(values).text(self.colors).as_bytes())
    }

    /// Prints many things as they come, page by page, so that none has to be kept.
    pub(crate) fn pages(&self, head: &[&'static str]) -> Pages<'_> {
        Pages { out: self, table: Table::new(head) }
    }

    /// Says that something was done: as an object, or as a line for people on standard error.
    pub(crate) fn done<T: Serialize>(&self, value: &T, text: &str) -> io::Result<()> {
        if self.json {
            return self.print(value, |_| Vec::new());
        }
        tell!("{text}");
        Ok(())
    }

    /// Says in one word, or in a sentence, what was done to a queue or a group.
    pub(crate) fn did(
        &self,
        queue: &str,
        group: Option<&str>,
        done: &'static str,
        said: &str,
    ) -> io::Result<()> {
        let name =
            group.map_or_else(|| "Queue".to_owned(), |group| format!("Group {group} of queue"));
        self.done(&Done { queue, group, done }, &format!("{name} {queue} {said}."))
    }

    /// Prints bytes as they are.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.stdout.borrow_mut().write_all(bytes)
    }

    /// Writes out what was printed.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.stdout.borrow_mut().flush()
    }
}

/// A table that is printed page by page. Its columns are as wide as they had to be so far.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    out: &'a Output,
    table: Table,
}

impl Pages<'_> {
    /// Prints a page, and writes it out.
    pub(crate) fn print<T: Serialize>(
        &mut self,
        values: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> io::Result<()> {
        if self.out.json {
            values.iter().try_for_each(|value| self.out.print(value, |_| Vec::new()))?;
        } else {
            values.iter().for_each(|value| self.table.row(row(value)));
            self.out.write(self.table.take_text(self.out.colors).as_bytes())?;
        }
        self.out.flush()
    }
}

/// What was done to a queue or a group.
#[derive(Debug, Serialize)]
struct Done<'a> {
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    done: &'static str,
}

/// Bytes under one name if they are UTF-8, and under another one in base64 if not.
#[derive(Debug)]
pub(crate) enum Text {
    Utf8(String),
    Base64(String),
}

impl Text {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    pub(crate) fn split(self) -> (Option<String>, Option<String>) {
        match self {
            Self::Utf8(text) => (Some(text), None),
            Self::Base64(text) => (None, Some(text)),
        }
    }
}

/// A header as JSON.
#[derive(Debug, Serialize)]
struct HeaderView {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

fn is_zero(priority: &u8) -> bool {
    *priority == 0
}

/// The unique key of a job as it is shown, and read back.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UniqueView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) replace: bool,
}

impl UniqueView {
    fn new(unique: &Unique) -> Self {
        let (key, key_base64) = Text::new(&unique.key).split();
        Self { key, key_base64, window_ms: unique.window_ms, replace: unique.replace }
    }
}

/// A job as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct JobView {
    pub(crate) job: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    pub(crate) enqueued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    priority: u8,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    front: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<UniqueView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_ends_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    headers: Vec<HeaderView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip)]
    lease_ms: u64,
    #[serde(skip)]
    raw: Job,
}

impl JobView {
    /// A job without a lease.
    pub(crate) fn new(queue: &str, offset: u64, enqueued_at_ms: u64, raw: Job) -> Self {
        let (key, key_base64) =
            raw.key.as_deref().map_or((None, None), |key| Text::new(key).split());
        let (payload, payload_base64) = Text::new(&raw.payload).split();
        let header = |(name, value): &(String, Vec<u8>)| {
            let (value, value_base64) = Text::new(value).split();
            HeaderView { name: name.clone(), value, value_base64 }
        };
        Self {
            job: format!("{queue}:{offset}"),
            token: None,
            attempt: None,
            enqueued_at: format_time(enqueued_at_ms),
            delay_ms: match raw.terms.due {
                Some(NotBefore::In(delay_ms)) => Some(delay_ms),
                _ => None,
            },
            at: match raw.terms.due {
                Some(NotBefore::At(at_ms)) => Some(format_time(at_ms)),
                _ => None,
            },
            ttl_ms: raw.terms.ttl_ms,
            priority: raw.terms.priority,
            front: raw.terms.front,
            unique: raw.unique.as_ref().map(UniqueView::new),
            lease_ends_at: None,
            key,
            key_base64,
            headers: raw.headers.iter().map(header).collect(),
            payload,
            payload_base64,
            lease_ms: 0,
            raw,
        }
    }

    /// A job under a lease that ends at this time, in milliseconds since the Unix epoch.
    pub(crate) fn leased(leased: LeasedJob, lease: Duration, ends_at_ms: u64) -> Self {
        let handle = &leased.handle;
        Self {
            token: Some(handle.token.to_string()),
            attempt: Some(leased.attempt),
            lease_ends_at: Some(format_time(ends_at_ms)),
            lease_ms: lease.as_millis() as u64,
            ..Self::new(&handle.queue, handle.offset, leased.enqueued_at_ms, leased.job)
        }
    }

    /// A block of lines; the payload's bytes stand in it as they are.
    pub(crate) fn text(&self) -> Vec<u8> {
        let name = match &self.token {
            Some(token) => format!("{}@{token}", self.job),
            None => self.job.clone(),
        };
        let lease = |end| format!("ends {end} (in {})", format_millis(self.lease_ms));
        let texts = [
            ("job", Some(name)),
            ("attempt", self.attempt.map(|attempt| attempt.to_string())),
            ("enqueued", Some(self.enqueued_at.clone())),
            ("delay", self.delay_ms.map(format_millis)),
            ("at", self.at.clone()),
            ("ttl", self.ttl_ms.map(format_millis)),
            ("priority", Some(self.priority.to_string()).filter(|_| self.priority > 0)),
            ("front", self.front.then(|| "yes".to_owned())),
            ("lease", self.lease_ends_at.as_ref().map(lease)),
        ];
        let texts = texts.into_iter().filter_map(|(label, text)| Some((label, text?.into_bytes())));
        let unique = self.raw.unique.iter().map(|unique| ("unique", unique.key.clone()));
        let lines = texts.chain(unique).chain(content(&self.raw));
        let mut text = Vec::new();
        for (label, value) in lines {
            text.extend_from_slice(format!("{label:<9} ").as_bytes());
            text.extend_from_slice(&value);
            text.push(b'\n');
        }
        text
    }
}

/// The bytes of a job, each under its label.
pub(crate) fn content(job: &Job) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let key = job.key.iter().map(|key| ("key", key.clone()));
    let headers = job.headers.iter();
    let headers = headers.map(|(name, value)| ("header", [name.as_bytes(), b"=", value].concat()));
    key.chain(headers).chain([("payload", job.payload.clone())])
}

/// Rows of cells below a head; a column whose cells are all numbers stands at its right edge.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// The width of each column, and whether it has numbers; none before the head is out.
    shapes: Vec<(usize, bool)>,
}

/// What a column is called whose numbers should be 0.
const ALARMING: &str = "DEAD";

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new(), shapes: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn text(mut self, colors: Colors) -> String {
        self.take_text(colors)
    }

    /// The rows since the last time, the first time below the head.
    fn take_text(&mut self, colors: Colors) -> String {
        let is_first = self.shapes.is_empty();
        self.widen(is_first);
        let mut text = String::new();
        if is_first {
            let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
            text.push_str(&colors.paint(HEAD, &self.line(&head, Colors::none())));
            text.push('\n');
        }
        for row in &self.rows {
            text.push_str(&self.line(row, colors));
            text.push('\n');
        }
        self.rows.clear();
        text
    }

    fn widen(&mut self, is_first: bool) {
        let shape = |(column, head): (usize, &&str)| {
            let cells = || self.rows.iter().filter_map(move |row| row.get(column));
            let widths = cells().map(|cell| cell.chars().count());
            let before = self.shapes.get(column).map_or(head.len(), |(width, _)| *width);
            let is_number = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit());
            let numbers = match self.shapes.get(column) {
                Some((_, numbers)) if !is_first => *numbers,
                _ => cells().all(is_number),
            };
            (widths.max().unwrap_or(0).max(before), numbers)
        };
        self.shapes = self.head.iter().enumerate().map(shape).collect();
    }

    fn line(&self, row: &[String], colors: Colors) -> String {
        let columns = self.head.iter().zip(&self.shapes);
        let padded = row.iter().zip(columns).map(|(cell, (head, (width, numbers)))| {
            let alarm = *head == ALARMING && cell != "0";
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let cell = if alarm { colors.paint(ALARM, cell) } else { cell.clone() };
            if *numbers { padding + &cell } else { cell + &padding }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_in_base64() {
        let job = Job {
            payload: vec![0xff, 0],
            key: Some(vec![0xfe]),
            headers: vec![("h".into(), b"v".to_vec()), ("b".into(), vec![0xfd])],
            ..Job::default()
        };
        let view = serde_json::to_value(JobView::new("q", 3, 0, job)).unwrap();
        let expected = serde_json::json!({
            "job": "q:3",
            "enqueued_at": "1970-01-01T00:00:00.000Z",
            "key_base64": "/g==",
            "headers": [
                {"name": "h", "value": "v"},
                {"name": "b", "value_base64": "/Q=="},
            ],
            "payload_base64": "/wA=",
        });
        assert_eq!(view, expected);
    }

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(&["NAME", "JOBS", "GROUPS"]);
        table.row(vec!["a".into(), "5".into(), "default".into()]);
        table.row(vec!["longer".into(), "12345".into(), String::new()]);
        let lines = ["NAME     JOBS  GROUPS", "a           5  default", "longer  12345"];
        assert_eq!(table.text(Colors::none()), lines.join("\n") + "\n");
    }

    #[test]
    fn pages_go_on_below_one_head() {
        let mut table = Table::new(&["NAME", "DEAD"]);
        table.row(vec!["a".into(), "1".into()]);
        assert_eq!(table.take_text(Colors::none()), "NAME  DEAD\na        1\n");
        table.row(vec!["a long one".into(), "0".into()]);
        assert_eq!(table.take_text(Colors::none()), "a long one     0\n");
        table.row(vec!["b".into(), "12".into()]);
        assert_eq!(table.take_text(Colors::none()), "b             12\n");
        assert_eq!(table.take_text(Colors::none()), "");
        let none = Table::new(&["NAME", "DEAD"]).text(Colors::none());
        assert_eq!(none, "NAME  DEAD\n");
    }
}
