//! What a FETCH asks for, and what it is given.

use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;

use crate::log::JobLocation;
use crate::queue::Holder;
use crate::types::{Grant, GroupId, LeaseRef, LogId, Offset};

/// One FETCH that waits in one log. Ids are given in order of arrival and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub(super) u64);

/// A WAIT, or a FETCH that waits, perhaps in several logs at once: the first that has something
/// claims it.
#[derive(Debug)]
pub struct Ticket {
    /// Which of its connection's it is.
    pub id: u64,
    claimed: AtomicBool,
}

impl Ticket {
    /// A ticket that no log has claimed.
    pub fn new(id: u64) -> Self {
        Self { id, claimed: AtomicBool::new(false) }
    }

    /// Claims it: true for the first, who must answer it.
    pub(super) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }
}

/// How much a FETCH takes, and under which lease.
#[derive(Clone, Copy, Debug)]
pub struct FetchTerms {
    /// Jobs at most.
    pub jobs_max: usize,
    /// Bytes of bodies at most; a first job that is larger comes all the same.
    pub bytes_max: u64,
    /// Who holds the leases.
    pub holder: Holder,
    /// The time of the leases in milliseconds.
    pub lease_ms: u64,
    /// Whether the queues take turns.
    pub by_turns: bool,
    /// The number of its first queue, if it is a part of a FETCH over several logs.
    pub first_ordinal: u8,
}

/// Jobs under their leases.
#[derive(Debug)]
pub struct Grants {
    /// The time of the leases in milliseconds.
    pub lease_ms: u64,
    /// The jobs.
    pub jobs: SmallVec<[GrantedJob; 1]>,
}

impl Grants {
    /// No jobs.
    pub fn none() -> Self {
        Self { lease_ms: 0, jobs: SmallVec::new() }
    }
}

/// One job under its lease.
#[derive(Debug)]
pub struct GrantedJob {
    /// The log that it is in.
    pub log: LogId,
    /// Which queue of the FETCH it is from, counted from 0.
    pub queue_ordinal: u8,
    /// The group.
    pub group: GroupId,
    /// Its offset.
    pub offset: Offset,
    /// Its lease.
    pub grant: Grant,
    /// How often it has been delivered to the group, this time included.
    pub attempt: u32,
    /// Bytes of its body.
    pub bytes: u32,
    /// Where its bytes are, once the grant is released.
    pub location: JobLocation,
}

impl GrantedJob {
    /// The job as its worker names it.
    pub(super) fn held(&self) -> LeaseRef {
        LeaseRef { offset: self.offset, grant: self.grant }
    }
}
