//! The state machine against a simple model: one entry per job and group, no cleverness.
//!
//! Random requests run against both; what the machine allows, refuses and chooses must be what the
//! model says. All that is applied is recorded, and now and then a fresh machine is built from the
//! record, as after a restart, and must look the same. `JOBLOG_SEEDS=200` runs that many seeds,
//! `JOBLOG_SEEDS=17..18` just those; the seed stands in the failure.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this file is a test throughout, also where it is not inside a test function"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use joblog::queue::{
    Contradiction, EndReason, Fact, GroupKind, Holder, JobRefusal, JobState, Machine, Outcome,
    Picked, QueueSettings, Refusal, Retry, Runs, SessionEnd, Start, push_offset,
};
use joblog::types::{Grant, GroupId, Offset, QueueId, SessionId, Stamp};

const STEP_COUNT: u64 = 10_000;
const SEED_COUNT: u64 = 8;
const SESSION_COUNT: u64 = 4;
const QUEUE_NAMES: [&str; 3] = ["mail", "images", "bills"];
const GROUP_NAMES: [&str; 3] = ["default", "audit", "tail"];

/// Small limits, so that jobs die often.
fn settings() -> QueueSettings {
    QueueSettings { failures_max: 2, crashes_max: 2, ..QueueSettings::default() }
}

#[test]
fn agrees_with_the_model() {
    for seed in seeds() {
        let mut world = World::new(seed);
        for _ in 0..STEP_COUNT {
            world.step();
        }
        world.check_all();
        world.restart();
        let seen = &world.seen;
        for what in ["commit", "fail", "release", "extend", "expired", "silent", "goodbye"] {
            assert!(seen.contains(what), "seed {seed} never saw {what}");
        }
        for what in ["resumed", "dead", "restart", "consumed twice", "lease lost", "again"] {
            assert!(seen.contains(what), "seed {seed} never saw {what}");
        }
    }
}

/// A log with an entry lost, doubled or out of place is refused or gives some state: no panic, and
/// no token twice.
#[test]
fn a_damaged_log_is_a_contradiction_and_no_panic() {
    let mut refused_count = 0;
    for seed in seeds() {
        let mut world = World::new(seed);
        (0..1_500).for_each(|_| world.step());
        let mut rng = Rng(seed);
        for _ in 0..60 {
            let mut records = world.records.clone();
            let at = rng.below(records.len() as u64) as usize;
            match rng.below(3) {
                0 => drop(records.remove(at)),
                1 => records.insert(at, records[at].clone()),
                _ => records.swap(at, rng.below(world.records.len() as u64) as usize),
            }
            refused_count += u32::from(replay(&records).is_err());
        }
    }
    assert!(refused_count > 100, "only {refused_count} refused");
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("JOBLOG_SEEDS") else {
        return 0..SEED_COUNT;
    };
    let number = |text: &str| text.parse().expect("JOBLOG_SEEDS is a number or first..end");
    text.split_once("..").map_or_else(|| 0..number(&text), |(a, b)| number(a)..number(b))
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            None
        } else {
            Some(from[self.below(from.len() as u64) as usize].clone())
        }
    }
}

#[derive(Clone, Debug)]
enum Record {
    Jobs(QueueId, Offset, u32, Stamp),
    Fact(Fact, Stamp),
}

fn replay(records: &[Record]) -> Result<Machine, Contradiction> {
    let mut machine = Machine::new();
    for record in records {
        match record {
            Record::Jobs(queue, base, count, stamp) => {
                machine.apply_jobs(*queue, *base, *count, *stamp)?;
            }
            Record::Fact(fact, stamp) => machine.apply(fact, *stamp, 0)?,
        }
    }
    Ok(machine)
}

/// Everything that can be seen of a machine and that a restart must not change.
fn look(machine: &Machine) -> String {
    let mut text = String::new();
    for queue in machine.queues() {
        writeln!(text, "{queue:?}").unwrap();
        for group in machine.groups(queue.queue) {
            // The room of a vector depends on how it grew.
            let mut group = group.clone();
            group.counts.consumed_heap_bytes = 0;
            writeln!(text, "{group:?}").unwrap();
            for offset in (queue.first.0..queue.next.0).map(Offset) {
                let state = machine.job(group.group, offset);
                let lease = machine.lease(group.group, offset).map(|mut lease| {
                    lease.restored = false;
                    lease
                });
                writeln!(text, "{offset} {state:?} {lease:?}").unwrap();
            }
            let dead: Vec<_> = machine.dead(group.group, Offset(0)).collect();
            writeln!(text, "{dead:?}").unwrap();
        }
    }
    text
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Fresh,
    Again,
    Delayed(u64),
    Leased(Lease),
    Consumed,
    Dead,
}

