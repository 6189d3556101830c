//! What a FETCH asks for, and what it is given.

use smallvec::SmallVec;

use crate::log::JobLocation;
use crate::queue::Holder;
use crate::types::{Grant, GroupId, Offset};

/// One waiting FETCH. Ids are given in order of arrival and never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub(super) u64);

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
}

/// Jobs under their leases.
#[derive(Debug)]
pub struct Grants {
    /// The time of the leases in milliseconds.
    pub lease_ms: u64,
    /// The jobs.
    pub jobs: SmallVec<[GrantedJob; 1]>,
}

/// One job under its lease.
#[derive(Debug)]
pub struct GrantedJob {
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
    /// Where its bytes are, once the grant is released.
    pub location: JobLocation,
}
