//! Colours: for people at a terminal who have not asked for none.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Style};
use clap::{ColorChoice, ValueEnum};

/// The head of a table.
pub(crate) const HEAD: Style = Style::new().bold();
/// What somebody should look at.
pub(crate) const ALARM: Style = AnsiColor::Red.on_default().bold();
/// What is meant to be so, and not for ever.
pub(crate) const PAUSED: Style = AnsiColor::Yellow.on_default();

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Colours for one stream, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Colors {
    on: bool,
}

impl Colors {
    /// What a stream gets.
    pub(crate) fn new(when: When, stream: &impl IsTerminal) -> Self {
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let set = |name: &str| std::env::var_os(name).is_some_and(|text| !text.is_empty());
                let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                stream.is_terminal() && !set("NO_COLOR") && !is_dumb
            }
        };
        Self { on }
    }

    /// No colours.
    pub(crate) fn none() -> Self {
        Self { on: false }
    }

    /// A text in a style.
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        match self.on {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }
}

/// What a command line asks for, before it is known to be right: its errors have colours, too.
pub(crate) fn choice(arguments: impl IntoIterator<Item = OsString>) -> ColorChoice {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let value = match argument.to_str() {
            // What stands behind is another command's.
            Some("--") => break,
            Some("--color") => arguments.next(),
            Some(text) => text.strip_prefix("--color=").map(OsString::from),
            None => None,
        };
        match value.as_deref().and_then(OsStr::to_str) {
            Some("always") => return ColorChoice::Always,
            Some("never") => return ColorChoice::Never,
            _ => {}
        }
    }
    ColorChoice::Auto
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_which_colours_its_own_errors_have() {
        let of = |line: &str| choice(line.split(' ').map(OsString::from));
        assert_eq!(of("qctl ping"), ColorChoice::Auto);
        assert_eq!(of("qctl --color=always ping"), ColorChoice::Always);
        assert_eq!(of("qctl ping --color never"), ColorChoice::Never);
        assert_eq!(of("qctl ping --color"), ColorChoice::Auto);
        assert_eq!(of("qctl work q -- ls --color=always"), ColorChoice::Auto);
    }

    #[test]
    fn nothing_is_painted_without_colours() {
        assert_eq!(Colors::none().paint(ALARM, "x"), "x");
        let painted = Colors { on: true }.paint(HEAD, "x");
        assert_eq!(painted, "\u{1b}[1mx\u{1b}[0m");
    }
}
