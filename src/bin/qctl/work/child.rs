//! One run of the command: its input, its spooled output, and its end.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// Where the payload goes.
const PLACEHOLDER: &[u8] = b"{}";
/// A FAIL keeps so much of its reason. The status line before the output is below 96 bytes.
const REASON_BYTES_MAX: usize = 4096;
const STDERR_BYTES_MAX: usize = REASON_BYTES_MAX - 96;

/// The command as it was given.
#[derive(Debug)]
pub(crate) struct CommandLine {
    program: OsString,
    arguments: Vec<OsString>,
    has_placeholder: bool,
}

/// Why a command could not be started.
#[derive(Debug)]
pub(crate) enum StartError {
    /// This payload can't be an argument.
    Payload(String),
    /// No job's command could be started.
    Command(String),
}

impl CommandLine {
    /// The program comes first, then its arguments.
    pub(crate) fn new(mut words: Vec<OsString>) -> Self {
        let arguments = words.split_off(words.len().min(1));
        let has_placeholder =
            arguments.iter().any(|word| find(word.as_bytes(), PLACEHOLDER).is_some());
        Self { program: words.pop().unwrap_or_default(), arguments, has_placeholder }
    }

    /// Starts the command in a process group of its own: a Ctrl-C on the terminal is for `qctl`,
    /// which lets its commands finish.
    pub(crate) fn start(&self, payload: &[u8]) -> Result<Running, StartError> {
        if self.has_placeholder && payload.contains(&0) {
            let text = "the payload has a zero byte, which no argument can have; without {} it \
                        comes on standard input";
            return Err(StartError::Payload(text.to_owned()));
        }
        let no_file = |error| StartError::Command(format!("no temporary file: {error}"));
        let stdin = self.stdin(payload).map_err(no_file)?;
        let (stdout, stdout_end) = spool().map_err(no_file)?;
        let (stderr, stderr_end) = spool().map_err(no_file)?;
        let words = self.arguments.iter();
        let child = Command::new(&self.program)
            .args(words.map(|word| fill(word, payload)))
            .stdin(stdin)
            .stdout(stdout_end)
            .stderr(stderr_end)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.start_error(&error))?;
        Ok(Running { child, output: Spooled { stdout, stderr } })
    }

    /// The payload as standard input, in an unlinked file: the command may read it or not.
    fn stdin(&self, payload: &[u8]) -> io::Result<Stdio> {
        if self.has_placeholder {
            return Ok(Stdio::null());
        }
        let mut file = tempfile::tempfile()?;
        file.write_all(payload)?;
        file.rewind()?;
        Ok(file.into())
    }

    fn start_error(&self, error: &io::Error) -> StartError {
        if error.kind() == io::ErrorKind::ArgumentListTooLong {
            let text = "the payload is too long for an argument; without {} it comes on standard \
                        input";
            return StartError::Payload(text.to_owned());
        }
        let program = self.program.display();
        StartError::Command(format!("the command {program} can't be started: {error}"))
    }
}

/// A file to read back, and a handle on it to write to.
fn spool() -> io::Result<(File, Stdio)> {
    let file = tempfile::tempfile()?;
    let end = file.try_clone()?;
    Ok((file, end.into()))
}

/// A word with the payload in each of its placeholders.
fn fill(word: &OsStr, payload: &[u8]) -> OsString {
    let mut filled = Vec::new();
    let mut rest = word.as_bytes();
    while let Some((before, behind)) = find(rest, PLACEHOLDER) {
        filled.extend_from_slice(before);
        filled.extend_from_slice(payload);
        rest = behind;
    }
    filled.extend_from_slice(rest);
    OsString::from_vec(filled)
}

/// What stands before the first `needle`, and what behind it.
fn find<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(needle.len()).position(|window| window == needle)?;
    Some((bytes.get(..at)?, bytes.get(at + needle.len()..)?))
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: Spooled,
}

