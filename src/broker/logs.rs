//! Several logs as one: which queue lives where, and requests that concern more than one log.
//!
//! A queue lives in the log that the checksum of its name picks, so nothing has to be kept about
//! it; that is why the number of logs is fixed when a data directory is made. Each log has its own
//! lock, state, sync and failures: one that is poisoned leaves the others serving. What a request
//! does in several logs is done log by log, not at once.

use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::{SmallVec, smallvec};

use super::gate::{Gate, GateState, Gated, Gates};
use super::grants::{GrantedJob, Grants, WaiterId};
use super::mailbox::{Mailbox, Shard};
use super::sessions::SessionHandle;
use super::{
    Broker, BrokerError, FetchRequest, Fetched, FetchedJobs, Greeted, LeaseRefs, QueueSummary,
    Verdicts,
};
use crate::log::LogError;
use crate::types::{Grant, LogId, SessionId};

/// Bytes of a log that may wait in memory for its disk. A connection with nothing to wait for may
/// still add what one read brings.
const PENDING_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// All logs of a server.
#[derive(Debug)]
pub struct Logs {
    brokers: Vec<Arc<Broker>>,
}

/// A session as its connection holds it: its handle in each log that takes requests.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The session.
    pub session: SessionId,
    handles: SmallVec<[Option<SessionHandle>; 1]>,
}

/// The queues of a FETCH that lie in one log and follow each other.
struct Stretch<'a> {
    log: LogId,
    /// Where in the FETCH it begins.
    first: u8,
    queues: &'a [&'a str],
}

impl Logs {
    /// Puts logs together, in the order of their ids.
    pub fn new(brokers: Vec<Arc<Broker>>) -> Self {
        Self { brokers }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.iter()
    }

    /// The log that a queue of this name lives in.
    pub fn id_of(&self, queue: &str) -> LogId {
        let count = self.brokers.len() as u32;
        match count {
            1 => LogId(0),
            count => LogId((crc32fast::hash(queue.as_bytes()) % count) as u16),
        }
    }

    /// The broker of the log that two queues live in, if it is one.
    ///
    /// # Errors
    /// `OtherLog`.
    pub(super) fn of_both(&self, queue: &str, other: &str) -> Result<&Broker, BrokerError> {
        if self.id_of(queue) == self.id_of(other) {
            return Ok(self.of(queue));
        }
        let [queue, other] = [queue, other].map(str::to_owned);
        Err(BrokerError::OtherLog { queue, other })
    }

    /// The broker of the log that a queue of this name lives in.
    pub fn of(&self, queue: &str) -> &Arc<Broker> {
        self.broker(self.id_of(queue))
    }

    pub(super) fn broker(&self, log: LogId) -> &Arc<Broker> {
        self.brokers.get(usize::from(log.0)).expect("ids come from the number of logs")
    }

    /// A mailbox for a connection of an I/O thread.
    pub fn mailbox(&self, io_thread: usize) -> Arc<Mailbox> {
        let shards = self.brokers.iter().map(|broker| Arc::clone(broker.shard(io_thread)));
        Mailbox::new(shards.collect())
    }

    /// The notifier's turn of an I/O thread: see [`Shard::poll_wake`].
    pub fn poll_wake(&self, io_thread: usize, cx: &Context<'_>) -> Poll<()> {
        let wake = |broker: &Arc<Broker>| {
            let shard: &Shard = broker.shard(io_thread);
            shard.poll_wake(cx, || broker.woken())
        };
        self.brokers.iter().map(wake).fold(Poll::Pending, |_, pending| pending)
    }

    /// Whether an answer with these gates may leave; if not yet, also which of them holds it.
    pub fn release_of(&self, gates: &[Gate]) -> (GateState, Option<Gate>) {
        for gate in gates {
            let release = self.broker(gate.log).release_of(gate.index);
            if release != GateState::Released {
                return (release, Some(*gate));
            }
        }
        (GateState::Released, None)
    }

    /// See [`Broker::flush`].
    pub fn flush(&self) {
        self.brokers.iter().for_each(|broker| broker.flush());
    }

