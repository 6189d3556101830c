//! A backup that is restored knows nothing of what came after it; the tokens given since do nothing
//! all the same.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use joblog::broker::Durability;
use tempfile::tempdir;

use crate::history::History;
use crate::support::Disk;

fn unix_seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn copy(from: &Path, to: &Path) {
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        fs::copy(item.path(), to.join(item.file_name())).unwrap();
    }
}

#[test]
fn a_restored_backup_refuses_the_tokens_that_were_given_since() {
    let backup = tempdir().unwrap();
    let mut history = History::new(1);
    let life = history.start(Durability::Os).unwrap();
    history.enqueue_some(life, 20);
    copy(history.dir.path(), backup.path());
    let life = history.start(Durability::Os).unwrap();
    history.fetch_all(life);
    let (given, over) = (history.take_all_held(), unix_seconds() + 1);
    assert!(given.len() >= 20);
    // A backup is older than a second or two: the clock tells starts apart that do not know of each
    // other.
    while unix_seconds() <= over {
        thread::sleep(Duration::from_millis(20));
    }
    let mut restored = History::new(2);
    restored.disk = Disk::over(backup.path());
    restored.dir = backup;
    restored.ledger = history.ledger;
    let life = restored.start(Durability::Os).unwrap();
    let life = restored.fetch_all(life);
    let again: HashSet<_> = restored.take_all_held().into_iter().map(|held| held.1).collect();
    assert!(again.len() >= 20 && given.iter().all(|held| !again.contains(&held.1)));
    for (name, grant, _) in given {
        let verdicts = life.broker.commit(&[History::set(name, grant)]).result.unwrap();
        assert!(verdicts[0].is_err(), "{name:?} was committed with a token of another life");
    }
}
