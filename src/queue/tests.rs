//! Cases of the state machine that are worth a name, told step by step.

mod deploys;
mod limits;
mod order;

use super::*;
use crate::types::{Grant, GroupId, LeaseRef, Offset, QueueId, SessionId, Stamp};

const WORKER: SessionId = SessionId([7; 16]);
const HOLDER: Holder = Holder::Session(WORKER);
const LEASE_MS: u64 = 30_000;

/// A machine with one queue and one work group, and a record of all that it was told.
struct Scene {
    machine: Machine,
    queue: QueueId,
    group: GroupId,
    record: Vec<(Entry, u64)>,
    log_ms: u64,
}

#[derive(Clone)]
enum Entry {
    Jobs(Offset, u32),
    Fact(Box<Fact>),
}

fn lease_ref((offset, grant): (Offset, Grant)) -> LeaseRef {
    LeaseRef { offset, grant }
}

impl Scene {
    fn new() -> Self {
        let (queue, group) = (QueueId(1), GroupId(1));
        let (machine, record) = (Machine::new(), Vec::new());
        let mut scene = Self { machine, queue, group, record, log_ms: 1_000 };
        let created = scene.machine.create_queue("mail", QueueSettings::default());
        scene.apply(created.unwrap());
        let kind = GroupKind::Work;
        let created = scene.machine.create_group(queue, "default", kind, Start::Beginning);
        scene.apply(created.unwrap());
        scene
    }

    fn apply(&mut self, fact: Fact) {
        let stamp = Stamp { wall_ms: 0, log_ms: self.log_ms };
        self.machine.apply(&fact, stamp, self.log_ms).unwrap();
        self.record.push((Entry::Fact(Box::new(fact)), self.log_ms));
    }

    fn enqueue(&mut self, count: u32) {
        let base = self.machine.next_offset(self.queue).unwrap();
        let stamp = Stamp { wall_ms: 0, log_ms: self.log_ms };
        self.machine.apply_jobs(self.queue, base, count, 0, stamp).unwrap();
        self.record.push((Entry::Jobs(base, count), self.log_ms));
    }

    fn fetch_as(&mut self, holder: Holder, jobs_max: usize) -> Vec<(Offset, Grant)> {
        let mut picked = Picked::new();
        self.machine.pick(self.group, jobs_max, &mut |_| true, &mut picked);
        let first = self.machine.next_grant();
        let fact = self.machine.grant(self.group, holder, LEASE_MS, first, &picked).unwrap();
        self.apply(fact);
        let grants = (first.0..).map(Grant);
        picked.offsets().zip(grants).collect()
    }

    fn fetch(&mut self, jobs_max: usize) -> Vec<(Offset, Grant)> {
        self.fetch_as(HOLDER, jobs_max)
    }

    fn commit(&mut self, offset: Offset, grant: Grant) {
        self.machine.commit(self.group, LeaseRef { offset, grant }).unwrap();
        let mut runs = Runs::new();
        push_offset(&mut runs, offset);
        self.apply(Fact::Lease(LeaseFact::Committed { group: self.group, runs }));
    }

    fn release(&mut self, offset: Offset, grant: Grant) {
        let fact = self.machine.release(self.group, LeaseRef { offset, grant }, 0, self.log_ms);
        self.apply(fact.unwrap());
    }

    fn counts(&self) -> GroupCounts {
        self.machine.group(self.group).unwrap().counts
    }

    fn replay(&mut self) {
        self.machine = Machine::new();
        for (entry, log_ms) in self.record.clone() {
            let stamp = Stamp { wall_ms: 0, log_ms };
            match entry {
                Entry::Jobs(base, count) => {
                    self.machine.apply_jobs(self.queue, base, count, 0, stamp).unwrap();
                }
                Entry::Fact(fact) => self.machine.apply(&fact, stamp, 0).unwrap(),
            }
        }
    }

    fn restart(&mut self) {
        self.replay();
        self.machine.raise_grants(self.machine.next_grant());
        self.machine.rearm(self.log_ms);
    }
}

