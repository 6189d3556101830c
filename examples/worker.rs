//! Works on a queue until SIGTERM or SIGINT.
//!
//! `cargo run --example worker -- emails`; the server is at `JOBLOG_ADDRESS`, by default
//! `127.0.0.1:7411`. A job whose payload is `sleep MS` takes that long, and one that is `fail` fails.

use std::env;
use std::error::Error;
use std::time::Duration;

use joblog::client::{Client, Options};
use joblog::worker::{Delivery, JobError, TraceLayer, Worker};

async fn handle(delivery: Delivery) -> Result<(), JobError> {
    let text = str::from_utf8(&delivery.job.payload).map_err(JobError::never)?;
    println!("{}: {text}, attempt {}", delivery.handle.offset, delivery.attempt);
    if text == "fail" {
        return Err(JobError::after(Duration::from_secs(60), "as it was told"));
    }
    if let Some(ms) = text.strip_prefix("sleep ") {
        tokio::time::sleep(Duration::from_millis(ms.parse()?)).await;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("JOBLOG_ADDRESS").unwrap_or_else(|_| "127.0.0.1:7411".to_owned());
    let queue = env::args().nth(1).unwrap_or_else(|| "emails".to_owned());
    // A worker that dies gives its jobs back after this silence.
    let options = Options::default().agent("the worker example").silence(Duration::from_secs(5));
    let client = Client::connect(address, options).await?;
    let worker = Worker::new(client.clone())
        .queue(queue)
        .concurrency(16)
        .run_time_max(Duration::from_secs(600))
        .drain_time_max(Duration::from_secs(20))
        .layer(TraceLayer::new());
    let drained = worker.run(handle).await?;
    println!("{} done, {} failed, {} handed back", drained.done, drained.failed, drained.released);
    client.close().await?;
    Ok(())
}
