//! The client against a scripted server: what it sends, and what its calls end with.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod fake;

use std::slice;
use std::sync::mpsc;
use std::time::Duration;

use fake::{Fake, Granted, block_on, job, run, token};
use joblog::client::{
    BatchBuilder, Client, ClientError, CommitStatus, ConnectionState, ErrorCode, FailStatus,
    Failure, FetchRequest, Job, JobHandle, Options, QueueSettings, ReleaseStatus,
};
use joblog_protocol::Opcode;
use joblog_protocol::messages::enqueue::{Enqueue, EnqueueReply};
use joblog_protocol::messages::lease::{FailOutcome, encode_fail_reply, encode_statuses};

const LEASE_LOST: Option<ErrorCode> = Some(ErrorCode::LeaseLost);
const CONSUMED: Option<ErrorCode> = Some(ErrorCode::AlreadyConsumed);

fn handle(offset: u64) -> JobHandle {
    JobHandle { queue: "q".into(), group: "".into(), offset, token: token(offset) }
}

fn fetch_jobs(jobs_max: u32) -> FetchRequest {
    FetchRequest { jobs_max, ..FetchRequest::new(["q"]) }
}

fn quick() -> Options {
    Options::default().request_timeout(Duration::from_millis(300))
}

fn enqueued(first_offset: u64) -> EnqueueReply {
    EnqueueReply { first_offset, count: 1, ..EnqueueReply::default() }
}

/// A request and its answer: after it, the driver has dealt with everything that came before.
async fn settle(client: &Client) {
    client.ping().await.unwrap();
}

async fn until_disconnected(client: &Client) {
    let mut state = client.state();
    let is_down = |state: &ConnectionState| matches!(state, ConnectionState::Disconnected(_));
    state.wait_for(is_down).await.unwrap();
}

#[test]
fn replies_in_any_order_find_their_calls() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            // All three are sent before the first is answered.
            let requests = [peer.next(), peer.next(), peer.next()];
            for (offset, request) in requests.iter().enumerate().rev() {
                peer.reply(request, |out| enqueued(offset as u64).encode(out));
            }
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let batch = |payload: &str| {
                let mut batch = BatchBuilder::default();
                batch.push(&Job::new(payload)).unwrap();
                batch
            };
            let first = client.enqueue_later("q", &batch("a")).await.unwrap();
            let second = client.enqueue_later("q", &batch("b")).await.unwrap();
            let third = client.enqueue_later("q", &batch("c")).await.unwrap();
            assert_eq!(first.enqueued().await.unwrap().first_offset, 0);
            assert_eq!(second.enqueued().await.unwrap().first_offset, 1);
            assert_eq!(third.enqueued().await.unwrap().first_offset, 2);
        },
    );
}

#[test]
fn carried_commits_are_answered_while_the_fetch_waits() {
    let (committed, wait_for_commit) = mpsc::sync_channel(8);
    run(
        Options::default(),
        move |fake| {
            let mut peer = fake.greet();
            let fetch = peer.next().expect(Opcode::Fetch);
            peer.reply_more(&fetch, |out| encode_statuses(out, &[None, LEASE_LOST]));
            wait_for_commit.recv().unwrap();
            peer.grant(&fetch, &[job(5)]);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let commits = [handle(1), handle(2)];
            let (carried, fetch) = client.fetch_carrying(&fetch_jobs(1), &commits).await.unwrap();
            let refused = CommitStatus::Refused(ErrorCode::LeaseLost);
            assert_eq!(carried.statuses().await.unwrap(), [CommitStatus::Consumed, refused]);
            committed.send(()).unwrap();
            let fetched = fetch.fetched().await.unwrap();
            assert_eq!(fetched.jobs[0].handle, handle(5));
            assert_eq!(fetched.jobs[0].job, Job::new("payload"));
        },
    );
}

