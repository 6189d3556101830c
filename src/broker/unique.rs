//! Batches with unique keys: what is new of them is appended, and what is not is told.

use super::error::BrokerError;
use super::open::numbered;
use super::turn::{JobBatch, Turn, Wish, due_time};
use crate::log::format::JOB_ROW_BYTES;
use crate::queue::{Fact, UniqueHit, UniquePlan, WishedKey};
use crate::types::{Offset, ProducerId, QueueId, Stamp};

impl Turn<'_> {
    /// Appends those jobs of a batch whose unique keys are free, or set free by the fact `with`,
    /// which stands in the same entry. Gives the others.
    pub(super) fn append_unique(
        &mut self,
        queue: QueueId,
        name: &str,
        first: Offset,
        batch: JobBatch<'_>,
        with: Option<&Fact>,
    ) -> Result<Vec<UniqueHit>, BrokerError> {
        let now = self.stamp;
        let keys = batch.keys.iter().map(|wished| {
            let delayed = is_delayed(batch.wishes, wished.ordinal, now);
            WishedKey { delayed, ..*wished }
        });
        let machine = &self.core.machine;
        let is_freed = |offset| with.is_some_and(|fact| machine.frees(queue, fact, offset));
        let plan = machine.plan_unique(queue, first, keys, now.log_ms, is_freed);
        let hits = plan.hits.clone();
        let number = numbered(batch.producer, batch.sequence, batch.table);
        if hits.is_empty() {
            self.check_room(queue, name, &batch)?;
            let facts: Vec<_> = plan.facts(queue, None, first, batch.count).collect();
            self.append_jobs(queue, first, batch, with, &facts)?;
            return Ok(hits);
        }
        let left = Left::of(&batch, &plan);
        // The number is that of the whole batch, so it stands in the fact.
        let producer = ProducerId::default();
        let (count, table, bodies) = (left.count, &left.table, &left.bodies);
        let wishes = &left.wishes;
        let new = JobBatch { count, table, bodies, producer, sequence: 0, wishes, keys: &[] };
        self.check_room(queue, name, &new)?;
        let facts: Vec<_> = plan.facts(queue, number, first, batch.count).collect();
        self.append_jobs(queue, first, new, with, &facts)?;
        Ok(hits)
    }
}

/// Whether a job of a batch is to be delivered later.
fn is_delayed(wishes: &[(u32, Wish)], ordinal: u32, now: Stamp) -> bool {
    let found = wishes.binary_search_by_key(&ordinal, |(of, _)| *of).ok();
    let due = found.and_then(|at| wishes.get(at)).and_then(|(_, wish)| wish.due);
    due.is_some_and(|due| due_time(due, now).is_some())
}

/// What is left of a batch.
#[derive(Default)]
struct Left {
    count: u32,
    table: Vec<u8>,
    bodies: Vec<u8>,
    wishes: Vec<(u32, Wish)>,
}

impl Left {
    fn of(batch: &JobBatch<'_>, plan: &UniquePlan) -> Self {
        let mut left = Self::default();
        let mut wishes = batch.wishes.iter().peekable();
        let mut start = 0;
        for (ordinal, row) in (0..).zip(batch.table.chunks_exact(JOB_ROW_BYTES)) {
            let wish = wishes.next_if(|(of, _)| *of == ordinal);
            let Some((end, rest)) = row.split_first_chunk::<4>() else { break };
            let end = u32::from_le_bytes(*end) as usize;
            let body = batch.bodies.get(start..end).unwrap_or_default();
            start = end;
            if !plan.is_new(ordinal) {
                continue;
            }
            left.bodies.extend_from_slice(body);
            left.table.extend_from_slice(&(left.bodies.len() as u32).to_le_bytes());
            left.table.extend_from_slice(rest);
            left.wishes.extend(wish.map(|(_, wish)| (left.count, *wish)));
            left.count += 1;
        }
        left
    }
}
