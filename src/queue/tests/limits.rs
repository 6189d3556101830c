//! Limits, told step by step.

use super::*;

fn limit(scene: &mut Scene, set: impl FnOnce(&mut QueueSettings)) {
    let mut settings = scene.machine.queue(scene.queue).unwrap().settings.clone();
    set(&mut settings);
    let fact = scene.machine.update_queue(scene.queue, settings).unwrap().unwrap();
    scene.apply(fact);
    woken(scene);
}

fn woken(scene: &mut Scene) -> usize {
    let mut woken = Vec::new();
    scene.machine.take_woken(&mut woken);
    woken.len()
}

fn advance(scene: &mut Scene, log_ms: u64) {
    scene.log_ms = log_ms;
    scene.machine.advance(Stamp { wall_ms: 0, log_ms });
}

#[test]
fn no_more_jobs_are_out_at_once_than_the_limit_allows() {
    let mut scene = Scene::new();
    scene.enqueue(9);
    limit(&mut scene, |settings| settings.max_in_flight = Some(3));
    let jobs = scene.fetch(9);
    assert_eq!((jobs.len(), scene.counts().ready), (3, 6));
    assert!(!scene.machine.has_for_fetch(scene.group));
    // A commit frees a place, and so does a job that is handed back or dies.
    scene.commit(jobs[0].0, jobs[0].1);
    assert_eq!(woken(&mut scene), 1);
    scene.restart();
    assert!(scene.machine.has_for_fetch(scene.group));
    assert_eq!(scene.fetch(9).len(), 1);
    let (group, now_ms) = (scene.group, scene.log_ms);
    let (offset, grant) = jobs[1];
    let dead = scene
        .machine
        .fail(group, LeaseRef { offset, grant }, RetryTerms::NEVER, "", now_ms, 0)
        .unwrap();
    woken(&mut scene);
    scene.apply(dead);
    assert_eq!((woken(&mut scene), scene.fetch(9).len()), (1, 1));
    // Where nobody was held up, nobody is woken.
    limit(&mut scene, |settings| settings.max_in_flight = Some(4));
    scene.commit(jobs[2].0, jobs[2].1);
    assert_eq!(woken(&mut scene), 0);
}

#[test]
fn a_rate_gives_a_burst_and_then_its_share_of_each_second() {
    let mut scene = Scene::new();
    scene.enqueue(100);
    limit(&mut scene, |settings| {
        (settings.rate_per_second, settings.rate_burst) = (Some(10), Some(4));
    });
    assert_eq!(scene.fetch(50).len(), 4);
    assert!(!scene.machine.has_for_fetch(scene.group));
    assert_eq!(scene.machine.next_refill_log_ms(), Some(1_100));
    advance(&mut scene, 1_099);
    assert_eq!((scene.fetch(50).len(), woken(&mut scene)), (0, 0));
    advance(&mut scene, 1_100);
    assert_eq!((woken(&mut scene), scene.fetch(50).len()), (1, 1));
    // What is not taken is kept, up to the burst.
    advance(&mut scene, 1_350);
    assert_eq!(scene.fetch(50).len(), 2);
    advance(&mut scene, 9_000);
    assert_eq!(scene.fetch(50).len(), 4);
}

#[test]
fn a_rate_holds_over_a_restart() {
    let mut scene = Scene::new();
    scene.enqueue(100);
    limit(&mut scene, |settings| settings.rate_per_second = Some(5));
    assert_eq!(scene.fetch(50).len(), 5);
    scene.restart();
    advance(&mut scene, 1_199);
    assert!(!scene.machine.has_for_fetch(scene.group));
    // From a checkpoint as well.
    let mut restore = Restore::new();
    scene.machine.records().for_each(|record| restore.add(record).unwrap());
    scene.machine = restore.finish().unwrap();
    assert_eq!(scene.machine.next_refill_log_ms(), Some(1_200));
    advance(&mut scene, 1_199);
    assert!(!scene.machine.has_for_fetch(scene.group));
    advance(&mut scene, 1_200);
    assert_eq!((woken(&mut scene), scene.fetch(50).len()), (1, 1));
}

#[test]
fn each_group_has_its_own_places_and_its_own_rate() {
    let mut scene = Scene::new();
    scene.enqueue(9);
    limit(&mut scene, |settings| {
        (settings.max_in_flight, settings.rate_per_second) = (Some(3), Some(2));
    });
    let start = Start::Beginning;
    let created = scene.machine.create_group(scene.queue, "audit", GroupKind::Work, start);
    scene.apply(created.unwrap());
    assert_eq!(scene.fetch(9).len(), 2);
    scene.group = GroupId(2);
    assert_eq!(scene.fetch(9).len(), 2);
    // A group that is set back has no more to spend than before.
    let sought = scene.machine.seek(scene.group, Seek::Beginning).unwrap();
    scene.apply(sought);
    assert_eq!(scene.fetch(9).len(), 0);
    limit(&mut scene, |settings| settings.rate_per_second = None);
    assert_eq!(scene.fetch(9).len(), 3);
}
