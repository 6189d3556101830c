//! A full disk takes no jobs, and everything that drains it goes on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::common::{Job, Raw, Server, all_done, new_session, of_default, until};
use crate::small_disk::SmallDisk;

const PAYLOAD_BYTES: usize = 100_000;

/// The client sends nothing while it waits for a reply.
const SILENCE_MS: u32 = 600_000;

/// A server with default settings, or with these.
fn start(disk: &SmallDisk, settings: &str) -> Server {
    let config = disk.path().join("joblog.toml");
    fs::write(&config, settings).unwrap();
    Server::start_with(&disk.path().join("data"), &config, &[])
}

fn greeted(server: &Server) -> Raw {
    let mut raw = Raw::connect(server.address()).unwrap();
    raw.hello(new_session(), SILENCE_MS, &[]).unwrap();
    raw
}

/// Enqueues jobs until the disk is full; how many were taken.
fn fill(raw: &mut Raw) -> u64 {
    let payload = vec![7; PAYLOAD_BYTES];
    for taken in 0.. {
        if let Err(error) = raw.enqueue("q", &[&payload[..]]) {
            assert!(is_full(&error), "{error}");
            return taken;
        }
    }
    unreachable!("the disk is full before")
}

fn is_full(error: &io::Error) -> bool {
    error.to_string().contains("DISK_FULL") || error.to_string().contains("DiskFull")
}

/// Fetches and commits all that there is; how many.
fn drain(raw: &mut Raw) -> u64 {
    let mut drained = 0;
    loop {
        let jobs = raw.fetch(&["q"], 20, 0).unwrap();
        if jobs.is_empty() {
            return drained;
        }
        assert!(jobs.iter().all(|job| job.payload == [7; PAYLOAD_BYTES]));
        let statuses = raw.commit(of_default("q", jobs.iter().map(Job::handle))).unwrap();
        assert!(all_done(&statuses), "{statuses:?}");
        drained += jobs.len() as u64;
    }
}

/// The bytes that the ballast has on the disk.
fn ballast_bytes(data: &Path) -> u64 {
    let items = fs::read_dir(data.join("log-0")).unwrap().map(Result::unwrap);
    let ballast = items.filter(|item| item.file_name().to_str().unwrap().starts_with("ballast"));
    ballast.filter_map(|item| item.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

#[test]
fn a_full_disk_takes_jobs_again_soon_after_they_were_consumed() {
    let Some(disk) = SmallDisk::mount("a disk that is full and drained", 280) else { return };
    for settings in ["", "durability = 'os'\n", "checkpoint_bytes = 1099511627776\n"] {
        let mut server = start(&disk, settings);
        let mut raw = greeted(&server);
        let taken = fill(&mut raw);
        assert!(taken > 1_000, "{taken} jobs");
        assert_eq!(drain(&mut raw), taken);
        let payload = vec![7; PAYLOAD_BYTES];
        until("jobs are taken again", || raw.enqueue("q", &[&payload[..]]).is_ok());
        // All of the room is there again, and not just a little.
        until("most of the room is there again", || {
            drain(&mut raw);
            fill(&mut raw) > taken / 2
        });
        drain(&mut raw);
        assert!(server.stop().success());
        drop(server);
        fs::remove_dir_all(disk.path().join("data")).unwrap();
    }
}

#[test]
fn a_server_that_starts_on_a_full_disk_is_drained() {
    let Some(disk) = SmallDisk::mount("a start on a full disk", 100) else { return };
    for settings in ["", "durability = 'os'\n"] {
        let mut server = start(&disk, settings);
        let data = server.data().to_owned();
        until("the ballast is there", || ballast_bytes(&data) == 8 << 20);
        let mut raw = greeted(&server);
        let taken = fill(&mut raw);
        // At `os` the log's end is made sure of when the disk is found full.
        until("the ballast is still there", || ballast_bytes(&data) == 8 << 20);
        let mut drained = 0;
        for life in 0..3 {
            match life {
                1 => assert!(server.stop().success()),
                _ => server.kill9(),
            }
            disk.fill();
            server.restart();
            raw = greeted(&server);
            let jobs = raw.fetch(&["q"], 10, 0).unwrap();
            assert_eq!(jobs.len(), 10);
            let statuses = raw.commit(of_default("q", jobs.iter().map(Job::handle))).unwrap();
            assert!(all_done(&statuses), "{statuses:?}");
            drained += 10;
        }
        assert_eq!(drained + drain(&mut raw), taken);
        disk.empty();
        until("jobs are taken again", || raw.enqueue("q", &[b"yes"]).is_ok());
        until("the ballast is back", || ballast_bytes(&data) == 8 << 20);
        drop(server);
        fs::remove_dir_all(disk.path().join("data")).unwrap();
    }
}