#[test]
fn a_fetch_reply_that_nobody_awaits_is_released() {
    run(
        quick(),
        |fake| {
            let mut peer = fake.greet();
            // The future is dropped behind the request and before the reply.
            let fetch = peer.next().expect(Opcode::Fetch);
            let ping = peer.next().expect(Opcode::Ping);
            peer.reply(&ping, |_| {});
            let ping = peer.next().expect(Opcode::Ping);
            peer.grant(&fetch, &[job(1), job(2)]);
            let release = peer.next().expect(Opcode::Release);
            assert_eq!(release.offsets(), [1, 2]);
            peer.statuses(&release, &[None, None]);
            peer.reply(&ping, |_| {});
            // The reply is delivered, and dropped without being looked at.
            let fetch = peer.next().expect(Opcode::Fetch);
            peer.grant(&fetch, &[job(3)]);
            let ping = peer.next().expect(Opcode::Ping);
            peer.reply(&ping, |_| {});
            let release = peer.next().expect(Opcode::Release);
            assert_eq!(release.offsets(), [3]);
            peer.statuses(&release, &[None]);
            // The call times out.
            let fetch = peer.next().expect(Opcode::Fetch);
            let ping = peer.next().expect(Opcode::Ping);
            peer.grant(&fetch, &[job(4)]);
            let release = peer.next().expect(Opcode::Release);
            assert_eq!(release.offsets(), [4]);
            peer.statuses(&release, &[None]);
            peer.reply(&ping, |_| {});
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let (_, pending) = client.fetch_carrying(&fetch_jobs(2), &[]).await.unwrap();
            settle(&client).await;
            drop(pending);
            settle(&client).await;

            let (_, pending) = client.fetch_carrying(&fetch_jobs(1), &[]).await.unwrap();
            settle(&client).await;
            drop(pending);

            let error = client.fetch(&fetch_jobs(1)).await.unwrap_err();
            assert!(matches!(error, ClientError::Timeout { command: "FETCH", .. }), "{error}");
            settle(&client).await;
        },
    );
}

#[test]
fn a_reconnect_names_the_session_and_what_is_still_held() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            assert!(peer.hello.held.is_empty());
            let session = peer.hello.session;
            let fetch = peer.next().expect(Opcode::Fetch);
            peer.grant(&fetch, &[1, 2, 3, 4, 5, 6].map(job));
            let commit = peer.next().expect(Opcode::Commit);
            // Job 2 is refused for a reason that leaves its lease alone.
            peer.statuses(&commit, &[None, Some(ErrorCode::DiskFull)]);
            let release = peer.next().expect(Opcode::Release);
            peer.statuses(&release, &[None]);
            let extend = peer.next().expect(Opcode::Extend);
            peer.statuses(&extend, &[LEASE_LOST]);
            let fail = peer.next().expect(Opcode::Fail);
            peer.reply(&fail, |out| encode_fail_reply(out, &[FailOutcome::Dead]));
            // The jobs of this one never reach a caller.
            let fetch = peer.next().expect(Opcode::Fetch);
            peer.grant(&fetch, &[job(7)]);
            let ping = peer.next().expect(Opcode::Ping);
            peer.reply(&ping, |_| {});
            peer.next().expect(Opcode::Release);
            drop(peer);

            let mut peer = fake.greet();
            assert_eq!(peer.hello.session, session);
            let mut held = peer.hello.held.clone();
            held.sort_by_key(|token| token.as_bytes().to_vec());
            assert_eq!(held, [token(2), token(6)]);
            let release = peer.next().expect(Opcode::Release);
            assert_eq!(release.offsets(), [7]);
            peer.statuses(&release, &[LEASE_LOST]);
            let ping = peer.next().expect(Opcode::Ping);
            peer.reply(&ping, |_| {});
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            client.fetch(&fetch_jobs(6)).await.unwrap();
            client.commit(&[handle(1), handle(2)]).await.unwrap();
            client.release(&[handle(3)], Duration::ZERO).await.unwrap();
            client.extend(&[handle(4)], Duration::from_secs(9)).await.unwrap();
            client.fail(&[handle(5)], &Failure::default()).await.unwrap();
            let (_, pending) = client.fetch_carrying(&fetch_jobs(1), &[]).await.unwrap();
            settle(&client).await;
            drop(pending);
            until_disconnected(&client).await;
            settle(&client).await;
        },
    );
}

