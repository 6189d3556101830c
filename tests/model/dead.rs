//! Dead jobs that come back, are dropped, or have been kept for long enough.

use joblog::queue::{Fact, GroupKind, JobFact, Removal, Run};
use joblog::types::{GroupId, Offset};

use crate::world::{Group, Place, World};

impl World {
    fn dead_jobs(&self, group: GroupId) -> Vec<Offset> {
        let jobs = self.groups[&group].jobs.iter();
        let dead = jobs.filter(|(_, job)| matches!(job.place, Place::Dead(_)));
        dead.map(|(offset, _)| Offset(*offset)).collect()
    }

    pub(crate) fn retry_or_drop_dead(&mut self) {
        let Some(group) = self.any_group(GroupKind::Work) else {
            return;
        };
        let mut meant = self.dead_jobs(group);
        let expected = meant.clone();
        meant.reverse();
        // One that is named twice, and some that are not dead, change nothing.
        meant.extend(expected.first());
        let offsets: Vec<_> = self.groups[&group].jobs.keys().copied().collect();
        meant.extend(self.rng.one_of(&offsets).map(Offset).filter(|o| !expected.contains(o)));
        meant.push(Offset(u64::MAX));
        let retry = self.rng.below(2) == 0;
        let fact = if retry {
            self.machine.retry_dead(group, meant)
        } else {
            self.machine.remove_dead(group, meant, Removal::Dropped)
        };
        let Some(fact) = fact else { return assert_eq!(expected, []) };
        let (Fact::Job(JobFact::DeadRetried { runs, .. })
        | Fact::Job(JobFact::Removed { runs, .. })) = &fact
        else {
            panic!("{fact:?}")
        };
        let found: Vec<_> = runs.iter().flat_map(|run| run.offsets()).collect();
        assert_eq!(found, expected);
        self.record(fact);
        self.seen.insert(if retry { "retried" } else { "dropped" });
    }

    pub(crate) fn drop_aged(&mut self) {
        let limit = if self.rng.below(2) == 0 { 1 } else { 1_000 };
        let now_ms = self.log_ms;
        let is_over = |place: &Place, kept_ms: u64| match place {
            Place::Dead(died_ms) => kept_ms > 0 && died_ms + kept_ms <= now_ms,
            _ => false,
        };
        let kept_ms = |group: &Group| self.settings[&group.queue].dead_kept_ms;
        let jobs = self.groups.values().flat_map(|group| {
            group.jobs.values().filter(|job| is_over(&job.place, kept_ms(group)))
        });
        let over = jobs.count();
        let facts = self.machine.drop_aged(self.log_ms, limit);
        let runs = facts.iter().map(|fact| match fact {
            Fact::Job(JobFact::Removed { group, cause: Removal::Aged, runs }) => (*group, runs),
            other => panic!("{other:?}"),
        });
        let mut found = 0;
        for (group, runs) in runs {
            for offset in runs.iter().flat_map(|run| run.offsets()) {
                let group = &self.groups[&group];
                assert!(is_over(&group.jobs[&offset.0].place, kept_ms(group)));
                found += 1;
            }
        }
        assert_eq!(found, over.min(limit));
        if found > 0 {
            self.seen.insert("aged");
        }
        facts.into_iter().for_each(|fact| self.record(fact));
    }

    pub(crate) fn note_removed(&mut self, group: GroupId, cause: Removal, runs: &[Run]) {
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            let job = self.job_mut(group, offset);
            assert!(matches!(job.place, Place::Dead(_)));
            job.place = Place::Consumed;
            let removed = &mut self.groups.get_mut(&group).unwrap().removed;
            *removed.entry(cause as usize).or_default() += 1;
        }
        let offsets = runs.iter().flat_map(|run| run.offsets()).map(|offset| offset.0);
        self.settle_jobs(self.groups[&group].queue, offsets);
    }
}