    /// Whether a log has so much in memory that its disk must catch up before more is taken on.
    pub fn is_congested(&self) -> bool {
        self.brokers.iter().any(|broker| broker.log.pending_bytes() > PENDING_BYTES_MAX)
    }

    /// See [`Broker::stop`].
    pub fn stop(&self) {
        self.brokers.iter().for_each(|broker| broker.stop());
    }

    /// Greets a session in all logs. One that takes no requests is left out, unless none does.
    pub fn hello(
        &self,
        session: SessionId,
        silence_ms: Option<u64>,
        held: &[(LogId, Grant)],
        mailbox: &Arc<Mailbox>,
    ) -> Gated<(Caller, Greeted)> {
        let mut gates = Gates::new();
        let mut handles = SmallVec::new();
        let mut all: Option<Greeted> = None;
        let mut refused = None;
        for (broker, log) in self.brokers.iter().zip((0..).map(LogId)) {
            let of_log = held.iter().filter(|(of, _)| *of == log);
            let grants: SmallVec<[Grant; 2]> = of_log.map(|(_, grant)| *grant).collect();
            let Gated { result, gates: gate } = broker.hello(session, silence_ms, &grants, mailbox);
            gates.extend(gate);
            handles.push(result.as_ref().ok().map(|greeted| greeted.handle.clone()));
            match (result, &mut all) {
                (Ok(greeted), Some(all)) => all.add(&greeted),
                (Ok(greeted), all) => *all = Some(greeted),
                (Err(error), _) => refused = Some(error),
            }
        }
        let caller = Caller { session, handles };
        let greeted = all.map(|greeted| (caller, greeted));
        let result = greeted.ok_or_else(|| refused.unwrap_or(BrokerError::ShuttingDown));
        Gated { result, gates }
    }

    /// Ends a session in all logs.
    pub fn goodbye(&self, caller: &Caller) -> Gated<()> {
        let of_each = self.of_caller(caller).map(|(broker, handle)| broker.goodbye(handle));
        of_each.fold(Gated::from(Ok(())), |all, one| all.and(one, |(), ()| ()))
    }

    /// Ends the waits of a connection: it takes nothing more.
    pub fn end_waits(&self, mailbox: &Arc<Mailbox>) {
        self.brokers.iter().for_each(|broker| broker.end_waits_of(mailbox));
    }

    /// Notes that something came from a client.
    pub fn heard(&self, caller: &Caller) {
        self.of_caller(caller).for_each(|(broker, handle)| broker.heard(handle));
    }

    /// Takes leave of a connection: its FETCHes wait no longer, and jobs that were granted to it
    /// but not sent go back at once.
    pub fn disconnect(&self, caller: &Caller, mailbox: &Arc<Mailbox>, unsent: Vec<Grants>) {
        for (broker, handle) in self.of_caller(caller) {
            broker.detach(handle, mailbox);
        }
        // From here on nothing new comes into the mailbox.
        let grants = unsent.into_iter().chain(mailbox.take_grants());
        let mut jobs: Vec<_> = grants.flat_map(|grants| grants.jobs).collect();
        for broker in &self.brokers {
            broker.give_back(jobs.extract_if(.., |job| job.log == broker.options.log));
        }
    }

    /// Declares a granted job dead, because its bytes can't be read.
    pub fn damage(&self, job: &GrantedJob, error: &LogError) {
        self.broker(job.log).damage(job, error);
    }

    fn of_caller<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> impl Iterator<Item = (&'a Arc<Broker>, &'a SessionHandle)> {
        let pairs = self.brokers.iter().zip(&caller.handles);
        pairs.filter_map(|(broker, handle)| Some((broker, handle.as_ref()?)))
    }

