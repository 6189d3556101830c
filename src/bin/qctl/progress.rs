//! Progress on long work: on standard error, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

const PERIOD: Duration = Duration::from_millis(100);

/// Bytes of a file, if it is known how many there are.
pub(crate) fn of_bytes(total: Option<u64>) -> ProgressBar {
    match total {
        Some(total) => {
            styled(ProgressBar::new(total), "{bar:30} {bytes} of {total_bytes}, {msg}, {eta} left")
        }
        None => styled(ProgressBar::new_spinner(), "{spinner} {bytes}, {msg}, {elapsed}"),
    }
}

/// Things that are done one after the other, if it is known how many there are.
pub(crate) fn of_count(what: &'static str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => styled(ProgressBar::new(total), "{bar:30} {pos} of {len} {msg}, {eta} left"),
        None => styled(ProgressBar::new_spinner(), "{spinner} {pos} {msg}, {elapsed}"),
    };
    bar.with_message(what)
}

/// Work that does not say how far it is.
pub(crate) fn of_time(what: String) -> ProgressBar {
    styled(ProgressBar::new_spinner(), "{spinner} {msg}, {elapsed}").with_message(what)
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    let bar = bar.with_style(style.expect("the templates are right, as a test shows"));
    bar.enable_steady_tick(PERIOD);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_progress_bars_have_a_right_template() {
        let bars = [
            of_bytes(Some(5)),
            of_bytes(None),
            of_count("jobs", Some(5)),
            of_count("jobs", None),
            of_time("reading".to_owned()),
        ];
        bars.iter().for_each(ProgressBar::finish_and_clear);
    }
}
