//! WAIT: its one reply comes at once, or when the job has ended or the time is over.

use std::sync::Arc;

use joblog_protocol::ErrorCode;
use joblog_protocol::limits::JOB_WAITS_MAX;
use joblog_protocol::messages::wait::{self, WaitReply};

use super::dead::death_cause;
use super::{Answer, Answered, Request};
use crate::broker::{Ended, FetchWait, Gated, JobEnd, Ticket};
use crate::server::connection::Connection;
use crate::server::errors::Refused;
use crate::server::reply::Body;
use crate::types::Offset;

pub(super) fn wait(connection: &mut Connection, request: Request<'_>) -> Answer {
    let wait::Wait { queue, offset, wait_ms } = wait::Wait::decode(request.body)?;
    if wait_ms > 0 && connection.waits.len() >= JOB_WAITS_MAX {
        let text = format!("{JOB_WAITS_MAX} WAITs wait on this connection already");
        return Err(Refused::new(ErrorCode::TooMany, text));
    }
    let (ticket, wait_ms) = (Arc::new(Ticket::new(connection.next_ticket())), wait_ms.into());
    let wait = FetchWait { wait_ms, mailbox: &connection.mailbox, ticket: &ticket };
    let wait = (wait_ms > 0).then_some(wait);
    let Gated { result, gates } =
        connection.logs.of(queue).wait_for_end(queue, Offset(offset), wait);
    match result {
        Ok(Some(ended)) => Ok(Answered::Now(gates, wait_reply(&ended))),
        Ok(None) => {
            connection.waits.insert(ticket.id, request.correlation);
            Ok(Answered::Later)
        }
        Err(error) => Ok(Answered::Now(gates, Body::Error((&error).into()))),
    }
}

/// What a WAIT is told.
pub(in crate::server) fn wait_reply(ended: &Ended) -> Body {
    let error = |code, text| Body::Error(Refused::new(code, text));
    let reply = match ended {
        Ended::NotYet => WaitReply::NotYet,
        Ended::NoQueue => return error(ErrorCode::NoSuchQueue, "the queue was deleted"),
        Ended::End(JobEnd::Done { result }) => WaitReply::Done { result: result.as_deref() },
        Ended::End(JobEnd::Dead(dead)) => {
            WaitReply::Dead { cause: death_cause(dead), reason: &dead.message }
        }
        Ended::End(JobEnd::Cancelled) => WaitReply::Cancelled,
        Ended::End(JobEnd::Expired) => WaitReply::Expired,
        Ended::End(JobEnd::Unknown) => return error(ErrorCode::ResultGone, GONE),
    };
    Body::encoded(|out| reply.encode(out))
}

const GONE: &str = "the job has ended, and how is not known any more: it was committed without a \
                    result, its result has been kept for long enough, or it was given up when dead";
