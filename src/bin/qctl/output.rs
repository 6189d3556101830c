//! What `qctl` prints: text for people, or one JSON object per line.

use std::io::{self, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use joblog::client::{Due, Job, LeasedJob};
use serde::Serialize;

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

/// Standard output in the form that was asked for.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one thing: as an object, or as the text that `text` makes of it.
    pub(crate) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> Vec<u8>,
    ) -> io::Result<()> {
        let mut bytes = if self.json { serde_json::to_vec(value)? } else { text(value) };
        bytes.push(b'\n');
        write_out(&bytes)
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
        write_out(table(values).text().as_bytes())
    }
}

fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Bytes under one name if they are UTF-8, and under another one in base64 if not.
#[derive(Debug)]
pub(crate) enum Text {
    Utf8(String),
    Base64(String),
}

impl Text {
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Utf8(text.to_owned()),
            Err(_) => Self::Base64(STANDARD.encode(bytes)),
        }
    }

    fn split(self) -> (Option<String>, Option<String>) {
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

/// A job as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct JobView {
    job: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    enqueued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
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
                Some(Due::In(delay_ms)) => Some(delay_ms),
                _ => None,
            },
            at: match raw.terms.due {
                Some(Due::At(at_ms)) => Some(format_time(at_ms)),
                _ => None,
            },
            ttl_ms: raw.terms.ttl_ms,
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
        let mut lines: Vec<(&str, Vec<u8>)> = Vec::new();
        let name = match &self.token {
            Some(token) => format!("{}@{token}", self.job),
            None => self.job.clone(),
        };
        lines.push(("job", name.into_bytes()));
        if let Some(attempt) = self.attempt {
            lines.push(("attempt", attempt.to_string().into_bytes()));
        }
        lines.push(("enqueued", self.enqueued_at.clone().into_bytes()));
        if let Some(delay_ms) = self.delay_ms {
            lines.push(("delay", format_millis(delay_ms).into_bytes()));
        }
        if let Some(at) = &self.at {
            lines.push(("at", at.clone().into_bytes()));
        }
        if let Some(ttl_ms) = self.ttl_ms {
            lines.push(("ttl", format_millis(ttl_ms).into_bytes()));
        }
        if let Some(end) = &self.lease_ends_at {
            let text = format!("ends {end} (in {})", format_millis(self.lease_ms));
            lines.push(("lease", text.into_bytes()));
        }
        if let Some(key) = &self.raw.key {
            lines.push(("key", key.clone()));
        }
        for (name, value) in &self.raw.headers {
            lines.push(("header", [name.as_bytes(), b"=", value].concat()));
        }
        lines.push(("payload", self.raw.payload.clone()));
        let mut text = Vec::new();
        for (label, value) in lines {
            text.extend_from_slice(format!("{label:<9} ").as_bytes());
            text.extend_from_slice(&value);
            text.push(b'\n');
        }
        text
    }
}

/// Rows of cells below a head; a column whose cells are all numbers stands at its right edge.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn text(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let shapes: Vec<(usize, bool)> = (0..columns)
            .map(|column| {
                let width = cells(column).map(|cell| cell.len()).max();
                let is_number = |cell: &String| cell.bytes().all(|byte| byte.is_ascii_digit());
                (width.unwrap_or(0), cells(column).skip(1).all(is_number))
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let padded = row.iter().zip(&shapes).map(|(cell, (width, number))| {
                if *number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            let line = padded.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
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
        assert_eq!(table.text(), lines.join("\n") + "\n");
    }
}
