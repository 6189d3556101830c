//! Two stages: words go into `words`, their lengths into `lengths`, and the sum comes out. What
//! follows from a job is enqueued with its commit, both or neither.
//!
//! `cargo run --example pipeline -- three words here`; the server is at `JOBLOG_ADDRESS`, by
//! default `127.0.0.1:7411`.

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use joblog::client::{Client, Job, Options};
use joblog::worker::{Delivery, Done, JobError, Worker};
use tokio::sync::Notify;

/// The first stage.
async fn measure(delivery: Delivery) -> Result<Done, JobError> {
    let length = delivery.job.payload.len().to_string();
    Done::default().then("lengths", [Job::new(length)])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("JOBLOG_ADDRESS").unwrap_or_else(|_| "127.0.0.1:7411".to_owned());
    let words: Vec<String> = env::args().skip(1).collect();
    let client = Client::connect(address, Options::default()).await?;
    for word in &words {
        client.enqueue("words", &Job::new(word.as_str())).await?;
    }

    // Each stage is a worker; here both are in one program, over one connection.
    let done = Arc::new(Notify::new());
    let [first_end, second_end] = [Arc::clone(&done), Arc::clone(&done)];
    let first = Worker::new(client.clone())
        .queue("words")
        .until(async move { first_end.notified().await })
        .run(measure);
    let (sum, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (total, count) = (Arc::clone(&sum), words.len());
    let second = Worker::new(client.clone())
        .queue("lengths")
        .until(async move { second_end.notified().await })
        .run(move |delivery: Delivery| {
            let (total, seen, done) = (Arc::clone(&total), Arc::clone(&seen), Arc::clone(&done));
            async move {
                let length: usize = str::from_utf8(&delivery.job.payload)?.parse()?;
                total.fetch_add(length, Ordering::Relaxed);
                if seen.fetch_add(1, Ordering::Relaxed) + 1 == count {
                    done.notify_waiters();
                }
                Ok::<(), JobError>(())
            }
        });
    let (first, second) = tokio::try_join!(first, second)?;
    let letters = sum.load(Ordering::Relaxed);
    println!("{} words, {} lengths, {letters} letters", first.done, second.done);
    client.close().await?;
    Ok(())
}
