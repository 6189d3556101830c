//! Typed jobs, routed to handlers by their names: enqueues one of each sort and one that is broken,
//! and works until SIGTERM or SIGINT.
//!
//! `cargo run --example typed_worker`; the server is at `JOBLOG_ADDRESS`, by default
//! `127.0.0.1:7411`.

use std::env;
use std::error::Error;
use std::sync::Arc;

use joblog::client::{Client, Job, Options, TypedJob};
use joblog::worker::{
    Counters, Delivery, JobError, JobFailure, MetricsLayer, Retry, Router, Worker,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Welcome {
    user: String,
}

impl TypedJob for Welcome {
    const NAME: &'static str = "welcome";
}

#[derive(Serialize, Deserialize)]
struct Resize {
    width: u32,
    height: u32,
}

impl TypedJob for Resize {
    const NAME: &'static str = "resize";
}

/// An error that knows what is to follow.
struct NoSuchUser(String);

impl JobFailure for NoSuchUser {
    fn reason(&self) -> String {
        format!("there is no user {:?}", self.0)
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

async fn welcome(job: Welcome, _: Delivery) -> Result<(), NoSuchUser> {
    if job.user.is_empty() {
        return Err(NoSuchUser(job.user));
    }
    println!("welcome, {}", job.user);
    Ok(())
}

/// Computes for long, so it has a thread of its own, and looks whether it is to stop.
fn resize(job: Resize, delivery: Delivery) -> Result<(), JobError> {
    let mut pixels = 0_u64;
    for _row in 0..job.height {
        if let Some(reason) = delivery.cancellation.reason() {
            return Err(JobError::new(format!("stopped: {reason:?}")));
        }
        pixels += u64::from(job.width);
    }
    println!("{pixels} pixels");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = env::var("JOBLOG_ADDRESS").unwrap_or_else(|_| "127.0.0.1:7411".to_owned());
    let client = Client::connect(address, Options::default()).await?;
    client.enqueue("typed", &Welcome { user: "ada".to_owned() }.to_job()?).await?;
    client.enqueue("typed", &Welcome { user: String::new() }.to_job()?).await?;
    client.enqueue("typed", &Resize { width: 640, height: 480 }.to_job()?).await?;
    let resize_job = Resize { width: 1, height: 1 }.to_job()?;
    client.enqueue("typed", &Job { payload: b"{".to_vec(), ..resize_job }).await?;

    let counters = Arc::new(Counters::default());
    let router = Router::new().route(welcome).route_blocking(resize);
    let worker = Worker::new(client.clone()).queue("typed");
    let worker = worker.layer(MetricsLayer::new(Arc::clone(&counters)));
    worker.run_service(router).await?;
    println!("{} done, {} failed", counters.done(), counters.failed());
    client.close().await?;
    Ok(())
}
