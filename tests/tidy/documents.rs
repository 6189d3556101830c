//! Documents are true: their links resolve, and the paths and names in them are those of the tree.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use crate::{Source, assert_none, ends_in_word, files_under, name_of, root, sources, words};

/// Folders whose files and folders a document names by their paths.
const PATH_STARTS: [&str; 7] =
    ["src/", "protocol/", "bench/", "tests/", "docs/", "examples/", ".ci/"];

/// Where a path begins that a document names: the root, or `src`, which `docs/ARCHITECTURE.md`
/// leaves out.
const PATH_ROOTS: [&str; 2] = ["", "src/"];

/// Files of the reader's own program, as the guide and the recipes name them.
const PATHS_OF_READERS: [&str; 3] = ["src/lib.rs", "src/bin/enqueue.rs", "src/bin/worker.rs"];

/// Names of other systems and libraries.
const OUTSIDE_NAMES: [&str; 6] =
    ["AsyncResult", "Duration", "MADV_POPULATE_READ", "Retry", "_qctl", "epoll_ctl"];

/// Says in its tables what names of other systems are here.
const NAMES_OTHERS: &str = "docs/recipes.md";

fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    files_under(root(), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    assert!(paths.len() > 5, "only {} documents found", paths.len());
    let read = |path: PathBuf| {
        let text = prose(&fs::read_to_string(&path).unwrap());
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// The name that a heading is linked by: small letters, words joined by `-`.
fn anchor(heading: &str) -> String {
    let mut anchor = String::new();
    for char in heading.trim().to_lowercase().chars() {
        match char {
            ' ' => anchor.push('-'),
            '-' | '_' => anchor.push(char),
            _ if char.is_alphanumeric() => anchor.push(char),
            _ => {}
        }
    }
    anchor
}

/// A text with its fenced blocks blanked out, in which brackets are no links and `#` is no heading.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut fenced = false;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        writeln!(prose, "{}", if fenced || is_fence { "" } else { line }).unwrap();
    }
    prose
}

fn links(prose: &str) -> Vec<&str> {
    prose
        .match_indices("](")
        .filter_map(|(at, _)| prose[at + 2..].split([')', ' ', '\n']).next())
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

#[test]
fn links_between_documents_resolve() {
    let mut faults = Vec::new();
    for (path, text) in documents() {
        for link in links(&text) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let has_section = || {
                let text = prose(&fs::read_to_string(&target).unwrap_or_default());
                let headings = text.lines().filter(|line| line.starts_with('#'));
                headings.map(|line| anchor(line.trim_start_matches('#'))).any(|a| a == section)
            };
            if !target.exists() || !(section.is_empty() || has_section()) {
                faults.push(format!("{}: {link}", name_of(&path)));
            }
        }
    }
    assert_none(&faults, "a link leads nowhere");
    assert_eq!(links("[a](b.md#c) and [d](https://e) ![f](g.png \"h\")"), ["b.md#c", "g.png"]);
    assert_eq!(anchor(" 11. Errors, `all` of them"), "11-errors-all-of-them");
}

/// What stands between backticks, with the number of its line.
fn spans(prose: &str) -> impl Iterator<Item = (usize, &str)> {
    prose.lines().enumerate().flat_map(|(number, line)| {
        let inside = line.split('`').skip(1).step_by(2);
        inside.map(move |span| (number + 1, span))
    })
}

/// The identifier at the start of `text`, or an empty one.
fn first_word(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let word = &text[..end.unwrap_or(text.len())];
    if word.starts_with(|char: char| char.is_ascii_digit()) { "" } else { word }
}

fn is_camel_case(word: &str) -> bool {
    word.starts_with(|char: char| char.is_ascii_uppercase())
        && word.contains(|char: char| char.is_ascii_lowercase())
        && !word.contains('_')
}

/// `NoSuchJob` for `no_such_job`.
fn camel_case(word: &str) -> String {
    let capital = |part: &str| part[..1].to_ascii_uppercase() + &part[1..];
    word.split('_').filter(|part| !part.is_empty()).map(capital).collect()
}

