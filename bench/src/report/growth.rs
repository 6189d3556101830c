//! What growth costs, as a table that can be read on the terminal and is Markdown.

use super::text::mib;
use crate::result::Growth;

/// The columns, and their widths on a terminal.
const COLUMNS: [(&str, usize); 9] = [
    ("kind", 11),
    ("size", 9),
    ("work", 41),
    ("took", 8),
    ("longest wait", 12),
    ("p99", 8),
    ("MiB before, peak, after", 23),
    ("next start", 10),
    ("idle CPU", 8),
];

/// The lines above the rows.
pub(crate) fn head() -> String {
    let rule = COLUMNS.map(|(name, width)| {
        let is_text = matches!(name, "kind" | "work");
        let dashes = "-".repeat(width + 1);
        if is_text { format!("{dashes}-") } else { format!("{dashes}:") }
    });
    format!("{}\n|{}|", line(COLUMNS.map(|(name, _)| name.to_owned())), rule.join("|"))
}

/// One row.
pub(crate) fn row(growth: &Growth) -> String {
    let bound = if growth.ended { "" } else { "> " };
    let memory = [growth.memory_before_bytes, growth.memory_peak_bytes, growth.memory_after_bytes];
    line([
        growth.kind.clone(),
        growth.size.to_string(),
        growth.work.clone(),
        growth.took_ms.map_or_else(String::new, |ms| format!("{bound}{}", time(ms))),
        growth.beside.map_or_else(String::new, |beside| time(beside.longest_ms)),
        growth.beside.map_or_else(String::new, |beside| time(beside.p99_ms)),
        memory.map(|bytes| format!("{:.0}", mib(bytes))).join(", "),
        growth.next_start_ms.map_or_else(String::new, time),
        growth.idle_cpu_percent.map_or_else(String::new, |share| format!("{share:.1} %")),
    ])
}

/// Prints the lines above the rows.
pub(crate) fn print_head() {
    println!("{}", head());
}

/// Prints one row.
pub(crate) fn print(growth: &Growth) {
    println!("{}", row(growth));
}

fn line(cells: [String; COLUMNS.len()]) -> String {
    let cells = cells.iter().zip(COLUMNS).map(|(cell, (name, width))| match name {
        "kind" | "work" => format!(" {cell:width$} "),
        _ => format!(" {cell:>width$} "),
    });
    format!("|{}|", cells.collect::<Vec<_>>().join("|"))
}

/// Milliseconds to three digits or so.
fn time(ms: f64) -> String {
    match ms {
        ms if ms >= 9_999.5 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 99.5 => format!("{ms:.0} ms"),
        ms if ms >= 9.95 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_about_three_digits() {
        let short = [0.051, 9.94, 23.54, 149.6, 9_998.0, 46_800.0].map(time);
        assert_eq!(short, ["0.05 ms", "9.94 ms", "23.5 ms", "150 ms", "9998 ms", "46.8 s"]);
    }

    #[test]
    fn the_rule_has_a_mark_for_each_column() {
        let head = head();
        let (names, rule) = head.split_once('\n').unwrap();
        assert_eq!(names.matches('|').count(), COLUMNS.len() + 1);
        assert_eq!(rule.len(), names.len());
        assert_eq!(rule.matches(":|").count(), COLUMNS.len() - 2);
    }
}
