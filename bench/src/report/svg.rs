//! Plots as SVG, readable on light and dark: text and lines take the colour of the scheme, and the
//! colours of systems keep apart from both.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const LABELS_WIDTH: f64 = 210.0;
const VALUES_WIDTH: f64 = 130.0;
const BAR_HEIGHT: f64 = 15.0;
const COLOURS: [&str; 8] =
    ["#e8590c", "#1c7ed6", "#15aabf", "#7950f2", "#2f9e44", "#c2255c", "#f08c00", "#868e96"];

/// One bar with its spread.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Bars that are compared with each other.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// Latencies of one system in one workload.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) of: String,
    pub(crate) points: [(&'static str, f64); 5],
}

/// Bars in groups. Each group has a scale of its own, since workloads differ by powers of ten;
/// the value stands beside each bar.
pub(crate) fn bars(title: &str, unit: &str, groups: &[Group]) -> String {
    let mut body = String::new();
    let mut systems = Vec::new();
    let mut y = 58.0;
    let room = WIDTH - LABELS_WIDTH - VALUES_WIDTH;
    for group in groups {
        let largest = group.bars.iter().map(|bar| bar.high).fold(f64::MIN_POSITIVE, f64::max);
        let middle = y + BAR_HEIGHT * group.bars.len() as f64 / 2.0 + 4.0;
        put_text(&mut body, (LABELS_WIDTH - 8.0, middle), "end", &group.name);
        for bar in &group.bars {
            let colour = colour_of(&mut systems, &bar.name);
            let width = (bar.value / largest * room).max(1.0);
            put(
                &mut body,
                &format!(
                    "<rect x=\"{LABELS_WIDTH}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                     height=\"{:.1}\" fill=\"{colour}\"/>",
                    BAR_HEIGHT - 2.0
                ),
            );
            if bar.high > bar.low {
                let at = |value: f64| LABELS_WIDTH + value / largest * room;
                let line = y + BAR_HEIGHT / 2.0 - 1.0;
                put(
                    &mut body,
                    &format!(
                        "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{line:.1}\" y2=\"{line:.1}\" \
                         class=\"line\"/>",
                        at(bar.low),
                        at(bar.high)
                    ),
                );
            }
            let end = LABELS_WIDTH + (bar.high / largest * room).max(width) + 6.0;
            let value = format!("{} {unit}", number(bar.value));
            put_text(&mut body, (end, y + BAR_HEIGHT - 4.0), "start", &value);
            y += BAR_HEIGHT;
        }
        y += 12.0;
    }
    page(title, &systems, &body, y)
}

/// Latencies against percentiles, on a logarithmic scale from 1 us up.
pub(crate) fn latencies(title: &str, curves: &[Curve]) -> String {
    let mut body = String::new();
    let mut systems = Vec::new();
    let mut names: Vec<&str> = curves.iter().map(|curve| curve.of.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let top = 72.0;
    let (height, gap) = (230.0, 60.0);
    let mut offset = top;
    for name in &names {
        let curves: Vec<_> = curves.iter().filter(|curve| curve.of == *name).collect();
        let largest = curves.iter().flat_map(|curve| curve.points).map(|(_, value)| value);
        let decades = largest.fold(10.0, f64::max).log10().ceil();
        put_text(&mut body, (70.0, offset - 6.0), "start", name);
        let y = |value: f64| offset + height * (1.0 - value.max(1.0).log10() / decades);
        for decade in 0..=decades as i32 {
            let value = 10_f64.powi(decade);
            put(
                &mut body,
                &format!(
                    "<line x1=\"70\" x2=\"{:.0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" class=\"grid\"/>",
                    WIDTH - 20.0,
                    y(value)
                ),
            );
            put_text(&mut body, (64.0, y(value) + 4.0), "end", &format!("{} us", number(value)));
        }
        let x = |place: usize| 120.0 + place as f64 * (WIDTH - 200.0) / 4.0;
        for curve in curves {
            let colour = colour_of(&mut systems, &curve.name);
            let points: Vec<String> = curve
                .points
                .iter()
                .enumerate()
                .map(|(place, (_, value))| format!("{:.1},{:.1}", x(place), y(*value)))
                .collect();
            put(
                &mut body,
                &format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" \
                     stroke-width=\"2.5\"/>",
                    points.join(" ")
                ),
            );
            for (place, (label, _)) in curve.points.iter().enumerate() {
                put_text(&mut body, (x(place), offset + height + 16.0), "middle", label);
            }
        }
        offset += height + gap;
    }
    page(title, &systems, &body, offset - gap + 30.0)
}

fn page(title: &str, systems: &[String], body: &str, height: f64) -> String {
    let mut out = String::new();
    put(
        &mut out,
        &format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>{}</title>",
            escape(title)
        ),
    );
    put(
        &mut out,
        "<style>\n\
         text { font: 12px system-ui, sans-serif; fill: #212529; }\n\
         .title { font-size: 15px; font-weight: 600; }\n\
         .line { stroke: #212529; stroke-width: 1.5; }\n\
         .grid { stroke: #adb5bd; stroke-width: 0.7; }\n\
         .paper { fill: #ffffff; }\n\
         @media (prefers-color-scheme: dark) {\n\
         text { fill: #e9ecef; } .line { stroke: #f8f9fa; } .grid { stroke: #495057; }\n\
         .paper { fill: #16191d; }\n}\n</style>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>",
    );
    put(&mut out, &format!("<text x=\"12\" y=\"22\" class=\"title\">{}</text>", escape(title)));
    let mut x = 12.0;
    for (place, system) in systems.iter().enumerate() {
        let colour = colour(place);
        let square = "y=\"33\" width=\"11\" height=\"11\"";
        put(&mut out, &format!("<rect x=\"{x:.0}\" {square} fill=\"{colour}\"/>"));
        put_text(&mut out, (x + 16.0, 43.0), "start", system);
        x += 34.0 + system.len() as f64 * 7.5;
    }
    out.push_str(body);
    put(&mut out, "</svg>");
    out
}

