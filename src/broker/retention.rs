//! What queues keep, seen from outside of the state: which job has which age, groups that are set
//! to a time, and the looks of the keeper at what is to go.
//!
//! The state does not know when a job was enqueued; its entry does. So a time is turned into an
//! offset here, by looking jobs up in the log, without the state lock.

use super::Broker;
use super::admin::refused_group;
use super::error::BrokerError;
use super::gate::Gated;
use super::turn::Turn;
use crate::log::LogError;
use crate::queue::{Fact, Seek};
use crate::types::{Offset, QueueId, Stamp};

/// Jobs that are ended under one lock because of their age; more follow at once.
const EXPIRED_PER_TURN_MAX: u64 = 8_192;

/// Where a group is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekTo {
    /// A place in the queue.
    Place(Seek),
    /// The first job that was enqueued at this time or later, in milliseconds since the Unix epoch.
    Time(u64),
}

impl Broker {
    /// Sets a group to another place. Gives its committed offset, from which it goes on.
    pub fn seek_group(&self, queue: &str, group: &str, to: SeekTo) -> Gated<Offset> {
        let place = match to {
            SeekTo::Place(place) => Gated::from(Ok(place)),
            SeekTo::Time(wall_ms) => self.view(|turn| turn.queue(queue)).and_then(|queue| {
                let found = self.first_from(queue, |stamp| stamp.wall_ms >= wall_ms);
                found.map(Seek::To).into()
            }),
        };
        place.and_then(|place| {
            self.turn(|turn| {
                let id = turn.group(queue, group)?;
                let fact = turn.core.machine.seek(id, place);
                turn.record(&fact.map_err(|refusal| refused_group(queue, group, refusal))?);
                let info = turn.core.machine.group(id);
                Ok(info.map_or(Offset(0), |info| info.counts.committed))
            })
        })
    }

    /// The first live job of a queue whose stamp is so, or the end of the queue. Stamps only go up
    /// over the offsets; where the wall clock was set back, one of the right ones is found.
    fn first_from(
        &self,
        queue: QueueId,
        is_so: impl Fn(Stamp) -> bool,
    ) -> Result<Offset, BrokerError> {
        let (mut low, mut high) = {
            let core = self.core.lock();
            let info = core.machine.queue(queue);
            info.map_or_else(Default::default, |info| (info.first, info.next))
        };
        let mut found = high;
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            let live = self.core.lock().machine.next_live(queue, middle);
            let Some(live) = live.filter(|live| *live < high) else {
                high = middle;
                continue;
            };
            match self.stamp_of(queue, live)? {
                Some(stamp) if !is_so(stamp) => low = live.next(),
                // It has gone since: there is another one behind it, or none.
                None if !self.core.lock().machine.is_live(queue, live) => {}
                _ => (high, found) = (middle, live),
            }
        }
        Ok(found)
    }

    /// When a job was enqueued; none if it has just come or just gone.
    pub(super) fn stamp_of(
        &self,
        queue: QueueId,
        offset: Offset,
    ) -> Result<Option<Stamp>, BrokerError> {
        match self.log.locate(queue, offset) {
            None => Ok(None),
            Some(location) => match location.read() {
                Ok(job) => Ok(Some(job.stamp)),
                Err(LogError::NotWritten) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// One look at all queues: jobs that are too old end, and what was kept for long enough goes.
    pub(super) fn retain(&self) {
        let (aging, keeping) = self.core.lock().machine.retaining_queues();
        for queue in keeping {
            self.record_one(|turn| turn.core.machine.turn_kept(queue, turn.stamp.log_ms));
        }
        for (queue, max_age_ms) in aging {
            let now_ms = self.clock.log_ms();
            let is_young = |stamp: Stamp| stamp.log_ms.saturating_add(max_age_ms) > now_ms;
            match self.first_from(queue, is_young) {
                Err(error) => tracing::warn!(%error, %queue, "the age of its jobs is not known"),
                Ok(below) => self.expire(queue, below),
            }
        }
    }

    /// Ends the jobs below an offset, piece by piece, so that requests get in between.
    fn expire(&self, queue: QueueId, below: Offset) {
        let piece = |turn: &Turn<'_>| turn.core.machine.expire(queue, below, EXPIRED_PER_TURN_MAX);
        while self.record_one(piece) {}
    }

    /// A turn that records at most one fact; whether it did.
    fn record_one(&self, decide: impl FnOnce(&Turn<'_>) -> Option<Fact>) -> bool {
        let recorded = self.turn_unasked(|turn| {
            let fact = decide(turn);
            fact.iter().for_each(|fact| turn.record(fact));
            fact.is_some()
        });
        recorded.unwrap_or(false)
    }
}
