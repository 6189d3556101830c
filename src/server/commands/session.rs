//! HELLO, GOODBYE, PING and DRAIN.

use joblog_protocol::ErrorCode;
use joblog_protocol::limits::{SILENCE_MS_MAX, SILENCE_MS_MIN};
use joblog_protocol::messages::session::{Hello, HelloReply, VERSION};
use joblog_protocol::wire::in_range;

use super::{Answer, answer, at_once, done};
use crate::broker::Caller;
use crate::server::connection::Connection;
use crate::server::convert;
use crate::server::errors::Refused;
use crate::server::reply::Body;
use crate::types::SessionId;

/// What this server calls itself.
const AGENT: &str = concat!("joblogd/", env!("CARGO_PKG_VERSION"));

pub(super) fn hello(connection: &mut Connection, body: &[u8]) -> Answer {
    let hello = Hello::decode(body)?;
    if !(hello.version_min..=hello.version_max).contains(&VERSION) {
        let text = format!(
            "versions {} to {} are asked for; this server speaks {VERSION}",
            hello.version_min, hello.version_max
        );
        return Err(Refused::new(ErrorCode::UnsupportedVersion, text));
    }
    in_range("session", u64::from(hello.session != [0; 16]), 1..=1, "not all zero")?;
    let silence_ms = Some(u64::from(hello.silence_ms)).filter(|ms| *ms > 0);
    let (min, max) = (SILENCE_MS_MIN as u64, SILENCE_MS_MAX as u64);
    in_range("silence_ms", silence_ms.unwrap_or(min), min..=max, "0, or 500 ms to 1 h")?;
    let held: Vec<_> = hello.held.iter().filter_map(convert::grant).collect();
    let session = SessionId(hello.session);
    let gated = connection.logs.hello(session, silence_ms, &held, &connection.mailbox);
    connection.session = gated.result.as_ref().ok().map(|(caller, _)| caller.clone());
    connection.closing = connection.session.is_none();
    answer(gated, |(_, greeted)| {
        let reply = HelloReply {
            version: VERSION,
            resumed: greeted.resumed,
            silence_ms: u32::try_from(greeted.silence_ms).unwrap_or(u32::MAX),
            leases_kept: greeted.leases_kept as u32,
            leases_released: greeted.leases_released as u32,
            job_bytes_max: connection.options.job_bytes_max as u32,
            agent: AGENT,
        };
        Body::encoded(|out| reply.encode(out))
    })
}

/// A HELLO on a connection that has been greeted.
pub(super) fn hello_again() -> Answer {
    Err(Refused::new(ErrorCode::BadRequest, "this connection has been greeted already"))
}

pub(super) fn goodbye(connection: &mut Connection, caller: &Caller) -> Answer {
    connection.closing = true;
    done(connection.logs.goodbye(caller))
}

pub(super) fn ping(body: &[u8]) -> Answer {
    at_once(Body::Bytes(body.into()))
}

pub(super) fn drain(connection: &mut Connection) -> Answer {
    connection.draining = true;
    connection.logs.end_waits(&connection.mailbox);
    at_once(Body::Empty)
}