#[test]
fn one_stuck_job_costs_next_to_nothing_and_is_all_that_comes_again() {
    let mut scene = Scene::new();
    scene.enqueue(1_000_001);
    let stuck = scene.fetch(1);
    for _ in 0..1_000 {
        let jobs = scene.fetch(1_000);
        let runs = [Run { first: jobs[0].0, count: 1_000 }].into_iter().collect();
        scene.apply(Fact::Lease(LeaseFact::Committed { group: scene.group, runs }));
    }
    let check = |scene: &Scene| {
        let counts = scene.counts();
        assert_eq!((counts.committed, counts.consumed_above), (Offset(0), 1_000_000));
        assert_eq!((counts.leased, counts.ready), (1, 0));
        assert!(counts.consumed_heap_bytes < 20_000, "{}", counts.consumed_heap_bytes);
    };
    check(&scene);
    scene.restart();
    check(&scene);
    let ends = scene.machine.end_session(WORKER, SessionEnd::Silent, scene.log_ms, 0);
    assert_eq!(ends.len(), 1);
    ends.into_iter().for_each(|end| scene.apply(end));
    let again = scene.fetch(10);
    assert_eq!(again.iter().map(|job| job.0).collect::<Vec<_>>(), [Offset(0)]);
    assert_eq!(scene.machine.commit(scene.group, lease_ref(stuck[0])), Err(JobRefusal::LeaseLost));
    scene.commit(Offset(0), again[0].1);
    let counts = scene.counts();
    assert_eq!((counts.committed, counts.consumed_heap_bytes), (Offset(1_000_001), 0));
}

#[test]
fn a_million_leases_fit_in_64_mib() {
    let mut scene = Scene::new();
    scene.enqueue(1 << 20);
    for _ in 0..1 << 10 {
        scene.fetch(1 << 10);
    }
    let lease_bytes = scene.machine.lease_heap_bytes();
    assert_eq!(scene.machine.lease_count(), 1 << 20);
    assert!(lease_bytes <= 64 << 20, "{lease_bytes}");
    // Their slots are used again.
    let ends = scene.machine.end_session(WORKER, SessionEnd::Goodbye, scene.log_ms, 0);
    ends.into_iter().for_each(|end| scene.apply(end));
    assert_eq!((scene.machine.lease_count(), scene.counts().ready), (0, 1 << 20));
    scene.fetch(1 << 20);
    assert_eq!(scene.machine.lease_heap_bytes(), lease_bytes);
}

#[test]
fn a_session_without_leases_leaves_no_memory() {
    let mut scene = Scene::new();
    scene.enqueue(10_000);
    for n in 0..10_000_u128 {
        let session = Holder::Session(SessionId(n.to_le_bytes()));
        let (offset, grant) = scene.fetch_as(session, 1)[0];
        scene.commit(offset, grant);
    }
    // The empty wheel and the smallest tables.
    let lease_bytes = scene.machine.lease_heap_bytes();
    assert!(lease_bytes < 40_000, "{lease_bytes}");
}

#[test]
fn redelivered_and_fresh_jobs_take_turns() {
    let mut scene = Scene::new();
    scene.enqueue(4);
    scene.fetch(4).into_iter().for_each(|(offset, grant)| scene.release(offset, grant));
    scene.enqueue(4);
    let mut order = Vec::new();
    for _ in 0..5 {
        // Whose turn it is must survive a restart.
        scene.restart();
        order.extend(scene.fetch(1).into_iter().map(|(offset, _)| offset.0));
    }
    assert_eq!(order, [0, 4, 1, 5, 2]);
    let rest: Vec<_> = scene.fetch(9).into_iter().map(|(offset, _)| offset.0).collect();
    assert_eq!(rest, [3, 6, 7]);
}

#[test]
fn what_does_not_fit_ends_a_pick_and_starves_nobody() {
    let mut scene = Scene::new();
    scene.enqueue(3);
    scene.fetch(3).into_iter().for_each(|(offset, grant)| scene.release(offset, grant));
    scene.enqueue(3);
    let mut order = Vec::new();
    for _ in 0..4 {
        let mut picked = Picked::new();
        let mut room = 1;
        let mut take = |_| std::mem::replace(&mut room, 0) == 1;
        scene.machine.pick(scene.group, 100, &mut take, &mut picked);
        let first = scene.machine.next_grant();
        let fact = scene.machine.grant(scene.group, HOLDER, 1, first, &picked).unwrap();
        scene.apply(fact);
        order.extend(picked.offsets().map(|offset| offset.0));
    }
    assert_eq!(order, [0, 3, 1, 4]);
}