#[test]
fn after_a_cut_only_what_can_be_repeated_is_sent_again() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            let commands: Vec<_> = (0..6).map(|_| peer.next().opcode).collect();
            use Opcode::{Commit, CreateQueue, Enqueue, Fail, Fetch, Release};
            assert_eq!(commands, [Enqueue, CreateQueue, Commit, Release, Fail, Fetch]);
            drop(peer);

            let mut peer = fake.greet();
            let enqueue = peer.next().expect(Enqueue);
            peer.reply(&enqueue, |out| enqueued(3).encode(out));
            let commit = peer.next().expect(Commit);
            assert_eq!(commit.offsets(), [1, 2]);
            peer.statuses(&commit, &[CONSUMED, LEASE_LOST]);
            let release = peer.next().expect(Release);
            peer.statuses(&release, &[LEASE_LOST]);
            let fail = peer.next().expect(Fail);
            let lost = FailOutcome::Refused(ErrorCode::LeaseLost);
            peer.reply(&fail, |out| encode_fail_reply(out, &[lost]));
            let fetch = peer.next().expect(Fetch);
            assert!(fetch.wait_ms() < 20_000, "it waits only for what is left");
            peer.grant(&fetch, &[job(9)]);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let wait = Duration::from_secs(20);
            let fetch = FetchRequest { wait, ..fetch_jobs(1) };
            let (failure, settings) = (Failure::default(), QueueSettings::default());
            let payload = Job::new("x");
            let jobs = [handle(1), handle(2)];
            let (enqueue, create, commit, release, fail, fetch) = tokio::join!(
                client.enqueue("q", &payload),
                client.create_queue("q", settings),
                client.commit(&jobs),
                client.release(slice::from_ref(&jobs[0]), Duration::ZERO),
                client.fail(slice::from_ref(&jobs[0]), &failure),
                client.fetch(&fetch),
            );
            let error = create.unwrap_err();
            assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
            assert!(error.outcome_unknown() && !error.retryable());
            assert_eq!(enqueue.unwrap().first_offset, 3);
            let lost = CommitStatus::Refused(ErrorCode::LeaseLost);
            assert_eq!(commit.unwrap(), [CommitStatus::AlreadyConsumed, lost]);
            assert_eq!(release.unwrap(), [ReleaseStatus::Unknown]);
            assert_eq!(fail.unwrap(), [FailStatus::Unknown]);
            assert_eq!(fetch.unwrap().jobs.len(), 1);
        },
    );
}

#[test]
fn a_lease_lost_at_once_is_no_unknown_outcome() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            let release = peer.next().expect(Opcode::Release);
            peer.statuses(&release, &[LEASE_LOST]);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let released = client.release(&[handle(1)], Duration::ZERO).await.unwrap();
            assert_eq!(released, [ReleaseStatus::Refused(ErrorCode::LeaseLost)]);
        },
    );
}

#[test]
fn what_was_never_written_is_sent_on_the_next_connection() {
    run(
        Options::default(),
        |fake| {
            drop(fake.greet());
            let mut peer = fake.greet();
            let enqueue = peer.next().expect(Opcode::Enqueue);
            peer.reply(&enqueue, |out| enqueued(4).encode(out));
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            until_disconnected(&client).await;
            let reply = client.enqueue("q", &Job::new("x")).await.unwrap();
            assert_eq!(reply.first_offset, 4);
        },
    );
}

#[test]
fn after_a_cut_every_batch_is_sent_again_and_none_is_unknown() {
    const BATCHES: u64 = 32;
    let (full, is_full) = mpsc::sync_channel(1);
    let (end, resent) = mpsc::sync_channel(1);
    run(
        Options::default(),
        move |fake| {
            let mut peer = fake.greet();
            // One is read, some more fit into the sockets' buffers, and the rest stays behind.
            peer.next().expect(Opcode::Enqueue);
            is_full.recv().unwrap();
            drop(peer);
            let mut peer = fake.greet();
            let mut count = 0;
            loop {
                let request = peer.next();
                match request.opcode {
                    Opcode::Enqueue => peer.reply(&request, |out| enqueued(count).encode(out)),
                    _ => break,
                }
                count += 1;
            }
            end.send(count).unwrap();
        },
        async |client| {
            let mut batch = BatchBuilder::default();
            batch.push(&Job::new(vec![0; 1 << 20])).unwrap();
            let mut pending = Vec::new();
            for _ in 0..BATCHES {
                pending.push(client.enqueue_later("q", &batch).await.unwrap());
            }
            full.send(()).unwrap();
            for pending in pending {
                pending.enqueued().await.unwrap();
            }
            client.close().await.unwrap();
            // Whether it had been written or not: the server knows a batch by its sequence.
            assert_eq!(resent.recv().unwrap(), BATCHES);
        },
    );
}

