//! The model: one entry per job and group, and the machine beside it.

use std::collections::{BTreeMap, BTreeSet};

use joblog::queue::{
    EndReason, Fact, GroupFact, GroupKind, Holder, JobFact, JobRefusal, LeaseFact, Machine,
    Outcome, QueueFact, QueueSettings, Rank, Removal, Runs, ScheduleFact,
};
use joblog::types::{Grant, GroupId, Offset, ProducerId, QueueId, SessionId, Stamp};

use crate::FAILURE;
use crate::SESSION_COUNT;
use crate::limits::Bucket;
use crate::producers::Batches;
use crate::replay::{Record, Rng};
use crate::results::Results;
use crate::retention::Kept;
use crate::schedules::Schedules;
use crate::unique::Keys;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    Fresh,
    /// Ready again.
    Again,
    /// Enqueued with a due time that has not come.
    NotDue(u64),
    /// Never delivered, and behind the pointer, which passed it while it was not due. Where keys
    /// matter, its own is not read yet.
    Passed,
    /// Never delivered, and the pointer has passed it: its key has a place for it.
    AtHand,
    /// The pointer has passed it, and it waits for others of its key.
    Parked,
    /// Handed back with a due time that has not come.
    Delayed(u64),
    Leased(Lease),
    Consumed,
    /// When it died, on the clock of the log.
    Dead(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lease {
    pub(crate) grant: Grant,
    pub(crate) holder: Holder,
    pub(crate) lease_ms: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) restored: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) place: Place,
    pub(crate) deliveries: u32,
    pub(crate) failures: u32,
    pub(crate) crashes: u32,
    /// What its worker said of its progress, and what one said when it failed last.
    pub(crate) progress: Option<String>,
    pub(crate) error: Option<&'static str>,
    /// Whether it came into the order of its key behind others, or came back to it.
    pub(crate) late: bool,
}

/// The wall clock goes so far ahead of the log's.
pub(crate) const WALL_AHEAD_MS: u64 = 5_000_000;

pub(crate) const FRESH: Job = Job {
    place: Place::Fresh,
    deliveries: 0,
    failures: 0,
    crashes: 0,
    progress: None,
    error: None,
    late: false,
};

pub(crate) struct Group {
    pub(crate) queue: QueueId,
    pub(crate) kind: GroupKind,
    /// The first job that it sees.
    pub(crate) start: u64,
    pub(crate) jobs: BTreeMap<u64, Job>,
    /// The committed offset when it was last looked at.
    pub(crate) committed: u64,
    pub(crate) paused: bool,
    /// How many jobs left without a commit.
    pub(crate) removed: BTreeMap<usize, u64>,
}

pub(crate) struct World {
    /// The names that its queues have.
    pub(crate) names: [&'static str; 3],
    pub(crate) rng: Rng,
    pub(crate) machine: Machine,
    pub(crate) records: Vec<Record>,
    /// The state at some moment of the past, and how many records led to it.
    pub(crate) checkpoint: (Machine, usize),
    pub(crate) log_ms: u64,
    pub(crate) lease_ms: u64,
    pub(crate) term: u64,
    pub(crate) queues: BTreeMap<QueueId, &'static str>,
    pub(crate) settings: BTreeMap<QueueId, QueueSettings>,
    pub(crate) keys: BTreeMap<QueueId, Keys>,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) kept: BTreeMap<QueueId, Kept>,
    /// Jobs that were enqueued with a due time, while they wait for it.
    pub(crate) delayed: BTreeMap<(QueueId, u64), u64>,
    /// Jobs that were cancelled or purged.
    pub(crate) gone: BTreeSet<(QueueId, u64)>,
    /// When jobs expire, and those that have.
    pub(crate) expiries: BTreeMap<(QueueId, u64), u64>,
    pub(crate) expired: BTreeSet<(QueueId, u64)>,
    /// The ranks of jobs that ever had one.
    pub(crate) ranks: BTreeMap<(QueueId, u64), Rank>,
    /// What groups may be given, where their queues have a rate.
    pub(crate) buckets: BTreeMap<GroupId, Bucket>,
    /// Queues that are paused.
    pub(crate) paused: BTreeSet<QueueId>,
    /// The batches of each producer and queue by number, and when the last one was enqueued.
    pub(crate) producers: BTreeMap<(QueueId, ProducerId), Batches>,
    pub(crate) results: Results,
    pub(crate) schedules: Schedules,
    /// The end of every queue ever, by name: no offset comes twice.
    pub(crate) ends: BTreeMap<&'static str, u64>,
    /// Jobs that may have been told of and that no log has, and where new names begin.
    pub(crate) reserved: u64,
    pub(crate) first_of_new: u64,
    /// Every grant ever given.
    pub(crate) grants: Vec<(GroupId, Offset, Grant)>,
    pub(crate) all_grants: BTreeSet<Grant>,
    pub(crate) seen: BTreeSet<&'static str>,
    pub(crate) seed: u64,
    pub(crate) step: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {} at step {}", self.seed, self.step);
        }
    }
}

