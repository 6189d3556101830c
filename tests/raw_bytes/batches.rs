//! Batches of jobs that are refused whole.

use joblog_protocol::job::{Batch, Job};
use joblog_protocol::limits::{BATCH_BYTES_MAX, BATCH_JOBS_MAX, JOB_BYTES_MAX};
use joblog_protocol::{ErrorCode, Opcode};

use crate::support::{assert_no_queue, assert_refused, enqueue_body, one_job, server_with_queues};

#[test]
fn a_batch_over_a_limit_is_refused_whole() {
    let (_server, _dir, mut raw) = server_with_queues();
    let none = Batch { count: 0, table: &[], bodies: &[] };
    let refused = ErrorCode::BatchTooLarge;
    let body = enqueue_body("none", none);
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["0", "65536"]);

    let count = BATCH_JOBS_MAX as u32 + 1;
    let (mut table, mut bodies) = (Vec::new(), Vec::new());
    for _ in 0..count {
        bodies.extend_from_slice(&[0; 4]);
        let row = [bodies.len() as u32, 0, crc32fast::hash(&[0; 4])].map(u32::to_le_bytes);
        table.extend_from_slice(&row.concat());
    }
    let many = Batch { count, table: &table, bodies: &bodies };
    let body = enqueue_body("many", many);
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["65537", "65536"]);
    let allowed = Batch {
        count: count - 1,
        table: &table[..table.len() - 12],
        bodies: &bodies[..bodies.len() - 4],
    };
    let reply = raw.ask(Opcode::Enqueue, &enqueue_body("all", allowed)).unwrap();
    assert_eq!(reply.code(), None);

    let bodies = vec![0; BATCH_BYTES_MAX + 1];
    let table = [bodies.len() as u32, 0, 0].map(u32::to_le_bytes).concat();
    let large = Batch { count: 1, table: &table, bodies: &bodies };
    let body = enqueue_body("large", large);
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["4194305", "4 MiB"]);
    for queue in ["none", "many", "large"] {
        assert_no_queue(&mut raw, queue);
    }
}

#[test]
fn a_job_over_the_limit_is_refused_with_its_whole_batch() {
    let (_server, _dir, mut raw) = server_with_queues();
    let mut builder = one_job(b"small");
    builder.push(&Job::new(vec![1; JOB_BYTES_MAX - 4 + 1])).unwrap();
    let body = enqueue_body("none", builder.batch());
    let refused = ErrorCode::JobTooLarge;
    assert_refused(&mut raw, Opcode::Enqueue, &body, refused, &["job 1", "1048577", "1048576"]);
    assert_no_queue(&mut raw, "none");
    assert_eq!(raw.enqueue("q", &[vec![1; JOB_BYTES_MAX - 4]]).unwrap(), 1);
}

#[test]
fn a_job_that_does_not_match_its_checksum_is_refused_with_its_whole_batch() {
    let (_server, _dir, mut raw) = server_with_queues();
    let mut builder = one_job(b"good");
    builder.push(&Job::new("damaged on the way")).unwrap();
    let mut body = enqueue_body("none", builder.batch());
    *body.last_mut().unwrap() ^= 0x10;
    assert_refused(&mut raw, Opcode::Enqueue, &body, ErrorCode::BadChecksum, &["job 1", "crc32"]);
    assert_no_queue(&mut raw, "none");
}

#[test]
fn a_batch_whose_fields_do_not_fit_together_is_refused() {
    let (_server, _dir, mut raw) = server_with_queues();
    let good = one_job(b"payload");
    let batch = good.batch();
    let with = |end: u32, flags: u32, bodies: &[u8]| {
        let table = [end, flags, crc32fast::hash(bodies)].map(u32::to_le_bytes).concat();
        enqueue_body("none", Batch { count: 1, table: &table, bodies })
    };
    let end = batch.bodies.len() as u32;
    let tag = [&3_u32.to_le_bytes()[..], &[9, 0, 0]].concat();
    let cut_tag = [&3_u32.to_le_bytes()[..], &[1, 5, 0]].concat();
    let beyond = [&9_u32.to_le_bytes()[..], &[1, 0, 0]].concat();
    let attributes = [&70_000_u32.to_le_bytes()[..], &vec![0; 70_000]].concat();
    let refusals = [
        (with(end + 1, 0, batch.bodies), ErrorCode::BadRequest, "job 0"),
        (with(u32::MAX, 0, batch.bodies), ErrorCode::BadRequest, "job 0"),
        (with(end, 1, batch.bodies), ErrorCode::Unsupported, "flags"),
        (with(end, 0x8000_0000, batch.bodies), ErrorCode::Unsupported, "flags"),
        (with(3, 0, &[0; 3]), ErrorCode::BadRequest, "job 0"),
        (with(tag.len() as u32, 0, &tag), ErrorCode::Unsupported, "tag"),
        (with(cut_tag.len() as u32, 0, &cut_tag), ErrorCode::BadRequest, "job 0"),
        (with(beyond.len() as u32, 0, &beyond), ErrorCode::BadRequest, "job 0"),
        (with(attributes.len() as u32, 0, &attributes), ErrorCode::BadRequest, "65535"),
    ];
    for (body, code, word) in refusals {
        assert_refused(&mut raw, Opcode::Enqueue, &body, code, &[word]);
    }
    assert_no_queue(&mut raw, "none");
}
