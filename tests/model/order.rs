//! The fetch order: ranks, and within each redelivered jobs and fresh ones by halves.

use std::collections::{BTreeMap, BTreeSet};

use joblog::queue::{JobRecord, JobTerms, Picked, Rank, Record, Run};
use joblog::types::{GroupId, Offset, QueueId};

use crate::keys::KEYED_QUEUE_NAMES;
use crate::world::{Place, World};

impl World {
    /// A rank for one in three new jobs.
    pub(crate) fn rank_of_new(&mut self) -> Rank {
        // Where keys matter, there are none.
        if self.names == KEYED_QUEUE_NAMES || self.rng.below(3) > 0 {
            return Rank::ORDINARY;
        }
        let priority = [0, 1, 5, 9][self.rng.below(4) as usize];
        Rank { priority, front: self.rng.below(4) == 0 }
    }

    pub(crate) fn note_ranks(&mut self, queue: QueueId, runs: &[(Run, JobTerms)]) {
        for (run, terms) in runs.iter().filter(|(_, terms)| terms.rank != Rank::ORDINARY) {
            self.ranks.extend(run.offsets().map(|offset| ((queue, offset.0), terms.rank)));
        }
    }

    pub(crate) fn rank(&self, queue: QueueId, offset: u64) -> Rank {
        self.ranks.get(&(queue, offset)).copied().unwrap_or_default()
    }

    /// Of each rank, the jobs that can be picked, in their order: redelivered ones and fresh ones.
    fn waiting(&self, id: GroupId) -> BTreeMap<Rank, [Vec<u64>; 2]> {
        let (group, keyed) = (&self.groups[&id], self.is_keyed(id));
        let mut waiting: BTreeMap<Rank, [Vec<u64>; 2]> = BTreeMap::new();
        for (offset, job) in &group.jobs {
            let sort = match job.place {
                Place::Again => 0,
                Place::AtHand => 1,
                Place::Passed if !keyed => 0,
                Place::Fresh if !keyed => 1,
                _ => continue,
            };
            let of_rank = waiting.entry(self.rank(group.queue, *offset)).or_default();
            of_rank[sort].push(*offset);
        }
        for (rank, sorts) in &mut waiting {
            if rank.front {
                sorts.iter_mut().for_each(|jobs| jobs.reverse());
            }
        }
        waiting
    }

    /// The first of each sort, as many as there are, the higher ranks whole, and by halves while
    /// there are both sorts.
    pub(crate) fn check_pick(&mut self, id: GroupId, count_max: usize, picked: &Picked) {
        let queue = self.groups[&id].queue;
        let picked: Vec<u64> = picked.offsets().map(|offset| offset.0).collect();
        let mut rest = &picked[..];
        for (rank, [again, fresh]) in self.waiting(id).iter().rev() {
            let count = rest.iter().take_while(|o| self.rank(queue, **o) == *rank).count();
            let (of_rank, behind) = rest.split_at(count);
            rest = behind;
            let is_again = |offset: &&u64| again.contains(offset);
            let of_again: Vec<u64> = of_rank.iter().filter(is_again).copied().collect();
            let of_fresh: Vec<u64> =
                of_rank.iter().filter(|offset| !is_again(offset)).copied().collect();
            assert_eq!(of_again, again[..of_again.len()]);
            assert_eq!(of_fresh, fresh[..of_fresh.len()]);
            if *rank == Rank::ORDINARY {
                assert_eq!(of_rank, [of_again.clone(), of_fresh.clone()].concat());
            } else {
                self.seen.insert(if rank.front { "at the front" } else { "by priority" });
            }
            let half = count.div_ceil(2);
            assert!(of_again.len() <= half || of_fresh.len() == fresh.len());
            assert!(of_fresh.len() <= half || of_again.len() == again.len());
            let all = count == again.len() + fresh.len();
            assert!(all || rest.is_empty(), "{rank:?} is passed over for a lower one");
        }
        assert!(rest.is_empty());
        let waiting: usize = self.waiting(id).values().flatten().map(Vec::len).sum();
        assert_eq!(picked.len(), count_max.min(waiting));
    }

    /// How many jobs are ready of each priority.
    pub(crate) fn check_priorities(&self, id: GroupId) {
        let counts = self.machine.group(id).unwrap().counts;
        let mut expected = [0; 10];
        if self.is_keyed(id) {
            expected[0] = counts.ready;
            return assert_eq!(counts.ready_by_priority, expected);
        }
        for (rank, sorts) in self.waiting(id) {
            let count = sorts.iter().map(Vec::len).sum::<usize>() as u64;
            let is_stream = counts.ready_by_priority[0] == counts.ready;
            let priority = if is_stream { 0 } else { rank.priority };
            expected[usize::from(priority)] += count;
        }
        assert_eq!(counts.ready_by_priority, expected);
    }

    /// The rank of a job is known until the job is gone, and no longer.
    pub(crate) fn check_ranks(&self) {
        let live = self.ranks.iter().filter(|((queue, offset), _)| {
            let kept = self.kept.get(queue);
            kept.is_some_and(|kept| !kept.gone.contains(offset))
        });
        let live: BTreeSet<_> = live.map(|(job, rank)| (*job, *rank)).collect();
        let known = self.machine.records().filter_map(|record| match record {
            Record::Job(JobRecord::Terms { queue, offset: Offset(offset), terms }) => {
                Some(((queue, offset), terms.rank)).filter(|(_, rank)| *rank != Rank::ORDINARY)
            }
            _ => None,
        });
        let known: BTreeSet<_> = known.collect();
        let wrong: Vec<_> = known.symmetric_difference(&live).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
