//! When a worker is told to stop.

use std::fmt;
use std::future::pending;
use std::io;
use std::pin::Pin;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for SIGTERM or SIGINT. From its first poll on, these signals do not end the process any
/// more.
///
/// # Errors
/// If the operating system refuses a handler for them.
pub async fn stop_signal() -> io::Result<()> {
    Signals::listen()?.next().await;
    Ok(())
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What tells a worker to stop: once to drain, and a second time to leave at once.
#[derive(Default)]
pub(super) enum Stopping {
    #[default]
    BySignal,
    When(Pin<Box<dyn Future<Output = ()> + Send>>),
    Listening(Signals),
    /// No signals can be had, or the future is over.
    Never,
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BySignal | Self::Listening(_) => "BySignal",
            Self::When(_) => "When",
            Self::Never => "Never",
        })
    }
}

impl Stopping {
    pub(super) async fn next(&mut self) {
        if matches!(self, Self::BySignal) {
            *self = match Signals::listen() {
                Ok(signals) => Self::Listening(signals),
                Err(error) => {
                    tracing::warn!(%error, "the worker can't be stopped by a signal");
                    Self::Never
                }
            };
        }
        match self {
            Self::Listening(signals) => signals.next().await,
            Self::When(future) => {
                future.as_mut().await;
                *self = Self::Never;
            }
            Self::BySignal | Self::Never => pending().await,
        }
    }
}
