//! Completions and man pages, made of the definition of the command line.

use std::fs;
use std::process::Command;

use crate::every_command::commands;
use crate::support::{Place, qctl};

fn generated(arguments: &[&str]) -> String {
    let output = qctl("127.0.0.1:1", arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_completions_of_each_shell_name_every_command_and_its_options() {
    for shell in ["bash", "zsh", "fish"] {
        let script = generated(&["completions", shell]);
        for word in commands().iter().flat_map(|command| command.split(' ')) {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        for option in ["unconsumed-by", "until-empty", "color"] {
            assert!(script.contains(option), "{shell} does not know {option}");
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let place = Place::new();
    // As an argument it would be longer than one may be.
    let script = place.path("qctl.bash");
    fs::write(&script, generated(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| {
        let line = words.join(" ");
        let at = words.len() - 1;
        let last = words[at];
        let program = format!(
            "source {}\nCOMP_WORDS=({line}); COMP_CWORD={at}; _qctl qctl '{last}' ''; \
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["-c", &program]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete(&["qctl", "que"]), "queue");
    assert_eq!(complete(&["qctl", "queue", "cre"]), "create");
    assert_eq!(complete(&["qctl", "top", "--inter"]), "--interval");
}

#[test]
fn there_is_a_man_page_for_every_command() {
    let place = Place::new();
    let pages = place.path("pages");
    place.ok(&["man", pages.to_str().unwrap()]);
    for command in commands() {
        let path = pages.join(format!("qctl-{}.1", command.replace(' ', "-")));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{path:?}");
    }
    let page = generated(&["man"]);
    assert!(page.contains(".TH qctl 1"), "{page}");
    for command in commands() {
        let first = command.split(' ').next().unwrap();
        assert!(page.contains(&format!("qctl\\-{first}(1)")), "{first} is not in\n{page}");
    }
    assert!(page.contains("3  The server can"), "the exit codes stand in it");
}
