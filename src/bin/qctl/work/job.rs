//! One job of `qctl work`, from its start to its commit or failure.

use std::io;
use std::process::ExitStatus;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use joblog::client::{
    Client, ClientError, CommitStatus, ErrorCode, FailStatus, Failure, JobHandle, LeasedJob,
};
use joblog_protocol::limits::RESULT_BYTES_MAX;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use super::child::{CommandLine, Running, Spooled, StartError, describe};
use super::pause;
use crate::error::CliError;
use crate::values::format_millis;

/// What all jobs of a run have in common.
#[derive(Debug)]
pub(crate) struct CommandPlan {
    pub(crate) client: Client,
    pub(crate) command: CommandLine,
    pub(crate) retries: Option<u32>,
    /// Whether what a command writes to standard output is its job's result.
    pub(crate) keeps_results: bool,
}

/// How a job's run ended.
#[derive(Debug)]
pub(crate) enum CommandEnd {
    /// It is committed, failed with a retry to come, handed back, or another worker's.
    Settled,
    /// It failed for good.
    Dead,
    /// It is handed back, and no other job should be begun.
    GiveUp(CliError),
}

impl CommandPlan {
    /// Runs the command for one job and settles the job by how it ended.
    pub(crate) async fn run(
        self: Arc<Self>,
        leased: LeasedJob,
        lease: Duration,
        mut kill: watch::Receiver<bool>,
    ) -> CommandEnd {
        let handle = leased.handle;
        let cancels = self.client.cancelled();
        let mut running = match self.command.start(&leased.job.payload) {
            Ok(running) => running,
            Err(StartError::Payload(reason)) => return self.fail(&handle, reason).await,
            Err(StartError::Command(text)) => {
                self.release(&handle).await;
                return CommandEnd::GiveUp(CliError::Failed(text));
            }
        };
        drop(leased.job);
        let (status, cancelled) =
            self.supervise(&handle, lease, &mut running, &mut kill, cancels).await;
        let output = running.into_output();
        if cancelled {
            tell!("qctl: {} was cancelled, and its command killed", job_name(&handle));
        }
        if cancelled || *kill.borrow() {
            self.release(&handle).await;
            return CommandEnd::Settled;
        }
        tokio::select! {
            end = self.settle(&handle, status, output) => end,
            // The server can't be reached, and the user will not wait: the lease runs out.
            _ = kill.wait_for(|kill| *kill) => CommandEnd::Settled,
        }
    }

