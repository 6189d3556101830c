//! The rules of the tree: sizes, banned words, who may import whom, and documents that are true.
//!
//! Sources are read as text with strings and comments blanked out, which is enough for code that
//! rustfmt has laid out. Each check fails if it found nothing to look at.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

mod documents;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
/// Functions that are one flat table, an arm for each variant: cut in two they would be longer, and
/// a chain of tables that falls through says nothing of what is forgotten.
const FLAT_TABLES: [(&str, &str); 1] = [("src/queue/records.rs", "add_to_group")];
/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 900;

const SOURCE_FOLDERS: [&str; 4] = ["src", "protocol", "bench", "tests"];
const IGNORED_FOLDERS: [&str; 4] = ["target", "node_modules", "__pycache__", "joblog-data"];

/// The one file that may hold what the compiler does not check.
const MAPPING_FILE: &str = "src/log/map.rs";

/// Where time and chance may come from: the edges, where a test can put others in their place.
const CLOCK_USERS: [&str; 9] = [
    "src/clock.rs",
    // The trait behind which the log has the operating system.
    "src/log/files.rs",
    // Measures how long a sync takes, for people to read.
    "src/server/data_dir.rs",
    "src/bin/",
    "src/client/",
    "src/worker/",
    "bench/",
    "tests/",
    "protocol/tests/",
];

/// Which parts a part may import, as `docs/ARCHITECTURE.md` draws it. A part that is not listed
/// here has no place in the tree yet: give it one. Of the protocol's crate, a part may be allowed a
/// module alone: what a job is, is for all.
const ARROWS: [(&str, &[&str]); 14] = [
    ("types", &[]),
    ("clock", &["types"]),
    ("cron", &[]),
    ("config", &["log", "joblog_protocol"]),
    ("log", &["types", "clock", "joblog_protocol::job"]),
    ("queue", &["types"]),
    ("broker", &["log", "queue", "types", "clock", "cron", "joblog_protocol::job"]),
    ("server", &["broker", "joblog_protocol", "config", "types", "clock"]),
    ("client", &["joblog_protocol"]),
    ("worker", &["client", "joblog_protocol"]),
    ("bin/joblogd", &["server", "broker", "config", "types"]),
    // `qctl log` looks into the files of a server that is stopped.
    ("bin/qctl", &["client", "joblog_protocol", "log"]),
    ("bench", &["client", "joblog_protocol"]),
    // Measures layers alone.
    ("bench/benches", &["log", "queue", "types", "joblog_protocol"]),
];

struct Source {
    /// From the root of the tree, with `/` between folders.
    path: String,
    text: String,
    /// The text with the insides of strings and comments blanked out, line for line.
    code: String,
}

impl Source {
    /// Whether the whole file is tests, which may be longer than what they test.
    fn is_test(&self) -> bool {
        let folders = format!("/{}", self.path);
        folders.contains("/tests/") || folders.ends_with("/tests.rs")
    }

    /// The code in front of the unit tests, which stand last.
    fn code_without_tests(&self) -> &str {
        if self.is_test() {
            return "";
        }
        let tests = self.code.find("\n#[cfg(test)]\nmod ").unwrap_or(self.code.len());
        &self.code[..tests]
    }

    fn at(&self, position: usize) -> String {
        let line = self.code[..position].matches('\n').count() + 1;
        format!("{}:{line}", self.path)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_file() {
            // In a work tree beside another one it is a file, which says where that is.
            if name != ".git" {
                found.push(entry.path());
            }
        } else if (!name.starts_with('.') || name == ".ci")
            && !IGNORED_FOLDERS.contains(&name.as_str())
        {
            files_under(&entry.path(), found);
        }
    }
    found.sort();
}

fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in SOURCE_FOLDERS {
        files_under(&root().join(folder), &mut paths);
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let sources: Vec<_> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            Source { path: name_of(path), code: blanked(&text), text }
        })
        .collect();
    assert!(sources.len() > 20, "only {} sources found", sources.len());
    sources
}

/// Blanks out the insides of comments, strings and character literals; line breaks stay.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, blank) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), true),
            '/' if rest.starts_with("/*") => {
                (rest.find("*/").map_or(rest.len(), |at| at + 2), true)
            }
            '"' => (string_length(rest), true),
            'r' if raw_hashes(rest).is_some() && !ends_in_word(&code) => {
                let end = format!("\"{}", "#".repeat(raw_hashes(rest).unwrap()));
                let start = end.len() + 1;
                let length =
                    rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len());
                (length, true)
            }
            '\'' => match char_length(rest) {
                Some(length) => (length, true),
                None => (1, false),
            },
            other => (other.len_utf8(), false),
        };
        let (piece, behind) = rest.split_at(length);
        match blank {
            true => code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            false => code.push_str(piece),
        }
        rest = behind;
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.chars().next_back().is_some_and(|last| last.is_alphanumeric() || last == '_')
}

