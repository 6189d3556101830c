//! The small operations that are measured alone: with criterion in time, with callgrind in
//! instructions.

mod standing;

use std::hint::black_box;

use bytes::BytesMut;
use joblog::log::{EntryView, Log, LogOptions, Recovery};
use joblog::queue::{GroupKind, Holder, Machine, Picked, QueueSettings, Start};
use joblog::types::{GroupId, LeaseRef, QueueId, SessionId, Stamp, Term};
use joblog_protocol::frame::{Header, Peek, put_request};
use joblog_protocol::job::BatchBuilder;
use joblog_protocol::limits::FRAME_HEADER_BYTES;
use joblog_protocol::messages::enqueue::Enqueue;
use joblog_protocol::{Job, Opcode};

const QUEUE: QueueId = QueueId(1);
const GROUP: GroupId = GroupId(1);
const STAMP: Stamp = Stamp { wall_ms: 1, log_ms: 1 };
/// Jobs that are enqueued before the machine is asked.
const BACKLOG: u32 = 1_000_000;

/// One operation, to be called again and again.
pub(crate) type Op = Box<dyn FnMut()>;

/// Makes an operation.
pub(crate) type Make = fn() -> Op;

/// All operations by name, each made when asked for.
pub(crate) fn all() -> Vec<(&'static str, Make)> {
    let mut all: Vec<(&'static str, Make)> = vec![
        ("decode_enqueue", decode_enqueue),
        ("append", append),
        ("fetch_commit", fetch_commit),
        ("apply_jobs", apply_jobs),
    ];
    all.extend(standing::ALL);
    all
}

fn batch() -> BatchBuilder {
    let mut batch = BatchBuilder::default();
    batch.push(&Job::new(vec![b'x'; 100])).expect("a job of 100 bytes is allowed");
    batch
}

/// A frame with an ENQUEUE of one job of 100 B is found, decoded and checked.
fn decode_enqueue() -> Op {
    let mut frame = BytesMut::new();
    let batch = batch();
    let message = Enqueue { queue: "mail", create: true, producer: None, batch: batch.batch() };
    put_request(&mut frame, Opcode::Enqueue, 7, |out| message.encode(out));
    Box::new(move || {
        let Peek::Whole(header) = Header::peek(black_box(&frame)) else { return };
        let end = FRAME_HEADER_BYTES + header.body_bytes();
        let body = frame.get(FRAME_HEADER_BYTES..end).unwrap_or_default();
        let enqueue = Enqueue::decode(body).expect("the frame is right");
        enqueue.batch.check(1 << 20).expect("the batch is right");
        black_box(enqueue.batch.count);
    })
}

/// An entry of one job of 100 B is appended and written, without a sync.
fn append() -> Op {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let options = LogOptions { prefill: false, ..LogOptions::default() };
    let opened = Recovery::open(dir.path(), options).and_then(|found| found.start(Term(1)));
    let log: Log = opened.expect("a fresh log opens");
    let builder = batch();
    Box::new(move || {
        let _keep = &dir;
        let batch = builder.batch();
        let entry = EntryView {
            queue: QUEUE,
            base_offset: joblog::types::Offset(log.next_index().0),
            count: 1,
            table: batch.table,
            bodies: batch.bodies,
            stamp: STAMP,
            ..EntryView::default()
        };
        log.append(&entry).expect("the log takes an entry");
        log.write().expect("the log is written");
    })
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    let queue = machine.create_queue("mail", QueueSettings::default());
    machine.apply(&queue.expect("the name is right"), STAMP, 1).expect("it is new");
    let group = machine.create_group(QUEUE, "default", GroupKind::Work, Start::Beginning);
    machine.apply(&group.expect("the name is right"), STAMP, 1).expect("it is new");
    machine
}

/// The state machine grants one job of a backlog under a lease, and commits it.
fn fetch_commit() -> Op {
    fetch_commit_on(machine())
}

fn fetch_commit_on(mut machine: Machine) -> Op {
    let mut picked = Picked::new();
    let mut results = Vec::new();
    Box::new(move || {
        if machine.ready_count(GROUP) == 0 {
            let base = machine.next_offset(QUEUE).expect("the queue is there");
            machine
                .apply_jobs(QUEUE, base, BACKLOG, 104 * u64::from(BACKLOG), STAMP)
                .expect("they are next");
        }
        machine.pick(GROUP, 1, &mut |_| true, &mut picked);
        let first = machine.next_grant();
        let holder = Holder::Session(SessionId([7; 16]));
        let granted = machine.grant(GROUP, holder, 30_000, first, &picked);
        machine.apply(&granted.expect("the lease is right"), STAMP, 1).expect("it is ready");
        results.clear();
        let jobs = picked.offsets().map(|offset| LeaseRef { offset, grant: first });
        let committed = machine.commit_jobs(GROUP, jobs, &mut results);
        machine.apply(&committed.expect("it is ours"), STAMP, 1).expect("it is leased");
    })
}

/// The state machine takes in an entry of one job.
fn apply_jobs() -> Op {
    let mut machine = machine();
    Box::new(move || {
        let base = machine.next_offset(QUEUE).expect("the queue is there");
        machine.apply_jobs(QUEUE, base, 1, 104, STAMP).expect("it is next");
    })
}
