//! `qctl` on a terminal: a pseudo-terminal that the test reads and types into.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::common::PATIENCE;
use crate::support::Place;

const TAKES_SCREEN: &str = "\u{1b}[?1049h";
const GIVES_SCREEN_BACK: &str = "\u{1b}[?1049l";
const FRAME_BEGINS: &str = "\u{1b}[?2026h";
const FRAME_ENDS: &str = "\u{1b}[?2026l";

/// A `qctl` on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    /// The end that `qctl` has, kept to look at its modes.
    line: File,
    read: Arc<(Mutex<String>, Condvar)>,
}

impl Terminal {
    /// Starts a command with standard output and error on the terminal, and its input too, unless
    /// that is given.
    fn start(mut command: Command, input: Option<Stdio>) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = File::from(open(&name, flags, Mode::empty()).unwrap());
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        command.stdin(input.unwrap_or_else(end)).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let mut master = File::from(master);
        let keys = master.try_clone().unwrap();
        let read = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let sink = Arc::clone(&read);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error means that nobody has the other end any more.
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                let (text, changed) = &*sink;
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
                changed.notify_all();
            }
        });
        Self { child, keys, line, read }
    }

    fn qctl(place: &Place, arguments: &[&str]) -> Self {
        let mut command = place.command(arguments);
        command.env("TERM", "xterm-256color");
        Self::start(command, None)
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until what was written is so.
    fn until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let (text, changed) = &*self.read;
        let mut text = text.lock().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "still not: {what}\n{text:?}");
            text = changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Waits until the screen has a line with these words, in this order, beside others.
    fn until_line(&self, words: &[&str]) {
        self.until(&format!("{words:?}"), |text| {
            let has_words = |line: &str| {
                let mut found = line.split_whitespace();
                words.iter().all(|word| found.any(|other| other == *word))
            };
            screen(text).lines().any(has_words)
        });
    }

    fn modes(&self) -> String {
        let modes = tcgetattr(&self.line).unwrap();
        format!("{:?} {:?} {:?}", modes.input_modes, modes.output_modes, modes.local_modes)
    }

    fn text(&self) -> String {
        self.read.0.lock().unwrap().clone()
    }

    /// Waits for its end. Gives its exit code.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.text());
            thread::yield_now();
        }
    }

    /// Waits for its end, which must be a good one, with the terminal as it was found.
    fn end_restored(&mut self, modes: &str) {
        assert_eq!(self.end(), Some(0), "{:?}", self.text());
        assert_eq!(self.modes(), modes);
        self.until("the screen is given back", |text| text.contains(GIVES_SCREEN_BACK));
        let text = self.text();
        let (taken, given) = (text.find(TAKES_SCREEN), text.rfind(GIVES_SCREEN_BACK));
        assert!(taken.is_some() && taken < given, "{text:?}");
        assert!(text.rfind("\u{1b}[?25h") > text.rfind("\u{1b}[?25l"), "the cursor is shown again");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last whole frame that was drawn, without escape sequences.
fn screen(text: &str) -> String {
    let Some(end) = text.rfind(FRAME_ENDS) else { return String::new() };
    let begin = text[..end].rfind(FRAME_BEGINS).map_or(0, |begin| begin + FRAME_BEGINS.len());
    let mut plain = String::new();
    let mut letters = text[begin..end].chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            // Up to the letter that ends the sequence, behind its bracket.
            let _ = letters.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else {
            plain.push(letter);
        }
    }
    plain
}

fn paused(place: &Place, what: &[&str]) -> bool {
    place.json(what).remove(0)["paused"] == true
}

