//! Jobs that leave a group without a commit: consumed like committed ones, and counted by cause.

/// Why a job left a group without a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It was dead, and somebody dropped it.
    Dropped,
    /// It was dead for as long as dead jobs are kept.
    Aged,
    /// Somebody cancelled it.
    Cancelled,
    /// Somebody purged its queue.
    Purged,
    /// Its time to live was over.
    Expired,
    /// Somebody moved it to another queue.
    Moved,
    /// A new job with its unique key took its place.
    Replaced,
}

impl Removal {
    /// Every cause, in the order of the counts.
    pub const ALL: [Self; 7] = [
        Self::Dropped,
        Self::Aged,
        Self::Cancelled,
        Self::Purged,
        Self::Expired,
        Self::Moved,
        Self::Replaced,
    ];
}

/// How many jobs left a group without a commit, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemovedCounts([u64; Removal::ALL.len()]);

impl RemovedCounts {
    /// How many left for this cause.
    pub fn of(&self, cause: Removal) -> u64 {
        self.0.get(cause as usize).copied().unwrap_or(0)
    }

    /// Counts some more.
    pub fn add(&mut self, cause: Removal, more: u64) {
        if let Some(count) = self.0.get_mut(cause as usize) {
            *count = count.saturating_add(more);
        }
    }
}
