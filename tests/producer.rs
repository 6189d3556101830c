//! The buffered producer and numbered batches, against a scripted server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod fake;

use std::sync::mpsc;
use std::time::Duration;

use fake::{Peer, Request, run};
use joblog::client::{
    BatchBuilder, Client, ClientError, ErrorCode, Job, Options, Producer, ProducerOptions,
};
use joblog_protocol::Opcode;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use tokio::sync::oneshot;

fn quick() -> Options {
    Options::default().request_timeout(Duration::from_millis(200))
}

fn producer(client: &Client) -> Producer {
    Producer::new(client.clone(), ProducerOptions::default())
}

/// The payloads of an ENQUEUE.
fn payloads(request: &Request) -> Vec<String> {
    let enqueue = Enqueue::decode(&request.body).unwrap();
    let payload = |body| String::from_utf8(Job::from_body(body).unwrap().payload).unwrap();
    enqueue.batch.jobs().map(|row| payload(row.body)).collect()
}

fn number(request: &Request) -> u64 {
    Enqueue::decode(&request.body).unwrap().producer.unwrap().sequence
}

fn take(peer: &mut Peer, request: &Request, first_offset: u64) {
    let count = payloads(request).len() as u32;
    let reply = EnqueueReply { first_offset, count, ..EnqueueReply::default() };
    peer.reply(request, |out| reply.encode(out));
}

#[test]
fn what_arrives_while_a_batch_is_under_way_makes_the_next_one() {
    let (sent, all_sent) = mpsc::sync_channel(1);
    let (read, first_read) = oneshot::channel();
    run(
        Options::default(),
        move |fake| {
            let mut peer = fake.greet();
            let first = peer.next().expect(Opcode::Enqueue);
            assert_eq!(payloads(&first), ["a"]);
            read.send(()).unwrap();
            all_sent.recv().unwrap();
            take(&mut peer, &first, 7);
            let second = peer.next().expect(Opcode::Enqueue);
            assert_eq!(payloads(&second), ["b", "c", "d"]);
            assert_eq!(number(&second), number(&first) + 1);
            take(&mut peer, &second, 20);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let producer = producer(&client);
            let first = producer.send("q", &Job::new("a")).await.unwrap();
            first_read.await.unwrap();
            let mut rest = Vec::new();
            for payload in ["b", "c", "d"] {
                rest.push(producer.send("q", &Job::new(payload)).await.unwrap());
            }
            sent.send(()).unwrap();
            assert_eq!(first.await.unwrap(), 7);
            for (offset, job) in (20..).zip(rest) {
                assert_eq!(job.await.unwrap(), offset);
            }
        },
    );
}

#[test]
fn a_full_buffer_holds_back_until_there_are_answers() {
    let (filled, is_full) = mpsc::sync_channel(1);
    run(
        Options::default(),
        move |fake| {
            let mut peer = fake.greet();
            let first = peer.next().expect(Opcode::Enqueue);
            is_full.recv().unwrap();
            take(&mut peer, &first, 0);
            let second = peer.next().expect(Opcode::Enqueue);
            assert_eq!(payloads(&second), ["x"]);
            take(&mut peer, &second, 1);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            // One job is as much as it may hold.
            let options = ProducerOptions::default().buffer_bytes_max(1);
            let producer = Producer::new(client.clone(), options);
            let first = producer.send("q", &Job::new("a")).await.unwrap();
            let error = producer.try_send("q", &Job::new("x")).unwrap_err();
            assert!(matches!(error, ClientError::Busy { .. }) && error.retryable(), "{error}");
            let job = Job::new("x");
            let mut second = Box::pin(producer.send("q", &job));
            let polled =
                std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx)));
            assert!(polled.await.is_pending());
            filled.send(()).unwrap();
            let second = second.await.unwrap();
            producer.flush().await;
            // Both are answered by now.
            assert_eq!((first.await.unwrap(), second.await.unwrap()), (0, 1));
        },
    );
}

#[test]
fn a_job_that_is_refused_does_not_take_its_batch_along() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            let mut taken = Vec::new();
            while taken.len() < 4 {
                let request = peer.next().expect(Opcode::Enqueue);
                let payloads = payloads(&request);
                match payloads.iter().any(|payload| payload == "poison") {
                    true => peer.refuse(&request, ErrorCode::Unsupported),
                    false => {
                        take(&mut peer, &request, taken.len() as u64);
                        taken.extend(payloads);
                    }
                }
            }
            assert_eq!(taken, ["a", "b", "c", "d"], "their order");
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let producer = producer(&client);
            let mut pending = Vec::new();
            for payload in ["a", "b", "poison", "c", "d"] {
                pending.push(producer.try_send("q", &Job::new(payload)).unwrap());
            }
            let mut offsets = Vec::new();
            for job in pending {
                offsets.push(job.await.map_err(|error| error.code()));
            }
            let refused = Err(Some(ErrorCode::Unsupported));
            assert_eq!(offsets, [Ok(0), Ok(1), refused, Ok(2), Ok(3)]);
        },
    );
}

#[test]
fn what_timed_out_goes_again_under_its_number() {
    run(
        quick(),
        |fake| {
            let mut peer = fake.greet();
            let silent = peer.next().expect(Opcode::Enqueue);
            let full = peer.next().expect(Opcode::Enqueue);
            peer.refuse(&full, ErrorCode::QueueFull);
            let again = peer.next().expect(Opcode::Enqueue);
            for request in [&full, &again] {
                assert_eq!(
                    (number(request), payloads(request)),
                    (number(&silent), vec!["a".into()])
                );
            }
            take(&mut peer, &again, 5);
            // A batch that was prepared by hand.
            let silent = peer.next().expect(Opcode::Enqueue);
            let again = peer.next().expect(Opcode::Enqueue);
            assert_eq!(number(&silent), number(&again));
            assert!(number(&silent) > number(&full));
            take(&mut peer, &again, 6);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            assert_eq!(producer(&client).enqueue("q", &Job::new("a")).await.unwrap(), 5);
            let mut batch = BatchBuilder::default();
            batch.push(&Job::new("b")).unwrap();
            let batch = client.prepare("q", &batch).await.unwrap();
            let error = batch.send().await.unwrap_err();
            assert!(error.outcome_unknown() && !error.retryable(), "{error}");
            assert_eq!(batch.send().await.unwrap().first_offset, 6);
        },
    );
}

#[test]
fn a_batch_that_is_never_answered_has_an_unknown_outcome() {
    run(
        quick(),
        |fake| {
            let mut peer = fake.greet();
            let silent = peer.next().expect(Opcode::Enqueue);
            // What is refused later does not say that the first one was not done.
            let request = peer.next().expect(Opcode::Enqueue);
            assert_eq!(number(&request), number(&silent));
            peer.refuse(&request, ErrorCode::NoSuchQueue);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let error = producer(&client).enqueue("q", &Job::new("a")).await.unwrap_err();
            assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
            assert!(error.outcome_unknown());
        },
    );
}

#[test]
fn what_can_not_be_sent_is_refused_at_once() {
    run(
        Options::default(),
        |fake| {
            fake.greet().next().expect(Opcode::Goodbye);
        },
        async |client| {
            let producer = producer(&client);
            let error = producer.send("no space", &Job::new("a")).await.unwrap_err();
            assert!(matches!(error, ClientError::Invalid(_)), "{error}");
            // The scripted server takes jobs of 1 MiB.
            let large = Job::new(vec![0; 1 << 20]);
            let error = producer.send("q", &large).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::JobTooLarge));
        },
    );
}