fn colour(place: usize) -> &'static str {
    COLOURS.get(place % COLOURS.len()).copied().unwrap_or("#868e96")
}

fn colour_of(systems: &mut Vec<String>, name: &str) -> &'static str {
    let known = systems.iter().position(|system| system == name);
    colour(known.unwrap_or_else(|| {
        systems.push(name.to_owned());
        systems.len() - 1
    }))
}

fn put(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

fn put_text(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = escape(text);
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>")
        .expect("a string takes all that is written to it");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number as people read it: 1.2 k, 3.4 M.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.0} k", value / 1e3),
        value if value >= 1e3 => format!("{:.1} k", value / 1e3),
        value if value >= 10.0 || value.fract() == 0.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_name_what_they_show_and_suit_both_schemes() {
        let bar =
            |name: &str, value| Bar { name: name.into(), value, low: value, high: value * 1.1 };
        let bars_of = vec![bar("a<b", 1234.0), bar("redis", 56_000.0)];
        let plot = bars("T", "jobs/s", &[Group { name: "g".into(), bars: bars_of }]);
        let points = [("p50", 10.0), ("p90", 20.0), ("p99", 50.0), ("p99.9", 90.0), ("max", 5e4)];
        let curve = Curve { name: "redis".into(), of: "open".into(), points };
        for plot in [plot, latencies("T", &[curve])] {
            assert!(plot.starts_with("<svg ") && plot.ends_with("</svg>\n"));
            assert!(plot.contains("prefers-color-scheme: dark") && plot.contains(">redis<"));
            assert!(!plot.contains("a<b") && !plot.contains("NaN"));
        }
    }

    #[test]
    fn numbers_are_short() {
        let short = [0.0, 9.5, 999.0, 1_500.0, 56_000.0, 1_234_567.0].map(number);
        assert_eq!(short, ["0", "9.5", "999", "1.5 k", "56 k", "1.23 M"]);
    }
}
