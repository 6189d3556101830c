//! Logs that released versions have written, which must open for ever.

use std::env;
use std::fs;
use std::path::Path;

use joblog::log::{CompactBudget, Log, LogOptions, Recovery};
use joblog::types::{EntryIndex, Offset, QueueId, Term};
use tempfile::tempdir;

use crate::support::{Disk, Entry};

const SEGMENT_BYTES: u32 = 64 << 10;
/// The entry of whose state the fixture's checkpoint would be.
const CHECKPOINT: u64 = 40;
const ENTRIES: u64 = 70;

/// Entry `index` of the fixture. Changing this needs a new fixture, and the old one has to open
/// all the same.
fn entry(index: u64) -> Entry {
    let body = |job: u64| vec![(index * 3 + job) as u8; 500 + job as usize * 100];
    match index % 5 {
        0 => Entry { wall_ms: index, ..Entry::facts(format!("fact {index}").as_bytes()) },
        _ => Entry {
            queue: 1 + (index % 2) as u32,
            base_offset: index * 3,
            bodies: (0..3).map(body).collect(),
            facts: vec![index as u8; index as usize % 7],
            wall_ms: index,
            wrong_sums: index == 7,
        },
    }
}

/// Of the jobs in front of the checkpoint few are live.
fn is_live(offset: u64) -> bool {
    offset > CHECKPOINT * 3 || (offset + 20).is_multiple_of(24)
}

fn open(dir: &Path, after: u64) -> Log {
    let options = Disk::default().options_with(SEGMENT_BYTES);
    let mut recovery =
        Recovery::open(dir, LogOptions { free_bytes_min: Some(0), ..options }).unwrap();
    let mut next = after;
    let recovered = recovery
        .replay(EntryIndex(after), &mut |view| {
            next += 1;
            assert_eq!((view.index.0, Entry::of(view)), (next, entry(next)));
            Ok(())
        })
        .unwrap();
    assert_eq!(recovered.torn, None);
    recovery.start(Term(recovered.last_term.0 + 1)).unwrap()
}

/// Writes the fixture of this version: `JOBLOG_FIXTURE=tests/fixtures/log-vN`.
#[test]
fn makes_the_fixture_if_asked_to() {
    let temporary = tempdir().unwrap();
    let asked = env::var("JOBLOG_FIXTURE");
    let dir = asked.as_ref().map_or_else(|_| temporary.path(), Path::new);
    let log = open(dir, 0);
    for index in 1..=ENTRIES {
        entry(index).append(&log).unwrap();
        log.sync().unwrap();
        log.settle();
        if index == CHECKPOINT + 10 {
            let live = &mut |_: QueueId, offset: Offset| is_live(offset.0);
            let budget = CompactBudget { bytes: u64::MAX, jobs: u64::MAX };
            let report = log.compact(EntryIndex(CHECKPOINT), live, budget).unwrap();
            assert_eq!(report.segments_made, 1);
        }
    }
    log.close().unwrap();
    drop(log);
    for item in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let unused = fs::read(item.path()).unwrap().first().is_none_or(|byte| *byte == 0);
        if unused {
            fs::remove_file(item.path()).unwrap();
        }
    }
    check(dir);
}

/// Opens a copy of a fixture and looks at all that is in it.
fn check(fixture: &Path) {
    let dir = tempdir().unwrap();
    for item in fs::read_dir(fixture).unwrap().map(Result::unwrap) {
        fs::copy(item.path(), dir.path().join(item.file_name())).unwrap();
    }
    for life in 0..2 {
        let log = open(dir.path(), CHECKPOINT);
        assert_eq!(log.next_index().0, ENTRIES + 1);
        assert_eq!(log.segments().iter().filter(|segment| segment.compacted).count(), 1);
        for index in 1..=ENTRIES {
            let entry = entry(index);
            for (job, body) in entry.bodies.iter().enumerate() {
                let offset = entry.base_offset + job as u64;
                if !is_live(offset) {
                    continue;
                }
                let location = log.locate(QueueId(entry.queue), Offset(offset)).unwrap();
                let read = location.read().unwrap();
                assert_eq!((read.body, read.stamp.wall_ms), (&body[..], index));
                assert_eq!(read.verify(), index != 7);
            }
        }
        if life == 0 {
            log.close().unwrap();
        }
    }
}

#[test]
fn logs_of_released_versions_open() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut checked = 0;
    for item in fs::read_dir(fixtures).unwrap().map(Result::unwrap) {
        if item.file_name().to_str().unwrap().starts_with("log-v") {
            check(&item.path());
            checked += 1;
        }
    }
    assert!(checked >= 1, "there is a fixture");
}
