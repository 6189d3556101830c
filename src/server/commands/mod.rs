//! The commands of the protocol, a file for each subject and a function for each command, which
//! reads the body, asks the broker, and makes the reply.
//!
//! `session::hello` belongs to HELLO, `queue::create` to CREATE_QUEUE; the broker's part has the
//! same verb: `create_queue`. What is translated for one command alone stands with it.

mod dead;
mod enqueue;
mod fetch;
mod group;
mod job;
mod lease;
mod queue;
mod schedule;
mod session;
mod stats;
mod wait;
mod withdraw;

pub(super) use self::wait::wait_reply;
pub(super) use self::withdraw::cancel_notice;

use joblog_protocol::frame::Header;
use joblog_protocol::messages::admin;
use joblog_protocol::messages::session::{Hello, VERSION};
use joblog_protocol::{ErrorCode, Opcode};
use serde::Serialize;

use super::connection::Connection;
use super::errors::Refused;
use super::reply::Body;
use crate::broker::{Caller, Gated, Gates};

/// What a command gives, or why it was refused before a broker was asked.
type Answer = Result<Answered, Refused>;

/// What a command gives.
enum Answered {
    /// Its reply, which leaves when the gates are released.
    Now(Gates, Body),
    /// Nothing yet: an event brings it.
    Later,
}

/// A request that a greeted session has made.
#[derive(Clone, Copy)]
struct Request<'a> {
    caller: &'a Caller,
    correlation: u64,
    body: &'a [u8],
}

impl Connection {
    /// Acts on one request.
    pub(super) fn act(&mut self, header: Header, body: &[u8]) {
        let Header { opcode, correlation, .. } = header;
        match self.answer(header, body) {
            Ok(Answered::Now(gates, body)) => self.push(gates, opcode, correlation, body),
            Ok(Answered::Later) => {}
            Err(refused) => self.push_error(opcode, correlation, refused),
        }
    }

    fn answer(&mut self, header: Header, body: &[u8]) -> Answer {
        let Header { opcode, correlation, .. } = header;
        let caller = self.session.clone();
        let known = match Opcode::from_code(opcode) {
            Some(known) if caller.is_some() => known,
            Some(Opcode::Hello) if Hello::has_magic(body) => Opcode::Hello,
            None if caller.is_some() => {
                let text = format!("no command has opcode {opcode:#04x} in version {VERSION}");
                return Err(Refused::new(ErrorCode::UnknownOpcode, text));
            }
            Some(_) | None => {
                let text = "the first frame must be a HELLO that begins with \"JLOG\"";
                return Err(Refused::new(ErrorCode::NotGreeted, text));
            }
        };
        if header.flags != 0 || header.status != 0 {
            let text = "a request has flags 0 and status 0; other values are reserved";
            return Err(Refused::new(ErrorCode::Unsupported, text));
        }
        match &caller {
            None => session::hello(self, body),
            Some(caller) => self.run(known, Request { caller, correlation, body }),
        }
    }

    /// Every command and what runs it.
    fn run(&mut self, opcode: Opcode, request: Request<'_>) -> Answer {
        let Request { caller, body, .. } = request;
        let (logs, job_bytes_max) = (&*self.logs, self.options.job_bytes_max);
        match opcode {
            Opcode::Hello => session::hello_again(),
            Opcode::Goodbye => session::goodbye(self, caller),
            Opcode::Ping => session::ping(body),
            Opcode::Drain => session::drain(self),
            Opcode::CreateQueue => queue::create(logs, body),
            Opcode::DeleteQueue => queue::delete(logs, body),
            Opcode::ListQueues => queue::list(logs, body),
            Opcode::DescribeQueue => queue::describe(logs, body),
            Opcode::UpdateQueue => queue::update(logs, body),
            Opcode::CreateGroup => group::create(logs, body),
            Opcode::DeleteGroup => group::delete(logs, body),
            Opcode::ListGroups => group::list(logs, body),
            Opcode::DescribeGroup => group::describe(logs, body),
            Opcode::SeekGroup => group::seek(logs, body),
            Opcode::Enqueue => enqueue::enqueue(logs, job_bytes_max, body),
            Opcode::Fetch => fetch::fetch(self, request),
            Opcode::Commit => lease::commit(logs, caller, job_bytes_max, body),
            Opcode::Release => lease::release(logs, body),
            Opcode::Fail => lease::fail(logs, body),
            Opcode::Extend => lease::extend(logs, body),
            Opcode::Read => job::read(logs, body),
            Opcode::JobInfo => job::info(logs, body),
            Opcode::Wait => wait::wait(self, request),
            Opcode::DeadList => dead::list(logs, body),
            Opcode::DeadRetry => dead::retry(logs, body),
            Opcode::DeadDrop => dead::drop(logs, body),
            Opcode::Cancel => withdraw::cancel(logs, body),
            Opcode::Pause => withdraw::pause(logs, body, true),
            Opcode::Resume => withdraw::pause(logs, body, false),
            Opcode::Purge => withdraw::purge(logs, body),
            Opcode::Promote => job::promote(logs, body),
            Opcode::Move => enqueue::move_jobs(logs, job_bytes_max, body),
            Opcode::ScheduleAdd => schedule::add(logs, job_bytes_max, body),
            Opcode::ScheduleList => schedule::list(logs, body),
            Opcode::SchedulePause => schedule::pause(logs, body, true),
            Opcode::ScheduleResume => schedule::pause(logs, body, false),
            Opcode::ScheduleRemove => schedule::remove(logs, body),
            Opcode::ScheduleRun => schedule::run(logs, body),
            Opcode::Stats => stats::stats(logs, body),
        }
    }
}

/// The reply that tells what the broker says.
fn answer<T>(gated: Gated<T>, body: impl FnOnce(T) -> Body) -> Answer {
    let Gated { result, gates } = gated;
    let body = result.map_or_else(|error| Body::Error((&error).into()), body);
    Ok(Answered::Now(gates, body))
}

/// A reply with nothing but that it was done.
fn done(gated: Gated<()>) -> Answer {
    answer(gated, |()| Body::Empty)
}

/// A reply in JSON.
fn json<T, W: Serialize>(gated: Gated<T>, wire: impl FnOnce(T) -> W) -> Answer {
    answer(gated, |value| Body::encoded(|out| admin::encode(out, &wire(value))))
}

/// A reply that depends on no state.
fn at_once(body: Body) -> Answer {
    Ok(Answered::Now(Gates::new(), body))
}
