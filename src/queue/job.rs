//! One job as people ask about it: where it stands for a group, what happened to it, and what its
//! worker says of its progress.
//!
//! What workers say costs memory only where they say it: the bytes and about 60 more for each job
//! that is out and has a note of its progress, and for each that failed and is to be tried again.

use std::collections::BTreeMap;

use super::{
    Contradiction, DeadJob, EndReason, Fact, GroupRecord, Holder, JobEnd, JobRefusal, JobState,
    LeaseFact, Machine, Record,
};
use crate::types::{Grant, GroupId, Offset, QueueId};

/// Bytes that are kept of the last error of a job that is to be tried again; what a dead one's
/// worker said last is kept whole.
pub const LAST_ERROR_BYTES_MAX: usize = 256;

/// What workers said of the jobs of a group that are not consumed.
#[derive(Debug, Default)]
pub(super) struct Sayings {
    /// Of their progress, while they are out.
    pub(super) progress: BTreeMap<Offset, Box<str>>,
    /// When they failed last.
    pub(super) errors: BTreeMap<Offset, Box<str>>,
}

/// A lease, as people ask about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Who holds it.
    pub holder: Holder,
    /// How long it runs from its grant, its last extension or the last start of the server.
    pub lease_ms: u64,
    /// How much of that is left.
    pub left_ms: u64,
}

/// Where a job stands, as people ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStanding {
    /// It can be fetched.
    Ready,
    /// It waits for others of its key.
    Parked,
    /// It can be fetched later.
    Delayed {
        /// When, on the clock of the log.
        due_log_ms: u64,
    },
    /// It is out with a worker.
    Leased(LeaseView),
    /// It is not fetched again.
    Dead(DeadJob),
    /// It is consumed.
    Consumed,
    /// It was cancelled or purged.
    Cancelled,
    /// Its time was over.
    Expired,
}

/// One job, described for a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Where it stands.
    pub standing: JobStanding,
    /// How often it was delivered to the group; not known any more of one that is consumed.
    pub attempts: Option<u32>,
    /// How often a worker said that it failed.
    pub failures: u32,
    /// How often its worker was lost.
    pub crashes: u32,
    /// Whether it was cancelled while it is out: its worker is to stop.
    pub cancel_requested: bool,
    /// What its worker said of its progress.
    pub progress: Option<Box<str>>,
    /// What a worker said when it failed last.
    pub last_error: Option<Box<str>>,
    /// The bytes of its result, while that is kept.
    pub result_bytes: Option<u64>,
}

impl Sayings {
    /// Forgets all about a job that is consumed or dead.
    pub(super) fn forget(&mut self, offset: Offset) {
        self.progress.remove(&offset);
        self.errors.remove(&offset);
    }

    /// All that was said, in the order of a checkpoint.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let progress = self.progress.iter();
        let progress = progress.map(|(offset, note)| {
            Record::Group(GroupRecord::Progress { offset: *offset, note: note.clone() })
        });
        let errors = self.errors.iter();
        let errors = errors.map(|(offset, error)| {
            Record::Group(GroupRecord::LastError { offset: *offset, error: error.clone() })
        });
        progress.chain(errors)
    }

    pub(super) fn failed(&mut self, offset: Offset, message: &str) {
        let end = message.floor_char_boundary(LAST_ERROR_BYTES_MAX);
        match message.get(..end).unwrap_or_default() {
            "" => {}
            error => drop(self.errors.insert(offset, error.into())),
        }
    }
}

