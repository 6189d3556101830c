//! From a frame to a broker call to a held reply: one method for each command.

use std::sync::Arc;

use joblog_protocol::frame::Header;
use joblog_protocol::limits::{
    BULK_JOBS_MAX, FETCH_BYTES_MAX, FETCH_JOBS_MAX, PURGE_JOBS_MAX, SCHEDULE_TIMES_MAX,
    SILENCE_MS_MAX, SILENCE_MS_MIN, WAITING_FETCHES_MAX,
};
use joblog_protocol::messages::fetch::{Fetch, LeaseKind, Read};
use joblog_protocol::messages::job_info::JobQuery;
use joblog_protocol::messages::lease::{Commit, Extend, Fail, Release};
use joblog_protocol::messages::session::{Hello, HelloReply, VERSION};
use joblog_protocol::messages::{admin, bulk, schedule};
use joblog_protocol::{DecodeError, ErrorCode, Opcode};
use smallvec::{SmallVec, smallvec};

use super::connection::{Connection, Waiting};
use super::convert;
use super::reply::{Body, DescribedJob, Reply};
use crate::broker::{
    Caller, DeadAction, FetchRequest, FetchTerms, FetchedJobs, Gated, Gates, Grants, HeldSet,
    Holder, QueueSettings, Ticket, Verdicts, Wait,
};
use crate::types::{Offset, SessionId};

/// What this server calls itself.
const AGENT: &str = concat!("joblogd/", env!("CARGO_PKG_VERSION"));

/// Queues in one page of LIST_QUEUES and STATS.
const LIST_QUEUES_MAX: usize = 1_000;

/// Schedules in one page of SCHEDULE_LIST: with 100 due times each they fit a frame.
const LIST_SCHEDULES_MAX: usize = 1_000;

/// The commands on schedules.
const ABOUT_SCHEDULES: [Opcode; 6] = [
    Opcode::ScheduleAdd,
    Opcode::ScheduleList,
    Opcode::SchedulePause,
    Opcode::ScheduleResume,
    Opcode::ScheduleRemove,
    Opcode::ScheduleRun,
];

/// What a command's method gives: a body with its gates, or why the request can't be read.
pub(super) type Answer = Result<(Gates, Body), DecodeError>;

impl Connection {
    /// Acts on one request.
    pub(super) fn act(&mut self, header: Header, body: &[u8]) {
        let Header { opcode, correlation, .. } = header;
        let Some(session) = self.session.clone() else { return self.act_first(header, body) };
        let Some(known) = Opcode::from_code(opcode) else {
            let text = format!("no command has opcode {opcode:#04x} in version {VERSION}");
            return self.push_error(opcode, correlation, ErrorCode::UnknownOpcode, text);
        };
        if header.flags != 0 || header.status != 0 {
            return self.push_reserved(header);
        }
        let pushed = match known {
            Opcode::Fetch => Some(self.fetch(&session, correlation, body)),
            Opcode::Wait => Some(self.wait(correlation, body)),
            _ => None,
        };
        let answer = match pushed {
            Some(Ok(())) => return,
            Some(Err(error)) => Err(error),
            None => self.answer(known, &session, body),
        };
        match answer {
            Ok((gates, body)) => self.push(Reply { gates, opcode, correlation, body }),
            Err(error) => self.push_error(opcode, correlation, error.code(), error.to_string()),
        }
    }

    /// The first request must be HELLO.
    fn act_first(&mut self, header: Header, body: &[u8]) {
        let Header { opcode, correlation, .. } = header;
        if opcode != Opcode::Hello as u8 || !Hello::has_magic(body) {
            let text = "the first frame must be a HELLO that begins with \"JLOG\"".to_owned();
            return self.push_error(opcode, correlation, ErrorCode::NotGreeted, text);
        }
        if header.flags != 0 || header.status != 0 {
            return self.push_reserved(header);
        }
        match self.hello(body) {
            Ok((gates, body)) => self.push(Reply { gates, opcode, correlation, body }),
            Err(error) => self.push_error(opcode, correlation, error.code(), error.to_string()),
        }
    }

    fn push_reserved(&mut self, header: Header) {
        let text = "a request has flags 0 and status 0; other values are reserved".to_owned();
        self.push_error(header.opcode, header.correlation, ErrorCode::Unsupported, text);
    }

