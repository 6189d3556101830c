//! Requests that are well formed, and for what is not there or not theirs.

use joblog_protocol::messages::enqueue::Enqueue;
use joblog_protocol::messages::fetch::{Fetch, LeaseKind, Read};
use joblog_protocol::messages::lease::{Commit, Extend, Fail, Release};
use joblog_protocol::{ErrorCode, Opcode};
use smallvec::smallvec;

use crate::common::{fetch_of, of_default, only};
use crate::support::{assert_refused, body, good_bodies, one_job, server_with_queues, token};

#[test]
fn a_token_that_never_was_holds_no_job() {
    let (_server, _dir, mut raw) = server_with_queues();
    raw.enqueue("q", &["second"]).unwrap();
    let lost = only(Some(ErrorCode::LeaseLost));
    for never in [&[1; 8][..], &[0; 8], &[0xff; 8], &[9], &[7; 32]] {
        // Job 0 is leased, job 1 is ready.
        for offset in [0, 1] {
            let jobs = || of_default("q", [(offset, token(never))]);
            assert_eq!(raw.commit(jobs()).unwrap(), lost, "{never:?}");
            assert_eq!(raw.release(jobs(), 0).unwrap(), lost, "{never:?}");
            assert_eq!(raw.extend(jobs(), 1000).unwrap(), lost, "{never:?}");
            let outcomes = raw.fail(jobs(), "why").unwrap();
            assert_eq!(format!("{outcomes:?}"), "[Refused(LeaseLost)]");
        }
    }
    for length in [0_u8, 33, 255] {
        let name = [1, b'q', 0, 1, 0, 0, 0];
        let set = [&name[..], &[0; 8], &[length], &vec![5; usize::from(length)]].concat();
        let commit = [&[0, 1, 0][..], &set].concat();
        let refused = ErrorCode::BadToken;
        assert_refused(&mut raw, Opcode::Commit, &commit, refused, &["1 to 32"]);
    }
}

#[test]
fn an_offset_beyond_the_end_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    for offset in [1, u64::MAX] {
        let jobs = || of_default("q", [(offset, token(&[1; 8]))]);
        let beyond = only(Some(ErrorCode::BeyondEnd));
        assert_eq!(raw.commit(jobs()).unwrap(), beyond);
        assert_eq!(raw.release(jobs(), 0).unwrap(), beyond);
        let through = Commit::Through { queue: "s", group: "g", offset };
        let body = body(|out| through.encode(out));
        assert_refused(&mut raw, Opcode::Commit, &body, ErrorCode::BeyondEnd, &["1"]);
    }
}

#[test]
fn a_command_for_the_other_kind_of_group_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let through = Commit::Through { queue: "q", group: "", offset: 0 };
    let wrong = ErrorCode::WrongGroupKind;
    let body_of_through = body(|out| through.encode(out));
    assert_refused(&mut raw, Opcode::Commit, &body_of_through, wrong, &["work group"]);
    let set = || {
        let mut set = of_default("s", [(0, token(&[1; 8]))]);
        set.group = "g";
        set
    };
    let commit = body(|out| Commit::Jobs(smallvec![set()]).encode(out));
    let release = body(|out| Release { jobs: set(), delay_ms: 0 }.encode(out));
    let extend = body(|out| Extend { jobs: set(), lease_ms: 1000, progress: None }.encode(out));
    let fail = Fail { jobs: set(), failures_max: None, delay_ms: None, reason: "" };
    let lease = LeaseKind::Timed { lease_ms: 1000 };
    let fetch = Fetch { group: "g", wait_ms: 5000, lease, ..fetch_of(&["s"]) };
    for (opcode, body) in [
        (Opcode::Commit, commit),
        (Opcode::Release, release),
        (Opcode::Extend, extend),
        (Opcode::Fail, body(|out| fail.encode(out))),
        (Opcode::Fetch, body(|out| fetch.encode(out))),
    ] {
        assert_refused(&mut raw, opcode, &body, wrong, &["stream", "COMMIT"]);
    }
}

#[test]
fn what_does_not_exist_and_what_exists_already_is_said() {
    let (_server, _dir, mut raw) = server_with_queues();
    let q = &br#"{"queue":"q"}"#[..];
    let nowhere = &br#"{"queue":"nowhere"}"#[..];
    let no_group = &br#"{"queue":"q","group":"nobody"}"#[..];
    let twice = &br#"{"queue":"s","group":"g","kind":"work"}"#[..];
    for (opcode, body, code, word) in [
        (Opcode::CreateQueue, q, ErrorCode::QueueExists, "exists"),
        (Opcode::CreateGroup, twice, ErrorCode::GroupExists, "exists"),
        (Opcode::DeleteQueue, nowhere, ErrorCode::NoSuchQueue, "nowhere"),
        (Opcode::DescribeQueue, nowhere, ErrorCode::NoSuchQueue, "nowhere"),
        (Opcode::ListGroups, nowhere, ErrorCode::NoSuchQueue, "nowhere"),
        (Opcode::DeleteGroup, no_group, ErrorCode::NoSuchGroup, "nobody"),
        (Opcode::DescribeGroup, no_group, ErrorCode::NoSuchGroup, "nobody"),
    ] {
        assert_refused(&mut raw, opcode, body, code, &[word]);
    }
    let read = body(|out| {
        Read { queue: "nowhere", from: 0, jobs_max: 1, bytes_max: 1, unconsumed_by: None }
            .encode(out);
    });
    assert_refused(&mut raw, Opcode::Read, &read, ErrorCode::NoSuchQueue, &["nowhere"]);
    let builder = one_job(b"x");
    let enqueue =
        Enqueue { queue: "nowhere", create: false, producer: None, batch: builder.batch() };
    let enqueue = body(|out| enqueue.encode(out));
    assert_refused(&mut raw, Opcode::Enqueue, &enqueue, ErrorCode::NoSuchQueue, &["nowhere"]);
    let mut fetch = good_bodies().remove(1).1;
    fetch.splice(3..4, [6, b'n', b'o', b'b', b'o', b'd', b'y']);
    assert_refused(&mut raw, Opcode::Fetch, &fetch, ErrorCode::NoSuchGroup, &["nobody"]);
}