#[test]
fn the_end_of_a_restored_lease_is_a_crash_only_once_its_worker_was_heard_of() {
    for (heard, crashes) in [(false, 0), (true, 1)] {
        let mut scene = Scene::new();
        scene.enqueue(1);
        let grant = scene.fetch(1)[0].1;
        scene.restart();
        if heard {
            assert_eq!(scene.machine.resume_session(WORKER, &[grant]), []);
        }
        let ends = scene.machine.end_session(WORKER, SessionEnd::Silent, scene.log_ms, 0);
        ends.into_iter().for_each(|end| scene.apply(end));
        scene.fetch(1);
        let lease = scene.machine.lease(scene.group, Offset(0)).unwrap();
        assert_eq!((lease.attempt, lease.crashes), (2, crashes));
    }
}

#[test]
fn extending_a_timed_lease_shows_that_its_worker_lives() {
    let mut scene = Scene::new();
    scene.enqueue(1);
    let (offset, grant) = scene.fetch_as(Holder::Timed, 1)[0];
    scene.restart();
    let fact = scene.machine.extend(scene.group, LeaseRef { offset, grant }, 500).unwrap();
    scene.apply(fact);
    let over = |scene: &mut Scene, ms| scene.machine.take_expired(ms, ms, 0, 9);
    assert_eq!(over(&mut scene, 1_499), []);
    let ends = over(&mut scene, 1_500);
    let [Fact::Lease(LeaseFact::Ended { reason, outcome, .. })] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert_eq!((*reason, *outcome), (EndReason::Expired { crash: true }, Outcome::Ready));
}

#[test]
fn a_dead_job_holds_the_committed_offset_and_refuses_its_old_grant() {
    let mut scene = Scene::new();
    scene.enqueue(3);
    let jobs = scene.fetch(3);
    let (group, log_ms) = (scene.group, scene.log_ms);
    let fact =
        scene.machine.fail(group, lease_ref(jobs[1]), RetryTerms::NEVER, "no ink", log_ms, 0);
    scene.apply(fact.unwrap());
    scene.commit(Offset(0), jobs[0].1);
    scene.commit(Offset(2), jobs[2].1);
    let counts = scene.counts();
    assert_eq!((counts.committed, counts.consumed_above, counts.dead), (Offset(1), 1, 1));
    assert_eq!(scene.machine.commit(group, lease_ref(jobs[1])), Err(JobRefusal::LeaseLost));
    let (offset, dead) = scene.machine.dead(group, Offset(0)).next().unwrap();
    assert_eq!((offset, &*dead.message, dead.failures), (Offset(1), "no ink", 1));
    assert_eq!(scene.fetch(9), []);
}

#[test]
fn a_batch_of_commits_takes_each_job_once_and_answers_each_request() {
    let mut scene = Scene::new();
    scene.enqueue(5);
    let jobs = scene.fetch(5);
    scene.commit(Offset(3), jobs[3].1);
    let batch = [jobs[2], jobs[0], jobs[3], jobs[2], (Offset(1), jobs[0].1), jobs[4]];
    let batch = batch.map(lease_ref);
    let mut results = Vec::new();
    let fact = scene.machine.commit_jobs(scene.group, batch, &mut results).unwrap();
    let consumed = Err(JobRefusal::AlreadyConsumed);
    let lost = Err(JobRefusal::LeaseLost);
    assert_eq!(results, [Ok(()), Ok(()), consumed, Ok(()), lost, Ok(())]);
    scene.apply(fact);
    let counts = scene.counts();
    assert_eq!((counts.leased, counts.committed, counts.consumed_above), (1, Offset(1), 3));
    assert_eq!(scene.machine.commit_jobs(scene.group, batch[..1].to_vec(), &mut results), None);
}

/// Whether to wait for the due time is decided before the fact, not by it.
#[test]
fn a_log_may_grant_a_delayed_job_early() {
    let mut scene = Scene::new();
    scene.enqueue(1);
    let (offset, grant) = scene.fetch(1)[0];
    let fact = scene.machine.release(scene.group, LeaseRef { offset, grant }, 500, scene.log_ms);
    scene.apply(fact.unwrap());
    assert_eq!((scene.fetch(1), scene.counts().delayed), (vec![], 1));
    let runs = Runs::from_iter([Run { first: offset, count: 1 }]);
    let (group, holder, lease_ms) = (scene.group, HOLDER, LEASE_MS);
    let first_grant = scene.machine.next_grant();
    scene.apply(Fact::Lease(LeaseFact::Granted { group, holder, lease_ms, first_grant, runs }));
    assert_eq!((scene.counts().delayed, scene.counts().leased), (0, 1));
    assert_eq!(scene.machine.next_due_log_ms(), None);
}

