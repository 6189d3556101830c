//! Enqueues so many jobs (1,000 by default) through the buffered producer.
//!
//! `cargo run --example producer -- emails 1000`; the server is at `JOBLOG_ADDRESS`, by default
//! `127.0.0.1:7411`.

use std::env;
use std::error::Error;
use std::time::Instant;

use joblog::client::{Client, Job, Options, Producer, ProducerOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("JOBLOG_ADDRESS").unwrap_or_else(|_| "127.0.0.1:7411".to_owned());
    let queue = env::args().nth(1).unwrap_or_else(|| "emails".to_owned());
    let count: u64 = env::args().nth(2).map_or(Ok(1000), |text| text.parse())?;

    let client = Client::connect(address, Options::default()).await?;
    let producer = Producer::new(client.clone(), ProducerOptions::default());
    let begun = Instant::now();
    let mut pending = Vec::new();
    for number in 0..count {
        // Waits only if more is under way than the producer's buffer holds.
        pending.push(producer.send(&queue, &Job::new(format!("user {number}"))).await?);
    }
    let mut last = None;
    for job in pending {
        // From here on the job survives a crash of the server.
        last = Some(job.await?);
    }
    println!("{count} jobs in {queue} after {:?}, the last at {last:?}", begun.elapsed());
    client.close().await?;
    Ok(())
}
