//! A server, `qctl` beside it, and ways to look at what a run did.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{PATIENCE, Server};

/// A server with its data in a directory that goes with it.
pub(crate) struct Place {
    pub(crate) server: Server,
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let server = Server::start(&directory.path().join("data"), &[]);
        Self { server, directory }
    }

    /// A path in a directory of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A named pipe, to wait for a command and to hold it up.
    pub(crate) fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        path
    }

    /// `qctl` with these arguments, ready to start.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        qctl(&self.server.address().to_string(), arguments)
    }

    /// Runs `qctl` to its end.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Runs `qctl` with this standard input.
    pub(crate) fn run_with_input<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Run {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }

    /// Runs `qctl`, which must succeed. Returns its standard output.
    pub(crate) fn ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        let run = self.run(arguments);
        assert_eq!(run.code, 0, "{run:?}");
        run.stdout
    }

    /// Runs `qctl --json`, which must succeed. Returns its objects.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        self.ok(&[arguments, &["--json"]].concat()).lines().map(parse).collect()
    }

    /// Makes jobs of these lines.
    pub(crate) fn enqueue(&self, queue: &str, lines: &str) {
        let run = self.run_with_input(&["enqueue", queue, "--lines", "-"], lines.as_bytes());
        assert_eq!(run.code, 0, "{run:?}");
    }

    /// Fetches one job. Returns its name with its token.
    pub(crate) fn fetch(&self, queue: &str) -> String {
        let job = self.json(&["fetch", queue, "--wait", "20s"]).remove(0);
        format!("{}@{}", job["job"].as_str().unwrap(), job["token"].as_str().unwrap())
    }

    /// One number of a queue's group `default`.
    pub(crate) fn count(&self, queue: &str, name: &str) -> u64 {
        let group = self.json(&["group", "show", queue, "default"]).remove(0);
        group[name].as_u64().unwrap()
    }
}

/// `qctl` with a server's address and nothing else in its environment.
pub(crate) fn qctl<A: AsRef<OsStr>>(address: &str, arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qctl"));
    command.args(arguments).env_clear().env("JOBLOG_SERVER", address).stdin(Stdio::null());
    command.envs(std::env::var_os("PATH").map(|path| (OsString::from("PATH"), path)));
    command
}

pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Says how it ended, and that standard error told each of these.
    pub(crate) fn expect(&self, code: i32, told: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for text in told {
            assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        }
    }
}

/// A `qctl` that runs while the test does something else. It is killed when this is dropped.
pub(crate) struct Background {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Background {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Its standard output, for a test that reads it while it runs.
    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads standard error up to a line with this text.
    pub(crate) fn await_line(&mut self, text: &str) -> String {
        let mut read = String::new();
        loop {
            let start = read.len();
            let count = self.stderr.read_line(&mut read).unwrap();
            assert_ne!(count, 0, "{text:?} was not said: {read:?}");
            if read[start..].contains(text) {
                return read;
            }
        }
    }

    /// Waits for its end. One that does not end is killed.
    pub(crate) fn end(mut self) -> Run {
        let (ended, has_ended) = sync_channel::<()>(1);
        let pid = Pid::from_child(&self.child);
        let watchdog = thread::spawn(move || {
            if has_ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).unwrap();
            }
        });
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stderr.read_to_string(&mut stderr).unwrap();
        if let Some(mut unread) = self.child.stdout.take() {
            unread.read_to_string(&mut stdout).unwrap();
        }
        drop(ended);
        watchdog.join().unwrap();
        let code = self.child.wait().unwrap().code();
        let code = code.unwrap_or_else(|| panic!("it did not end: {stdout:?} {stderr:?}"));
        Run { code, stdout, stderr }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until a command writes into a named pipe, and returns what.
pub(crate) fn await_pipe(path: &PathBuf) -> String {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Lets the command go on that reads from a named pipe.
pub(crate) fn let_go(path: &PathBuf) {
    File::options().write(true).open(path).unwrap().write_all(b"go\n").unwrap();
}