/// How many `#` a raw string at the start of `rest` has.
fn raw_hashes(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    behind[hashes..].starts_with('"').then_some(hashes)
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The length of a character literal, or nothing for a lifetime.
fn char_length(rest: &str) -> Option<usize> {
    let inside = rest.get(1..)?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let skipped = escape.chars().next()?.len_utf8();
        return escape[skipped..].find('\'').map(|at| 2 + skipped + at + 1);
    }
    let char = inside.chars().next()?;
    inside[char.len_utf8()..].starts_with('\'').then_some(2 + char.len_utf8())
}

/// Where `word` stands in `code` and is not a part of a longer word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let in_word = |char: char| char.is_alphanumeric() || char == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let starts = !word.starts_with(in_word) || !ends_in_word(&code[..*at]);
        let ends = !word.ends_with(in_word) || !code[at + word.len()..].starts_with(in_word);
        starts && ends
    })
}

fn assert_none(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn the_blanking_finds_strings_comments_and_lifetimes() {
    let text = "a('\"') // \"x\nr#\"y\"z\"# \"\\\"w\" b<'c>('\\'', \"\n\") /* d\n*/ e";
    let seen: String = blanked(text).split_whitespace().collect();
    assert_eq!(seen, "a()b<'c>(,)e");
    assert_eq!(blanked(text).matches('\n').count(), text.matches('\n').count());
    assert_eq!(words("rand rand::x brand::x", "rand::").collect::<Vec<_>>(), [5]);
}

#[test]
fn every_file_opens_with_its_purpose_and_is_ascii() {
    let mut faults = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//!") {
            faults.push(format!("{} does not open with a `//!` line", source.path));
        }
        for (number, line) in source.text.lines().enumerate() {
            if !line.is_ascii() {
                faults.push(format!("{}:{} is not ASCII", source.path, number + 1));
            }
        }
    }
    assert_none(&faults, "a file says in its first line what it is for, in ASCII");
}

#[test]
fn lines_and_files_are_not_too_long() {
    let mut faults = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                faults.push(format!("{}:{} has {columns} columns", source.path, number + 1));
            }
        }
        let lines = source.code_without_tests().lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{} has {lines} lines", source.path));
        }
    }
    assert_none(&faults, "at most 100 columns, and 900 lines without tests");
}

/// Functions by their first line, with their length in lines, as rustfmt lays them out: the body
/// ends with a brace in the column of the function.
fn functions(code: &str) -> Vec<(usize, usize)> {
    const QUALIFIERS: [&str; 8] =
        ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "default"];
    let lines: Vec<_> = code.lines().collect();
    let is_function =
        |line: &str| line.split_whitespace().find(|word| !QUALIFIERS.contains(word)) == Some("fn");
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let indent = line.len() - line.trim_start().len();
        let ends = |line: &&str| {
            let inside = line.trim();
            let outer = line.len() - line.trim_start().len() == indent;
            outer && (inside == "}" || inside.ends_with([';', '}']))
        };
        let length = lines[first..].iter().position(ends).map_or(1, |at| at + 1);
        found.push((first + 1, length));
    }
    found
}

#[test]
fn functions_are_not_too_long() {
    let (mut faults, mut count, mut tables) = (Vec::new(), 0, Vec::new());
    for source in sources() {
        for (line, lines) in functions(source.code_without_tests()) {
            count += 1;
            if lines > FUNCTION_LINES_MAX {
                let head = source.code.lines().nth(line - 1).unwrap();
                let is_named = |(path, name): &&(&str, &str)| {
                    *path == source.path && words(head, name).next().is_some()
                };
                match FLAT_TABLES.iter().find(is_named) {
                    Some(table) => tables.push(*table),
                    None => faults.push(format!("{}:{line} has {lines} lines", source.path)),
                }
            }
        }
    }
    assert_eq!(tables, FLAT_TABLES, "a table that is not long needs no exemption");
    assert!(count > 100, "only {count} functions found");
    assert_none(&faults, "a function has at most 70 lines");
    let long = format!("fn a() {{\n{}}}\nfn b();\n", "    x();\n".repeat(80));
    assert_eq!(functions(&long), [(1, 82), (83, 1)], "the measure itself");
}

