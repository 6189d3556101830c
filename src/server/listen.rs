//! Accepting connections, the I/O threads that serve them, and the way down.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::BytesMut;
use joblog_protocol::ErrorCode;
use joblog_protocol::frame::put_error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ServerOptions;
use super::connection::Connection;
use crate::broker::Logs;

/// A connection that has not sent its HELLO by then is closed.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// How long connections may take to end when the server stops.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// Pause after a failed accept: mostly the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepted connections on their way to an I/O thread.
const HANDED_OVER_MAX: usize = 1_024;

/// Connections that the system holds until they are accepted: as many as may come at once when a
/// server is back. It takes no more than `net.core.somaxconn` says.
const BACKLOG: i32 = 4_096;

/// Listens on an address.
///
/// # Errors
/// The system's: the address is in use, is not this machine's, or needs more rights.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    // The standard library asks for 128 and has no other way; asked again, the system takes more.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Why the server could not go on.
#[derive(Debug, thiserror::Error)]
#[error("the server could not {what}: {source}")]
pub struct ServeError {
    what: &'static str,
    source: io::Error,
}

impl ServeError {
    fn during(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { what, source }
    }
}

/// Serves until `shutdown` is done, and returns when the connections have ended: the caller binds,
/// and decides when to stop.
///
/// The calling thread accepts and is the first I/O thread.
///
/// # Errors
/// [`ServeError`] if the system gives no thread or runtime, or refuses the listener.
pub fn serve(
    listener: StdListener,
    logs: &Arc<Logs>,
    options: &ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
    let tracker = TaskTracker::new();
    let lane = |io_thread| Lane {
        logs: Arc::clone(logs),
        io_thread,
        options: options.clone(),
        tracker: tracker.clone(),
        draining: draining.clone(),
    };
    let others = (1..options.io_threads).map(|io_thread| lane(io_thread).start(&stop));
    let mut others = others.collect::<Result<Vec<_>, _>>()?;
    let first = lane(0);
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let accepted = first.accept(listener, &mut others, shutdown).await;
        tracker.close();
        draining.cancel();
        logs.stop();
        if timeout(DRAIN_WAIT, tracker.wait()).await.is_err() {
            tracing::warn!(connections = tracker.len(), "cut off: they did not end in time");
        }
        accepted
    });
    stop.cancel();
    for other in others {
        if other.thread.join().is_err() {
            tracing::error!("an I/O thread has panicked");
        }
    }
    served
}

fn runtime() -> Result<Runtime, ServeError> {
    let built = Builder::new_current_thread().enable_io().enable_time().build();
    built.map_err(ServeError::during("start a runtime"))
}

/// What an I/O thread works with.
struct Lane {
    logs: Arc<Logs>,
    io_thread: usize,
    options: ServerOptions,
    tracker: TaskTracker,
    /// Cancelled when no new connections are taken: those without a session end.
    draining: CancellationToken,
}

/// An I/O thread other than the first.
struct OtherLane {
    connections: mpsc::Sender<StdStream>,
    thread: JoinHandle<()>,
}

impl Lane {
    fn start(self, stop: &CancellationToken) -> Result<OtherLane, ServeError> {
        let (connections, mut accepted) = mpsc::channel(HANDED_OVER_MAX);
        let runtime = runtime()?;
        let stop = stop.clone();
        let run = move || {
            runtime.block_on(async {
                self.spawn_notifier();
                let serve = async {
                    while let Some(stream) = accepted.recv().await {
                        self.adopt(stream);
                    }
                };
                stop.run_until_cancelled(serve).await;
            });
        };
        let spawned = thread::Builder::new().name("joblog-io".into()).spawn(run);
        let thread = spawned.map_err(ServeError::during("start an I/O thread"))?;
        Ok(OtherLane { connections, thread })
    }

    /// Accepts, and deals connections out in turn.
    async fn accept(
        &self,
        listener: StdListener,
        others: &mut [OtherLane],
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        self.spawn_notifier();
        listener.set_nonblocking(true).map_err(ServeError::during("use the listener"))?;
        let listener =
            TcpListener::from_std(listener).map_err(ServeError::during("use the listener"))?;
        let accept = async {
            let mut turn = 0;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) if self.tracker.len() >= self.options.connections_max => {
                        self.refuse(stream);
                    }
                    Ok((stream, _)) => {
                        self.deal(stream, others, turn).await;
                        turn = (turn + 1) % (others.len() + 1);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = shutdown => {}
        }
        Ok(())
    }

    async fn deal(&self, stream: TcpStream, others: &[OtherLane], turn: usize) {
        let Some(other) = turn.checked_sub(1).and_then(|nth| others.get(nth)) else {
            return self.spawn(stream);
        };
        if let Ok(stream) = stream.into_std() {
            // An I/O thread ends only after accepting has ended.
            drop(other.connections.send(stream).await);
        }
    }

    fn adopt(&self, stream: StdStream) {
        match TcpStream::from_std(stream) {
            Ok(stream) => self.spawn(stream),
            Err(error) => tracing::warn!(%error, "a connection could not be taken over"),
        }
    }

    fn refuse(&self, stream: TcpStream) {
        let max = self.options.connections_max;
        let text = format!("{max} connections are open, and no more are allowed; try again later");
        let mut out = BytesMut::new();
        put_error(&mut out, 0, 0, ErrorCode::TooMany, &text);
        // A socket that can't take one small frame at once has a client that won't read it either.
        drop(stream.try_write(&out));
    }

    fn spawn(&self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small frames may be delayed");
        }
        let logs = Arc::clone(&self.logs);
        let connection = Connection::new(stream, logs, self.io_thread, self.options.clone());
        self.tracker.spawn(run(connection, self.draining.clone()));
    }

    fn spawn_notifier(&self) {
        let (logs, io_thread) = (Arc::clone(&self.logs), self.io_thread);
        tokio::spawn(poll_fn(move |cx| logs.poll_wake(io_thread, cx)));
    }
}

async fn run(mut connection: Connection, draining: CancellationToken) {
    let greeted = poll_fn(|cx| connection.poll_serve(cx, true));
    let greeted = draining.run_until_cancelled(timeout(HELLO_WAIT, greeted)).await;
    let served = match greeted {
        None | Some(Err(_)) => Ok(()),
        Some(Ok(Ok(()))) if connection.is_greeted() => {
            poll_fn(|cx| connection.poll_serve(cx, false)).await
        }
        Some(Ok(ended)) => ended,
    };
    match served {
        Ok(()) => {
            connection.leave();
            connection.linger().await;
        }
        Err(error) => tracing::debug!(%error, "a connection has ended"),
    }
}
