//! Every command as a user drives it: text, JSON, exit code, and a command line that is wrong.

use std::fs;

use crate::support::{Place, Run, parse};

/// One command in a place that has a queue `q`: `q:0` is dead, `q:1` leased, `q:2` and `q:3` ready
/// for `default`; there is a work group `g`, a stream group `s`, a schedule
/// `nightly`, and a queue `later` with a delayed job.
struct Case {
    /// Its words.
    command: &'static str,
    /// Arguments with which it succeeds. `LEASED` stands for the leased job with its token, `FILE`
    /// for a file with a job, `OUT` for a directory that is not there, `DATA` for the files of the
    /// server, which is stopped then.
    good: &'static str,
    /// What it says then, on standard output or error.
    told: &'static str,
    /// A field of its first JSON object; none for a command whose output is not its own.
    field: Option<&'static str>,
    /// Arguments with which it fails.
    bad: &'static str,
    code: i32,
    why: &'static str,
}

/// Text for a table: command | good arguments | told | field | bad arguments | code | why.
const CASES: &str = "
ping | | joblogd/ | round_trip_us | --timeout 5 | 2 | 500ms, 30s, 5m, 2h or 7d
queue create | new --max-jobs 5 | Queue new is created. | done | q | 1 | QUEUE_EXISTS
queue set | q --max-jobs 5 | Queue q is changed. | done | q | 2 | no setting is named
queue list | | default, g, s | next_offset | extra | 2 | unexpected argument
queue show | q | dead jobs | settings | none | 1 | qctl queue list
queue pause | q | Queue q is paused. | done | q --group none | 1 | NO_SUCH_GROUP
queue resume | q --group g | Group g of queue q goes on. | done | none | 1 | NO_SUCH_QUEUE
queue purge | q --yes | jobs purged; 1 running are left | purged | q | 2 | --yes is needed
queue delete | q --yes | Queue q is deleted. | done | none --yes | 1 | NO_SUCH_QUEUE
group create | q new | Group new of queue q is created. | done | q g | 1 | GROUP_EXISTS
group list | q | COMMITTED | kind | none | 1 | NO_SUCH_QUEUE
group show | q default | by failures | dead_jobs | q none | 1 | qctl group list
group seek | q g --to end | goes on at offset 4 | committed_offset | q g --to 9 | 1 | 0 to 4
group delete | q g --yes | Group g of queue q is deleted. | done | q none --yes | 1 | NO_SUCH_GROUP
enqueue | q hello --key k | q:4 | job | q hello --ttl 400d | 2 | 366d
fetch | q --lease 1m | payload   c | token | q --group none | 1 | NO_SUCH_GROUP
peek | q --limit 1 | payload   a | payload | none | 1 | NO_SUCH_QUEUE
tail | | | - | q --from middle | 2 | start, end, an offset
export | q --to 1 | {\"job\":\"q:0\" | payload | none | 1 | NO_SUCH_QUEUE
import | new FILE | 1 job imported to new | jobs | new /none | 1 | can't be read
top | --once | default | groups | --sort size | 2 | possible values
commit | LEASED | q:1  consumed | status | q:1 | 2 | q:1@TOKEN
release | LEASED | q:1  released | status | q:1@00 | 1 |
fail | LEASED --reason no | q:1  failed | retry_in_ms | LEASED | 2 | --reason
extend | LEASED --lease 1m | q:1  extended | status | LEASED --lease 1 | 2 | 500ms, 30s
dead list | q | CAUSE | cause | q --limit many | 2 | invalid digit
dead show | q:0 | by failures | reason | q:1 | 1 | q:1 is not dead
dead retry | q --all | 1 job retried | done | q | 2 | say --all
dead drop | q:0 --yes | 1 job dropped | done | q:0 | 2 | --yes is needed
cancel | q:2 | q:2  cancelled | status | q:99 | 1 |
job show | q:1 | leased | - | q | 2 | allowed is QUEUE:OFFSET
job wait | q:0 --timeout 1ms | | - | q | 2 | allowed is QUEUE:OFFSET
job promote | later:0 | later:0  is ready | status | q:2 | 1 | was not delayed
move | q new | | - | none new | 1 | NO_SUCH_QUEUE
copy | q new | | - | none new | 1 | NO_SUCH_QUEUE
schedule add | new q x --every 10m | Schedule new is added. | done | new q x | 2 | --every
schedule list | | nightly | schedule | extra | 2 | unexpected argument
schedule show | nightly | every | next | none | 1 | NO_SUCH_SCHEDULE
schedule pause | nightly | Schedule nightly is paused. | done | none | 1 | NO_SUCH_SCHEDULE
schedule resume | nightly | Schedule nightly goes on. | done | none | 1 | NO_SUCH_SCHEDULE
schedule remove | nightly --yes | nightly is removed. | done | nightly | 2 | --yes is needed
schedule run | nightly | q:4 | job | none | 1 | NO_SUCH_SCHEDULE
log verify | DATA | All is whole. | whole | /none | 1 | can't be read
log dump | DATA | entry 1 | file | /none | 1 | can't be read
log repair | DATA --yes | nothing to repair | repaired | /none --yes | 1 | can't be read
work | q --group g --until-empty -- true | | - | q | 2 | COMMAND
completions | bash | _qctl | - | csh | 2 | bash
man | OUT | The pages are in | pages | /dev/null/x | 1 | can't be written
";

fn cases() -> Vec<Case> {
    let case = |line: &'static str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [command, good, told, field, bad, code, why] = cells[..] else {
            panic!("{line:?} has {} cells", cells.len());
        };
        let field = Some(field).filter(|field| *field != "-");
        Case { command, good, told, field, bad, code: code.parse().unwrap(), why }
    };
    CASES.lines().filter(|line| !line.is_empty()).map(case).collect()
}

