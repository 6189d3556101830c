//! One turn under the state lock: facts are applied as they are decided, and appended as one entry.
//!
//! Validation, append and apply happen under one lock and in memory, so no one can see the state
//! between them; and nothing that depends on the turn leaves before its entry is released.

use std::sync::Arc;

use joblog_protocol::job::{Asked, Batch, NotBefore};
use smallvec::SmallVec;

use super::core::Core;
use super::error::BrokerError;
use super::gate::{Gate, Gates};
use super::grants::Grants;
use super::mailbox::{Event, Mailbox};
use super::replay::{log_bytes, numbered};
use super::waiters::Waiter;
use crate::log::{EntryView, Log};
use crate::queue::{
    Due, Fact, JobFact, JobTerms, LeaseFact, Numbered, Rank, Run, Runs, push_offset,
};
use crate::types::{GroupId, Offset, ProducerId, QueueId, Stamp};

/// A batch of jobs to enqueue.
#[derive(Clone, Copy, Debug)]
pub struct JobBatch<'a> {
    /// The jobs as they came.
    pub jobs: Batch<'a>,
    /// What jobs of it ask for, by their place in it, as [`Batch::asked`] gives it.
    pub asked: &'a [(u32, Asked<'a>)],
    /// Who sends it, and under which number; a zero producer for nobody.
    pub producer: ProducerId,
    /// The producer's number for it.
    pub sequence: u64,
}

impl<'a> JobBatch<'a> {
    /// Jobs that ask for nothing, in a batch without a number.
    pub fn plain(jobs: Batch<'a>) -> Self {
        Self { jobs, asked: &[], producer: ProducerId::default(), sequence: 0 }
    }

    /// Its number, if its producer gave it one.
    pub(super) fn number(&self) -> Option<Numbered> {
        numbered(self.producer, self.sequence, self.jobs.table)
    }
}

/// Facts of one turn beyond this become an entry of their own at once, so that no request, however
/// many jobs it names, makes an entry that does not fit a segment.
const FACTS_BYTES_MAX: usize = 64 * 1024;

/// Runs of one fact: 12 bytes each.
const RUNS_MAX: usize = FACTS_BYTES_MAX / 16;

/// Room that is made sure of before a turn: the facts of all but the largest, and a result.
pub(super) const TURN_BYTES: u32 = 4 * FACTS_BYTES_MAX as u32;

/// Keys that one turn reads: about a millisecond.
const KEYS_PER_TURN_MAX: usize = 4_096;

/// Jobs on their way to a FETCH that waited for them.
type HandOff = (Waiter, Grants);

/// What a connection is told when this turn's entry is released.
type Notice = (Arc<Mailbox>, Box<dyn FnOnce(Gate) -> Event>);

/// The state during one turn.
pub(super) struct Turn<'a> {
    pub(super) core: &'a mut Core,
    pub(super) log: &'a Log,
    pub(super) stamp: Stamp,
    pub(super) lease_now_ms: u64,
    /// How many keys it may still read.
    pub(super) keys_left: usize,
    /// The schedule and due time for which the next jobs are appended.
    pub(super) fires: Option<(Box<str>, Due)>,
    facts: Vec<u8>,
    committed: Option<(GroupId, Runs)>,
    /// The first append that failed behind applied facts.
    failed: Option<BrokerError>,
    hand_offs: SmallVec<[HandOff; 1]>,
    notices: Vec<Notice>,
}

impl<'a> Turn<'a> {
    pub(super) fn begin(core: &'a mut Core, log: &'a Log, stamp: Stamp, lease_now_ms: u64) -> Self {
        let facts = std::mem::take(&mut core.facts_buffer);
        Self {
            core,
            log,
            stamp,
            lease_now_ms,
            fires: None,
            keys_left: KEYS_PER_TURN_MAX,
            facts,
            committed: None,
            failed: None,
            hand_offs: SmallVec::new(),
            notices: Vec::new(),
        }
    }

    /// Applies a fact that has just been validated, and has it stand in this turn's entry.
    pub(super) fn record(&mut self, fact: &Fact) {
        self.apply(fact);
        self.encode_committed();
        fact.encode(&mut self.facts);
        self.append_large();
    }

    /// Records that a job is consumed. Neighbours become one fact.
    pub(super) fn record_committed(&mut self, group: GroupId, offset: Offset) {
        let run = Run { first: offset, count: 1 };
        self.apply(&Fact::Lease(LeaseFact::Committed { group, runs: SmallVec::from_iter([run]) }));
        match &mut self.committed {
            Some((known, runs)) if *known == group && runs.len() < RUNS_MAX => {
                push_offset(runs, offset);
            }
            _ => {
                self.encode_committed();
                self.committed = Some((group, SmallVec::from_iter([run])));
                self.append_large();
            }
        }
    }

    fn apply(&mut self, fact: &Fact) {
        let applied = self.core.machine.apply(fact, self.stamp, self.lease_now_ms);
        applied.expect("the fact was validated against this state, under the same lock");
        self.tell_ends(fact);
    }

    fn encode_committed(&mut self) {
        if let Some((group, runs)) = self.committed.take() {
            Fact::Lease(LeaseFact::Committed { group, runs }).encode(&mut self.facts);
        }
    }

    fn append_large(&mut self) {
        if self.facts.len() > FACTS_BYTES_MAX
            && let Err(error) = self.append_facts()
        {
            self.failed.get_or_insert(error);
            self.facts.clear();
        }
    }

