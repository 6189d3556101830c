//! Does one small operation so many times: `ops NAME COUNT`. `bench/instructions` counts what it
//! takes.

#[path = "../benches/ops/mod.rs"]
mod ops;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let count = arguments.next().and_then(|count| count.parse::<u64>().ok());
    let found = ops::all().into_iter().find(|(known, _)| *known == name);
    let (Some((_, make)), Some(count)) = (found, count) else {
        let names: Vec<_> = ops::all().into_iter().map(|(name, _)| name).collect();
        eprintln!("usage: ops NAME COUNT; names are {}", names.join(" "));
        return ExitCode::from(2);
    };
    let mut op = make();
    (0..count).for_each(|_| op());
    ExitCode::SUCCESS
}