    /// Waits for the command's end, and keeps the lease for as long as that takes. Also says
    /// whether the job was cancelled.
    async fn supervise(
        &self,
        handle: &JobHandle,
        lease: Duration,
        running: &mut Running,
        kill: &mut watch::Receiver<bool>,
        mut cancels: broadcast::Receiver<JobHandle>,
    ) -> (io::Result<ExitStatus>, bool) {
        let extending = async {
            loop {
                sleep(lease / 3).await;
                // If it fails, the commit will tell.
                let extended = self.client.extend(slice::from_ref(handle), lease).await;
                let status = extended.ok().and_then(|statuses| statuses.first().copied());
                if status == Some(Err(ErrorCode::CancelRequested)) {
                    return;
                }
            }
        };
        let told = async {
            loop {
                match cancels.recv().await {
                    Ok(job) if job.offset == handle.offset && job.token == handle.token => return,
                    // What was missed is told by the next EXTEND.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let cancelled = tokio::select! {
            status = running.wait() => return (status, false),
            () = extending => true,
            () = told => true,
            _ = kill.wait_for(|kill| *kill) => false,
        };
        running.kill();
        (running.wait().await, cancelled)
    }

    /// The output is out before the commit: a job that counts as done has shown its result.
    async fn settle(
        &self,
        handle: &JobHandle,
        status: io::Result<ExitStatus>,
        mut output: Spooled,
    ) -> CommandEnd {
        let copied = tokio::task::spawn_blocking(move || (output.copy_out(), output)).await;
        let mut output = match copied {
            Ok((Ok(()), output)) => output,
            Ok((Err(error), _)) => {
                self.release(handle).await;
                return CommandEnd::GiveUp(CliError::Output(error));
            }
            Err(error) => {
                self.release(handle).await;
                return CommandEnd::GiveUp(CliError::Failed(format!(
                    "writing output ended: {error}"
                )));
            }
        };
        match status {
            Ok(status) if status.success() => match self.result(handle, &mut output) {
                Ok(result) => self.commit(handle, result.as_deref()).await,
                Err(reason) => self.fail(handle, reason).await,
            },
            Ok(status) => {
                let reason = output.reason(status);
                tell!("qctl: {}: {}", job_name(handle), describe(status));
                self.fail(handle, reason).await
            }
            Err(error) => self.fail(handle, format!("its end is unknown: {error}")).await,
        }
    }

    /// The result of a job, if results are wanted. One that is too long is none.
    fn result(&self, handle: &JobHandle, output: &mut Spooled) -> Result<Option<Vec<u8>>, String> {
        if !self.keeps_results {
            return Ok(None);
        }
        let first = output.first_bytes(RESULT_BYTES_MAX);
        let (result, is_all) =
            first.map_err(|error| format!("its standard output can't be read: {error}"))?;
        if !is_all {
            let job = job_name(handle);
            tell!("qctl: {job} has written more than {RESULT_BYTES_MAX} bytes; it has no result");
        }
        Ok(is_all.then_some(result))
    }

    /// Commits until the server has answered: a commit may be repeated.
    async fn commit(&self, handle: &JobHandle, result: Option<&[u8]>) -> CommandEnd {
        loop {
            let committed = match result {
                Some(result) => self.client.commit_with_result(handle, result).await.map(Some),
                None => {
                    let statuses = self.client.commit(slice::from_ref(handle)).await;
                    statuses.map(|statuses| statuses.first().copied())
                }
            };
            let error = match committed {
                Ok(status) => {
                    if let Some(CommitStatus::Refused(code)) = status {
                        tell_refused(handle, "committed", code);
                    }
                    return CommandEnd::Settled;
                }
                Err(error) => error,
            };
            if error.code() == Some(ErrorCode::NotPrimaryGroup) {
                self.release(handle).await;
                return CommandEnd::GiveUp(error.into());
            }
            if let Err(error) = pause(error).await {
                return tell_error(handle, "committed", &error);
            }
        }
    }

    async fn fail(&self, handle: &JobHandle, reason: String) -> CommandEnd {
        let failure = Failure { reason, failures_max: self.retries, delay: None };
        let mut is_repeated = false;
        loop {
            let error = match self.client.fail(slice::from_ref(handle), &failure).await {
                Ok(statuses) => {
                    let status = statuses.first().copied();
                    return tell_failed(handle, status.unwrap_or(FailStatus::Unknown), is_repeated);
                }
                Err(error) => error,
            };
            is_repeated |= error.outcome_unknown();
            if let Err(error) = pause(error).await {
                return tell_error(handle, "failed", &error);
            }
        }
    }

    /// Hands the job back. If that fails, the goodbye at the end does it.
    async fn release(&self, handle: &JobHandle) {
        let released = self.client.release(slice::from_ref(handle), Duration::ZERO);
        drop(released.await);
    }
}

fn job_name(handle: &JobHandle) -> String {
    format!("{}:{}", handle.queue, handle.offset)
}

fn tell_failed(handle: &JobHandle, status: FailStatus, is_repeated: bool) -> CommandEnd {
    let job = job_name(handle);
    match status {
        FailStatus::Retry { after } => {
            let delay = format_millis(after.as_millis() as u64);
            tell!("qctl: {job} failed; it is tried again in {delay}");
        }
        FailStatus::Dead => {
            tell!("qctl: {job} failed for good; it is dead now");
            return CommandEnd::Dead;
        }
        FailStatus::Refused(ErrorCode::LeaseLost) if is_repeated => {
            return tell_failed(handle, FailStatus::Unknown, false);
        }
        FailStatus::Unknown => {
            tell!("qctl: {job} failed; the connection was cut, and its lease has ended since");
        }
        FailStatus::Refused(code) => tell_refused(handle, "failed", code),
    }
    CommandEnd::Settled
}

fn tell_refused(handle: &JobHandle, what: &str, code: ErrorCode) {
    let job = job_name(handle);
    if code == ErrorCode::LeaseLost {
        tell!("qctl: {job} is not {what}: its lease was lost, and it is delivered again");
    } else {
        tell!("qctl: {job} is not {what}: {code}");
    }
}

fn tell_error(handle: &JobHandle, what: &str, error: &ClientError) -> CommandEnd {
    tell!("qctl: {} is not {what}: {error}", job_name(handle));
    CommandEnd::Settled
}