#[test]
fn top_shows_numbers_as_they_change_and_pauses_and_gives_the_terminal_back() {
    let place = Place::new();
    place.enqueue("mail", "a\nb\nc\n");
    place.ok(&["fetch", "mail", "--lease", "1h"]);
    place.enqueue("other", "x\n");
    let mut top = Terminal::qctl(&place, &["top", "--interval", "20ms"]);
    let modes = {
        let fresh = Terminal::start(Command::new("true"), None);
        fresh.modes()
    };
    top.until_line(&[">", "mail", "1", "2", "1", "0", "0"]);
    assert_ne!(top.modes(), modes, "keys come one by one");
    place.enqueue("mail", "d\ne\n");
    top.until_line(&[">", "mail", "1", "4", "1", "0", "0"]);

    top.press("p");
    top.until_line(&[">", "mail", "paused"]);
    assert!(paused(&place, &["queue", "show", "mail"]));
    top.press("p");
    top.until("it goes on", |text| screen(text).contains("resumed queue mail"));
    assert!(!paused(&place, &["queue", "show", "mail"]));

    // Down to the other one and back; then its groups, of which one is paused.
    top.press("j");
    top.until_line(&[">", "other", "0", "1", "0"]);
    top.press("\u{1b}[A");
    top.until_line(&[">", "mail"]);
    top.press("\r");
    top.until_line(&[">", "default", "work", "4", "1", "0", "0"]);
    top.press("p");
    top.until_line(&[">", "default", "paused"]);
    assert!(paused(&place, &["group", "show", "mail", "default"]));
    top.press("\u{1b}");
    top.until_line(&["other"]);
    top.press("s");
    top.until("another order", |text| screen(text).contains("sorted by in"));
    top.press("q");
    top.end_restored(&modes);
}

#[test]
fn top_ends_at_control_c_and_at_sigterm_with_the_terminal_given_back() {
    let place = Place::new();
    place.enqueue("mail", "a\n");
    let modes = Terminal::start(Command::new("true"), None).modes();
    let mut top = Terminal::qctl(&place, &["top"]);
    top.until_line(&[">", "mail"]);
    top.press("\u{3}");
    top.end_restored(&modes);
    let mut top = Terminal::qctl(&place, &["top"]);
    top.until_line(&[">", "mail"]);
    kill_process(Pid::from_child(&top.child), Signal::TERM).unwrap();
    top.end_restored(&modes);
}

#[test]
fn top_goes_on_when_the_server_comes_back() {
    let mut place = Place::new();
    place.enqueue("mail", "a\n");
    let modes = Terminal::start(Command::new("true"), None).modes();
    let mut top = Terminal::qctl(&place, &["top", "--interval", "20ms", "--timeout", "1s"]);
    top.until_line(&[">", "mail"]);
    place.server.kill9();
    top.until("the trouble is told", |text| screen(text).contains("can't be reached"));
    assert!(screen(&top.text()).contains("> mail"), "what was seen last stays");
    place.server.restart();
    place.enqueue("mail", "b\n");
    top.until_line(&[">", "mail", "0", "2", "0"]);
    top.press("q");
    top.end_restored(&modes);
}

#[test]
fn top_is_a_table_or_json_where_no_terminal_is() {
    let place = Place::new();
    place.enqueue("mail", "a\nb\n");
    place.ok(&["fetch", "mail"]);
    place.ok(&["queue", "create", "empty"]);
    place.ok(&["queue", "pause", "mail"]);
    let table = place.ok(&["top"]);
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0].join(" "), "QUEUE GROUP READY LEASED DELAYED DEAD OLDEST STATE");
    assert_eq!(lines[1].join(" "), "empty - 0 0 0 0 -");
    assert_eq!((lines[2][..6].join(" "), lines[2][7]), ("mail default 1 1 0 0".into(), "paused"));
    assert!(place.ok(&["top", "--sort", "ready"]).lines().nth(1).unwrap().starts_with("mail"));
    assert_eq!(place.ok(&["top", "empty"]).lines().count(), 2);

    let look = place.json(&["top", "--once", "mail"]).remove(0);
    let group = &look["groups"][0];
    assert_eq!(
        (&group["queue"], &group["group"], &group["ready"]),
        (&"mail".into(), &"default".into(), &1.into())
    );
    assert!(group["oldest_ms"].as_u64().is_some() && group["in_per_s"].is_null(), "{look}");
    assert!(look["at"].as_str().unwrap().ends_with('Z'));
    place.run(&["top", "--interval", "0"]).expect(2, &["at least 1ms"]);
    place.run(&["top", "--sort", "size"]).expect(2, &["ready, leased, delayed, dead, oldest"]);
}