#[test]
fn a_server_that_shuts_down_is_asked_again_after_the_reconnect() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            let enqueue = peer.next().expect(Opcode::Enqueue);
            peer.refuse(&enqueue, ErrorCode::ShuttingDown);
            drop(peer);
            let mut peer = fake.greet();
            let enqueue = peer.next().expect(Opcode::Enqueue);
            peer.reply(&enqueue, |out| enqueued(0).encode(out));
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            client.enqueue("q", &Job::new("x")).await.unwrap();
        },
    );
}

#[test]
fn heartbeats_go_on_while_the_callers_thread_does_not() {
    let (beat, beats) = mpsc::sync_channel(8);
    let silence = Duration::from_millis(600);
    run(
        Options::default().silence(silence),
        move |fake| {
            let mut peer = fake.greet();
            for _ in 0..3 {
                let ping = peer.read().unwrap();
                assert!(ping.is_heartbeat(), "{ping:?}");
                peer.reply(&ping, |_| {});
                beat.send(()).unwrap();
            }
            peer.next().expect(Opcode::Goodbye);
        },
        // The only thread of the caller's runtime is blocked here.
        async |_client| (0..3).for_each(|_| beats.recv_timeout(fake::PATIENCE).unwrap()),
    );
}

#[test]
fn a_server_that_is_silent_for_too_long_is_left() {
    run(
        Options::default().silence(Duration::from_millis(500)),
        |fake| {
            let silent = fake.greet();
            let mut peer = fake.greet();
            let ping = peer.next().expect(Opcode::Ping);
            peer.reply(&ping, |_| {});
            peer.next().expect(Opcode::Goodbye);
            drop(silent);
        },
        async |client| {
            let mut state = client.state();
            state.changed().await.unwrap();
            let cause = match &*state.borrow_and_update() {
                ConnectionState::Disconnected(error) => error.to_string(),
                state => panic!("{state:?}"),
            };
            assert!(cause.contains("nothing was heard for 500 ms"), "{cause}");
            settle(&client).await;
        },
    );
}

#[test]
fn a_damaged_job_is_named_and_handed_back() {
    run(
        Options::default(),
        |fake| {
            let mut peer = fake.greet();
            let fetch = peer.next().expect(Opcode::Fetch);
            let damaged = Granted { is_damaged: true, ..job(2) };
            peer.grant(&fetch, &[job(1), damaged, job(3)]);
            let release = peer.next().expect(Opcode::Release);
            assert_eq!(release.offsets(), [2]);
            assert_eq!(release.delay_ms(), 10_000);
            peer.statuses(&release, &[None]);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let fetched = client.fetch(&fetch_jobs(3)).await.unwrap();
            let offsets: Vec<u64> = fetched.jobs.iter().map(|job| job.handle.offset).collect();
            assert_eq!(offsets, [1, 3]);
            let text = fetched.damaged[0].to_string();
            assert!(text.contains("job q:2 arrived damaged"), "{text}");
        },
    );
}

#[test]
fn what_the_first_attempt_to_connect_meets_is_told() {
    let gone = Fake::new().address;
    let error = block_on(Client::connect(gone.to_string(), Options::default())).unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }) && error.retryable(), "{error}");
    assert!(error.to_string().contains(&gone.to_string()), "{error}");

    let fake = Fake::new();
    let address = fake.address.to_string();
    let server = std::thread::spawn(move || {
        let mut peer = fake.accept();
        let hello = fake::Request::default();
        peer.refuse(&hello, ErrorCode::UnsupportedVersion);
        // Accepts, and says nothing.
        fake.accept()
    });
    let error = block_on(Client::connect(&*address, Options::default())).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
    let patience = Options::default().connect_timeout(Duration::from_millis(100));
    let error = block_on(Client::connect(&*address, patience)).unwrap_err();
    assert!(error.to_string().contains("no greeting came"), "{error}");
    server.join().unwrap().assert_closed();
}