/// The blocks of code that define `name`: its declaration, and all its `impl` blocks.
fn blocks_of<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    const INTRODUCED_BY: [&str; 5] = ["struct", "enum", "trait", "impl", "for"];
    words(code, name).filter_map(move |at| {
        let line_start = code[..at].rfind('\n').map_or(0, |line| line + 1);
        let before = code[line_start..at].trim_end();
        let introduced = INTRODUCED_BY.iter().any(|word| {
            before.strip_suffix(word).is_some_and(|rest| !ends_in_word(rest))
                || before.trim_start().starts_with("impl<") && before.ends_with('>')
        });
        let opens = at + code[at..].find(['{', ';'])?;
        let indent = before.len() - before.trim_start().len();
        let close = format!("\n{:indent$}}}", "");
        let closes = opens + code[opens..].find(&close)?;
        (introduced && code[opens..].starts_with('{')).then(|| &code[opens..closes])
    })
}

/// Whether `owner` has a method, a variant, a field, or a constant of that name.
fn has_member(sources: &[Source], owner: &str, member: &str) -> bool {
    sources.iter().any(|source| {
        blocks_of(&source.code, owner).any(|block| {
            words(block, member).any(|at| {
                let indented = block[..at].rsplit('\n').next().unwrap();
                let before = indented.trim();
                let is_declared = ["fn", "const", "type"].iter().any(|w| before.ends_with(w));
                let is_field = before.is_empty() || before.starts_with("pub");
                is_declared || is_field
            })
        })
    })
}

/// What is wrong with a span of code: a path or a name that the tree does not have.
fn fault_of(sources: &[Source], known: &HashSet<&str>, span: &str) -> Option<String> {
    let exists = |path: &str| PATH_ROOTS.iter().any(|from| root().join(from).join(path).exists());
    for path in span.split(' ') {
        let is_path =
            PATH_STARTS.iter().any(|start| path.starts_with(start)) || path.ends_with(".rs");
        if is_path && !PATHS_OF_READERS.contains(&path) && !exists(path) {
            return Some(format!("there is no file or folder {path:?} in the root or in src"));
        }
    }
    let word = first_word(span);
    let is_name = is_camel_case(word) || (word.contains('_') && word.len() == span.len());
    if !is_name || OUTSIDE_NAMES.contains(&word) {
        return None;
    }
    // The names of errors, and of variants, are printed in small letters.
    let spelt = [word.to_owned(), word.to_ascii_uppercase(), camel_case(word)];
    if !spelt.iter().any(|word| known.contains(word.as_str())) {
        return Some(format!("the sources have no {word:?}"));
    }
    let member = first_word(span[word.len()..].strip_prefix("::")?);
    (!has_member(sources, word, member))
        .then(|| format!("{word} has no method, variant or field {member:?}"))
}

#[test]
fn paths_and_names_in_documents_are_those_of_the_tree() {
    let mut sources = sources();
    sources.retain(|source| !source.path.starts_with("tests/"));
    let texts = sources.iter().flat_map(|source| {
        source.text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_')
    });
    let known: HashSet<&str> = texts.collect();
    let (mut faults, mut count) = (Vec::new(), 0);
    for (path, text) in documents() {
        let name = name_of(&path);
        for (line, span) in spans(&text) {
            count += 1;
            if name == NAMES_OTHERS && !is_camel_case(first_word(span)) {
                continue;
            }
            if let Some(fault) = fault_of(&sources, &known, span) {
                faults.push(format!("{name}:{line}: `{span}`: {fault}"));
            }
        }
    }
    assert!(count > 1_000, "only {count} names found");
    assert_none(&faults, "documents name what is in the tree (or in OUTSIDE_NAMES)");
    for wrong in ["src/no/such.rs", "log/formats.rs", "NoSuchType", "Machine::no_such", "no_such"] {
        assert!(fault_of(&sources, &known, wrong).is_some(), "{wrong} is not found to be wrong");
    }
    for right in ["src/log", "log/format.rs", "Machine", "Machine::pick", "Duration::from_secs"] {
        assert_eq!(fault_of(&sources, &known, right), None);
    }
}