/// The commands in the table of docs/qctl.md, which another test compares with the definition.
pub(crate) fn commands() -> Vec<String> {
    let page = include_str!("../../docs/qctl.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `qctl "));
    rows.map(|row| row.split_once("` |").unwrap().0.to_owned()).collect()
}

/// The place of a case, and the name of its leased job.
fn place() -> (Place, String) {
    let place = Place::new();
    place.enqueue("q", "a\nb\nc\nd\n");
    place.ok(&["group", "create", "q", "g"]);
    place.ok(&["group", "create", "q", "s", "--kind", "stream"]);
    place.ok(&["schedule", "add", "nightly", "q", "x", "--every", "1d"]);
    place.ok(&["enqueue", "later", "x", "--delay", "1d"]);
    let dead = place.fetch("q");
    place.ok(&["fail", &dead, "--reason", "no", "--retries", "0"]);
    let leased = place.fetch("q");
    fs::write(place.path("file"), "{\"payload\":\"x\"}\n").unwrap();
    (place, leased)
}

fn run(command: &str, arguments: &str, options: &[&str]) -> Run {
    let (mut place, leased) = place();
    let word = |word: &str| match word {
        "LEASED" => leased.clone(),
        "FILE" => place.path("file").to_str().unwrap().to_owned(),
        "OUT" => place.path("out").to_str().unwrap().to_owned(),
        "DATA" => place.path("data").to_str().unwrap().to_owned(),
        word => word.to_owned(),
    };
    let mut words: Vec<String> = options.iter().map(|word| (*word).to_owned()).collect();
    words.extend(command.split(' ').map(str::to_owned));
    words.extend(arguments.split_whitespace().map(word));
    if arguments.contains("DATA") {
        place.server.kill9();
    }
    place.run(&words)
}

/// Every so many of the cases, so that several tests share them.
fn check(part: usize) {
    for case in cases().into_iter().skip(part).step_by(4) {
        let Case { command, good, told, field, bad, code, why } = case;
        if !(good.is_empty() && told.is_empty()) {
            let text = run(command, good, &[]);
            // A wait for a job that has not ended, or is dead, is no success.
            let expected = i32::from(command == "job wait");
            assert_eq!(text.code, expected, "{command}: {text:?}");
            assert!((text.stdout.clone() + &text.stderr).contains(told), "{command}: {text:?}");
            if let Some(field) = field {
                let json = run(command, good, &["--json"]);
                assert_eq!(json.code, 0, "{command}: {json:?}");
                let object = parse(json.stdout.lines().next().unwrap_or_default());
                assert!(object.get(field).is_some(), "{command}: {json:?}");
            }
        }
        let wrong = run(command, bad, &[]);
        assert_eq!(wrong.code, code, "{command}: {wrong:?}");
        assert!((wrong.stderr.clone() + &wrong.stdout).contains(why), "{command}: {wrong:?}");
    }
}

#[test]
fn each_command_does_what_it_says_one() {
    check(0);
}

#[test]
fn each_command_does_what_it_says_two() {
    check(1);
}

#[test]
fn each_command_does_what_it_says_three() {
    check(2);
}

#[test]
fn each_command_does_what_it_says_four() {
    check(3);
}

#[test]
fn no_command_is_left_out() {
    let tested: Vec<&str> = cases().iter().map(|case| case.command).collect();
    let left_out: Vec<String> =
        commands().into_iter().filter(|command| !tested.contains(&command.as_str())).collect();
    assert!(left_out.is_empty(), "no case for {left_out:?}");
}