#[test]
fn a_call_ends_with_its_timeout_and_says_what_that_means() {
    run(
        quick(),
        |fake| {
            let mut peer = fake.greet();
            peer.next().expect(Opcode::Commit);
            peer.next().expect(Opcode::Read);
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let error = client.commit(&[handle(1)]).await.unwrap_err();
            assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
            assert!(error.outcome_unknown() && !error.retryable());
            let error = client.read("q", 0, 1, 1).await.unwrap_err();
            assert!(!error.outcome_unknown() && error.retryable(), "{error}");
            // What nobody waits for any more does not hold up the goodbye.
            client.close().await.unwrap();
        },
    );
}

#[test]
fn without_a_connection_the_reason_is_told_at_the_timeout() {
    run(
        quick(),
        |fake| {
            let mut peer = fake.greet();
            peer.next().expect(Opcode::Commit);
        },
        async |client| {
            let error = client.commit(&[handle(1)]).await.unwrap_err();
            assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
            let error = client.enqueue("q", &Job::new("x")).await.unwrap_err();
            assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
            client.close().await.unwrap();
        },
    );
}

#[test]
fn an_enqueue_that_is_sent_again_has_its_number_and_no_two_have_one() {
    run(
        Options::default(),
        |fake| {
            let number =
                |request: &fake::Request| Enqueue::decode(&request.body).unwrap().producer.unwrap();
            let mut peer = fake.greet();
            let first = number(&peer.next().expect(Opcode::Enqueue));
            let second = number(&peer.next().expect(Opcode::Enqueue));
            assert_eq!((first.id, first.sequence, second.sequence), (second.id, 1, 2));
            drop(peer);
            let mut peer = fake.greet();
            for expected in [first, second] {
                let enqueue = peer.next().expect(Opcode::Enqueue);
                assert_eq!(number(&enqueue), expected);
                peer.reply(&enqueue, |out| enqueued(expected.sequence).encode(out));
            }
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let job = Job::new("x");
            let (one, two) = tokio::join!(client.enqueue("q", &job), client.enqueue("q", &job));
            assert_eq!((one.unwrap().first_offset, two.unwrap().first_offset), (1, 2));
        },
    );
}

#[test]
fn an_enqueue_that_was_sent_and_never_answered_has_an_unknown_outcome() {
    run(
        quick(),
        |fake| {
            let mut peer = fake.greet();
            peer.next().expect(Opcode::Enqueue);
        },
        async |client| {
            let error = client.enqueue("q", &Job::new("x")).await.unwrap_err();
            assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
            client.close().await.unwrap();
        },
    );
}

#[test]
fn calls_wait_for_a_place_among_the_bytes_in_flight() {
    let (full, is_full) = mpsc::sync_channel(8);
    run(
        quick().bytes_in_flight_max(2048),
        move |fake| {
            let mut peer = fake.greet();
            let first = peer.next().expect(Opcode::Read);
            let second = peer.next().expect(Opcode::Read);
            is_full.recv().unwrap();
            peer.refuse(&first, ErrorCode::NoSuchQueue);
            peer.refuse(&second, ErrorCode::NoSuchQueue);
            let ping = peer.next().expect(Opcode::Ping);
            peer.reply(&ping, |_| {});
            peer.next().expect(Opcode::Goodbye);
        },
        async |client| {
            let read = async || {
                // Both have their places, whether they are answered in time or not.
                drop(client.read("q", 0, 1, 1).await);
            };
            let third = async {
                let error = client.ping().await.unwrap_err();
                assert!(matches!(error, ClientError::Busy { .. }), "{error}");
                full.send(()).unwrap();
            };
            tokio::join!(read(), read(), third);
            settle(&client).await;
        },
    );
}

#[test]
fn closing_waits_for_answers_and_ends_every_clone() {
    run(
        Options::default().silence(Duration::from_millis(500)),
        |fake| {
            let mut peer = fake.greet();
            peer.next().expect(Opcode::Fetch);
            let commit = peer.next().expect(Opcode::Commit);
            // A goodbye on the heels of the commit could end its lease under it.
            let beat = peer.read().unwrap();
            assert!(beat.is_heartbeat(), "{beat:?}");
            peer.statuses(&commit, &[None]);
            let goodbye = peer.next().expect(Opcode::Goodbye);
            peer.reply(&goodbye, |_| {});
            peer.assert_closed();
        },
        async |client| {
            let other = client.clone();
            let (carried, fetch) = client.fetch_carrying(&fetch_jobs(1), &[]).await.unwrap();
            let jobs = [handle(1)];
            let commit = client.commit(&jobs);
            let (commit, closed) = tokio::join!(commit, other.close());
            assert_eq!(commit.unwrap(), [CommitStatus::Consumed]);
            closed.unwrap();
            for error in [
                client.ping().await.unwrap_err(),
                fetch.fetched().await.unwrap_err(),
                carried.statuses().await.unwrap_err(),
            ] {
                assert!(matches!(error, ClientError::Closed { .. }), "{error}");
            }
        },
    );
}