    fn hello(&mut self, body: &[u8]) -> Answer {
        let hello = Hello::decode(body)?;
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            let text = format!(
                "versions {} to {} are asked for; this server speaks {VERSION}",
                hello.version_min, hello.version_max
            );
            return Ok((Gates::new(), Body::Error(ErrorCode::UnsupportedVersion, text)));
        }
        check_range("session", u64::from(hello.session != [0; 16]), 1, 1, "not all zero")?;
        let silence_ms = match u64::from(hello.silence_ms) {
            0 => None,
            ms => {
                let (min, max) = (SILENCE_MS_MIN as u64, SILENCE_MS_MAX as u64);
                check_range("silence_ms", ms, min, max, "0, or 500 ms to 1 h")?;
                Some(ms)
            }
        };
        let held: Vec<_> = hello.held.iter().filter_map(convert::grant).collect();
        let session = SessionId(hello.session);
        let gated = self.logs.hello(session, silence_ms, &held, &self.mailbox);
        self.session = gated.result.as_ref().ok().map(|(caller, _)| caller.clone());
        self.closing = self.session.is_none();
        let job_bytes_max = self.options.job_bytes_max as u32;
        Ok(answer(gated, |(_, greeted)| {
            let mut out = bytes::BytesMut::new();
            let reply = HelloReply {
                version: VERSION,
                resumed: greeted.resumed,
                silence_ms: u32::try_from(greeted.silence_ms).unwrap_or(u32::MAX),
                leases_kept: greeted.leases_kept as u32,
                leases_released: greeted.leases_released as u32,
                job_bytes_max,
                agent: AGENT,
            };
            reply.encode(&mut out);
            Body::Bytes(out)
        }))
    }

    fn answer(&mut self, opcode: Opcode, session: &Caller, body: &[u8]) -> Answer {
        match opcode {
            Opcode::Hello => {
                let text = "this connection has been greeted already".to_owned();
                Ok((Gates::new(), Body::Error(ErrorCode::BadRequest, text)))
            }
            Opcode::Goodbye => self.goodbye(session),
            Opcode::Drain => {
                self.draining = true;
                self.logs.end_waits(&self.mailbox);
                Ok((Gates::new(), Body::Empty))
            }
            Opcode::Ping => Ok((Gates::new(), Body::Bytes(body.into()))),
            Opcode::Enqueue => self.enqueue(body),
            Opcode::Move => self.move_jobs(body),
            Opcode::Fetch | Opcode::Wait => unreachable!("what may wait is acted on by its own"),
            Opcode::Commit => self.commit(session, body),
            Opcode::Release => {
                let Release { jobs, delay_ms } = Release::decode(body)?;
                Ok(answer(
                    self.logs.of(jobs.queue).release(&convert::held_set(&jobs), delay_ms),
                    statuses,
                ))
            }
            Opcode::Fail => {
                let fail = Fail::decode(body)?;
                let set = convert::held_set(&fail.jobs);
                let retry = convert::retry(&fail);
                let gated = self.logs.of(set.queue).fail(&set, retry, fail.reason);
                let outcomes = |results: SmallVec<[_; 2]>| {
                    Body::Failed(results.iter().map(convert::fail_outcome).collect())
                };
                Ok(answer(gated, outcomes))
            }
            Opcode::Extend => {
                let Extend { jobs, lease_ms, progress } = Extend::decode(body)?;
                let set = convert::held_set(&jobs);
                Ok(answer(self.logs.of(set.queue).extend(&set, lease_ms, progress), statuses))
            }
            Opcode::Read => {
                let Read { queue, from, jobs_max, bytes_max, unconsumed_by } = Read::decode(body)?;
                let jobs_max = (jobs_max as usize).min(FETCH_JOBS_MAX);
                let bytes_max = u64::from(bytes_max).min(FETCH_BYTES_MAX as u64);
                let broker = self.logs.of(queue);
                let from = Offset(from);
                let read = broker.read(queue, from, jobs_max, bytes_max, unconsumed_by);
                Ok(answer(read, Body::Read))
            }
            Opcode::JobInfo => {
                let JobQuery { queue, offset, group } = admin::decode(body)?;
                let name = Some(group.as_str()).filter(|group| !group.is_empty());
                let gated = self.logs.of(&queue).job_info(&queue, Offset(offset), name);
                let described = |info| Body::Job(Box::new(DescribedJob { queue, offset, info }));
                Ok(answer(gated, described))
            }
            opcode if ABOUT_SCHEDULES.contains(&opcode) => self.schedule(opcode, body),
            opcode => self.administer(opcode, body),
        }
    }

    fn administer(&mut self, opcode: Opcode, body: &[u8]) -> Answer {
        let logs = &self.logs;
        Ok(match opcode {
            Opcode::CreateQueue => {
                let admin::CreateQueue { queue, settings } = admin::decode(body)?;
                admin::check_name(&queue)?;
                settings.primary_group.as_deref().map_or(Ok(()), admin::check_name)?;
                let settings = convert::settings(&QueueSettings::default(), &settings, &[]);
                answer(logs.of(&queue).create_queue(&queue, settings), |()| Body::Empty)
            }
            Opcode::UpdateQueue => {
                let admin::UpdateQueue { queue, settings, reset } = admin::decode(body)?;
                settings.primary_group.as_deref().map_or(Ok(()), admin::check_name)?;
                let change = |base: &_| convert::settings(base, &settings, &reset);
                answer(logs.of(&queue).update_queue(&queue, change), |settings| {
                    Body::json(&convert::wire_settings(&settings))
                })
            }
            Opcode::DeleteQueue => {
                let admin::QueueName { queue } = admin::decode(body)?;
                answer(logs.of(&queue).delete_queue(&queue), |()| Body::Empty)
            }
            Opcode::DescribeQueue | Opcode::ListGroups => {
                let admin::QueueName { queue } = admin::decode(body)?;
                let durability = logs.of(&queue).durability().to_string();
                answer(logs.of(&queue).describe_queue(&queue), |description| {
                    let description = convert::queue_description(description, durability);
                    match opcode {
                        Opcode::ListGroups => Body::json(&description.groups),
                        _ => Body::json(&description),
                    }
                })
            }
            Opcode::CreateGroup => {
                let admin::CreateGroup { queue, group, kind, start } = admin::decode(body)?;
                admin::check_name(&group)?;
                let (kind, start) = (convert::kind(kind), convert::start(start));
                answer(logs.of(&queue).create_group(&queue, &group, kind, start), |()| Body::Empty)
            }
            Opcode::DeleteGroup => {
                let admin::GroupName { queue, group } = admin::decode(body)?;
                answer(logs.of(&queue).delete_group(&queue, &group), |()| Body::Empty)
            }
            Opcode::SeekGroup => {
                let admin::SeekGroup { queue, group, to } = admin::decode(body)?;
                let sought = logs.of(&queue).seek_group(&queue, &group, convert::seek(to));
                answer(sought, |committed| {
                    Body::json(&admin::GroupSought { committed_offset: committed.0 })
                })
            }
            Opcode::ListQueues | Opcode::Stats => self.page(opcode, body)?,
            Opcode::DeadList | Opcode::DeadRetry | Opcode::DeadDrop => self.dead(opcode, body)?,
            Opcode::Cancel | Opcode::Pause | Opcode::Resume | Opcode::Purge => {
                self.withdraw(opcode, body)?
            }
            _ => {
                let admin::GroupName { queue, group } = admin::decode(body)?;
                answer(logs.of(&queue).describe_group(&queue, &group), |description| {
                    Body::json(&convert::group_description(description))
                })
            }
        })
    }

    fn page(&self, opcode: Opcode, body: &[u8]) -> Answer {
        let logs = &self.logs;
        let admin::ListQueues { after, limit } = admin::decode(body)?;
        let limit = (limit as usize).clamp(1, LIST_QUEUES_MAX);
        Ok(match opcode {
            Opcode::ListQueues => answer(logs.list_queues(&after, limit), |(queues, more)| {
                Body::json(&convert::queue_list(queues, more))
            }),
            _ => answer(logs.stats(&after, limit), |(queues, more)| {
                Body::json(&convert::stats(logs.wall_ms(), queues, more))
            }),
        })
    }

    fn dead(&self, opcode: Opcode, body: &[u8]) -> Answer {
        let query: bulk::DeadQuery = admin::decode(body)?;
        let named = query.jobs.as_ref().map_or(0, Vec::len) as u64;
        check_range("jobs", named, 0, BULK_JOBS_MAX as u64, "at most 4096 offsets")?;
        let query = convert::dead_query(&query);
        let broker = self.logs.of(query.queue);
        let action = match opcode {
            Opcode::DeadRetry => DeadAction::Retry,
            Opcode::DeadDrop => DeadAction::Drop,
            _ => {
                let list = |found| Body::json(&convert::dead_list(found));
                return Ok(answer(broker.dead_list(&query), list));
            }
        };
        let done = |found| Body::json(&convert::bulk_done(found));
        Ok(answer(broker.dead_act(&query, action), done))
    }

    fn withdraw(&self, opcode: Opcode, body: &[u8]) -> Answer {
        Ok(match opcode {
            Opcode::Cancel => {
                let bulk::Cancel { queue, jobs } = admin::decode(body)?;
                let most = BULK_JOBS_MAX as u64;
                check_range("jobs", jobs.len() as u64, 1, most, "1 to 4096 offsets")?;
                let gated = self.logs.of(&queue).cancel(&queue, &jobs);
                answer(gated, |outcomes| Body::json(&convert::cancelled(outcomes)))
            }
            Opcode::Purge => {
                let bulk::Purge { queue, from, end } = admin::decode(body)?;
                let (from, end, most) = (Offset(from), end.map(Offset), PURGE_JOBS_MAX as u64);
                let gated = self.logs.of(&queue).purge(&queue, from, end, most);
                answer(gated, |purged| Body::json(&convert::purged(purged)))
            }
            opcode => {
                let bulk::Pause { queue, group } = admin::decode(body)?;
                let group = group.as_deref().map(convert::group);
                let paused = opcode == Opcode::Pause;
                answer(self.logs.of(&queue).pause(&queue, group, paused), |()| Body::Empty)
            }
        })
    }

    fn schedule(&self, opcode: Opcode, body: &[u8]) -> Answer {
        let logs = &self.logs;
        if opcode == Opcode::ScheduleList {
            return self.list_schedules(body);
        }
        if opcode == Opcode::ScheduleAdd {
            let add: schedule::ScheduleAdd = admin::decode(body)?;
            let plan = match convert::plan(&add, self.options.job_bytes_max) {
                Ok(plan) => plan,
                Err(error) => {
                    return Ok((Gates::new(), Body::Error(error.code(), error.to_string())));
                }
            };
            let added = logs.set_schedule(&add.schedule, plan, add.replace, add.paused);
            return Ok(answer(added, |()| Body::Empty));
        }
        let schedule::ScheduleName { schedule: name } = admin::decode(body)?;
        Ok(match opcode {
            Opcode::ScheduleRemove => answer(logs.remove_schedule(&name), |()| Body::Empty),
            Opcode::ScheduleRun => {
                answer(logs.run_schedule(&name, convert::wants), |(queue, job)| {
                    Body::json(&schedule::ScheduleRun { queue, offset: job.0 })
                })
            }
            opcode => {
                let paused = opcode == Opcode::SchedulePause;
                answer(logs.pause_schedule(&name, paused), |()| Body::Empty)
            }
        })
    }

    fn list_schedules(&self, body: &[u8]) -> Answer {
        let query: schedule::ScheduleQuery = admin::decode(body)?;
        let times = (query.times as usize).min(SCHEDULE_TIMES_MAX);
        if let Some(name) = &query.schedule {
            let shown = |named| Body::json(&convert::schedule_list(vec![named], false, true));
            return Ok(answer(self.logs.schedule(name, times), shown));
        }
        let limit = (query.limit as usize).clamp(1, LIST_SCHEDULES_MAX);
        let listed = self.logs.list_schedules(&query.after, limit, times);
        Ok(answer(listed, |(list, more)| Body::json(&convert::schedule_list(list, more, false))))
    }

    fn goodbye(&mut self, session: &Caller) -> Answer {
        let answer = answer(self.logs.goodbye(session), |()| Body::Empty);
        self.closing = true;
        Ok(answer)
    }

    fn commit(&mut self, session: &Caller, body: &[u8]) -> Answer {
        Ok(match Commit::decode(body)? {
            Commit::Jobs(sets) => {
                let sets: SmallVec<[HeldSet<'_>; 1]> = sets.iter().map(convert::held_set).collect();
                answer(self.logs.commit(session, &sets), statuses)
            }
            Commit::One(one) => self.commit_one(&one),
            Commit::Through { queue, group, offset } => {
                let group = convert::group(group);
                let broker = self.logs.of(queue);
                let gated = broker.commit_through(queue, group, Offset(offset));
                answer(gated, |verdict| statuses(smallvec![verdict]))
            }
        })
    }

    /// FETCH: its commits are answered at once, its jobs when there are some.
    fn fetch(
        &mut self,
        session: &Caller,
        correlation: u64,
        body: &[u8],
    ) -> Result<(), DecodeError> {
        let fetch = Fetch::decode(body)?;
        let opcode = Opcode::Fetch as u8;
        if self.draining {
            return self.fetch_nothing(session, correlation, &fetch);
        }
        if fetch.wait_ms > 0 && self.waiting.len() >= WAITING_FETCHES_MAX {
            let text = format!("{WAITING_FETCHES_MAX} FETCHes wait on this connection already");
            self.push_error(opcode, correlation, ErrorCode::TooMany, text);
            return Ok(());
        }
        let commits: SmallVec<[HeldSet<'_>; 1]> =
            fetch.commits.iter().map(convert::held_set).collect();
        let ticket = (fetch.wait_ms > 0).then(|| {
            self.last_ticket += 1;
            Arc::new(Ticket::new(self.last_ticket))
        });
        let request = FetchRequest {
            queues: &fetch.queues,
            group: convert::group(fetch.group),
            terms: self.terms(&fetch, session),
            wait: ticket.as_ref().map(|ticket| Wait {
                wait_ms: fetch.wait_ms.into(),
                mailbox: &self.mailbox,
                ticket,
            }),
            commits: &commits,
        };
        let Gated { result, gates } = self.logs.fetch(session, &request);
        let fetched = match result {
            Ok(fetched) => fetched,
            Err(error) => {
                let body = Body::Error(convert::error_code(&error), error.to_string());
                self.push(Reply { gates, opcode, correlation, body });
                return Ok(());
            }
        };
        if !commits.is_empty() {
            let statuses = fetched.commits.iter().map(convert::status).collect();
            let body = Body::Statuses { statuses, more: true };
            self.push(Reply { gates: gates.clone(), opcode, correlation, body });
        }
        match (fetched.jobs, ticket) {
            (FetchedJobs::Now(grants), _) => self.push_jobs(gates, correlation, grants),
            (FetchedJobs::Waiting(places), Some(ticket)) => {
                self.waiting.insert(ticket.id, Waiting { correlation, places });
            }
            (FetchedJobs::Waiting(_), None) => unreachable!("without a wait it is answered"),
        }
        Ok(())
    }

    /// A FETCH on a connection that takes nothing more: its commits are done.
    fn fetch_nothing(
        &mut self,
        session: &Caller,
        correlation: u64,
        fetch: &Fetch<'_>,
    ) -> Result<(), DecodeError> {
        let opcode = Opcode::Fetch as u8;
        let commits: SmallVec<[HeldSet<'_>; 1]> =
            fetch.commits.iter().map(convert::held_set).collect();
        if !commits.is_empty() {
            let (gates, mut body) = answer(self.logs.commit(session, &commits), statuses);
            let refused = matches!(body, Body::Error(..));
            if let Body::Statuses { more, .. } = &mut body {
                *more = true;
            }
            self.push(Reply { gates, opcode, correlation, body });
            if refused {
                return Ok(());
            }
        }
        self.push_jobs(Gates::new(), correlation, Grants::none());
        Ok(())
    }

    fn terms(&self, fetch: &Fetch<'_>, session: &Caller) -> FetchTerms {
        let (holder, lease_ms) = match fetch.lease {
            LeaseKind::Session { run_ms_max } => {
                (Holder::Session(session.session), run_ms_max.unwrap_or(self.options.run_ms_max))
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

    /// Answers a FETCH with its jobs.
    pub(super) fn push_jobs(&mut self, gates: Gates, correlation: u64, grants: Grants) {
        let opcode = Opcode::Fetch as u8;
        self.push(Reply { gates, opcode, correlation, body: Body::Jobs(grants) });
    }
}

/// The body of a broker's answer.
pub(super) fn answer<T>(gated: Gated<T>, body: impl FnOnce(T) -> Body) -> (Gates, Body) {
    let body = match gated.result {
        Ok(value) => body(value),
        Err(error) => Body::Error(convert::error_code(&error), error.to_string()),
    };
    (gated.gates, body)
}

fn statuses(verdicts: Verdicts) -> Body {
    Body::Statuses { statuses: verdicts.iter().map(convert::status).collect(), more: false }
}

fn check_range(
    field: &'static str,
    value: u64,
    min: u64,
    max: u64,
    allowed: &'static str,
) -> Result<(), DecodeError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(DecodeError::Range { field, value, allowed })
}