#[test]
fn any_entry_makes_ready_what_is_due_at_its_time() {
    let mut scene = Scene::new();
    scene.enqueue(1);
    for by_jobs in [false, true] {
        let (offset, grant) = scene.fetch(1)[0];
        let fact =
            scene.machine.release(scene.group, LeaseRef { offset, grant }, 500, scene.log_ms);
        scene.apply(fact.unwrap());
        scene.log_ms += 500;
        if by_jobs {
            scene.enqueue(0);
        } else {
            let kind = GroupKind::Stream;
            let fact = scene.machine.create_group(scene.queue, "audit", kind, Start::End);
            scene.apply(fact.unwrap());
        }
        assert_eq!((scene.counts().ready, scene.counts().delayed), (1, 0));
    }
}

#[test]
fn grants_are_raised_but_never_lowered() {
    let mut scene = Scene::new();
    scene.machine.raise_grants(Grant(7 << 32));
    scene.enqueue(2);
    assert_eq!(scene.fetch(1)[0].1, Grant(7 << 32));
    scene.machine.raise_grants(Grant(3 << 32));
    assert_eq!(scene.fetch(1)[0].1, Grant((7 << 32) + 1));
}

#[test]
fn a_damaged_payload_kills_its_job_alone() {
    let mut scene = Scene::new();
    scene.enqueue(2);
    let jobs = scene.fetch(2);
    let fact = scene.machine.damage(scene.group, lease_ref(jobs[0]), "checksum");
    scene.apply(fact.unwrap());
    let dead: Vec<_> = scene.machine.dead(scene.group, Offset(0)).collect();
    assert_eq!((dead.len(), dead[0].1.reason), (1, EndReason::Damaged));
    scene.commit(Offset(1), jobs[1].1);
}

#[test]
fn a_name_used_again_goes_on_with_its_offsets() {
    let mut scene = Scene::new();
    scene.enqueue(5);
    scene.fetch(2);
    let fact = scene.machine.delete_queue(scene.queue).unwrap();
    scene.apply(fact);
    assert_eq!((scene.machine.lease_count(), scene.machine.queues().count()), (0, 0));
    let fact = scene.machine.create_queue("mail", QueueSettings::default()).unwrap();
    let Fact::Queue(QueueFact::Created { queue, first_offset, .. }) = fact else {
        panic!("{fact:?}")
    };
    assert_eq!((queue, first_offset), (QueueId(2), Offset(5)));
    scene.apply(fact);
    assert_eq!(scene.machine.next_offset(queue), Some(Offset(5)));
}

#[test]
fn a_group_is_woken_once_per_asking_in_the_order_of_events() {
    let mut scene = Scene::new();
    let queue = scene.queue;
    let fact = scene.machine.create_group(queue, "audit", GroupKind::Stream, Start::End);
    scene.apply(fact.unwrap());
    let take = |scene: &mut Scene| {
        let mut woken = Vec::new();
        scene.machine.take_woken(&mut woken);
        woken
    };
    take(&mut scene);
    scene.enqueue(1);
    scene.enqueue(1);
    // By the names of the groups within the queue.
    assert_eq!(take(&mut scene), [GroupId(2), GroupId(1)]);
    let (offset, grant) = scene.fetch(1)[0];
    assert_eq!(take(&mut scene), []);
    let fact = scene.machine.release(scene.group, LeaseRef { offset, grant }, 250, scene.log_ms);
    scene.apply(fact.unwrap());
    assert_eq!((take(&mut scene), scene.machine.next_due_log_ms()), (vec![], Some(1_250)));
    scene.machine.advance(Stamp { wall_ms: 0, log_ms: 1_249 });
    assert_eq!(take(&mut scene), []);
    scene.machine.advance(Stamp { wall_ms: 0, log_ms: 1_250 });
    assert_eq!((take(&mut scene), scene.machine.next_due_log_ms()), (vec![GroupId(1)], None));
}

/// Gives the last `count` jobs terms, as the entry that enqueues them does.
fn delay(scene: &mut Scene, count: u32, due_of: impl Fn(u64) -> Due) {
    let next = scene.machine.next_offset(scene.queue).unwrap().0;
    let offsets = next - u64::from(count)..next;
    let run = |offset| Run { first: Offset(offset), count: 1 };
    let terms = |offset| JobTerms { due: Some(due_of(offset)), ..JobTerms::default() };
    let runs = offsets.map(|offset| (run(offset), terms(offset))).collect();
    scene.apply(Fact::Job(JobFact::TermsSet { queue: scene.queue, runs }));
}

