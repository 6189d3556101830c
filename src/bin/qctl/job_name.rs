//! A job's name on the command line: `QUEUE:OFFSET`, with `@TOKEN` behind it for its lease.

use std::str::FromStr;
use std::sync::Arc;

use joblog::client::{JobHandle, Token};

/// A job, and the token of its lease if one is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobName {
    pub(crate) queue: String,
    pub(crate) offset: u64,
    pub(crate) token: Option<Token>,
}

impl JobName {
    /// The leased job of a group.
    pub(crate) fn handle(&self, group: &str) -> Result<JobHandle, String> {
        let name = format!("{}:{}", self.queue, self.offset);
        let token = self.token.ok_or_else(|| {
            format!("{name} names no lease: its token is needed behind it, as in {name}@TOKEN")
        })?;
        Ok(JobHandle {
            queue: Arc::from(self.queue.as_str()),
            group: Arc::from(group),
            offset: self.offset,
            token,
        })
    }
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{text:?} {what}: allowed is QUEUE:OFFSET, or QUEUE:OFFSET@TOKEN for a lease")
        };
        let (job, token) = match text.split_once('@') {
            Some((job, token)) => (job, Some(token)),
            None => (text, None),
        };
        let (queue, offset) = job.split_once(':').ok_or_else(|| wrong("is no job"))?;
        let offset = offset.parse().map_err(|_| wrong("has no number as its offset"))?;
        let token = token.map(Token::from_str).transpose();
        Ok(Self {
            queue: queue.to_owned(),
            offset,
            token: token.map_err(|_| wrong("has no hexadecimal token"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_a_token() {
        let plain: JobName = "mail/out:17".parse().unwrap();
        assert_eq!((plain.queue.as_str(), plain.offset), ("mail/out", 17));
        assert!(plain.handle("").unwrap_err().contains("mail/out:17@TOKEN"));
        let leased: JobName = "mail:0@00ff".parse().unwrap();
        let handle = leased.handle("g").unwrap();
        assert_eq!(handle.to_string(), "mail:0@00ff");
        assert_eq!(handle.token.as_bytes(), [0, 255]);
    }

    #[test]
    fn what_is_no_job_is_refused_with_what_is_allowed() {
        for text in ["mail", "mail:", "mail:x", "mail:1@", "mail:1@xy", "mail:1@abc", "mail:-1"] {
            let error = JobName::from_str(text).unwrap_err();
            assert!(error.contains("allowed is QUEUE:OFFSET"), "{text}: {error}");
        }
    }
}