#[test]
fn banned_words_stand_nowhere() {
    // Put together here so that this file does not contain them.
    let unfinished = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let stubs = ["todo!", "unimplemented!", "#[ignore", "dbg!"];
    let channels = ["unbounded", "unbounded_channel", "mpsc::channel()", "UnboundedSender"];
    let mut faults = Vec::new();
    for source in sources() {
        for word in &unfinished {
            let found = words(&source.text, word);
            faults.extend(found.map(|at| format!("{}: {word}", source.at(at))));
        }
        for word in stubs.iter().chain(&channels) {
            let found = words(&source.code, word);
            faults.extend(found.map(|at| format!("{}: {word}", source.at(at))));
        }
        if source.path != MAPPING_FILE {
            let found = words(&source.code, "unsafe");
            faults.extend(found.map(|at| format!("{}: unsafe", source.at(at))));
        }
    }
    assert_none(&faults, "no unfinished places, no channel without a bound, no unchecked code");
}

#[test]
fn time_and_chance_come_in_at_the_edge() {
    let banned = [
        "Instant::now",
        "SystemTime::now",
        "clock_gettime",
        "rand::",
        "fastrand::",
        "getrandom",
        "thread_rng",
    ];
    let (mut faults, mut users) = (Vec::new(), 0);
    for source in sources() {
        let allowed = CLOCK_USERS.iter().any(|user| source.path.starts_with(user));
        let code = if allowed { source.code.as_str() } else { source.code_without_tests() };
        for word in banned {
            for at in words(code, word) {
                match allowed {
                    true => users += 1,
                    false => faults.push(format!("{}: {word}", source.at(at))),
                }
            }
        }
    }
    assert!(users > 0, "nothing reads a clock: the words are spelt wrongly");
    assert_none(&faults, "only the clock, the binaries, the client and tests read time or chance");
}

/// The part of the tree that a file belongs to; nothing for lib.rs and for tests.
fn part_of(path: &str) -> Option<&str> {
    if let Some(binary) = path.strip_prefix("src/bin/") {
        let name = binary.split(['/', '.']).next().unwrap();
        return Some(&path[4..4 + "bin/".len() + name.len()]);
    }
    if path.starts_with("bench/benches/") {
        return Some("bench/benches");
    }
    if path.starts_with("bench/") {
        return Some("bench");
    }
    let inside = path.strip_prefix("src/")?;
    Some(inside.split(['/', '.']).next().unwrap()).filter(|part| *part != "lib")
}