impl Running {
    /// Waits for its end. Nothing is lost if the future is dropped.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it with all that it has started in its process group.
    pub(crate) fn kill(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            // It may have ended just now, which is as good.
            kill_process_group(group, Signal::KILL).ok();
        }
    }

    /// What it has written, once it has ended.
    pub(crate) fn into_output(self) -> Spooled {
        self.output
    }
}

/// All that a command has written.
#[derive(Debug)]
pub(crate) struct Spooled {
    stdout: File,
    stderr: File,
}

impl Spooled {
    /// Writes all of it to our own outputs, each in one piece, and flushes them.
    pub(crate) fn copy_out(&mut self) -> io::Result<()> {
        self.stdout.rewind()?;
        self.stderr.rewind()?;
        let mut stdout = io::stdout().lock();
        io::copy(&mut self.stdout, &mut stdout)?;
        stdout.flush()?;
        let mut stderr = io::stderr().lock();
        io::copy(&mut self.stderr, &mut stderr)?;
        stderr.flush()
    }

    /// The first bytes that it has written to standard output, and whether that is all.
    pub(crate) fn first_bytes(&mut self, bytes_max: usize) -> io::Result<(Vec<u8>, bool)> {
        self.stdout.rewind()?;
        let mut bytes = Vec::new();
        let mut first = (&mut self.stdout).take(bytes_max as u64 + 1);
        first.read_to_end(&mut bytes)?;
        let is_all = bytes.len() <= bytes_max;
        bytes.truncate(bytes_max);
        Ok((bytes, is_all))
    }

    /// The reason of a failure: how the command ended, and the last lines of its standard error.
    pub(crate) fn reason(&mut self, status: ExitStatus) -> String {
        let end = describe(status);
        match self.last_lines() {
            Ok(lines) if lines.is_empty() => end,
            Ok(lines) => format!("{end}\n{lines}"),
            Err(error) => format!("{end}\n(its standard error can't be read: {error})"),
        }
    }

    fn last_lines(&mut self) -> io::Result<String> {
        let length = self.stderr.seek(SeekFrom::End(0))?;
        let from = length.saturating_sub(STDERR_BYTES_MAX as u64);
        self.stderr.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        (&mut self.stderr).take(STDERR_BYTES_MAX as u64).read_to_end(&mut tail)?;
        Ok(whole_lines(&tail, from > 0))
    }
}

/// The end of a text as whole lines, unless one line is all there is. Bytes outside UTF-8 are
/// replaced, which may make it longer: so it is cut again, at the front.
fn whole_lines(tail: &[u8], is_cut: bool) -> String {
    let text = String::from_utf8_lossy(tail);
    let text = text.trim_end();
    let surplus = text.len().saturating_sub(STDERR_BYTES_MAX);
    let cut = text.get(text.ceil_char_boundary(surplus)..).unwrap_or_default();
    let whole = match cut.split_once('\n') {
        Some((_, lines)) if is_cut || surplus > 0 => lines,
        _ => cut,
    };
    whole.to_owned()
}

/// How a command ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => format!("{status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_put_wherever_the_placeholder_stands() {
        let fill = |word: &str| fill(OsStr::new(word), b"a b\xff").into_vec();
        assert_eq!(fill("{}"), b"a b\xff");
        assert_eq!(fill("-i={},{}."), b"-i=a b\xff,a b\xff.");
        assert_eq!(fill("{ }"), b"{ }");
        let words = |words: &[&str]| CommandLine::new(words.iter().map(Into::into).collect());
        assert!(words(&["cat", "x{}"]).has_placeholder);
        assert!(!words(&["{}", "x"]).has_placeholder);
    }

    #[test]
    fn a_reason_holds_the_last_lines_and_fits() {
        assert_eq!(whole_lines(b"one\ntwo\n", false), "one\ntwo");
        assert_eq!(whole_lines(b"ut\nlast\n", true), "last");
        assert_eq!(whole_lines(b"one long line\n", true), "one long line");
        let grown = whole_lines(&[0xff; STDERR_BYTES_MAX], true);
        assert!(grown.len() <= STDERR_BYTES_MAX, "{} bytes", grown.len());
        assert!(grown.len() > STDERR_BYTES_MAX - 3);
    }
}
