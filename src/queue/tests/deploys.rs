//! A job that runs for two hours, and workers that are restarted all the while.

use super::*;

/// The longest run of the job's session lease.
const RUN_MS: u64 = 3 * 3_600_000;

fn lease(scene: &mut Scene) -> (Offset, Grant) {
    let mut picked = Picked::new();
    scene.machine.pick(scene.group, 1, &mut |_| true, &mut picked);
    let first = scene.machine.next_grant();
    let granted = scene.machine.grant(scene.group, HOLDER, RUN_MS, first, &picked);
    scene.apply(granted.unwrap());
    (picked.offsets().next().unwrap(), first)
}

/// Ten deploys, twelve minutes apart: each hands the job back by a goodbye, and the next worker
/// begins it again. Four times the server is restarted too, and forgets whom it has heard of: then
/// the worker dies without a word. A job may crash five times, and this one is not to die.
#[test]
fn ten_deploys_under_a_two_hour_job_are_no_crashes() {
    let mut scene = Scene::new();
    scene.enqueue(1);
    for deploy in 0..10 {
        lease(&mut scene);
        scene.log_ms += 12 * 60_000;
        let end = if deploy % 3 == 0 {
            scene.restart();
            SessionEnd::Silent
        } else {
            SessionEnd::Goodbye
        };
        let ended = scene.machine.end_session(WORKER, end, scene.log_ms, 0);
        assert_eq!(ended.len(), 1, "deploy {deploy}");
        ended.into_iter().for_each(|fact| scene.apply(fact));
        assert_eq!((scene.counts().ready, scene.counts().dead), (1, 0), "deploy {deploy}");
    }
    let (offset, grant) = lease(&mut scene);
    let last = scene.machine.lease(scene.group, offset).unwrap();
    assert_eq!((last.attempt, last.crashes, last.failures), (11, 0, 0));
    scene.log_ms += 2 * 3_600_000;
    assert_eq!(scene.machine.take_expired(scene.log_ms, scene.log_ms, 0, 9), []);
    scene.commit(offset, grant);
    assert_eq!(scene.counts().committed, Offset(1));
}

/// The same without a goodbye and with a server that was up throughout: those are crashes, and the
/// sixth is one too many.
#[test]
fn workers_that_die_without_a_word_kill_a_job_in_the_end() {
    let mut scene = Scene::new();
    scene.enqueue(1);
    for crash in 1..=6 {
        lease(&mut scene);
        let ended = scene.machine.end_session(WORKER, SessionEnd::Silent, scene.log_ms, 0);
        ended.into_iter().for_each(|fact| scene.apply(fact));
        assert_eq!(scene.counts().dead, u64::from(crash == 6), "crash {crash}");
        scene.log_ms += 3_600_000;
        let now = Stamp { wall_ms: 0, log_ms: scene.log_ms };
        scene.machine.advance(now);
    }
}
