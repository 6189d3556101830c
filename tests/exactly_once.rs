//! A batch that is sent again is enqueued once: by hand, through restarts, and by the client when
//! connections are cut at the moment that its answers travel.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod common;

use common::{Cut, CuttingProxy, PATIENCE, Raw, Server};
use joblog::client::{BatchBuilder, Client, ClientError, ErrorCode, Job, Options};
use joblog_protocol::Opcode;

const PRODUCER: [u8; 16] = [7; 16];

#[test]
fn a_batch_that_is_sent_again_gets_its_first_answer_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    let send = |raw: &mut Raw, payload: &str, number| {
        raw.enqueue_numbered("q", payload, (PRODUCER, number)).unwrap()
    };
    assert_eq!(send(&mut raw, "one", 1), Ok(0));
    assert_eq!(send(&mut raw, "three", 3), Ok(1));
    assert_eq!(send(&mut raw, "one", 1), Ok(0));
    // A number that was left out is a new batch.
    assert_eq!(send(&mut raw, "two", 2), Ok(2));
    assert_eq!(send(&mut raw, "another", 2), Err(ErrorCode::BadRequest));
    // Another producer, and another queue, have numbers of their own.
    assert_eq!(raw.enqueue_numbered("q", "one", ([8; 16], 1)).unwrap(), Ok(3));
    assert_eq!(raw.enqueue_numbered("p", "one", (PRODUCER, 1)).unwrap(), Ok(0));

    // Once from the log, once from the checkpoint of a clean stop.
    for kill in [true, false] {
        match kill {
            true => server.kill9(),
            false => drop(server.stop()),
        }
        server.restart();
        raw = Raw::greeted(server.address());
        assert_eq!(send(&mut raw, "two", 2), Ok(2));
        assert_eq!(send(&mut raw, "three", 3), Ok(1));
    }

    assert_eq!(send(&mut raw, "later", 66), Ok(4));
    assert_eq!(send(&mut raw, "three", 3), Ok(1));
    assert_eq!(send(&mut raw, "two", 2), Err(ErrorCode::SequenceTooOld));
    assert_eq!(send(&mut raw, "next", 67), Ok(5));
    assert_eq!(send(&mut raw, "three", 3), Err(ErrorCode::SequenceTooOld));
}

#[test]
fn the_client_enqueues_once_though_its_answers_are_lost() {
    const TASKS: usize = 8;
    const JOBS: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let proxy = CuttingProxy::start_for(Opcode::Enqueue, server.address(), 10, Cut::Half, 5);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = Options::default().request_timeout(PATIENCE);
        let client = Client::connect(proxy.address().to_string(), options).await.unwrap();
        let enqueue = |task: usize| {
            let client = client.clone();
            async move {
                for number in 0..JOBS {
                    let job = Job::new(format!("{task}-{number}"));
                    client.enqueue("q", &job).await.unwrap();
                }
            }
        };
        let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(enqueue(task))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(proxy.cuts() > 5, "only {} cuts", proxy.cuts());
        // Directly, and so without cuts.
        let direct = Client::connect(server.address().to_string(), Options::default()).await;
        let direct = direct.unwrap();
        let read = direct.read("q", 0, 10_000, u32::MAX).await.unwrap();
        let mut found: Vec<_> = read.jobs.into_iter().map(|stored| stored.job.payload).collect();
        found.sort();
        let all = (0..TASKS).flat_map(|task| (0..JOBS).map(move |n| format!("{task}-{n}")));
        let mut expected: Vec<_> = all.map(String::into_bytes).collect();
        expected.sort();
        assert_eq!(found, expected);
    });
}

#[test]
fn a_program_that_starts_anew_sends_its_batch_again_under_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut send = |number: u64, payload: &str| {
        let mut batch = BatchBuilder::default();
        batch.push(&Job::new(payload)).unwrap();
        let sent = runtime.block_on(async {
            let address = server.address().to_string();
            let client = Client::connect(address, Options::default()).await.unwrap();
            let batch = client.prepare_numbered("q", &batch, PRODUCER, number)?;
            let sent = batch.send().await;
            client.close().await.unwrap();
            sent
        });
        server.kill9();
        server.restart();
        sent
    };
    assert_eq!(send(1, "one").unwrap().first_offset, 0);
    assert_eq!(send(1, "one").unwrap().first_offset, 0);
    assert_eq!(send(2, "two").unwrap().first_offset, 1);
    assert_eq!(send(2, "other").unwrap_err().code(), Some(ErrorCode::BadRequest));
    assert!(matches!(send(0, "none").unwrap_err(), ClientError::Invalid(_)));
}