#[test]
fn a_session_that_another_client_took_over_is_not_taken_back() {
    let (ended, has_ended) = mpsc::sync_channel(8);
    run(
        Options::default().session([7; 16]),
        move |fake| {
            let peer = fake.greet();
            assert_eq!(peer.hello.session, [7; 16]);
            peer.complain(ErrorCode::SessionReplaced);
            has_ended.recv().unwrap();
        },
        async |client| {
            let mut state = client.state();
            state.wait_for(|state| matches!(state, ConnectionState::Closed { .. })).await.unwrap();
            let error = client.ping().await.unwrap_err();
            assert!(error.to_string().contains("taken its session over"), "{error}");
            ended.send(()).unwrap();
        },
    );
}

#[test]
fn what_the_server_would_refuse_as_malformed_is_not_sent() {
    run(
        Options::default(),
        |fake| fake.greet().next().expect(Opcode::Goodbye).body.iter().for_each(drop),
        async |client| {
            let long = "x".repeat(300);
            let none = FetchRequest::new(Vec::<String>::new());
            let many = FetchRequest::new(vec!["q"; 256]);
            let too_short = Duration::from_millis(1);
            let errors = [
                client.enqueue(&long, &Job::new("x")).await.unwrap_err(),
                client.enqueue("a:b", &Job::new("x")).await.unwrap_err(),
                client.enqueue_batch("q", &BatchBuilder::default()).await.unwrap_err(),
                client.fetch(&none).await.unwrap_err(),
                client.fetch(&many).await.unwrap_err(),
                client.fetch(&fetch_jobs(0)).await.unwrap_err(),
                client.extend(&[handle(1)], too_short).await.unwrap_err(),
                client.release(&[handle(1)], Duration::MAX).await.unwrap_err(),
                client.describe_group("q", "").await.unwrap_err(),
                client.commit(&vec![handle(1); 65_537]).await.unwrap_err(),
            ];
            for error in errors {
                assert!(matches!(error, ClientError::Invalid(_)), "{error}");
            }
            assert_eq!(client.commit(&[]).await.unwrap(), []);
        },
    );
}

#[test]
fn of_several_addresses_the_first_that_answers_is_taken_and_then_the_next() {
    let refusing = Fake::new();
    let dead = refusing.address;
    drop(refusing);
    let (first, second) = (Fake::new(), Fake::new());
    let text = format!("{dead}, {},{}", first.address, second.address);
    let (gone, is_gone) = mpsc::sync_channel(1);
    let server = std::thread::spawn(move || {
        let peer = first.greet();
        let session = peer.hello.session;
        is_gone.recv().unwrap();
        // One that listens no more, and one that is about to stop.
        drop((peer, first));
        let mut leaving = second.accept();
        leaving.refuse_hello(ErrorCode::ShuttingDown);
        drop(leaving);
        let mut peer = second.greet();
        assert_eq!(peer.hello.session, session);
        peer.next().expect(Opcode::Goodbye);
    });
    block_on(async {
        let client = Client::connect(text, Options::default()).await.unwrap();
        gone.send(()).unwrap();
        until_disconnected(&client).await;
        let is_up = |state: &ConnectionState| matches!(state, ConnectionState::Connected(_));
        client.state().wait_for(is_up).await.unwrap();
        drop(client);
    });
    server.join().unwrap();
}

#[test]
fn when_no_address_answers_each_is_named() {
    let dead = [Fake::new(), Fake::new()].map(|fake| fake.address.to_string());
    block_on(async {
        let error = Client::connect(dead.clone(), Options::default()).await.unwrap_err();
        let text = error.to_string();
        assert!(dead.iter().all(|address| text.contains(&format!("{address}: "))), "{text}");
        assert!(error.retryable(), "{text}");
        let error = Client::connect("", Options::default()).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    });
}
