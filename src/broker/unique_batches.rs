//! Batches with unique keys: what is new of them is appended, and what is not is told.

use joblog_protocol::job::{Asked, BatchBuilder};

use super::error::BrokerError;
use super::turn::{JobBatch, Turn, due_time};
use crate::queue::{Fact, UniqueHit, UniquePlan, WishedKey};
use crate::types::{Offset, QueueId};

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
        let keys = batch.asked.iter().filter_map(|(ordinal, Asked { terms, unique })| {
            let unique = unique.as_ref()?;
            Some(WishedKey {
                ordinal: *ordinal,
                key: unique.key,
                window_ms: unique.window_ms,
                replace: unique.replace,
                delayed: terms.due.and_then(|due| due_time(due, now)).is_some(),
            })
        });
        let machine = &self.core.machine;
        let is_freed = |offset| with.is_some_and(|fact| machine.frees(queue, fact, offset));
        let plan = machine.plan_unique(queue, first, keys, now.log_ms, is_freed);
        let hits = plan.hits.clone();
        let count = batch.jobs.count;
        if hits.is_empty() {
            let facts: Vec<_> = plan.facts(queue, None, first, count).collect();
            self.check_room(queue, name, &batch, with.into_iter().chain(&facts))?;
            self.append_jobs(queue, first, batch, with, &facts)?;
            return Ok(hits);
        }
        let (jobs, asked) = new_jobs(&batch, &plan);
        // The number is that of the whole batch, so it stands in the fact.
        let new = JobBatch { asked: &asked, ..JobBatch::plain(jobs.batch()) };
        let facts: Vec<_> = plan.facts(queue, batch.number(), first, count).collect();
        self.check_room(queue, name, &new, with.into_iter().chain(&facts))?;
        self.append_jobs(queue, first, new, with, &facts)?;
        Ok(hits)
    }
}

/// The jobs of a batch that are to be enqueued, and what they ask for.
fn new_jobs<'a>(batch: &JobBatch<'a>, plan: &UniquePlan) -> (BatchBuilder, Vec<(u32, Asked<'a>)>) {
    let (mut jobs, mut asked) = (BatchBuilder::default(), Vec::new());
    let mut all_asked = batch.asked.iter().peekable();
    for (ordinal, job) in (0..).zip(batch.jobs.jobs()) {
        let its_own = all_asked.next_if(|(of, _)| *of == ordinal);
        if plan.is_new(ordinal) {
            asked.extend(its_own.map(|(_, asked)| (jobs.len() as u32, *asked)));
            jobs.push_encoded(job);
        }
    }
    (jobs, asked)
}