    /// Consumes jobs, log by log. A request that is refused as a whole has consumed none.
    pub fn commit(&self, caller: &Caller, sets: &[LeaseRefs<'_>]) -> Gated<Verdicts> {
        if let [only] = &self.brokers[..] {
            return only.commit(sets);
        }
        if let Some(refused) = self.check(caller, &[], "", sets) {
            return Gated::refused(refused);
        }
        let of_each = sets.iter().map(|set| self.of(set.queue).commit(std::slice::from_ref(set)));
        of_each.fold(Gated::from(Ok(Verdicts::new())), |all, one| {
            all.and(one, |mut all, one| {
                all.extend(one);
                all
            })
        })
    }

    /// Why a FETCH of these queues, or commits of these sets, would be refused as a whole.
    fn check(
        &self,
        caller: &Caller,
        queues: &[&str],
        group: &str,
        sets: &[LeaseRefs<'_>],
    ) -> Option<BrokerError> {
        let queues = queues.iter().map(|queue| (*queue, &[][..]));
        let sets = sets.iter().map(|set| (set.queue, std::slice::from_ref(set)));
        let asked = queues.map(|(queue, sets)| (queue, Some(queue), sets));
        let committed = sets.map(|(queue, sets)| (queue, None, sets));
        asked.chain(committed).find_map(|(queue, asked, sets)| {
            let log = self.id_of(queue);
            let handle = caller.handles.get(usize::from(log.0))?.as_ref()?;
            self.broker(log).check(handle, asked.as_slice(), group, sets).result.err()
        })
    }

    /// Takes ready jobs of queues that may lie in several logs, in their order, or waits in all of
    /// them. A log that takes no requests is passed over, unless all are.
    pub fn fetch(&self, caller: &Caller, request: &FetchRequest<'_>) -> Gated<Fetched> {
        let stretches = self.stretches(request.queues);
        if let ([Some(handle)], [_]) = (&caller.handles[..], &stretches[..]) {
            return self.broker(LogId(0)).fetch(handle, request);
        }
        if let Some(refused) = self.check(caller, request.queues, request.group, request.commits) {
            return Gated::refused(refused);
        }
        let Gated { result: commits, mut gates } = self.commit(caller, request.commits);
        let commits = match commits {
            Ok(commits) => commits,
            Err(error) => return Gated { result: Err(error), gates },
        };
        let mut stretches = stretches;
        if request.terms.by_turns {
            stretches.sort_by_cached_key(|stretch| self.longest_waiting(stretch, request.group));
        }
        let mut gathered = Gathered::default();
        let mut unasked = request.queues.len();
        // By turns none gets more than its even share before all have been asked.
        let again = stretches.iter().filter(|_| request.terms.by_turns);
        for stretch in stretches.iter().chain(again) {
            if gathered.is_full(request) || (unasked == 0 && gathered.jobs() == 0) {
                break;
            }
            let log = stretch.log;
            let mut part = gathered.part(stretch, request);
            if request.terms.by_turns && unasked > 0 {
                let left = part.terms.jobs_max * stretch.queues.len();
                part.terms.jobs_max = left.div_ceil(unasked);
            }
            unasked = unasked.saturating_sub(stretch.queues.len());
            let Some(Some(handle)) = caller.handles.get(usize::from(log.0)) else { continue };
            let Gated { result, gates: gate } = self.broker(log).fetch(handle, &part);
            gates.extend(gate);
            gathered.add(result);
        }
        let result = gathered.finish(self).map(|jobs| Fetched { commits, jobs });
        Gated { result, gates }
    }

    /// When the queue of a stretch was last served by turns that waits for its turn the longest;
    /// late if nothing is ready in any.
    fn longest_waiting(&self, stretch: &Stretch<'_>, group: &str) -> u64 {
        let last = self.broker(stretch.log).longest_waiting(stretch.queues, group);
        last.result.ok().flatten().unwrap_or(u64::MAX)
    }

    fn stretches<'a>(&self, queues: &'a [&'a str]) -> SmallVec<[Stretch<'a>; 1]> {
        let mut stretches: SmallVec<[Stretch<'a>; 1]> = smallvec![];
        let mut rest = queues;
        while let Some(queue) = rest.first() {
            let log = self.id_of(queue);
            let same = rest.iter().take_while(|queue| self.id_of(queue) == log).count();
            let (stretch, behind) = rest.split_at(same);
            let first = (queues.len() - rest.len()) as u8;
            stretches.push(Stretch { log, first, queues: stretch });
            rest = behind;
        }
        stretches
    }

    /// Takes a FETCH that has been answered out of the other logs that it waited in.
    pub fn forget_waits(&self, waits: &[(LogId, WaiterId)]) {
        // The log that has answered it knows of it no more; for a single one that is all.
        if waits.len() > 1 {
            waits.iter().for_each(|(log, waiter)| self.broker(*log).forget_wait(*waiter));
        }
    }

    /// Lists up to `limit` queues behind `after`, by name; also whether there are more.
    pub fn list_queues(&self, after: &str, limit: usize) -> Gated<(Vec<QueueSummary>, bool)> {
        self.page(limit, |broker| broker.list_queues(after, limit))
    }

    /// The numbers of up to `limit` queues behind `after`, by name; also whether there are more.
    pub fn stats(&self, after: &str, limit: usize) -> Gated<(Vec<QueueSummary>, bool)> {
        self.page(limit, |broker| broker.stats(after, limit))
    }

    /// The time of day.
    pub fn wall_ms(&self) -> u64 {
        self.meta().now().wall_ms
    }

    /// A page by name, of the pages of all logs.
    fn page(
        &self,
        limit: usize,
        of_log: impl Fn(&Broker) -> Gated<(Vec<QueueSummary>, bool)>,
    ) -> Gated<(Vec<QueueSummary>, bool)> {
        let of_each = self.brokers.iter().map(|broker| of_log(broker));
        let all = of_each.fold(Gated::from(Ok((Vec::new(), false))), |all, one| {
            all.and(one, |(mut queues, more), (of_log, more_of_log)| {
                queues.extend(of_log);
                (queues, more || more_of_log)
            })
        });
        all.map(|(mut queues, more)| {
            queues.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            let cut = queues.len() > limit;
            queues.truncate(limit);
            (queues, more || cut)
        })
    }
}

/// What a FETCH over several logs has got so far.
#[derive(Default)]
struct Gathered {
    grants: Option<Grants>,
    bytes: u64,
    waits: SmallVec<[(LogId, WaiterId); 1]>,
    refused: Option<BrokerError>,
}

impl Gathered {
    fn jobs(&self) -> usize {
        self.grants.as_ref().map_or(0, |grants| grants.jobs.len())
    }

    fn is_full(&self, request: &FetchRequest<'_>) -> bool {
        let terms = &request.terms;
        self.jobs() >= terms.jobs_max || (self.jobs() > 0 && self.bytes >= terms.bytes_max)
    }

    /// The part of the request that is left for a stretch. It waits only if there is nothing yet.
    fn part<'a>(&self, stretch: &Stretch<'a>, request: &FetchRequest<'a>) -> FetchRequest<'a> {
        let mut terms = request.terms;
        terms.first_ordinal = stretch.first;
        terms.jobs_max -= self.jobs();
        terms.bytes_max -= self.bytes.min(terms.bytes_max);
        let wait = request.wait.filter(|_| self.jobs() == 0);
        FetchRequest { queues: stretch.queues, group: request.group, terms, wait, commits: &[] }
    }

    fn add(&mut self, result: Result<Fetched, BrokerError>) {
        match result.map(|fetched| fetched.jobs) {
            Ok(FetchedJobs::Waiting(waits)) => self.waits.extend(waits),
            Ok(FetchedJobs::Now(grants)) => {
                self.bytes += grants.jobs.iter().map(|job| u64::from(job.bytes)).sum::<u64>();
                match &mut self.grants {
                    Some(all) => all.jobs.extend(grants.jobs),
                    all => *all = Some(grants),
                }
            }
            Err(error) => self.refused = Some(error),
        }
    }

    fn finish(self, logs: &Logs) -> Result<FetchedJobs, BrokerError> {
        match (self.grants, self.refused) {
            (Some(grants), _) if !grants.jobs.is_empty() => {
                self.waits.iter().for_each(|(log, waiter)| logs.broker(*log).forget_wait(*waiter));
                Ok(FetchedJobs::Now(grants))
            }
            _ if !self.waits.is_empty() => Ok(FetchedJobs::Waiting(self.waits)),
            (Some(grants), _) => Ok(FetchedJobs::Now(grants)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(FetchedJobs::Now(Grants::none())),
        }
    }
}

impl Greeted {
    /// Adds what another log says.
    fn add(&mut self, other: &Self) {
        self.resumed |= other.resumed;
        self.leases_kept += other.leases_kept;
        self.leases_released += other.leases_released;
    }
}
