//! The job index: where the entry of each job lies. Eight bytes an entry, derivable from the
//! segments, and never evidence against them.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::types::{Offset, QueueId};

use super::segment::Segment;

/// Where the jobs of all queues lie.
#[derive(Debug, Default)]
pub(super) struct JobIndex {
    queues: FxHashMap<QueueId, Vec<Run>>,
}

/// Entries of one queue in one segment whose offsets follow each other without a gap.
#[derive(Debug)]
struct Run {
    segment: Arc<Segment>,
    base: u64,
    end: u64,
    places: Vec<Place>,
}

/// One entry: its base offset less the run's, and the position of its frame.
#[derive(Clone, Copy, Debug)]
struct Place {
    delta: u32,
    position: u32,
}

const _: () = assert!(size_of::<Place>() == 8);

/// Where one job lies.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) segment: &'a Arc<Segment>,
    /// Where the frame of its entry begins.
    pub(super) position: u32,
    /// Its place within the entry.
    pub(super) ordinal: u32,
}

impl JobIndex {
    /// Adds an entry of `count` jobs. A queue's offsets must go up.
    pub(super) fn add(
        &mut self,
        queue: QueueId,
        base_offset: Offset,
        count: u32,
        segment: &Arc<Segment>,
        position: u32,
    ) -> Result<(), &'static str> {
        let runs = self.queues.entry(queue).or_default();
        let (base, end) = (base_offset.0, base_offset.0 + u64::from(count));
        match runs.last_mut() {
            Some(run) if base < run.end => {
                return Err("the base offset is not above the queue's last one");
            }
            Some(run) if base == run.end && run.segment.id == segment.id => {
                if let Ok(delta) = u32::try_from(base - run.base) {
                    run.places.push(Place { delta, position });
                    run.end = end;
                    return Ok(());
                }
            }
            _ => {}
        }
        if let Some(finished) = runs.last_mut() {
            finished.places.shrink_to_fit();
        }
        let places = vec![Place { delta: 0, position }];
        runs.push(Run { segment: Arc::clone(segment), base, end, places });
        Ok(())
    }

    /// Finds a job.
    #[inline]
    pub(super) fn find(&self, queue: QueueId, offset: Offset) -> Option<Found<'_>> {
        let runs = self.queues.get(&queue)?;
        let after = runs.partition_point(|run| run.base <= offset.0);
        let run = runs.get(after.checked_sub(1)?).filter(|run| offset.0 < run.end)?;
        let delta = u32::try_from(offset.0 - run.base).unwrap_or(u32::MAX);
        let after = run.places.partition_point(|place| place.delta <= delta);
        let place = run.places.get(after.checked_sub(1)?)?;
        let ordinal = u32::try_from(offset.0 - run.base - u64::from(place.delta)).ok()?;
        Some(Found { segment: &run.segment, position: place.position, ordinal })
    }

    /// Drops all that is known of a queue.
    pub(super) fn forget(&mut self, queue: QueueId) {
        self.queues.remove(&queue);
    }

    /// How many entries it knows.
    pub(super) fn entries(&self) -> usize {
        self.queues.values().flatten().map(|run| run.places.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::Seed;
    use crate::log::map::Map;

    fn segment(id: u64) -> Arc<Segment> {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = Map::whole(&file).unwrap();
        Arc::new(Segment { id, path: "test".into(), seed: Seed::new([0; 16], id), map })
    }

    #[test]
    fn jobs_are_found_over_gaps_and_segments_and_nothing_else_is() {
        let (one, two) = (segment(1), segment(2));
        let mut index = JobIndex::default();
        let queue = QueueId(3);
        let far = 10 + (1 << 40);
        let entries = [(10, 5, &one, 4096), (15, 1, &one, 5000), (20, 2, &one, 6000)];
        let later = [(22, 1, &two, 4096), (far, 3, &two, 8000), (far + 3, 1, &two, 9000)];
        for (base, count, segment, position) in entries.into_iter().chain(later) {
            index.add(queue, Offset(base), count, segment, position).unwrap();
            for ordinal in 0..count {
                let found = index.find(queue, Offset(base + u64::from(ordinal))).unwrap();
                assert_eq!(
                    (found.segment.id, found.position, found.ordinal),
                    (segment.id, position, ordinal)
                );
            }
        }
        for missing in [0, 9, 16, 19, 23, far - 1, far + 4, u64::MAX] {
            assert!(index.find(queue, Offset(missing)).is_none(), "{missing}");
        }
        assert!(index.find(QueueId(4), Offset(10)).is_none());
        assert!(index.add(queue, Offset(far), 1, &two, 9500).is_err());
        assert_eq!(index.entries(), 6);
        index.forget(queue);
        assert!(index.find(queue, Offset(10)).is_none());
        assert_eq!(index.entries(), 0);
    }

    #[test]
    fn a_run_whose_offsets_outgrow_32_bits_goes_on_in_another() {
        let one = segment(1);
        let mut index = JobIndex::default();
        let mut base = 0;
        for position in [4096, 8192, 12288] {
            index.add(QueueId(1), Offset(base), u32::MAX, &one, position).unwrap();
            let found = index.find(QueueId(1), Offset(base + 5)).unwrap();
            assert_eq!((found.position, found.ordinal), (position, 5));
            base += u64::from(u32::MAX);
        }
    }
}
