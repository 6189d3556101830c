//! A server as a process of its own, with its data in a directory of the test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

const READY: &str = "joblogd ready on ";

/// How often a start is tried again when another process has taken the port meanwhile.
const PORT_TRIES: usize = 20;

/// A running server. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    ready: String,
    /// Ends when the process has closed its standard output, which is when it has ended.
    output: Receiver<String>,
    errors: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server on a free port, with small segments so that a start is quick.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        std::fs::create_dir_all(data).unwrap();
        let config = data.join("joblog.toml");
        if !config.exists() {
            std::fs::write(&config, "segment_bytes = 16777216\n").unwrap();
        }
        Self::start_with(data, &config, arguments)
    }

    /// What a server says whose start is refused.
    pub(crate) fn refused(data: &Path) -> String {
        let launched = Self::launch(data, &[], SocketAddr::from(([127, 0, 0, 1], 0)));
        launched.err().expect("the start is refused")
    }

    /// Starts a server with a configuration file.
    pub(crate) fn start_with(data: &Path, config: &Path, arguments: &[&str]) -> Self {
        let mut all = vec!["--config".to_owned(), config.to_str().unwrap().to_owned()];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::launch(data, &all, listen).unwrap_or_else(|errors| panic!("no start:\n{errors}"))
    }

    /// Starts a server that is killed as one of its threads enters its `nth` call of a system call:
    /// the unchanged binary, killed from outside at a point that is known. None if that was in the
    /// middle of its start.
    pub(crate) fn start_doomed(data: &Path, config: &Path, call: &str, nth: u32) -> Option<Self> {
        let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        strace.args(["-e", &inject, env!("CARGO_BIN_EXE_joblogd")]);
        let arguments = ["--config".to_owned(), config.to_str().unwrap().to_owned()];
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::launch_by(strace, data, &arguments, listen).ok()
    }

    /// Starts a server whose calls of a system call take 20 ms each and are counted, into `report`
    /// when it ends.
    pub(crate) fn start_slowed(data: &Path, call: &str, report: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-e", &format!("trace={call}")]);
        strace.args(["-e", &format!("inject={call}:delay_exit=20000"), "-o"]).arg(report);
        strace.arg(env!("CARGO_BIN_EXE_joblogd"));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let launched = Self::launch_by(strace, data, &[], listen);
        launched.unwrap_or_else(|errors| panic!("no start (is strace installed?):\n{errors}"))
    }

    fn launch(data: &Path, arguments: &[String], listen: SocketAddr) -> Result<Self, String> {
        let command = Command::new(env!("CARGO_BIN_EXE_joblogd"));
        Self::launch_by(command, data, arguments, listen)
    }

    fn launch_by(
        mut command: Command,
        data: &Path,
        arguments: &[String],
        listen: SocketAddr,
    ) -> Result<Self, String> {
        let mut child = command
            .arg("--data")
            .arg(data)
            .args(["--listen", &listen.to_string()])
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = collect(child.stderr.take().unwrap());
        let (lines, output) = sync_channel(100);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            let lines_read = stdout.lines().map_while(Result::ok);
            lines_read.for_each(|line| drop(lines.try_send(line)));
        });
        let Ok(ready) = output.recv_timeout(PATIENCE) else {
            drop(child.kill());
            drop(child.wait());
            return Err(errors.lock().unwrap().clone());
        };
        let rest = ready.strip_prefix(READY).unwrap_or_else(|| panic!("not ready: {ready:?}"));
        let address = rest.split(' ').next().unwrap().parse().unwrap();
        let (data, arguments) = (data.to_owned(), arguments.to_vec());
        Ok(Self { child, data, arguments, address, ready, output, errors })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line with which it said that it was ready.
    pub(crate) fn ready_line(&self) -> &str {
        &self.ready
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// What it has said on standard error since its last start.
    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it with SIGKILL, and returns when it has ended.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// As [`Server::stop`], for a server under strace: the signal goes to the server itself.
    pub(crate) fn stop_traced(&mut self) {
        kill_process(self.locked_by().unwrap(), Signal::TERM).unwrap();
        self.wait();
    }

    /// The process that holds the data directory, or held it last.
    fn locked_by(&self) -> Option<Pid> {
        let lock = std::fs::read_to_string(self.data.join("LOCK")).ok()?;
        lock.trim().parse().ok().and_then(Pid::from_raw)
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.errors()),
            }
        }
    }

    /// Starts it again, on the same port, after it has ended.
    pub(crate) fn restart(&mut self) {
        for _ in 0..PORT_TRIES {
            match Self::launch(&self.data, &self.arguments, self.address) {
                Ok(again) => {
                    *self = again;
                    return;
                }
                // A connection of another test may have been given the port for a moment.
                Err(errors) if errors.contains("in use") && errors.contains("listen") => {}
                Err(errors) => panic!("no restart:\n{errors}"),
            }
        }
        panic!("the port {} stays in use", self.address);
    }

    /// Stops it as a debugger would (SIGSTOP).
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Under strace the server is not the child itself, and outlives it.
        let server = self.locked_by().filter(|id| *id != Pid::from_child(&self.child));
        if let Some(server) = server
            && self.child.try_wait().is_ok_and(|ended| ended.is_none())
        {
            kill_process(server, Signal::KILL).ok();
        }
        drop(self.child.kill());
        drop(self.child.wait());
        if thread::panicking() {
            eprintln!("the server's last words:\n{}", self.errors());
        }
    }
}

/// Collects what a process says, so that it never blocks on a full pipe.
fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let collected = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&collected);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    collected
}