impl World {
    pub(crate) fn new(seed: u64, names: [&'static str; 3]) -> Self {
        Self {
            names,
            rng: Rng(seed),
            machine: Machine::new(),
            records: Vec::new(),
            checkpoint: (Machine::new(), 0),
            log_ms: 1_000,
            lease_ms: 77_000_000 * seed,
            term: 1,
            queues: BTreeMap::new(),
            settings: BTreeMap::new(),
            keys: BTreeMap::new(),
            groups: BTreeMap::new(),
            kept: BTreeMap::new(),
            delayed: BTreeMap::new(),
            gone: BTreeSet::new(),
            expiries: BTreeMap::new(),
            expired: BTreeSet::new(),
            ranks: BTreeMap::new(),
            buckets: BTreeMap::new(),
            paused: BTreeSet::new(),
            producers: BTreeMap::new(),
            results: BTreeMap::new(),
            schedules: Schedules::new(seed),
            ends: BTreeMap::new(),
            reserved: 0,
            first_of_new: 0,
            grants: Vec::new(),
            all_grants: BTreeSet::new(),
            seen: BTreeSet::new(),
            seed,
            step: 0,
        }
    }

    pub(crate) fn step(&mut self) {
        self.step += 1;
        if self.step.is_multiple_of(20) {
            self.use_schedules();
        }
        if self.step.is_multiple_of(25) {
            self.promote_some();
        }
        match self.rng.below(100) {
            0..10 => self.enqueue(),
            10..35 => self.fetch(),
            35..38 => self.commit_with_result(),
            38..55 => self.commit_some(),
            55..70 => self.hand_back(),
            70..80 => self.use_old_grant(),
            80..86 => self.pass_time(),
            86..89 => self.end_session(),
            89..92 => self.resume_session(),
            92 if self.rng.below(2) == 0 => self.commit_through(),
            92 if self.rng.below(2) == 0 => self.cancel_some(),
            92 if self.rng.below(3) == 0 => self.purge_some(),
            92 => self.pause_some(),
            93..95 => self.retain(),
            95 => self.retry_or_drop_dead(),
            96 if self.rng.below(4) == 0 => self.reserve_some(),
            96 if self.rng.below(5) == 0 => self.skip_reserved(),
            96 => self.create(),
            97 if self.rng.below(6) == 0 => self.delete(),
            97 => self.update(),
            98 if self.rng.below(3) == 0 => self.restart(),
            98 => self.make_checkpoint(),
            99 => self.check_all(),
            _ => {}
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { wall_ms: WALL_AHEAD_MS + self.log_ms, log_ms: self.log_ms }
    }

    pub(crate) fn record(&mut self, fact: Fact) {
        let stamp = self.stamp();
        if let Fact::Group(GroupFact::Deleted { group }) = fact {
            let queue = self.groups[&group].queue;
            if self.is_primary(group) {
                self.results.retain(|(of, _), _| *of != queue);
            }
            self.settle(queue);
        }
        self.machine.apply(&fact, stamp, self.lease_ms).expect("a validated fact applies");
        self.note(&fact);
        self.free_keys();
        self.unpark();
        self.records.push(Record::Fact(Box::new(fact), stamp));
    }

    pub(crate) fn any_group(&mut self, kind: GroupKind) -> Option<GroupId> {
        let of_kind = self.groups.iter().filter(|(_, group)| group.kind == kind);
        let ids: Vec<_> = of_kind.map(|(id, _)| *id).collect();
        self.rng.one_of(&ids)
    }

    pub(crate) fn session(&mut self) -> SessionId {
        SessionId([self.rng.below(SESSION_COUNT) as u8; 16])
    }

    /// All leases: of every group, by offset.
    pub(crate) fn leases(&self) -> Vec<(GroupId, Offset, Lease)> {
        let mut leases = Vec::new();
        for (id, group) in &self.groups {
            for (offset, job) in &group.jobs {
                if let Place::Leased(lease) = &job.place {
                    leases.push((*id, Offset(*offset), lease.clone()));
                }
            }
        }
        leases
    }

    pub(crate) fn job_mut(&mut self, group: GroupId, offset: Offset) -> &mut Job {
        self.groups.get_mut(&group).unwrap().jobs.get_mut(&offset.0).unwrap()
    }
}

/// What a fact does to the model.
impl World {
    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Queue(QueueFact::Created { queue, name, settings, first_offset }) => {
                self.settings.insert(*queue, (**settings).clone());
                self.keys.insert(*queue, Keys::default());
                let name = *self.names.iter().find(|known| **known == &**name).unwrap();
                let end = self.ends.get(name).copied().unwrap_or(self.first_of_new);
                assert_eq!(first_offset.0, end, "{name} goes on where none was given");
                self.ends.insert(name, end);
                assert!(self.queues.insert(*queue, name).is_none());
                self.kept.insert(*queue, Kept::new(first_offset.0, self.log_ms));
            }
            Fact::Queue(QueueFact::Updated { queue, settings }) => {
                self.note_updated(*queue, settings)
            }
            Fact::Queue(QueueFact::Deleted { queue }) => {
                self.settings.remove(queue);
                self.keys.remove(queue);
                self.queues.remove(queue).unwrap();
                self.groups.retain(|_, group| group.queue != *queue);
                self.delayed.retain(|(of, _), _| of != queue);
                self.producers.retain(|(of, _), _| of != queue);
                self.results.retain(|(of, _), _| of != queue);
                self.schedules.forget_queue(*queue);
                self.gone.retain(|(of, _)| of != queue);
                self.paused.remove(queue);
                self.expiries.retain(|(of, _), _| of != queue);
                self.expired.retain(|(of, _)| of != queue);
                self.ranks.retain(|(of, _), _| of != queue);
                let groups = &self.groups;
                self.buckets.retain(|id, _| groups.contains_key(id));
            }
            Fact::Group(GroupFact::Created { group, queue, kind, start, .. }) => {
                let (queue, kind, start) = (*queue, *kind, start.0);
                let end = self.machine.next_offset(queue).unwrap().0;
                let gone = &self.kept[&queue].gone;
                let place = |offset| match gone.contains(&offset) {
                    true => Place::Consumed,
                    false => self.first_place(queue, kind, offset),
                };
                let new = |offset| (offset, Job { place: place(offset), ..FRESH });
                let jobs: BTreeMap<_, _> = (start..end).map(new).collect();
                let open = jobs.iter().find(|(_, job)| job.place != Place::Consumed);
                let committed = open.map_or(end, |(offset, _)| *offset);
                let removed = BTreeMap::new();
                let paused = false;
                let state = Group { queue, kind, start, jobs, committed, paused, removed };
                assert!(self.groups.insert(*group, state).is_none());
                self.note_new_bucket(*group);
                self.settle(queue);
            }
            Fact::Group(GroupFact::Deleted { group }) => {
                let queue = self.groups.remove(group).unwrap().queue;
                self.buckets.remove(group);
                self.settle(queue);
            }
            Fact::Queue(QueueFact::OffsetsReserved { count }) => self.reserved = *count,
            Fact::Queue(QueueFact::OffsetsSkipped { count }) => self.note_skipped(*count),
            Fact::Group(GroupFact::Sought { group, to }) => {
                if self.is_primary(*group) {
                    let queue = self.groups[group].queue;
                    self.results.retain(|(of, at), _| *of != queue || *at < to.0);
                }
                self.note_sought(*group, to.0);
            }
            Fact::Queue(QueueFact::Expired { queue, below }) => self.note_expired(*queue, below.0),
            Fact::Queue(QueueFact::RetentionPassed { queue }) => self.note_turned(*queue),
            about_jobs => self.note_jobs(about_jobs),
        }
    }

