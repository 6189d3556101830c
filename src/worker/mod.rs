//! The worker: takes jobs from queues, gives them to a handler, and settles them.
//!
//! A [`Worker`] takes a job only when it has a free place for it, and commits it in the same round
//! trip that takes the next one. A handler that returns an error, or panics, makes the job fail
//! with that reason; what follows is said by [`JobFailure::retry`]. The session's heartbeats come
//! from the client's own thread, so a handler may block its thread and still keep its jobs.
//!
//! ```no_run
//! use joblog::client::{Client, Options};
//! use joblog::worker::{Delivery, JobError, Worker};
//!
//! async fn send_mail(delivery: Delivery) -> Result<(), JobError> {
//!     let to = str::from_utf8(&delivery.job.payload)?;
//!     println!("mail to {to}, attempt {}", delivery.attempt);
//!     Ok(())
//! }
//!
//! # async fn example() -> Result<(), joblog::client::ClientError> {
//! let client = Client::connect("127.0.0.1:7411", Options::default()).await?;
//! let worker = Worker::new(client.clone()).queue("mail").concurrency(16);
//! // Until SIGTERM or SIGINT: then what is begun is finished, within a deadline.
//! let drained = worker.run(send_mail).await?;
//! println!("{} done, {} failed", drained.done, drained.failed);
//! client.close().await
//! # }
//! ```
//!
//! Handlers are [`tower_service::Service`]s of a [`Delivery`], so any [`tower_layer::Layer`] goes
//! around them with [`Worker::layer`]; [`TraceLayer`] and [`MetricsLayer`] are there. A [`Router`]
//! gives typed jobs to handlers by their names. A handler that returns [`Done`] gives its job a
//! result, or jobs that follow.

mod delivery;
mod done;
mod failure;
mod handler;
mod metrics;
mod router;
mod run;
mod settings;
mod stop;
mod trace;

pub use delivery::{Cancellation, Delivery, StopReason};
pub use done::Done;
pub use failure::{JobError, JobFailure, Retry};
pub use handler::{BlockingFn, HandlerFn};
pub use metrics::{Counters, End, Metrics, MetricsLayer, Recorder};
pub use router::Router;
pub use run::Drained;
pub use settings::Worker;
pub use stop::stop_signal;
pub use trace::{Trace, TraceLayer};