#[test]
fn questions_say_what_would_go_and_no_is_the_answer_of_silence() {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\n");
    let job = place.fetch("q");
    place.ok(&["fail", &job, "--reason", "no", "--retries", "0"]);
    for (arguments, question) in [
        (
            &["queue", "delete", "q"][..],
            "Really delete queue q with 1 group, and 3 jobs that are not consumed? [y/N]",
        ),
        (
            &["group", "delete", "q", "default"],
            "Really delete group default of queue q, and what it has consumed, with 2 ready jobs",
        ),
        (
            &["queue", "purge", "q"],
            "Really purge all jobs of queue q, for all groups: 3 jobs that are not consumed?",
        ),
        (
            &["dead", "drop", "q", "--all"],
            "Really drop all 1 dead job of queue q, group default? [y/N]",
        ),
    ] {
        for (answer, code, said) in [("\r", 1, "Nothing was done."), ("n\r", 1, "Nothing")] {
            let mut asked = Terminal::qctl(&place, arguments);
            asked.until(question, |text| text.contains(question));
            asked.press(answer);
            assert_eq!(asked.end(), Some(code));
            asked.until(said, |text| text.contains(said));
        }
    }
    assert_eq!(place.count("q", "dead"), 1);
    let mut asked = Terminal::qctl(&place, &["dead", "drop", "q", "--all"]);
    asked.press("y\r");
    assert_eq!(asked.end(), Some(0));
    assert_eq!(place.count("q", "dead"), 0);
    let mut asked = Terminal::qctl(&place, &["queue", "delete", "q"]);
    asked.press("yes\r");
    assert_eq!(asked.end(), Some(0));
    assert!(place.json(&["queue", "list"]).is_empty());
}

#[test]
fn a_progress_bar_is_drawn_on_a_terminal_and_not_in_a_pipe() {
    let place = Place::new();
    let import = ["import", "q", "-"];
    let mut command = place.command(&import);
    command.env("TERM", "xterm-256color");
    let (input, mut lines) = {
        let (reader, writer) = std::io::pipe().unwrap();
        (Stdio::from(reader), writer)
    };
    let mut bar = Terminal::start(command, Some(input));
    lines.write_all(b"{\"payload\":\"a\"}\n").unwrap();
    // It waits for more, and draws meanwhile.
    bar.until("a spinner", |text| text.contains(" B, "));
    drop(lines);
    assert_eq!(bar.end(), Some(0));
    bar.until("the sum", |text| text.contains("1 job imported to q"));

    let run = place.run_with_input(&import, b"{\"payload\":\"b\"}\n");
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("1 job imported to q\n", ""));
}

#[test]
fn a_terminal_has_colors_unless_it_or_its_user_can_not_bear_them() {
    let place = Place::new();
    place.enqueue("q", "a\n");
    place.fetch("q");
    let list = |name: &str, value: &str, color: &[&str]| {
        let mut command = place.command(&[&["group", "list", "q"], color].concat());
        command.env("TERM", "xterm-256color").env(name, value);
        let mut list = Terminal::start(command, None);
        assert_eq!(list.end(), Some(0));
        list.until("the table", |text| text.contains("default"));
        list.text().contains("\u{1b}[1mGROUP")
    };
    assert!(list("OTHER", "1", &[]));
    assert!(list("NO_COLOR", "", &[]), "an empty one counts as none");
    assert!(!list("NO_COLOR", "1", &[]));
    assert!(!list("TERM", "dumb", &[]));
    assert!(!list("OTHER", "1", &["--color", "never"]));
    assert!(list("NO_COLOR", "1", &["--color", "always"]));
}
