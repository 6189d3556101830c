//! FETCH: its commits are answered at once, its jobs when there are some.

use std::sync::Arc;

use joblog_protocol::limits::{FETCH_BYTES_MAX, FETCH_JOBS_MAX, WAITING_FETCHES_MAX};
use joblog_protocol::messages::fetch::{Fetch, LeaseKind};
use joblog_protocol::{ErrorCode, Opcode};
use smallvec::SmallVec;

use super::lease::status;
use super::{Answer, Answered, Request, at_once};
use crate::broker::{
    FetchRequest, FetchTerms, FetchWait, Fetched, FetchedJobs, Gated, Grants, Holder, LeaseRefs,
    Ticket,
};
use crate::server::connection::{Connection, WaitingFetch};
use crate::server::convert;
use crate::server::errors::Refused;
use crate::server::reply::Body;
use crate::types::SessionId;

pub(super) fn fetch(connection: &mut Connection, request: Request<'_>) -> Answer {
    let Request { caller, correlation, body } = request;
    let fetch = Fetch::decode(body)?;
    let may_wait = fetch.wait_ms > 0 && !connection.draining;
    if may_wait && connection.waiting.len() >= WAITING_FETCHES_MAX {
        let text = format!("{WAITING_FETCHES_MAX} FETCHes wait on this connection already");
        return Err(Refused::new(ErrorCode::TooMany, text));
    }
    let lease_refs = |set| convert::lease_refs(&connection.logs, set);
    let commits: SmallVec<[LeaseRefs<'_>; 1]> = fetch.commits.iter().map(lease_refs).collect();
    let ticket = may_wait.then(|| Arc::new(Ticket::new(connection.next_ticket())));
    let wait_ms = fetch.wait_ms.into();
    let mailbox = &connection.mailbox;
    let Gated { result, gates } = if connection.draining {
        if commits.is_empty() {
            return at_once(Body::Jobs(Grants::none()));
        }
        let nothing = |commits| Fetched { commits, jobs: FetchedJobs::Now(Grants::none()) };
        connection.logs.commit(caller, &commits).map(nothing)
    } else {
        connection.logs.fetch(
            caller,
            &FetchRequest {
                queues: &fetch.queues,
                group: convert::group(fetch.group),
                terms: terms(&fetch, caller.session, connection.options.run_ms_max),
                wait: ticket.as_ref().map(|ticket| FetchWait { wait_ms, mailbox, ticket }),
                commits: &commits,
            },
        )
    };
    let Fetched { commits: verdicts, jobs } = match result {
        Ok(fetched) => fetched,
        Err(error) => return Ok(Answered::Now(gates, Body::Error((&error).into()))),
    };
    if !commits.is_empty() {
        let body = Body::Statuses { statuses: verdicts.iter().map(status).collect(), more: true };
        connection.push(gates.clone(), Opcode::Fetch as u8, correlation, body);
    }
    match (jobs, ticket) {
        (FetchedJobs::Now(grants), _) => Ok(Answered::Now(gates, Body::Jobs(grants))),
        (FetchedJobs::Waiting(places), Some(ticket)) => {
            connection.waiting.insert(ticket.id, WaitingFetch { correlation, places });
            Ok(Answered::Later)
        }
        // Without a ticket it does not wait.
        (FetchedJobs::Waiting(_), None) => Ok(Answered::Now(gates, Body::Jobs(Grants::none()))),
    }
}

fn terms(fetch: &Fetch<'_>, session: SessionId, default_run_ms_max: u64) -> FetchTerms {
    let (holder, lease_ms) = match fetch.lease {
        LeaseKind::Session { run_ms_max } => {
            (Holder::Session(session), run_ms_max.unwrap_or(default_run_ms_max))
        }
        LeaseKind::Timed { lease_ms } => (Holder::Timed, lease_ms),
    };
    FetchTerms {
        jobs_max: (fetch.jobs_max as usize).min(FETCH_JOBS_MAX),
        bytes_max: u64::from(fetch.bytes_max).min(FETCH_BYTES_MAX as u64),
        holder,
        lease_ms,
        by_turns: fetch.by_turns,
        first_ordinal: 0,
    }
}
