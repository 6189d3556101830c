//! Questions before what can't be undone.

use std::io::{self, IsTerminal, Write};

use crate::error::CliError;

/// Refuses to go on where nobody can be asked.
pub(crate) fn needs_terminal(verb: &str, what: &str) -> Result<(), CliError> {
    if io::stdin().is_terminal() {
        return Ok(());
    }
    let text = format!("--yes is needed to {verb} {what}, as nobody can be asked here");
    Err(CliError::Usage(text))
}

/// Asks whether something is to be done, and says so if not.
pub(crate) fn ask(verb: &str, what: &str) -> Result<bool, CliError> {
    eprint!("Really {verb} {what}? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    let yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if !yes {
        tell!("Nothing was done.");
    }
    Ok(yes)
}

/// Asks what needs no look at the server before it is asked.
pub(crate) fn confirm(verb: &str, what: &str) -> Result<bool, CliError> {
    needs_terminal(verb, what)?;
    ask(verb, what)
}

/// A number of things.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