    fn note_jobs(&mut self, fact: &Fact) {
        let now_ms = self.log_ms;
        match fact {
            Fact::Lease(LeaseFact::Granted { group, holder, lease_ms, first_grant, runs }) => {
                self.note_granted(*group, *holder, *lease_ms, *first_grant, runs);
            }
            Fact::Lease(LeaseFact::Extended { group, offset, lease_ms }) => {
                let deadline = self.lease_ms + lease_ms;
                let Place::Leased(lease) = &mut self.job_mut(*group, *offset).place else {
                    panic!("extended without a lease")
                };
                (lease.lease_ms, lease.deadline_ms, lease.restored) = (*lease_ms, deadline, false);
            }
            Fact::Lease(LeaseFact::Progressed { group, offset, note }) => {
                let note = Some(note.to_string()).filter(|note| !note.is_empty());
                self.job_mut(*group, *offset).progress = note;
                self.seen.insert("progress");
            }
            Fact::Lease(LeaseFact::Committed { group, runs }) => {
                for offset in runs.iter().flat_map(|run| run.offsets()) {
                    self.job_mut(*group, offset).place = Place::Consumed;
                    self.forget_expiry(*group, offset);
                }
                let offsets = runs.iter().flat_map(|run| run.offsets()).map(|offset| offset.0);
                self.settle_jobs(self.groups[group].queue, offsets);
            }
            Fact::Lease(LeaseFact::CommittedWithResult { group, offset, .. }) => {
                self.job_mut(*group, *offset).place = Place::Consumed;
                self.forget_expiry(*group, *offset);
                self.settle_jobs(self.groups[group].queue, std::iter::once(offset.0));
            }
            Fact::Group(GroupFact::CommittedThrough { group, through }) => {
                let jobs = &mut self.groups.get_mut(group).unwrap().jobs;
                let jobs = jobs.range_mut(..=through.0);
                jobs.for_each(|(_, job)| job.place = Place::Consumed);
                self.settle(self.groups[group].queue);
            }
            Fact::Lease(LeaseFact::Ended { group, offset, reason, outcome, .. }) => {
                let job = self.job_mut(*group, *offset);
                assert!(matches!(job.place, Place::Leased(_)));
                job.progress = None;
                if *reason == EndReason::Failed {
                    job.failures += 1;
                    job.error = Some(FAILURE);
                } else if *outcome == Outcome::Dead {
                    // A dead job has the last word of its last worker alone.
                    job.error = None;
                }
                job.crashes += u32::from(reason.is_crash());
                job.place = match outcome {
                    Outcome::Ready => Place::Again,
                    Outcome::Delayed { due_log_ms } => Place::Delayed(*due_log_ms),
                    Outcome::Dead => Place::Dead(now_ms),
                    Outcome::Withdrawn => Place::Consumed,
                };
                if *outcome == Outcome::Dead {
                    self.seen.insert("dead");
                }
                if *outcome == Outcome::Withdrawn {
                    let state = self.groups.get_mut(group).unwrap();
                    let (cause, what) = match self.expired.contains(&(state.queue, offset.0)) {
                        true => (Removal::Expired, "over while out"),
                        false => (Removal::Cancelled, "stopped"),
                    };
                    *state.removed.entry(cause as usize).or_default() += 1;
                    let queue = state.queue;
                    self.settle_jobs(queue, std::iter::once(offset.0));
                    self.seen.insert(what);
                }
            }
            Fact::Group(GroupFact::KeysRead { .. }) => self.note_keys_read(fact),
            Fact::Job(JobFact::Withdrawn { queue, cause, runs }) => {
                self.note_withdrawn(*queue, *cause, runs)
            }
            Fact::Queue(QueueFact::Paused { queue, group, paused }) => {
                self.note_paused(*queue, *group, *paused)
            }
            Fact::Job(JobFact::TermsSet { queue, runs }) => self.note_terms(*queue, runs),
            Fact::Job(JobFact::KeysHeld { queue, .. })
            | Fact::Job(JobFact::UniqueHits { queue, .. }) => {
                self.note_keys(*queue, fact);
            }
            Fact::Job(JobFact::Promoted { queue, runs }) => self.note_promoted(*queue, runs),
            Fact::Job(JobFact::DeadRetried { group, runs }) => {
                for offset in runs.iter().flat_map(|run| run.offsets()) {
                    let job = self.job_mut(*group, offset);
                    assert!(matches!(job.place, Place::Dead(_)));
                    (job.failures, job.crashes) = (0, 0);
                    self.note_back(*group, offset.0);
                }
            }
            Fact::Job(JobFact::Removed { group, cause, runs }) => {
                self.note_removed(*group, *cause, runs)
            }
            // What becomes of schedules is noted where it is decided.
            Fact::Schedule(ScheduleFact::Set { .. })
            | Fact::Schedule(ScheduleFact::Removed { .. })
            | Fact::Schedule(ScheduleFact::Paused { .. })
            | Fact::Schedule(ScheduleFact::Settled { .. })
            | Fact::Schedule(ScheduleFact::Marked { .. }) => {}
            other => panic!("not about jobs: {other:?}"),
        }
    }

