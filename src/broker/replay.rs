//! Applying the entries of a log to a state: at a start, and for a checkpoint.

use smallvec::SmallVec;

use crate::log::EntryView;
use crate::log::format::{ENTRY_HEADER_BYTES, FRAME_HEADER_BYTES};
use crate::queue::{Fact, Machine, Numbered, QueueFact};
use crate::types::{ProducerId, QueueId};

/// Why an entry can't be applied.
pub(super) type ReplayError = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of an entry, to know how far the log has grown.
pub(super) fn log_bytes(table: &[u8], facts: &[u8], bodies: &[u8]) -> u64 {
    const HEADERS: usize = ENTRY_HEADER_BYTES + FRAME_HEADER_BYTES;
    (HEADERS + table.len() + facts.len() + bodies.len()) as u64
}

/// The number of a batch, if its producer gave it one.
pub(super) fn numbered(producer: ProducerId, sequence: u64, table: &[u8]) -> Option<Numbered> {
    let fingerprint = crc32fast::hash(table);
    let is_numbered = producer != ProducerId::default();
    is_numbered.then_some(Numbered { producer, sequence, fingerprint })
}

/// Applies an entry of the log. Gives the queues that it deletes.
pub(super) fn replay_entry(
    machine: &mut Machine,
    entry: &EntryView<'_>,
) -> Result<SmallVec<[QueueId; 1]>, ReplayError> {
    let mut deleted = SmallVec::new();
    if entry.count > 0 {
        let EntryView { queue, base_offset, count, stamp, .. } = *entry;
        machine.apply_jobs(queue, base_offset, count, entry.bodies.len() as u64, stamp)?;
        if let Some(batch) = numbered(ProducerId(entry.producer), entry.sequence, entry.table) {
            machine.apply_numbered(queue, batch, base_offset, count, stamp.log_ms)?;
        }
    }
    for fact in Fact::decode_all(entry.facts)? {
        machine.apply(&fact, entry.stamp, 0)?;
        if let Fact::Queue(QueueFact::Deleted { queue }) = fact {
            deleted.push(queue);
        }
    }
    Ok(deleted)
}
