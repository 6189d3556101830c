//! The fetch order, told step by step.

use super::*;

/// Enqueues one job of each rank, and gives the offset of the first.
fn enqueue_ranked(scene: &mut Scene, ranks: &[Rank]) -> u64 {
    let base = scene.machine.next_offset(scene.queue).unwrap();
    scene.enqueue(ranks.len() as u32);
    let runs: Vec<_> = (base.0..)
        .zip(ranks)
        .filter(|(_, rank)| **rank != Rank::ORDINARY)
        .map(|(offset, rank)| {
            let terms = JobTerms { rank: *rank, ..JobTerms::default() };
            (Run { first: Offset(offset), count: 1 }, terms)
        })
        .collect();
    if !runs.is_empty() {
        scene.apply(Fact::Job(JobFact::TermsSet { queue: scene.queue, runs }));
    }
    base.0
}

fn priority(priority: u8) -> Rank {
    Rank { priority, front: false }
}

fn front(priority: u8) -> Rank {
    Rank { priority, front: true }
}

fn fetched(scene: &mut Scene, jobs_max: usize) -> Vec<u64> {
    scene.fetch(jobs_max).into_iter().map(|(offset, _)| offset.0).collect()
}

#[test]
fn priorities_come_first_and_the_newest_at_the_front_before_them() {
    let ranks = [priority(0), front(0), priority(9), front(9), priority(3), front(9), front(0)];
    for jobs_max in [1, 2, 7] {
        let mut scene = Scene::new();
        enqueue_ranked(&mut scene, &ranks);
        assert_eq!(scene.counts().ready_by_priority, [3, 0, 0, 1, 0, 0, 0, 0, 0, 3]);
        let mut order = Vec::new();
        while order.len() < ranks.len() {
            order.extend(fetched(&mut scene, jobs_max));
            scene.restart();
        }
        assert_eq!(order, [5, 3, 2, 4, 6, 1, 0], "{jobs_max} at a time");
        assert_eq!((scene.counts().ready, scene.counts().leased), (0, 7));
    }
}

#[test]
fn a_redelivered_job_keeps_its_priority() {
    let mut scene = Scene::new();
    enqueue_ranked(&mut scene, &[priority(0), priority(9), priority(0), priority(5)]);
    let (urgent, grant) = scene.fetch(1)[0];
    assert_eq!(urgent, Offset(1));
    scene.release(urgent, grant);
    scene.restart();
    // An ordinary one that comes again stays behind it.
    let jobs = scene.fetch(4);
    assert_eq!(jobs.iter().map(|job| job.0.0).collect::<Vec<_>>(), [1, 3, 0, 2]);
    for (offset, grant) in jobs.into_iter().rev() {
        scene.release(offset, grant);
    }
    assert_eq!(fetched(&mut scene, 4), [1, 3, 0, 2]);
}

#[test]
fn redelivered_jobs_of_a_priority_take_at_most_half_of_it() {
    let mut scene = Scene::new();
    enqueue_ranked(&mut scene, &[priority(7); 8]);
    let jobs = scene.fetch(4);
    jobs.into_iter().for_each(|(offset, grant)| scene.release(offset, grant));
    assert_eq!(fetched(&mut scene, 3), [0, 4, 1]);
    // A redelivered one was last, also for a server that has been started again.
    scene.restart();
    assert_eq!(fetched(&mut scene, 1), [5]);
    assert_eq!(fetched(&mut scene, 9), [2, 6, 3, 7]);
}

/// A job that fails over and over at a high priority lets the fresh ones of it through.
#[test]
fn a_job_that_always_fails_starves_no_other_of_its_priority() {
    let mut scene = Scene::new();
    enqueue_ranked(&mut scene, &[priority(7); 4]);
    let mut seen = Vec::new();
    for _ in 0..7 {
        let (offset, grant) = scene.fetch(1)[0];
        if offset == Offset(0) {
            scene.release(offset, grant);
        }
        seen.push(offset.0);
    }
    assert_eq!(seen, [0, 0, 1, 0, 2, 0, 3]);
}

#[test]
fn a_dead_job_that_is_retried_keeps_its_priority() {
    let mut scene = Scene::new();
    enqueue_ranked(&mut scene, &[priority(0), front(4)]);
    let (offset, grant) = scene.fetch(1)[0];
    let (group, now_ms) = (scene.group, scene.log_ms);
    let failed = scene.machine.fail(
        group,
        LeaseRef { offset, grant },
        RetryTerms::NEVER,
        "no ink",
        now_ms,
        0,
    );
    scene.apply(failed.unwrap());
    assert_eq!((scene.counts().dead, scene.counts().ready), (1, 1));
    let retried = scene.machine.retry_dead(group, [offset]).unwrap();
    scene.apply(retried);
    scene.restart();
    assert_eq!(fetched(&mut scene, 2), [1, 0]);
}

#[test]
fn a_delayed_job_takes_its_priority_when_it_is_due() {
    let mut scene = Scene::new();
    scene.enqueue(3);
    let terms = |rank| JobTerms { due: Some(Due::Log(5_000)), rank, ..JobTerms::default() };
    let run = |first| Run { first: Offset(first), count: 1 };
    let runs = vec![(run(1), terms(priority(2))), (run(2), terms(front(2)))];
    scene.apply(Fact::Job(JobFact::TermsSet { queue: scene.queue, runs }));
    assert_eq!((scene.counts().ready, scene.counts().delayed), (1, 2));
    scene.enqueue(1);
    scene.log_ms = 5_000;
    scene.machine.advance(Stamp { wall_ms: 0, log_ms: 5_000 });
    assert_eq!((scene.counts().ready, scene.counts().delayed), (4, 0));
    assert_eq!(fetched(&mut scene, 9), [2, 1, 0, 3]);
}

#[test]
fn a_group_that_comes_later_or_is_set_back_finds_the_priorities() {
    let mut scene = Scene::new();
    enqueue_ranked(&mut scene, &[priority(0), priority(9), front(1)]);
    let jobs = scene.fetch(2);
    let start = Start::Beginning;
    let created = scene.machine.create_group(scene.queue, "audit", GroupKind::Work, start);
    scene.apply(created.unwrap());
    // What one group has consumed has its priority still, for the other.
    jobs.into_iter().for_each(|(offset, grant)| scene.commit(offset, grant));
    let default = std::mem::replace(&mut scene.group, GroupId(2));
    assert_eq!(fetched(&mut scene, 9), [1, 2, 0]);
    scene.group = default;
    let sought = scene.machine.seek(default, Seek::Beginning).unwrap();
    scene.apply(sought);
    scene.restart();
    assert_eq!(fetched(&mut scene, 9), [1, 2, 0]);
}

/// Jobs without a rank leave nothing behind, and those that are consumed do not either.
#[test]
fn ranks_are_forgotten_with_their_jobs() {
    let mut scene = Scene::new();
    let termed = |scene: &Scene| {
        let records = scene.machine.records();
        records.filter(|record| matches!(record, Record::Job(JobRecord::Terms { .. }))).count()
    };
    enqueue_ranked(&mut scene, &[priority(0), priority(1), front(0), priority(9)]);
    assert_eq!(termed(&scene), 3);
    let jobs = scene.fetch(9);
    assert_eq!(termed(&scene), 3);
    jobs.into_iter().for_each(|(offset, grant)| scene.commit(offset, grant));
    assert_eq!((termed(&scene), scene.counts().committed), (0, Offset(4)));
}