    fn note_granted(
        &mut self,
        group: GroupId,
        holder: Holder,
        lease_ms: u64,
        first_grant: Grant,
        runs: &Runs,
    ) {
        let deadline_ms = self.lease_ms + lease_ms;
        let mut grant = first_grant;
        for offset in runs.iter().flat_map(|run| run.offsets()) {
            assert!(self.all_grants.insert(grant), "grant {grant} came twice");
            self.check_key_of_granted(group, offset.0);
            let keyed = self.is_keyed(group);
            let job = self.job_mut(group, offset);
            let can_go = match job.place {
                Place::Again => true,
                Place::AtHand => keyed,
                Place::Fresh | Place::Passed => !keyed,
                _ => false,
            };
            assert!(can_go, "{offset}: {job:?}");
            let again = job.place == Place::Again;
            job.deliveries += 1;
            let (attempt, restored) = (job.deliveries, false);
            job.place = Place::Leased(Lease { grant, holder, lease_ms, deadline_ms, restored });
            let lease = self.machine.lease(group, offset).unwrap();
            assert_eq!((lease.attempt, lease.grant), (attempt, grant));
            self.grants.push((group, offset, grant));
            if again {
                self.seen.insert("again");
            }
            grant.0 += 1;
        }
        assert_eq!(self.machine.next_grant(), grant);
        self.note_taken(group, runs.iter().map(|run| u64::from(run.count)).sum());
    }