/// What may be asked for.
impl Machine {
    /// Notes what a worker says of its job's progress; with an empty note, nothing any more.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub fn note_progress(
        &self,
        group: GroupId,
        offset: Offset,
        grant: Option<Grant>,
        note: &str,
    ) -> Result<Fact, JobRefusal> {
        self.commit(group, offset, grant)?;
        Ok(Fact::Lease(LeaseFact::Progressed { group, offset, note: note.into() }))
    }

    /// One job of a queue, described for a group, or, without one, for a group that nothing was
    /// delivered to; none if there is no such job yet.
    pub fn job_info(
        &self,
        queue: QueueId,
        group: Option<GroupId>,
        offset: Offset,
        lease_now_ms: u64,
    ) -> Option<JobInfo> {
        let state = self.queues.get(&queue).filter(|state| offset < state.next)?;
        let mut info = JobInfo {
            standing: self.standing(queue, group, offset, lease_now_ms)?,
            attempts: None,
            failures: 0,
            crashes: 0,
            cancel_requested: false,
            progress: None,
            last_error: None,
            result_bytes: state.results.get(offset).map(|result| result.len() as u64),
        };
        let of_group = group.and_then(|id| Some((id, self.groups.get(&id)?)));
        let Some((id, of_group)) = of_group else { return Some(info) };
        let mark = of_group.marks.get(&offset).copied().unwrap_or_default();
        let counts = match &info.standing {
            JobStanding::Dead(dead) => Some((dead.attempts, dead.failures, dead.crashes)),
            JobStanding::Leased(_) => Some((mark.attempts + 1, mark.failures, mark.crashes)),
            JobStanding::Ready | JobStanding::Parked | JobStanding::Delayed { .. } => {
                Some((mark.attempts, mark.failures, mark.crashes))
            }
            _ => None,
        };
        info.attempts = counts.map(|(attempts, ..)| attempts);
        (info.failures, info.crashes) = counts.map_or((0, 0), |(_, f, c)| (f, c));
        let is_leased = matches!(info.standing, JobStanding::Leased(_));
        info.cancel_requested = is_leased && self.is_cancelled(id, offset);
        info.progress = of_group.said.progress.get(&offset).cloned();
        info.last_error = of_group.said.errors.get(&offset).cloned();
        Some(info)
    }

    fn standing(
        &self,
        queue: QueueId,
        group: Option<GroupId>,
        offset: Offset,
        lease_now_ms: u64,
    ) -> Option<JobStanding> {
        let state = self.queues.get(&queue)?;
        let withdrawn = || match (state.has_withdrawn(offset), state.has_lapsed(offset)) {
            (false, _) => JobStanding::Consumed,
            (true, false) => JobStanding::Cancelled,
            (true, true) => JobStanding::Expired,
        };
        let Some(group) = group else {
            return Some(match self.enqueued_due_log_ms(queue, offset) {
                _ if !self.is_live(queue, offset) || state.has_withdrawn(offset) => withdrawn(),
                Some(due_log_ms) => JobStanding::Delayed { due_log_ms },
                None => JobStanding::Ready,
            });
        };
        Some(match self.job(group, offset)? {
            JobState::Ready => JobStanding::Ready,
            JobState::Parked => JobStanding::Parked,
            JobState::Delayed { due_log_ms } => JobStanding::Delayed { due_log_ms },
            JobState::Leased => {
                let lease = self.leases.get(group, offset)?;
                let left_ms = lease.deadline_ms().saturating_sub(lease_now_ms);
                let (holder, lease_ms) = (self.leases.holder(lease), lease.lease_ms());
                JobStanding::Leased(LeaseView { holder, lease_ms, left_ms })
            }
            JobState::Dead => {
                let (_, dead) = self.dead(group, offset).next()?;
                JobStanding::Dead(dead.clone())
            }
            JobState::Consumed => match self.job_end(queue, offset) {
                Some(JobEnd::Done { .. }) if self.primary_group(queue) == Some(group) => {
                    JobStanding::Consumed
                }
                _ => withdrawn(),
            },
        })
    }
}

/// What the facts do.
impl Machine {
    pub(super) fn progressed(
        &mut self,
        group: GroupId,
        offset: Offset,
        note: &str,
    ) -> Result<(), Contradiction> {
        let is_leased = self.leases.get(group, offset).is_some();
        let state = self.groups.get_mut(&group).filter(|_| is_leased);
        let state = state.ok_or(Contradiction::NotLeased { group, offset })?;
        match note {
            "" => drop(state.said.progress.remove(&offset)),
            note => drop(state.said.progress.insert(offset, note.into())),
        }
        Ok(())
    }
}

impl EndReason {
    /// Whether what the worker said with it is an error.
    pub(super) fn is_error(self) -> bool {
        matches!(self, Self::Failed | Self::Damaged)
    }
}