#[test]
fn a_million_delayed_jobs_fit_in_64_mib_and_leave_nothing_behind() {
    let mut scene = Scene::new();
    for batch in 0..1_000 {
        scene.enqueue(1_000);
        delay(&mut scene, 1_000, |offset| {
            Due::Log(10_000 + retry::mix(batch, offset, 0) % 3_600_000)
        });
    }
    let heap_bytes = scene.machine.delay_heap_bytes();
    assert!(heap_bytes <= 64 << 20, "{heap_bytes}");
    assert_eq!((scene.counts().delayed, scene.counts().ready), (1_000_000, 0));
    // What is ready is not behind them.
    scene.enqueue(1);
    assert_eq!(scene.fetch(9).len(), 1);
    scene.machine.advance(Stamp { wall_ms: 0, log_ms: 4_000_000 });
    assert_eq!((scene.counts().delayed, scene.counts().ready), (0, 1_000_000));
    assert_eq!((scene.machine.delay_heap_bytes(), scene.machine.next_due_log_ms()), (0, None));
}

/// The wall clock went forward, a job of the time of day became ready and was granted, and the
/// clock had gone back meanwhile: the log must still replay.
#[test]
fn a_job_that_was_due_on_a_wall_clock_that_went_back_replays() {
    let mut scene = Scene::new();
    scene.enqueue(3);
    scene.record.pop();
    let stamp = Stamp { wall_ms: 0, log_ms: scene.log_ms };
    let (queue, group) = (scene.queue, scene.group);
    let run = Run { first: Offset(1), count: 1 };
    let terms = JobTerms { due: Some(Due::Wall(500)), ..JobTerms::default() };
    let termed = Fact::Job(JobFact::TermsSet { queue, runs: vec![(run, terms)] });
    scene.record.push((Entry::Jobs(Offset(0), 3), scene.log_ms));
    scene.apply(termed);
    assert_eq!((scene.counts().ready, scene.counts().delayed), (2, 1));
    scene.machine.advance(Stamp { wall_ms: 600, ..stamp });
    assert_eq!((scene.counts().ready, scene.counts().delayed), (3, 0));
    // The stamps of these facts have a wall clock of 0.
    let jobs = scene.fetch(3);
    assert_eq!(jobs.iter().map(|job| job.0.0).collect::<Vec<_>>(), [0, 1, 2]);
    scene.restart();
    assert_eq!((scene.counts().leased, scene.counts().delayed), (3, 0));
    jobs.into_iter().for_each(|(offset, grant)| scene.commit(offset, grant));
    assert_eq!(scene.machine.group(group).unwrap().counts.committed, Offset(3));
}

fn run(first: u64, count: u32) -> Runs {
    let first = Offset(first);
    Runs::from_iter([Run { first, count }])
}

/// Three jobs, of which the first is leased.
fn check_contradiction(fact: Fact, expected: Contradiction) {
    let mut scene = Scene::new();
    scene.enqueue(3);
    scene.fetch(1);
    let found = scene.machine.apply(&fact, Stamp::default(), 0);
    assert_eq!(found, Err(expected));
}

#[test]
fn a_grant_that_cannot_be_is_a_contradiction() {
    let (group, holder, lease_ms) = (GroupId(1), HOLDER, LEASE_MS);
    let check = |grant, runs, expected| {
        let first_grant = Grant(grant);
        let fact = Fact::Lease(LeaseFact::Granted { group, holder, lease_ms, first_grant, runs });
        check_contradiction(fact, expected);
    };
    let not_ready = |offset| Contradiction::NotReady(group, Offset(offset));
    let outside = |offset| Contradiction::OutsideQueue(group, Offset(offset));
    check(9, run(0, 1), not_ready(0));
    check(9, run(2, 1), not_ready(2));
    check(9, run(1, 3), outside(1));
    check(9, run(u64::MAX, 1), outside(u64::MAX));
    let (found, least) = (Grant(1), Grant(2));
    check(1, run(1, 1), Contradiction::GrantTwice { found, least });
    let fact = |lease_ms, first_grant| {
        let runs = run(1, 1);
        Fact::Lease(LeaseFact::Granted { group, holder, lease_ms, first_grant, runs })
    };
    let lease_ms = LEASE_MS_MAX + 1;
    check_contradiction(fact(lease_ms, least), Contradiction::LeaseTooLong(group, lease_ms));
    let missing = GroupId(5);
    let fact = Fact::Group(GroupFact::Deleted { group: missing });
    check_contradiction(fact, Contradiction::NoSuchGroup(missing));
}

