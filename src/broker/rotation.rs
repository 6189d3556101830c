//! Whose turn it is among the queues of a FETCH by turns: that which was served least recently.
//!
//! Only FETCHes by turns count, whoever sends them, so that those of short connections take turns
//! as well. It lives with the server: after a start the queues come in the order in which they are
//! named, and take turns from there.

use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use crate::types::GroupId;

/// Counts over all logs of the server, so that their numbers can be compared.
static LAST: AtomicU64 = AtomicU64::new(0);

/// When groups were last served by turns; 16 bytes and a share of a hash map for each that was.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    served: FxHashMap<GroupId, u64>,
}

impl Rotation {
    /// The higher, the later; 0 for never.
    pub(super) fn last(&self, group: GroupId) -> u64 {
        self.served.get(&group).copied().unwrap_or(0)
    }

    /// Notes that a group is served now.
    pub(super) fn note(&mut self, group: GroupId) {
        self.served.insert(group, LAST.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// Forgets a group that is gone.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.served.remove(&group);
    }
}
