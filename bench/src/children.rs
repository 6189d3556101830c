//! The servers and workers that this tool has started, and their end: whatever ends the tool, but
//! for SIGKILL, ends them and removes their directories.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a server may take to come up. RabbitMQ takes about ten seconds.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Process groups and directories that must not outlive this process.
static LIVING: Mutex<(Vec<u32>, Vec<PathBuf>)> = Mutex::new((Vec::new(), Vec::new()));

fn living() -> MutexGuard<'static, (Vec<u32>, Vec<PathBuf>)> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes Ctrl-C, SIGTERM and a panic end all children first.
pub(crate) fn guard() -> Result<()> {
    ctrlc::set_handler(|| {
        end_all();
        eprintln!("\nqbench: interrupted; its servers are stopped");
        std::process::exit(130);
    })
    .context("the signal handler could not be set")?;
    let earlier = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        earlier(info);
        end_all();
    }));
    Ok(())
}

fn end_all() {
    let mut living = living();
    for group in living.0.drain(..) {
        send(group, Signal::KILL);
    }
    for dir in living.1.drain(..) {
        // Nothing better can be done about a directory that stays behind at this point.
        drop(fs::remove_dir_all(dir));
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        // It may have ended by itself, which is as good.
        let _ended = kill_process_group(pid, signal);
    }
}

/// A fresh directory, removed when dropped.
#[derive(Debug)]
pub(crate) struct FreshDir {
    path: PathBuf,
}

impl FreshDir {
    /// Makes one below `base`.
    pub(crate) fn new(base: &Path) -> Result<Self> {
        fs::create_dir_all(base).with_context(|| format!("making {}", base.display()))?;
        let dir = tempfile::Builder::new().prefix("qbench-").tempdir_in(base);
        let path = dir.with_context(|| format!("making a directory in {}", base.display()))?.keep();
        living().1.push(path.clone());
        Ok(Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FreshDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
        living().1.retain(|path| *path != self.path);
    }
}

/// A child in a process group of its own, killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts a program. What it writes goes to `log` unless the command says otherwise.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Self::start_with(command)
    }

    /// Starts a program whose output has been directed already.
    pub(crate) fn start_with(mut command: Command) -> Result<Self> {
        command.process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        living().0.push(child.id());
        Ok(Self { child })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, if that is a pipe that has not been taken.
    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until it takes connections.
    pub(crate) fn await_port(&mut self, address: &str, log: &Path) -> Result<()> {
        let until = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at once ({status}): {}", tail(log));
            }
            if Instant::now() > until {
                bail!("the server takes no connection at {address}: {}", tail(log));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Sends it and its children a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Ends it with SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// It did not end within `patience`; then it is killed.
    pub(crate) fn stop(&mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        self.signal(Signal::TERM);
        while !self.has_ended() {
            if Instant::now() > until {
                self.kill();
                bail!("the server did not stop within {} s of SIGTERM", patience.as_secs());
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        send(self.pid(), Signal::KILL);
        drop(self.child.wait());
        let pid = self.pid();
        living().0.retain(|group| *group != pid);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where a program is, if it is installed.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps servers in directories that are not on everyone's path.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// The first line that a program prints, for its version.
pub(crate) fn first_line(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let Ok(output) = output else { return "unknown".into() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
}

/// The last lines of a log, for an error.
pub(crate) fn tail(log: &Path) -> String {
    let Ok(file) = fs::File::open(log) else { return "it left no log".into() };
    let lines: Vec<_> = BufReader::new(file).lines().map_while(Result::ok).collect();
    lines.iter().rev().take(3).rev().cloned().collect::<Vec<_>>().join(" | ")
}