#[derive(Clone, Debug, PartialEq)]
struct Lease {
    grant: Grant,
    holder: Holder,
    lease_ms: u64,
    deadline_ms: u64,
    restored: bool,
}

#[derive(Clone, Debug)]
struct Job {
    place: Place,
    deliveries: u32,
    failures: u32,
    crashes: u32,
}

const FRESH: Job = Job { place: Place::Fresh, deliveries: 0, failures: 0, crashes: 0 };

struct Group {
    queue: QueueId,
    kind: GroupKind,
    /// The first job that it sees.
    start: u64,
    jobs: BTreeMap<u64, Job>,
    /// The committed offset when it was last looked at.
    committed: u64,
}

struct World {
    rng: Rng,
    machine: Machine,
    records: Vec<Record>,
    log_ms: u64,
    lease_ms: u64,
    term: u64,
    queues: BTreeMap<QueueId, (&'static str, u64)>,
    groups: BTreeMap<GroupId, Group>,
    /// The end of every queue ever, by name: no offset comes twice.
    ends: BTreeMap<&'static str, u64>,
    /// Every grant ever given.
    grants: Vec<(GroupId, Offset, Grant)>,
    all_grants: BTreeSet<Grant>,
    seen: BTreeSet<&'static str>,
    seed: u64,
    step: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {} at step {}", self.seed, self.step);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng(seed),
            machine: Machine::new(),
            records: Vec::new(),
            log_ms: 1_000,
            lease_ms: 77_000_000 * seed,
            term: 1,
            queues: BTreeMap::new(),
            groups: BTreeMap::new(),
            ends: BTreeMap::new(),
            grants: Vec::new(),
            all_grants: BTreeSet::new(),
            seen: BTreeSet::new(),
            seed,
            step: 0,
        }
    }

    fn step(&mut self) {
        self.step += 1;
        match self.rng.below(100) {
            0..10 => self.enqueue(),
            10..35 => self.fetch(),
            35..55 => self.commit_some(),
            55..70 => self.hand_back(),
            70..80 => self.use_old_grant(),
            80..86 => self.pass_time(),
            86..89 => self.end_session(),
            89..92 => self.resume_session(),
            92..95 => self.commit_through(),
            95..97 => self.create(),
            97 if self.rng.below(6) == 0 => self.delete(),
            98 if self.rng.below(3) == 0 => self.restart(),
            99 => self.check_all(),
            _ => {}
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp { wall_ms: 5_000_000 + self.log_ms, log_ms: self.log_ms }
    }

    fn record(&mut self, fact: Fact) {
        let stamp = self.stamp();
        self.machine.apply(&fact, stamp, self.lease_ms).expect("a validated fact applies");
        self.note(&fact);
        self.records.push(Record::Fact(fact, stamp));
    }

    fn any_group(&mut self, kind: GroupKind) -> Option<GroupId> {
        let of_kind = self.groups.iter().filter(|(_, group)| group.kind == kind);
        let ids: Vec<_> = of_kind.map(|(id, _)| *id).collect();
        self.rng.one_of(&ids)
    }

    fn session(&mut self) -> SessionId {
        SessionId([self.rng.below(SESSION_COUNT) as u8; 16])
    }

    /// All leases: of every group, by offset.
    fn leases(&self) -> Vec<(GroupId, Offset, Lease)> {
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

    fn job_mut(&mut self, group: GroupId, offset: Offset) -> &mut Job {
        self.groups.get_mut(&group).unwrap().jobs.get_mut(&offset.0).unwrap()
    }
}

/// What a fact does to the model.
impl World {
    fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::QueueCreated { queue, name, first_offset, .. } => {
                let name = *QUEUE_NAMES.iter().find(|known| **known == &**name).unwrap();
                let end = self.ends.get(name).copied().unwrap_or(0);
                assert!(first_offset.0 >= end, "{name}:{first_offset} would come twice");
                assert!(self.queues.insert(*queue, (name, first_offset.0)).is_none());
            }
            Fact::QueueDeleted { queue } => {
                self.queues.remove(queue).unwrap();
                self.groups.retain(|_, group| group.queue != *queue);
            }
            Fact::GroupCreated { group, queue, kind, start, .. } => {
                let (start, end) = (start.0, self.machine.next_offset(*queue).unwrap().0);
                let jobs = (start..end).map(|offset| (offset, FRESH)).collect();
                let state = Group { queue: *queue, kind: *kind, start, jobs, committed: start };
                assert!(self.groups.insert(*group, state).is_none());
            }
            Fact::GroupDeleted { group } => drop(self.groups.remove(group).unwrap()),
            Fact::Granted { group, holder, lease_ms, first_grant, runs } => {
                self.note_granted(*group, *holder, *lease_ms, *first_grant, runs);
            }
            Fact::Extended { group, offset, lease_ms } => {
                let deadline = self.lease_ms + lease_ms;
                let Place::Leased(lease) = &mut self.job_mut(*group, *offset).place else {
                    panic!("extended without a lease")
                };
                (lease.lease_ms, lease.deadline_ms, lease.restored) = (*lease_ms, deadline, false);
            }
            Fact::Committed { group, runs } => {
                for offset in runs.iter().flat_map(|run| run.offsets()) {
                    self.job_mut(*group, offset).place = Place::Consumed;
                }
            }
            Fact::CommittedThrough { group, through } => {
                let jobs = &mut self.groups.get_mut(group).unwrap().jobs;
                jobs.range_mut(..=through.0).for_each(|(_, job)| job.place = Place::Consumed);
            }
            Fact::LeaseEnded { group, offset, reason, outcome, .. } => {
                let job = self.job_mut(*group, *offset);
                assert!(matches!(job.place, Place::Leased(_)));
                job.failures += u32::from(*reason == EndReason::Failed);
                job.crashes += u32::from(reason.is_crash());
                job.place = match outcome {
                    Outcome::Ready => Place::Again,
                    Outcome::Delayed { due_log_ms } => Place::Delayed(*due_log_ms),
                    Outcome::Dead => Place::Dead,
                };
                if job.place == Place::Dead {
                    self.seen.insert("dead");
                }
            }
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
            let job = self.job_mut(group, offset);
            assert!(matches!(job.place, Place::Fresh | Place::Again), "{offset}: {job:?}");
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
    }

    fn expect_end(&self, fact: &Fact, reason: EndReason, now: Outcome) {
        let Fact::LeaseEnded { reason: found, outcome, .. } = fact else { panic!("{fact:?}") };
        assert_eq!((*found, *outcome), (reason, now));
    }

    /// Checks the outcome of a fact about a lost worker: counted only if it was not restored.
    fn expect_crash(&self, fact: &Fact, reason_of: fn(bool) -> EndReason) {
        let Fact::LeaseEnded { group, offset, reason, outcome, .. } = fact else { panic!() };
        let job = &self.groups[group].jobs[&offset.0];
        let Place::Leased(lease) = &job.place else { panic!("{fact:?} of {job:?}") };
        assert_eq!(*reason, reason_of(!lease.restored));
        match (lease.restored, job.crashes + 1) {
            (true, _) | (false, 1) => assert_eq!(*outcome, Outcome::Ready),
            (false, 2) => self.expect_due(*outcome, 5_000),
            _ => assert_eq!(*outcome, Outcome::Dead),
        }
    }

    fn expect_due(&self, outcome: Outcome, delay_ms: u64) {
        let Outcome::Delayed { due_log_ms } = outcome else { panic!("{outcome:?}") };
        let range_ms = delay_ms * 4 / 5..=delay_ms * 6 / 5;
        assert!(range_ms.contains(&(due_log_ms - self.log_ms)), "{delay_ms} {due_log_ms}");
    }

    /// What the group says to a grant that is not the one of a lease.
    fn expected_refusal(&self, group: GroupId, offset: Offset) -> JobRefusal {
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

/// The requests.
impl World {
    fn enqueue(&mut self) {
        let ids: Vec<_> = self.queues.keys().copied().collect();
        let Some(queue) = self.rng.one_of(&ids) else {
            return self.create();
        };
        let count = self.rng.below(6) as u32;
        let (base, stamp) = (self.machine.next_offset(queue).unwrap(), self.stamp());
        self.machine.take_woken(&mut Vec::new());
        self.machine.apply_jobs(queue, base, count, stamp).unwrap();
        self.records.push(Record::Jobs(queue, base, count, stamp));
        let end = base.0 + u64::from(count);
        self.ends.insert(self.queues[&queue].0, end);
        let mut woken = Vec::new();
        self.machine.take_woken(&mut woken);
        for (id, group) in self.groups.iter_mut().filter(|(_, group)| group.queue == queue) {
            group.jobs.extend((base.0..end).map(|offset| (offset, FRESH)));
            assert_eq!(woken.iter().filter(|woken| *woken == id).count(), 1);
        }
    }

    fn fetch(&mut self) {
        let Some(group) = self.any_group(GroupKind::Work) else {
            return;
        };
        let jobs_max = [1, 1, 2, 3, 7][self.rng.below(5) as usize];
        let fit_max = if self.rng.below(4) == 0 { self.rng.below(4) as usize } else { 99 };
        let mut picked = Picked::new();
        let mut fit_count = 0;
        let mut take = |_| {
            fit_count += 1;
            fit_count <= fit_max
        };
        self.machine.pick(group, jobs_max, &mut take, &mut picked);
        self.check_pick(group, jobs_max.min(fit_max), &picked);
        if picked.is_empty() {
            return;
        }
        let session = Holder::Session(self.session());
        let holder = if self.rng.below(3) == 0 { Holder::Timed } else { session };
        let lease_ms = [0, 30_000, 30_000, 3_600_000][self.rng.below(4) as usize];
        let first = self.machine.next_grant();
        let fact = self.machine.grant(group, holder, lease_ms, first, &picked).unwrap();
        self.record(fact);
    }

    /// The lowest of both sorts, as many as there are, by halves while there are both.
    fn check_pick(&self, group: GroupId, count_max: usize, picked: &Picked) {
        let jobs = &self.groups[&group].jobs;
        let at = |place: &Place| -> Vec<u64> {
            jobs.iter().filter(|(_, job)| job.place == *place).map(|(o, _)| *o).collect()
        };
        let (fresh, again) = (at(&Place::Fresh), at(&Place::Again));
        let offsets: Vec<u64> = picked.offsets().map(|offset| offset.0).collect();
        let again_count = offsets.iter().filter(|offset| again.contains(offset)).count();
        let fresh_count = offsets.len() - again_count;
        assert_eq!(offsets, [&again[..again_count], &fresh[..fresh_count]].concat());
        assert_eq!(offsets.len(), count_max.min(fresh.len() + again.len()));
        let half = offsets.len().div_ceil(2);
        assert!(again_count <= half || fresh_count == fresh.len());
        assert!(fresh_count <= half || again_count == again.len());
    }

    fn commit_some(&mut self) {
        let Some((group, ..)) = self.rng.one_of(&self.leases()) else {
            return;
        };
        let mut runs = Runs::new();
        for (of, offset, lease) in self.leases() {
            if of == group && self.rng.below(2) == 0 {
                assert_eq!(self.machine.commit(group, offset, Some(lease.grant)), Ok(()));
                push_offset(&mut runs, offset);
            }
        }
        self.record(Fact::Committed { group, runs });
        self.seen.insert("commit");
    }

    fn hand_back(&mut self) {
        let Some((group, offset, lease)) = self.rng.one_of(&self.leases()) else {
            return;
        };
        let (grant, now_ms) = (Some(lease.grant), self.log_ms);
        let fact = match self.rng.below(4) {
            0 => {
                self.seen.insert("extend");
                let lease_ms = 1 + self.rng.below(100_000);
                self.machine.extend(group, offset, grant, lease_ms).unwrap()
            }
            1 => {
                self.seen.insert("release");
                let delay_ms = self.rng.below(3) * 4_000;
                let fact = self.machine.release(group, offset, grant, delay_ms, now_ms).unwrap();
                let due = Outcome::Delayed { due_log_ms: now_ms + delay_ms };
                let outcome = if delay_ms == 0 { Outcome::Ready } else { due };
                self.expect_end(&fact, EndReason::Released, outcome);
                fact
            }
            _ => self.fail(group, offset, grant),
        };
        self.record(fact);
    }

    fn fail(&mut self, group: GroupId, offset: Offset, grant: Option<Grant>) -> Fact {
        self.seen.insert("fail");
        let all = [
            Retry::POLICY,
            Retry::POLICY,
            Retry { failures_max: Some(4), delay_ms: None },
            Retry { failures_max: None, delay_ms: Some(500) },
            Retry::NEVER,
        ];
        let retry = self.rng.one_of(&all).unwrap();
        let (now_ms, seed) = (self.log_ms, self.rng.next());
        let fact = self.machine.fail(group, offset, grant, retry, "no ink", now_ms, seed).unwrap();
        let Fact::LeaseEnded { outcome, reason: EndReason::Failed, ref message, .. } = fact else {
            panic!("{fact:?}")
        };
        assert_eq!(&**message, "no ink");
        let failures = self.groups[&group].jobs[&offset.0].failures + 1;
        match (retry, failures) {
            (Retry::NEVER, _) => assert_eq!(outcome, Outcome::Dead),
            (Retry { failures_max: Some(max), delay_ms: None }, _) if failures <= max => {
                self.expect_due(outcome, 500 << failures);
            }
            (Retry { delay_ms: Some(delay_ms), .. }, 1..=2) => {
                assert_eq!(outcome, Outcome::Delayed { due_log_ms: now_ms + delay_ms });
            }
            (Retry::POLICY, 1..=2) => self.expect_due(outcome, 500 << failures),
            _ => assert_eq!(outcome, Outcome::Dead),
        }
        fact
    }

    /// A grant of the past, or none at all: only that of the lease itself may do anything.
    fn use_old_grant(&mut self) {
        let Some((group, offset, grant)) = self.rng.one_of(&self.grants) else {
            return;
        };
        let offset = if self.rng.below(8) == 0 { offset.plus(self.rng.below(50)) } else { offset };
        let grant = if self.rng.below(8) == 0 { None } else { Some(grant) };
        let job = self.groups.get(&group).and_then(|group| group.jobs.get(&offset.0));
        if let Some(Job { place: Place::Leased(lease), .. }) = job
            && Some(lease.grant) == grant
        {
            return;
        }
        let refusal = self.expected_refusal(group, offset);
        self.seen.insert(match refusal {
            JobRefusal::AlreadyConsumed => "consumed twice",
            JobRefusal::LeaseLost => "lease lost",
            _ => "other refusal",
        });
        let machine = &self.machine;
        assert_eq!(machine.commit(group, offset, grant), Err(refusal));
        assert_eq!(machine.extend(group, offset, grant, 5), Err(refusal));
        assert_eq!(machine.release(group, offset, grant, 0, 0), Err(refusal));
        assert_eq!(machine.damage(group, offset, grant, ""), Err(refusal));
        let failed = machine.fail(group, offset, grant, Retry::POLICY, "", 0, 0);
        assert_eq!(failed, Err(refusal));
    }

    fn commit_through(&mut self) {
        let Some(group) = self.any_group(GroupKind::Stream) else {
            return;
        };
        let state = &self.groups[&group];
        let next = self.machine.next_offset(state.queue).unwrap();
        let through = Offset(state.committed.saturating_sub(1) + self.rng.below(5));
        let expected = match through {
            _ if through >= next => Err(JobRefusal::BeyondEnd { next }),
            _ if through.0 < self.groups[&group].committed => Err(JobRefusal::AlreadyConsumed),
            _ => Ok(Fact::CommittedThrough { group, through }),
        };
        let found = self.machine.commit_through(group, through);
        assert_eq!(found, expected);
        if let Ok(fact) = found {
            self.record(fact);
            self.check_group(group);
        }
    }

    fn create(&mut self) {
        let name = self.rng.one_of(&QUEUE_NAMES).unwrap();
        let created = self.machine.create_queue(name, settings());
        match self.machine.queue_id(name) {
            None => self.record(created.unwrap()),
            Some(queue) => {
                let exists = Refusal::QueueExists { queue, same_settings: true };
                assert_eq!(created, Err(exists));
            }
        }
        let queue = self.machine.queue_id(name).unwrap();
        let group_name = self.rng.one_of(&GROUP_NAMES).unwrap();
        let kind = if group_name == "tail" { GroupKind::Stream } else { GroupKind::Work };
        let next = self.machine.next_offset(queue).unwrap();
        let starts = [Start::Beginning, Start::End, Start::At(next), Start::At(next.next())];
        let start = self.rng.one_of(&starts).unwrap();
        let created = self.machine.create_group(queue, group_name, kind, start);
        match (self.machine.group_id(queue, group_name), start) {
            (Some(group), _) => assert_eq!(created, Err(Refusal::GroupExists { group })),
            (None, Start::At(offset)) if offset > next => {
                assert!(matches!(created, Err(Refusal::StartOutside { .. })));
            }
            _ => self.record(created.unwrap()),
        }
    }

    fn delete(&mut self) {
        let groups: Vec<_> = self.groups.keys().copied().collect();
        let queues: Vec<_> = self.queues.keys().copied().collect();
        let fact = if self.rng.below(2) == 0 {
            self.rng.one_of(&groups).map(|group| self.machine.delete_group(group).unwrap())
        } else {
            self.rng.one_of(&queues).map(|queue| self.machine.delete_queue(queue).unwrap())
        };
        if let Some(fact) = fact {
            self.record(fact);
            self.check_all();
        }
    }
}

/// Time, sessions and restarts.
impl World {
    fn pass_time(&mut self) {
        let span_ms = [10, 3_000, 40_000, 4_000_000][self.rng.below(4) as usize];
        let passed_ms = self.rng.below(span_ms);
        self.log_ms += passed_ms;
        self.lease_ms += passed_ms;
        self.machine.advance(self.log_ms);
        self.note_due();
        let limit = if self.rng.below(2) == 0 { 2 } else { 1_000 };
        let (now_ms, seed) = (self.lease_ms, self.rng.next());
        let facts = self.machine.take_expired(now_ms, self.log_ms, seed, limit);
        // Asked again before they are applied, it says the same.
        assert_eq!(facts, self.machine.take_expired(now_ms, self.log_ms, seed, limit));
        let mut over = self.leases();
        over.retain(|(.., lease)| lease.deadline_ms <= now_ms);
        assert_eq!(facts.len(), over.len().min(limit));
        for fact in facts {
            self.expect_crash(&fact, |crash| EndReason::Expired { crash });
            let Fact::LeaseEnded { group, offset, .. } = fact else { panic!() };
            assert!(over.iter().any(|(g, o, _)| (*g, *o) == (group, offset)));
            self.record(fact);
            self.seen.insert("expired");
        }
    }

    fn note_due(&mut self) {
        for job in self.groups.values_mut().flat_map(|group| group.jobs.values_mut()) {
            if matches!(job.place, Place::Delayed(due_log_ms) if due_log_ms <= self.log_ms) {
                job.place = Place::Again;
            }
        }
    }

    fn session_leases(&self, session: SessionId) -> Vec<(GroupId, Offset, Lease)> {
        let mut leases = self.leases();
        leases.retain(|(.., lease)| lease.holder == Holder::Session(session));
        leases
    }

    fn end_session(&mut self) {
        let session = self.session();
        let leases = self.session_leases(session);
        let silent = self.rng.below(2) == 0;
        let end = if silent { SessionEnd::Silent } else { SessionEnd::Goodbye };
        let seed = self.rng.next();
        let facts = self.machine.end_session(session, end, self.log_ms, seed);
        assert_eq!(facts.len(), leases.len());
        for fact in facts {
            if silent {
                self.expect_crash(&fact, |crash| EndReason::SessionLost { crash });
                self.seen.insert("silent");
            } else {
                self.expect_end(&fact, EndReason::Undelivered, Outcome::Ready);
                self.seen.insert("goodbye");
            }
            self.record(fact);
        }
        assert!(self.session_leases(session).is_empty());
    }

    fn resume_session(&mut self) {
        let session = self.session();
        let mut held = Vec::new();
        let mut kept = Vec::new();
        for (group, offset, lease) in self.session_leases(session) {
            if self.rng.below(3) > 0 {
                held.push(lease.grant);
                kept.push((group, offset, Lease { restored: false, ..lease }));
            }
        }
        // A grant that is not the session's must not matter.
        held.extend(self.rng.one_of(&self.grants).map(|(.., grant)| grant));
        let own = self.session_leases(session);
        kept.extend(own.into_iter().filter(|(.., lease)| Some(&lease.grant) == held.last()));
        for fact in self.machine.resume_session(session, &held) {
            self.expect_end(&fact, EndReason::Undelivered, Outcome::Ready);
            self.record(fact);
            self.seen.insert("resumed");
        }
        for (group, offset, lease) in kept {
            let lease = Lease { restored: false, ..lease };
            self.job_mut(group, offset).place = Place::Leased(lease.clone());
            assert_eq!(self.machine.lease(group, offset).unwrap().grant, lease.grant);
            assert!(held.contains(&lease.grant));
        }
        let all_held = |(.., lease): &(GroupId, Offset, Lease)| held.contains(&lease.grant);
        assert!(self.session_leases(session).iter().all(all_held));
        self.check_leases();
    }

    fn restart(&mut self) {
        let mut rebuilt = replay(&self.records).expect("what was applied once replays");
        self.lease_ms = self.rng.below(1_000_000_000);
        self.term += 1;
        rebuilt.advance(self.log_ms);
        assert_eq!(look(&rebuilt), look(&self.machine), "seed {}", self.seed);
        rebuilt.raise_grants(Grant(self.term << 32));
        rebuilt.rearm(self.lease_ms);
        self.machine = rebuilt;
        for (group, offset, lease) in self.leases() {
            let deadline_ms = self.lease_ms + lease.lease_ms;
            let lease = Lease { deadline_ms, restored: true, ..lease };
            self.job_mut(group, offset).place = Place::Leased(lease);
        }
        self.seen.insert("restart");
        self.check_all();
    }

    fn check_all(&mut self) {
        for group in self.groups.keys().copied().collect::<Vec<_>>() {
            self.check_group(group);
        }
        self.check_leases();
        let delayed = self.groups.values().flat_map(|group| group.jobs.values());
        let due = |job: &Job| {
            if let Place::Delayed(due) = job.place { Some(due) } else { None }
        };
        assert_eq!(self.machine.next_due_log_ms(), delayed.filter_map(due).min());
    }

    fn check_leases(&self) {
        let leases = self.leases();
        assert_eq!(self.machine.lease_count(), leases.len());
        for (group, offset, lease) in leases {
            let found = self.machine.lease(group, offset).unwrap();
            let job = &self.groups[&group].jobs[&offset.0];
            assert_eq!((found.grant, found.holder), (lease.grant, lease.holder));
            assert_eq!((found.lease_ms, found.restored), (lease.lease_ms, lease.restored));
            let counts = (found.attempt, found.failures, found.crashes);
            assert_eq!(counts, (job.deliveries, job.failures, job.crashes));
        }
    }

    /// Each job is where the model says, the counts add up, and the committed offset has not gone
    /// back.
    fn check_group(&mut self, id: GroupId) {
        let group = self.groups.get_mut(&id).unwrap();
        let counts = self.machine.group(id).unwrap().counts;
        let (mut ready, mut leased, mut delayed, mut dead, mut consumed) = (0, 0, 0, 0, 0);
        for (offset, job) in &group.jobs {
            let (count, state) = match job.place {
                Place::Fresh | Place::Again => (&mut ready, JobState::Ready),
                Place::Leased(_) => (&mut leased, JobState::Leased),
                Place::Delayed(due_log_ms) => (&mut delayed, JobState::Delayed { due_log_ms }),
                Place::Consumed => (&mut consumed, JobState::Consumed),
                Place::Dead => (&mut dead, JobState::Dead),
            };
            *count += 1;
            assert_eq!(self.machine.job(id, Offset(*offset)), Some(state), "job {offset}");
        }
        assert_eq!((counts.ready, counts.leased), (ready, leased));
        assert_eq!((counts.delayed, counts.dead), (delayed, dead));
        let left = group.jobs.iter().find(|(_, job)| job.place != Place::Consumed);
        let end = self.machine.next_offset(group.queue).unwrap().0;
        let committed = left.map_or(end, |(offset, _)| *offset);
        assert_eq!(counts.committed.0, committed);
        assert_eq!(counts.consumed_above, consumed - (committed - group.start));
        assert!(committed >= group.committed, "the committed offset went back");
        group.committed = committed;
        for (offset, dead) in self.machine.dead(id, Offset(0)) {
            let job = &group.jobs[&offset.0];
            let counts = (dead.attempts, dead.failures, dead.crashes);
            assert_eq!(counts, (job.deliveries, job.failures, job.crashes));
        }
    }
}
