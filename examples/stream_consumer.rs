//! Takes jobs as a stream, so many of them, and commits each with the FETCH of the next.
//!
//! `cargo run --example stream_consumer -- emails 10`; the server is at `JOBLOG_ADDRESS`, by
//! default `127.0.0.1:7411`.

use std::env;
use std::error::Error;

use futures_util::StreamExt;
use joblog::client::{Client, Consumer, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("JOBLOG_ADDRESS").unwrap_or_else(|_| "127.0.0.1:7411".to_owned());
    let queue = env::args().nth(1).unwrap_or_else(|| "emails".to_owned());
    let count: usize = env::args().nth(2).map_or(Ok(10), |text| text.parse())?;

    let client = Client::connect(address, Options::default()).await?;
    let mut consumer = Consumer::new(client.clone(), [queue]);
    let mut jobs = consumer.by_ref().take(count);
    while let Some(job) = jobs.next().await {
        let job = job?;
        println!("{}: {} bytes", job.handle.offset, job.job.payload.len());
        // A job that is dropped without this goes back to the queue.
        job.commit_later();
    }
    consumer.flush().await?;
    for (job, code) in consumer.take_refused() {
        eprintln!("{job} was done, but not committed: {code}");
    }
    client.close().await?;
    Ok(())
}
