//! Operations beside many leases that stand, or many delayed jobs: they must not cost more.

use std::hint::black_box;

use joblog::queue::{Due, Fact, Holder, JobFact, JobTerms, Machine, Picked, Run};
use joblog::types::{Grant, LeaseRef, Offset};

use super::{GROUP, Op, QUEUE, STAMP, fetch_commit_on, machine};

/// An hour, in milliseconds.
const LEASE_MS: u64 = 3_600_000;
const MANY: u32 = 1_000_000;
const FEW: u32 = 10_000;
/// Jobs that are granted at once while the leases are made.
const STEP: usize = 10_000;

fn add_jobs(machine: &mut Machine, count: u32) -> Offset {
    let base = machine.next_offset(QUEUE).expect("the queue is there");
    machine.apply_jobs(QUEUE, base, count, u64::from(count), STAMP).expect("they are next");
    base
}

/// Grants what is ready, up to `jobs_max`; the leases run from `now_ms`.
fn grant(machine: &mut Machine, jobs_max: usize, lease_ms: u64, now_ms: u64) {
    let mut picked = Picked::new();
    machine.pick(GROUP, jobs_max, &mut |_| true, &mut picked);
    let first = machine.next_grant();
    let granted = machine.grant(GROUP, Holder::Timed, lease_ms, first, &picked);
    machine.apply(&granted.expect("the lease is right"), STAMP, now_ms).expect("it is ready");
}

/// A machine with so many leases, which end at different times.
fn leased(count: u32) -> Machine {
    let mut machine = machine();
    add_jobs(&mut machine, count);
    for step in 0..u64::from(count) / STEP as u64 {
        grant(&mut machine, STEP, LEASE_MS, step * 1_000);
    }
    machine
}

/// Extends one of the leases, each time another.
fn extend(count: u32) -> Op {
    let mut machine = leased(count);
    let mut turn = 0;
    Box::new(move || {
        turn = (turn + 7_919) % u64::from(count);
        let lease = LeaseRef { offset: Offset(turn), grant: Grant(turn + 1) };
        let extended = machine.extend(GROUP, lease, LEASE_MS);
        let now_ms = 200_000 + turn;
        machine.apply(&extended.expect("it is leased"), STAMP, now_ms).expect("it is leased");
    })
}

/// Grants a job, and ends its lease when its time is over.
fn expire(count: u32) -> Op {
    let mut machine = leased(count);
    let mut now_ms = 200_000;
    Box::new(move || {
        if machine.ready_count(GROUP) == 0 {
            add_jobs(&mut machine, MANY);
        }
        grant(&mut machine, 1, 1, now_ms);
        now_ms += 2;
        let ended = machine.take_expired(now_ms, STAMP.log_ms, 0, 10);
        for fact in black_box(ended) {
            machine.apply(&fact, STAMP, now_ms).expect("its lease is over");
        }
    })
}

/// Grants and commits ready jobs of a queue in which a million are due within the next hour.
fn beside_delayed() -> Op {
    let mut machine = machine();
    let base = add_jobs(&mut machine, MANY);
    let due = |nth: u64| Some(Due::Log(STAMP.log_ms + 1 + nth * 3_600_000 / u64::from(MANY)));
    let terms = |nth: u64| JobTerms { due: due(nth), ..JobTerms::default() };
    let run = |nth: u64| (Run { first: base.plus(nth), count: 1 }, terms(nth));
    let runs = (0..u64::from(MANY)).map(run).collect();
    let delayed = machine.apply(&Fact::Job(JobFact::TermsSet { queue: QUEUE, runs }), STAMP, 1);
    delayed.expect("they are new");
    fetch_commit_on(machine)
}

/// All of them by name.
pub(super) const ALL: [(&str, super::Make); 7] = [
    ("extend_10k_leased", || extend(FEW)),
    ("extend_1m_leased", || extend(MANY)),
    ("fetch_commit_10k_leased", || fetch_commit_on(leased(FEW))),
    ("fetch_commit_1m_leased", || fetch_commit_on(leased(MANY))),
    ("expire_10k_leased", || expire(FEW)),
    ("expire_1m_leased", || expire(MANY)),
    ("fetch_commit_1m_delayed", beside_delayed),
];
