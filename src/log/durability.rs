//! The durability levels: what a reply promises to have outlived.

use std::fmt;
use std::str::FromStr;

/// When the log's entries count as released, so that replies which saw them may leave.
///
/// | level | a reply leaves after | survives kill -9 of the server | survives a power cut |
/// |---|---|---|---|
/// | `fsync` | an `fdatasync` that covers it | yes | yes |
/// | `interval:<ms>` | the write; synced every so often | yes | all but the last interval |
/// | `os` | the write; the kernel decides when | yes | what the kernel has written back |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Replies wait for a shared `fdatasync`.
    #[default]
    Fsync,
    /// Replies wait for the write; a sync follows at this interval.
    Interval {
        /// Milliseconds between two syncs, at least 1.
        ms: u64,
    },
    /// Replies wait for the write; nobody asks for a sync.
    Os,
}

/// A text that names no durability level.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no durability level; use `fsync`, `interval:<ms>` with at least 1 ms, or `os`")]
pub struct ParseDurabilityError(String);

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fsync => f.write_str("fsync"),
            Self::Interval { ms } => write!(f, "interval:{ms}"),
            Self::Os => f.write_str("os"),
        }
    }
}

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseDurabilityError(text.to_owned());
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => match text.strip_prefix("interval:").map(str::parse) {
                Some(Ok(ms)) if ms > 0 => Ok(Self::Interval { ms }),
                _ => Err(refuse()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_reads_back_as_written() {
        for level in [Durability::Fsync, Durability::Interval { ms: 250 }, Durability::Os] {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        for text in ["", "FSYNC", "interval", "interval:", "interval:0", "interval:-1", "os "] {
            let error = text.parse::<Durability>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}` is no")), "{error}");
        }
    }
}