    /// Appends jobs to a queue, behind the facts of the turn so far, and applies them; with them
    /// facts that were validated, in the same entry. There may be such facts alone.
    pub(super) fn append_jobs(
        &mut self,
        queue: QueueId,
        base: Offset,
        batch: JobBatch<'_>,
        with: Option<&Fact>,
        more: &[Fact],
    ) -> Result<(), BrokerError> {
        let JobBatch { jobs: Batch { count, table, bodies }, asked, producer, sequence } = batch;
        self.reserve_offsets(count)?;
        self.append_facts()?;
        let terms = terms(queue, base, asked, self.stamp);
        let mark = if count > 0 { self.take_mark(queue, base) } else { None };
        let about = || terms.iter().chain(&mark).chain(with).chain(more);
        let mut facts = std::mem::take(&mut self.facts);
        about().for_each(|fact| fact.encode(&mut facts));
        let (entry_queue, base_offset) =
            if count > 0 { (queue, base) } else { (QueueId(0), Offset(0)) };
        let entry = EntryView {
            queue: entry_queue,
            base_offset,
            count,
            table,
            facts: &facts,
            bodies,
            stamp: self.stamp,
            producer: producer.0,
            sequence,
            ..EntryView::default()
        };
        let appended = self.append(&entry);
        facts.clear();
        self.facts = facts;
        appended?;
        if count > 0 {
            self.use_offsets(count);
            let bytes = bodies.len() as u64;
            let applied = self.core.machine.apply_jobs(queue, base, count, bytes, self.stamp);
            applied.expect("the base was read from this state, under the same lock");
        }
        if let Some(number) = batch.number() {
            let log_ms = self.stamp.log_ms;
            let applied = self.core.machine.apply_numbered(queue, number, base, count, log_ms);
            applied.expect("the batch was looked for in this state, under the same lock");
        }
        about().for_each(|fact| self.apply(fact));
        Ok(())
    }

    /// Has jobs leave to a FETCH that waited, when this turn's entry is released.
    pub(super) fn hand_off(&mut self, waiter: Waiter, grants: Grants) {
        self.hand_offs.push((waiter, grants));
    }

    /// Has a connection told something when this turn's entry is released.
    pub(super) fn send_when_released(
        &mut self,
        mailbox: Arc<Mailbox>,
        event: impl FnOnce(Gate) -> Event + 'static,
    ) {
        self.notices.push((mailbox, Box::new(event)));
    }

    /// Appends what was recorded. Gives the index that a reply to this turn waits for: also a turn
    /// that changed nothing has seen the state up to there. Also whether it handed jobs off.
    pub(super) fn finish(mut self) -> Result<(Gate, bool), BrokerError> {
        let appended = self.append_facts();
        self.facts.clear();
        self.core.facts_buffer = std::mem::take(&mut self.facts);
        if let Some(error) = self.failed.take().or_else(|| appended.err()) {
            self.core.halted = true;
            return Err(error);
        }
        let gate = Gate { log: self.core.id, index: self.core.last_index };
        let handed_off = !self.hand_offs.is_empty() || !self.notices.is_empty();
        for (Waiter { mailbox, ticket, .. }, grants) in self.hand_offs {
            let (ticket, gates) = (ticket.id, Gates::from_iter([gate]));
            mailbox.send_gated(Event::Granted { ticket, grants, gates }, gate);
        }
        for (mailbox, event) in self.notices {
            mailbox.send_gated(event(gate), gate);
        }
        Ok((gate, handed_off))
    }

    pub(super) fn append_facts(&mut self) -> Result<(), BrokerError> {
        self.encode_committed();
        if !self.facts.is_empty() {
            let facts = std::mem::take(&mut self.facts);
            let appended = self.append(&EntryView {
                facts: &facts,
                stamp: self.stamp,
                ..EntryView::default()
            });
            self.facts = facts;
            appended?;
            self.facts.clear();
        }
        Ok(())
    }

    fn append(&mut self, entry: &EntryView<'_>) -> Result<(), BrokerError> {
        self.core.last_index = self.log.append(entry)?;
        self.core.log_bytes += log_bytes(entry.table, entry.facts, entry.bodies);
        Ok(())
    }
}

/// What becomes of the terms that jobs of a batch ask for: nothing if they change nothing.
fn terms(queue: QueueId, base: Offset, asked: &[(u32, Asked<'_>)], now: Stamp) -> Option<Fact> {
    let mut runs: Vec<(Run, JobTerms)> = Vec::new();
    for (ordinal, Asked { terms, .. }) in asked {
        let terms = JobTerms {
            due: terms.due.and_then(|due| due_time(due, now)),
            expires_log_ms: terms.ttl_ms.map(|ttl_ms| now.log_ms.saturating_add(ttl_ms)),
            rank: Rank { priority: terms.priority, front: terms.front },
        };
        if terms == JobTerms::default() {
            continue;
        }
        let offset = base.plus(u64::from(*ordinal));
        match runs.last_mut() {
            Some((run, last))
                if *last == terms && run.first.plus(u64::from(run.count)) == offset =>
            {
                run.count += 1;
            }
            _ => runs.push((Run { first: offset, count: 1 }, terms)),
        }
    }
    (!runs.is_empty()).then_some(Fact::Job(JobFact::TermsSet { queue, runs }))
}

/// A time that has passed is no due time.
pub(super) fn due_time(due: NotBefore, now: Stamp) -> Option<Due> {
    match due {
        NotBefore::In(0) => None,
        NotBefore::In(delay_ms) => Some(Due::Log(now.log_ms.saturating_add(delay_ms))),
        NotBefore::At(wall_ms) => (wall_ms > now.wall_ms).then_some(Due::Wall(wall_ms)),
    }
}
