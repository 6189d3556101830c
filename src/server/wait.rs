//! WAIT: its one reply comes at once, or when the job has ended or the time is over.

use bytes::BytesMut;
use joblog_protocol::limits::JOB_WAITS_MAX;
use joblog_protocol::messages::wait::{DeathCause, Wait as WaitRequest, WaitReply};
use joblog_protocol::{DecodeError, ErrorCode, Opcode};

use super::connection::Connection;
use super::convert;
use super::reply::{Body, Reply};
use crate::broker::{DeadJob, EndReason, EndWait, Ended, Gates, JobEnd};
use crate::types::Offset;

const OPCODE: u8 = Opcode::Wait as u8;

impl Connection {
    /// WAIT: answered now, or by an event.
    pub(super) fn wait(&mut self, correlation: u64, body: &[u8]) -> Result<(), DecodeError> {
        let WaitRequest { queue, offset, wait_ms } = WaitRequest::decode(body)?;
        if wait_ms > 0 && self.waits.len() >= JOB_WAITS_MAX {
            let text = format!("{JOB_WAITS_MAX} WAITs wait on this connection already");
            self.push_error(OPCODE, correlation, ErrorCode::TooMany, text);
            return Ok(());
        }
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let wait_ms = u64::from(wait_ms);
        let wait = (wait_ms > 0).then_some(EndWait { wait_ms, mailbox: &self.mailbox, ticket });
        let gated = self.logs.of(queue).wait_for_end(queue, Offset(offset), wait);
        match gated.result {
            Ok(Some(ended)) => self.push_ended(gated.gates, correlation, &ended),
            Ok(None) => drop(self.waits.insert(ticket, correlation)),
            Err(error) => {
                let body = Body::Error(convert::error_code(&error), error.to_string());
                self.push(Reply { gates: gated.gates, opcode: OPCODE, correlation, body });
            }
        }
        Ok(())
    }

    /// Answers a WAIT.
    pub(super) fn push_ended(&mut self, gates: Gates, correlation: u64, ended: &Ended) {
        let error = |code, text: &str| Body::Error(code, text.to_owned());
        let body = match ended {
            Ended::NotYet => reply(WaitReply::NotYet),
            Ended::NoQueue => error(ErrorCode::NoSuchQueue, "the queue was deleted"),
            Ended::End(JobEnd::Done { result }) => {
                reply(WaitReply::Done { result: result.as_deref() })
            }
            Ended::End(JobEnd::Dead(dead)) => {
                reply(WaitReply::Dead { cause: death_cause(dead), reason: &dead.message })
            }
            Ended::End(JobEnd::Cancelled) => reply(WaitReply::Cancelled),
            Ended::End(JobEnd::Expired) => reply(WaitReply::Expired),
            Ended::End(JobEnd::Unknown) => error(ErrorCode::ResultGone, GONE),
        };
        self.push(Reply { gates, opcode: OPCODE, correlation, body });
    }
}

const GONE: &str = "the job has ended, and how is not known any more: it was committed without a \
                    result, its result has been kept for long enough, or it was given up when dead";

fn reply(reply: WaitReply<'_>) -> Body {
    let mut out = BytesMut::new();
    reply.encode(&mut out);
    Body::Bytes(out)
}

fn death_cause(dead: &DeadJob) -> DeathCause {
    match dead.reason {
        EndReason::Damaged => DeathCause::Damaged,
        reason if reason.is_crash() => DeathCause::Crashes,
        _ => DeathCause::Failures,
    }
}