#[test]
fn an_end_that_cannot_be_is_a_contradiction() {
    let (group, offset, lease_ms) = (GroupId(1), Offset(1), LEASE_MS);
    let (reason, outcome, message) = (EndReason::Released, Outcome::Ready, "".into());
    let not_leased = Contradiction::NotLeased(group, offset);
    let ended = Fact::Lease(LeaseFact::Ended { group, offset, reason, outcome, message });
    check_contradiction(ended, not_leased.clone());
    check_contradiction(
        Fact::Lease(LeaseFact::Extended { group, offset, lease_ms }),
        not_leased.clone(),
    );
    check_contradiction(Fact::Lease(LeaseFact::Committed { group, runs: run(1, 1) }), not_leased);
    let through = Fact::Group(GroupFact::CommittedThrough { group, through: offset });
    check_contradiction(through, Contradiction::WrongKind(group));
}

#[test]
fn a_stream_that_goes_back_is_a_contradiction() {
    let mut scene = Scene::new();
    scene.enqueue(3);
    let created = scene.machine.create_group(scene.queue, "s", GroupKind::Stream, Start::Beginning);
    scene.apply(created.unwrap());
    let (group, through) = (GroupId(2), Offset(1));
    let fact = scene.machine.commit_through(group, through).unwrap();
    scene.apply(fact.clone());
    assert_eq!(scene.machine.commit_through(group, through), Err(JobRefusal::AlreadyConsumed));
    let mut apply = |fact| scene.machine.apply(&fact, Stamp::default(), 0);
    assert_eq!(apply(fact), Err(Contradiction::CommitBack(group, through)));
    let (offset, runs) = (Offset(3), run(2, 1));
    let beyond = apply(Fact::Group(GroupFact::CommittedThrough { group, through: offset }));
    assert_eq!(beyond, Err(Contradiction::OutsideQueue(group, offset)));
    assert_eq!(
        apply(Fact::Lease(LeaseFact::Committed { group, runs })),
        Err(Contradiction::WrongKind(group))
    );
}

#[test]
fn a_queue_that_cannot_be_is_a_contradiction() {
    let (queue, missing) = (QueueId(1), QueueId(5));
    let late =
        Fact::Job(JobFact::TermsSet { queue, runs: vec![(run(0, 1)[0], JobTerms::default())] });
    check_contradiction(late, Contradiction::NotNew(queue, Offset(0)));
    let beyond =
        Fact::Job(JobFact::TermsSet { queue, runs: vec![(run(2, 2)[0], JobTerms::default())] });
    check_contradiction(beyond, Contradiction::NotNew(queue, Offset(2)));
    let deleted = Fact::Queue(QueueFact::Deleted { queue: missing });
    check_contradiction(deleted, Contradiction::NoSuchQueue(missing));
    let name = Box::<str>::from("bills");
    let (settings, first_offset) = (Box::default(), Offset(0));
    let created =
        Fact::Queue(QueueFact::Created { queue, name: name.clone(), settings, first_offset });
    check_contradiction(created, Contradiction::QueueTwice(queue, name));
    let mut scene = Scene::new();
    scene.enqueue(3);
    let (found, expected) = (Offset(2), Offset(3));
    let applied = scene.machine.apply_jobs(queue, found, 1, 0, Stamp::default());
    assert_eq!(applied, Err(Contradiction::NotNext { queue, found, expected }));
    let deleted = scene.machine.delete_queue(queue).unwrap();
    scene.apply(deleted);
    let (queue, name, settings) = (QueueId(2), "mail".into(), Box::default());
    let created = Fact::Queue(QueueFact::Created { queue, name, settings, first_offset: found });
    let applied = scene.machine.apply(&created, Stamp::default(), 0);
    assert_eq!(applied, Err(Contradiction::OffsetsTwice { queue, found, least: expected }));
}

#[test]
fn a_lease_that_no_slot_can_hold_is_refused() {
    let mut scene = Scene::new();
    scene.enqueue(1);
    let (offset, grant) = scene.fetch(1)[0];
    let extend = |ms| scene.machine.extend(scene.group, LeaseRef { offset, grant }, ms);
    assert!(extend(LEASE_MS_MAX).is_ok());
    assert_eq!(extend(LEASE_MS_MAX + 1), Err(JobRefusal::LeaseTooLong));
}
