//! Tokens, and the names of groups: shared by several commands.

use joblog_protocol::Token;
use joblog_protocol::messages::handles::{Handle, HandleSet};

use crate::broker::{DEFAULT_GROUP, LeaseRefs, Logs};
use crate::types::{Grant, LeaseRef, LogId, Offset};

/// The token of a grant: its number, little-endian, and behind it the log's unless that is 0.
/// Clients do not look inside.
pub(super) fn token(log: LogId, grant: Grant) -> Token {
    let [n0, n1, n2, n3, n4, n5, n6, n7] = grant.0.to_le_bytes();
    let [l0, l1] = log.0.to_le_bytes();
    let bytes = [n0, n1, n2, n3, n4, n5, n6, n7, l0, l1];
    let used = if log.0 == 0 { 8 } else { 10 };
    let (token, _) = bytes.split_at(used);
    Token::new(token).expect("eight or ten bytes are a token")
}

/// The log and grant of a token, if it has a form that this server gives out.
pub(super) fn grant(token: &Token) -> Option<(LogId, Grant)> {
    let (number, log) = token.as_bytes().split_first_chunk::<8>()?;
    let log = match log {
        [] => LogId(0),
        log => LogId(u16::from_le_bytes(log.try_into().ok()?)),
    };
    Some((log, Grant(u64::from_le_bytes(*number))))
}

/// The group that a name stands for.
pub(super) fn group(name: &str) -> &str {
    if name.is_empty() { DEFAULT_GROUP } else { name }
}

/// A job of a log that a worker names. A token of another log is none of this one: the grants of
/// each log count from the same number.
pub(super) fn lease_ref(log: LogId, handle: &Handle) -> LeaseRef {
    let grant = grant(&handle.token).filter(|(of, _)| *of == log);
    let (_, grant) = grant.unwrap_or_default();
    LeaseRef { offset: Offset(handle.offset), grant }
}

pub(super) fn lease_refs<'a>(logs: &Logs, set: &HandleSet<'a>) -> LeaseRefs<'a> {
    let log = logs.id_of(set.queue);
    let jobs = set.handles.iter().map(|handle| lease_ref(log, handle)).collect();
    LeaseRefs { queue: set.queue, group: group(set.group), jobs }
}