    pub(crate) fn expect_end(&self, fact: &Fact, reason: EndReason, now: Outcome) {
        let Fact::Lease(LeaseFact::Ended { group, offset, reason: found, outcome, .. }) = fact
        else {
            panic!("{fact:?}")
        };
        let now = if self.is_gone(*group, *offset) { Outcome::Withdrawn } else { now };
        assert_eq!((*found, *outcome), (reason, now));
    }

    /// Checks the outcome of a fact about a lost worker: counted only if it was not restored.
    pub(crate) fn expect_crash(&self, fact: &Fact, reason_of: fn(bool) -> EndReason) {
        let Fact::Lease(LeaseFact::Ended { group, offset, reason, outcome, .. }) = fact else {
            panic!()
        };
        let job = &self.groups[group].jobs[&offset.0];
        let Place::Leased(lease) = &job.place else { panic!("{fact:?} of {job:?}") };
        assert_eq!(*reason, reason_of(!lease.restored));
        if self.is_gone(*group, *offset) {
            return assert_eq!(*outcome, Outcome::Withdrawn);
        }
        let crashes = job.crashes + 1;
        match (lease.restored, crashes) {
            (false, _) if crashes > self.settings_of(*group).crashes_max => {
                assert_eq!(*outcome, Outcome::Dead);
            }
            (true, _) | (false, 1) => assert_eq!(*outcome, Outcome::Ready),
            (false, _) => self.expect_due(*outcome, 5_000 << (crashes - 2)),
        }
    }

    pub(crate) fn expect_due(&self, outcome: Outcome, delay_ms: u64) {
        let Outcome::Delayed { due_log_ms } = outcome else { panic!("{outcome:?}") };
        let range_ms = delay_ms * 4 / 5..=delay_ms * 6 / 5;
        assert!(range_ms.contains(&(due_log_ms - self.log_ms)), "{delay_ms} {due_log_ms}");
    }

    /// What the group says to a grant that is not the one of a lease.
    pub(crate) fn expected_refusal(&self, group: GroupId, offset: Offset) -> JobRefusal {
        let Some(state) = self.groups.get(&group) else {
            return JobRefusal::NoSuchGroup;
        };
        if state.kind == GroupKind::Stream {
            return JobRefusal::WrongKind;
        }
        let next = self.machine.next_offset(state.queue).unwrap();
        match state.jobs.get(&offset.0) {
            None if offset.0 >= state.start => JobRefusal::BeyondEnd { next },
            None => JobRefusal::AlreadyConsumed,
            Some(job) if job.place == Place::Consumed => JobRefusal::AlreadyConsumed,
            Some(_) => JobRefusal::LeaseLost,
        }
    }
}
