//! `qctl work`: runs a command for each job.

mod child;
mod job;

use std::sync::Arc;
use std::time::Duration;

use joblog::client::{
    Client, ClientError, ConnectionState, ErrorCode, FetchRequest, Fetched, Lease,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::args::WorkArgs;
use crate::error::{CliError, Exit, Outcome};
use crate::server::Server;
use child::CommandLine;
use job::{CommandEnd, CommandPlan};

/// How long a FETCH waits for a job.
const WAIT: Duration = Duration::from_secs(10);
/// How long it waits where the end of the work is looked for between two of them.
const WAIT_UNTIL_EMPTY: Duration = Duration::from_millis(250);
/// Between two attempts at what may succeed later.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// `qctl work`.
pub(crate) async fn run(server: &Server, mut args: WorkArgs) -> Outcome {
    let client = server.connect().await?;
    let plan = CommandPlan {
        client: client.clone(),
        command: CommandLine::new(std::mem::take(&mut args.command)),
        retries: args.retries,
        keeps_results: args.result,
    };
    let (kill, _) = watch::channel(false);
    let worker = Worker {
        client,
        args: &args,
        plan: Arc::new(plan),
        running: JoinSet::new(),
        is_stopping: false,
        has_emptied: false,
        kill,
        dead: 0,
        failure: None,
    };
    worker.run().await
}

struct Worker<'a> {
    client: &'a Client,
    args: &'a WorkArgs,
    plan: Arc<CommandPlan>,
    running: JoinSet<CommandEnd>,
    /// Takes nothing new.
    is_stopping: bool,
    /// Nothing was ready or leased any more.
    has_emptied: bool,
    /// Set to kill what runs.
    kill: watch::Sender<bool>,
    /// Jobs that died in this run.
    dead: u64,
    failure: Option<CliError>,
}

/// What a look for jobs brought.
enum Next {
    Jobs(Fetched),
    /// There is nothing, and nothing will come: nothing is ready or leased.
    Empty,
}

impl Worker<'_> {
    async fn run(mut self) -> Outcome {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut state = self.client.state();
        let mut next = None;
        while !(self.is_stopping && self.running.is_empty()) {
            if self.is_stopping {
                // Jobs that it brings all the same are handed back by the client.
                next = None;
            } else if next.is_none() {
                next = self.look_for_jobs().map(Box::pin);
            }
            tokio::select! {
                found = async { next.as_mut().expect("the condition says so").await },
                    if next.is_some() =>
                {
                    next = None;
                    self.found(found);
                }
                Some(end) = self.running.join_next() => self.ended(end),
                _ = terminate.recv() => self.on_signal(),
                _ = interrupt.recv() => self.on_signal(),
                Ok(()) = state.changed() => self.tell(&state.borrow_and_update()),
            }
        }
        drop(next);
        self.finish().await
    }

    /// Asks for as many jobs as places are free.
    fn look_for_jobs(&self) -> Option<impl Future<Output = Result<Next, CliError>> + use<>> {
        let free = self.args.concurrency as usize - self.running.len();
        if free == 0 {
            return None;
        }
        let request = FetchRequest {
            group: self.args.group.as_str().into(),
            jobs_max: free as u32,
            lease: Lease::Session(self.args.lease),
            by_turns: self.args.by_turns,
            ..FetchRequest::new(self.args.queues.iter().map(String::as_str))
        };
        let client = self.client.clone();
        Some(look_for_jobs(client, request, self.args.until_empty))
    }

    fn found(&mut self, found: Result<Next, CliError>) {
        match found {
            Ok(Next::Jobs(fetched)) => {
                for damaged in &fetched.damaged {
                    tell!("qctl: {damaged}; it is handed back");
                }
                for leased in fetched.jobs {
                    let kill = self.kill.subscribe();
                    let plan = Arc::clone(&self.plan);
                    self.running.spawn(plan.run(leased, fetched.lease, kill));
                }
            }
            Ok(Next::Empty) => {
                self.is_stopping = true;
                self.has_emptied = true;
            }
            Err(error) => self.fail(error),
        }
    }

    fn ended(&mut self, end: Result<CommandEnd, JoinError>) {
        match end {
            Ok(CommandEnd::Settled) => {}
            Ok(CommandEnd::Dead) => self.dead += 1,
            Ok(CommandEnd::GiveUp(error)) => self.fail(error),
            Err(error) => self.fail(CliError::Failed(format!("a job's task ended: {error}"))),
        }
    }

    fn fail(&mut self, error: CliError) {
        self.is_stopping = true;
        self.failure.get_or_insert(error);
    }

    fn on_signal(&mut self) {
        let running = self.running.len();
        if !self.is_stopping {
            self.is_stopping = true;
            // So that a job which is ready now goes to another worker at once.
            let client = self.client.clone();
            tokio::spawn(async move { drop(client.drain().await) });
            if running > 0 {
                tell!("qctl: finishing {running} running; a second signal kills them");
            }
        } else if !self.kill.send_replace(true) {
            let text = format!("{running} running were killed, and their jobs handed back");
            self.fail(CliError::Failed(text));
        }
    }

    fn tell(&mut self, state: &ConnectionState) {
        match state {
            ConnectionState::Connected(_) => tell!("qctl: connected again"),
            ConnectionState::Disconnected(error) => tell!("qctl: {error}; trying again"),
            ConnectionState::Closed { reason } => {
                self.fail(CliError::Client(ClientError::Closed { reason }));
            }
        }
    }

    async fn finish(self) -> Outcome {
        if let Some(error) = self.failure {
            return Err(error);
        }
        if self.has_emptied {
            tell_waiting(self.client, self.args).await?;
        }
        Ok(Exit::failed_if(self.args.until_empty && self.dead > 0))
    }
}