/// The names behind the path at the start of `rest`: one, or those of a group in braces.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![word(rest)];
    };
    let (mut depth, mut heads, mut at_head) = (0, Vec::new(), true);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            _ if at_head && !char.is_whitespace() => {
                heads.push(word(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

/// What a file imports of the project: parts of the package, and the protocol's crate.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    // In a crate of its own, `crate::` leads to its own files.
    let own_crate = ["src/bin/", "bench/"].iter().any(|folder| source.path.starts_with(folder));
    let prefixes = if own_crate { &["joblog::"][..] } else { &["crate::", "joblog::"] };
    for prefix in prefixes {
        for at in words(code, prefix) {
            if !code[..at].ends_with("$") {
                // The root of the crate has modules alone: a type's name behind it belongs to a
                // module of the same name elsewhere.
                let heads = heads(&code[at + prefix.len()..]).into_iter();
                let modules = heads.filter(|head| !head.starts_with(char::is_uppercase));
                found.extend(modules.map(|head| (at, head)));
            }
        }
    }
    for at in words(code, "joblog_protocol::") {
        let heads = heads(&code[at + "joblog_protocol::".len()..]).into_iter();
        found.extend(heads.map(|head| (at, format!("joblog_protocol::{head}"))));
    }
    // As many `super::` as the file is deep lead to the root of the crate.
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let climb = "super::".repeat(depth);
    let without_tests = source.code_without_tests();
    if source.path.starts_with("src/") && !source.path.starts_with("src/bin/") {
        for at in words(without_tests, &climb) {
            found.extend(heads(&code[at + climb.len()..]).into_iter().map(|head| (at, head)));
        }
    }
    found
}

#[test]
fn imports_follow_the_arrows() {
    let (mut faults, mut count) = (Vec::new(), 0);
    for source in sources() {
        let Some(part) = part_of(&source.path) else {
            continue;
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == part) else {
            faults.push(format!("{}: the part {part:?} has no arrows here", source.path));
            continue;
        };
        for (at, import) in imports(&source) {
            count += 1;
            let is_of_protocol = import.starts_with("joblog_protocol::");
            let is_allowed = allowed.contains(&import.as_str())
                || (is_of_protocol && allowed.contains(&"joblog_protocol"));
            if import != part && !is_allowed {
                faults.push(format!("{}: {part} imports {import}", source.at(at)));
            }
        }
    }
    assert!(count > 10, "only {count} imports found");
    assert_none(&faults, "who may import whom");
}

/// Within these folders too: a file that is imported knows nothing of those that import it.
#[test]
fn no_files_of_the_log_or_the_broker_import_each_other_in_a_circle() {
    for folder in ["src/log/", "src/broker/"] {
        let mut importing: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for source in sources() {
            let name = source.path.strip_prefix(folder).and_then(|name| name.strip_suffix(".rs"));
            if let Some(name) = name.filter(|name| *name != "mod" && !name.contains('/')) {
                let code = source.code_without_tests();
                let heads = |at: usize| heads(&code[at + "super::".len()..]);
                importing.insert(name.into(), words(code, "super::").flat_map(heads).collect());
            }
        }
        assert!(importing.values().flatten().count() > 50, "{folder}: imports are not found");
        // Takes away who imports none of those that are left, until they import each other.
        loop {
            let left: Vec<_> = importing.keys().cloned().collect();
            importing.retain(|_, imports| imports.iter().any(|import| left.contains(import)));
            if importing.len() == left.len() {
                break;
            }
        }
        let faults: Vec<_> = importing.into_keys().map(|name| format!("{folder}{name}")).collect();
        assert_none(&faults, "imports go in one direction; these go, or lead, in a circle");
    }
}

#[test]
fn the_measure_of_imports_sees_through_groups() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.into(),
        code: blanked(text),
    };
    let names = |path: &str, text: &str| -> Vec<String> {
        imports(&source(path, text)).into_iter().map(|(_, name)| name).collect()
    };
    let text = "use crate::{\n    log::{Log, map::A},\n    queue,\n};\nuse joblog_protocol::Job;";
    assert_eq!(names("src/broker/turn.rs", text), ["log", "queue", "joblog_protocol::Job"]);
    let text = "use joblog_protocol::{frame::Header, job::Batch};";
    let parts = ["joblog_protocol::frame", "joblog_protocol::job"];
    assert_eq!(names("src/log/entry.rs", text), parts);
    assert_eq!(names("src/log/mod.rs", "use super::queue::Machine;"), ["queue"]);
    assert_eq!(names("src/log/sync.rs", "use super::map::Map;"), Vec::<String>::new());
    assert_eq!(names("src/log/sync.rs", "use super::super::server::X;"), ["server"]);
    assert_eq!(names("bench/src/a.rs", "use crate::b::C; use joblog::log::D;"), ["log"]);
    assert_eq!(part_of("src/bin/qctl/main.rs"), Some("bin/qctl"));
    assert_eq!(part_of("src/bin/joblogd.rs"), Some("bin/joblogd"));
    assert_eq!(part_of("src/types.rs"), Some("types"));
    assert_eq!(part_of("src/lib.rs"), None);
}

#[test]
fn the_protocol_does_no_io() {
    let mut count = 0;
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("protocol/src/")) {
        count += 1;
        for module in ["std::net", "std::fs", "std::time", "std::env", "std::process", "tokio::"] {
            let found = words(&source.code, module);
            faults.extend(found.map(|at| format!("{}: {module}", source.at(at))));
        }
    }
    assert!(count > 5, "only {count} files of the protocol found");
    assert_none(&faults, "the protocol does no I/O and reads no clock");
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "joblog-protocol", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    let listed = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    assert!(listed.contains("joblog-protocol v") && listed.contains("bytes v"), "{listed}");
    assert!(!listed.contains("tokio"), "the protocol depends on tokio:\n{listed}");
}

#[test]
fn no_path_of_a_machine_stands_in_the_tree() {
    let folders = ["work", "root", "home", "farm"].map(|name| format!("/{name}/"));
    let kinds = ["rs", "md", "toml", "py", "sh", "yml", "service", "run", ""];
    let mut paths = Vec::new();
    files_under(root(), &mut paths);
    let (mut faults, mut count) = (Vec::new(), 0);
    for path in paths {
        let kind = path.extension().unwrap_or_default().to_str().unwrap();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if !kinds.contains(&kind) {
            continue;
        }
        count += 1;
        for folder in &folders {
            let starts = |at: &usize| {
                let before = text[..*at].chars().next_back();
                !before.is_some_and(|char| char.is_alphanumeric() || "_.-/}".contains(char))
            };
            for at in text.match_indices(folder.as_str()).map(|(at, _)| at).filter(starts) {
                let line = text[..at].matches('\n').count() + 1;
                faults.push(format!("{}:{line}: {folder}", name_of(&path)));
            }
        }
    }
    assert!(count > 20, "only {count} texts found");
    assert_none(&faults, "a path of one machine is wrong on every other");
}