/// Looks for jobs until there are some. Whatever may pass is tried again.
async fn look_for_jobs(
    client: Client,
    mut request: FetchRequest,
    until_empty: bool,
) -> Result<Next, CliError> {
    if !until_empty {
        request.wait = WAIT;
    }
    loop {
        match client.fetch(&request).await {
            Ok(fetched) if !(fetched.jobs.is_empty() && fetched.damaged.is_empty()) => {
                return Ok(Next::Jobs(fetched));
            }
            Ok(_) if until_empty => match is_empty(&client, &request).await {
                Ok(true) => return Ok(Next::Empty),
                Ok(false) => request.wait = WAIT_UNTIL_EMPTY,
                Err(error) => pause(error).await?,
            },
            Ok(_) => {}
            Err(error) => pause(error).await?,
        }
    }
}

/// Waits after an error that may pass; any other one is handed back.
pub(crate) async fn pause(error: ClientError) -> Result<(), ClientError> {
    let may_pass = error.retryable() || matches!(error, ClientError::OutcomeUnknown { .. });
    if !may_pass && !matches!(error, ClientError::Timeout { .. }) {
        return Err(error);
    }
    sleep(RETRY_PAUSE).await;
    Ok(())
}

/// Whether nothing is ready or leased for the group in any of the queues.
async fn is_empty(client: &Client, request: &FetchRequest) -> Result<bool, ClientError> {
    for queue in &request.queues {
        match client.describe_group(queue, &request.group).await {
            Ok(group) if group.ready + group.leased > 0 => return Ok(false),
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(true)
}

/// A queue that does not exist yet has no jobs, and neither has the group that no FETCH has begun.
fn is_missing(error: &ClientError) -> bool {
    matches!(error.code(), Some(ErrorCode::NoSuchQueue | ErrorCode::NoSuchGroup))
}

/// Says what `--until-empty` leaves behind.
async fn tell_waiting(client: &Client, args: &WorkArgs) -> Result<(), ClientError> {
    for queue in &args.queues {
        match client.describe_group(queue, &args.group).await {
            Ok(group) if group.delayed + group.dead > 0 => {
                tell!("qctl: {queue}: {} delayed, {} dead", group.delayed, group.dead)
            }
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
