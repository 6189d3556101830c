//! Growth curves: what much of one kind costs Joblog, and how long a small client beside it waits.
//!
//! Each kind builds its state up through the wire, does the heavy thing and measures; `README.md`
//! beside the package lists them.

mod beside;
mod bulk;
mod cold;
mod connections;
mod crashes;
mod dead;
mod delays;
mod ground;
mod groups;
mod leases;
mod neighbours;
mod queues;
mod reasons;
mod sessions;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::compare::{progress, take_roll};
use crate::machine::Machine;
use crate::report;
use crate::result::{Growth, Missing, Report};
use crate::systems::{self, Class, Places};

/// Something that grows.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What the size counts, and what is done with it.
    pub(crate) of: &'static str,
    /// The sizes that are tried unless others are asked for.
    pub(crate) sizes: &'static [u64],
    /// The largest size: what one request can name, or what a machine can hold.
    pub(crate) size_max: u64,
    run: fn(&Trial) -> Result<Vec<Growth>>,
}

/// All kinds, in the order in which they run.
pub(crate) const KINDS: [Kind; 12] = [
    Kind {
        name: "queues",
        of: "queues that keep what is consumed: created, used, idle, started again",
        sizes: &[10_000, 100_000],
        size_max: 1_000_000,
        run: queues::run,
    },
    Kind {
        name: "groups",
        of: "groups of one queue that nobody fetches for",
        sizes: &[100, 1_000],
        size_max: 100_000,
        run: groups::run,
    },
    Kind {
        name: "connections",
        of: "connections that are made at once and leave at once",
        sizes: &[1_000, 5_000],
        // What a server takes by default, without those of the tool.
        size_max: 9_990,
        run: connections::run,
    },
    Kind {
        name: "leases",
        of: "leases that run out at once",
        sizes: &[10_000, 100_000],
        size_max: 5_000_000,
        run: leases::run,
    },
    Kind {
        name: "sessions",
        of: "leases of one session, which ends",
        sizes: &[100_000, 1_000_000],
        size_max: 5_000_000,
        run: sessions::run,
    },
    Kind {
        name: "delays",
        of: "jobs that are due at once: delayed ones and retries",
        sizes: &[100_000, 1_000_000],
        size_max: 10_000_000,
        run: delays::run,
    },
    Kind {
        name: "reasons",
        of: "jobs that one FAIL or EXTEND with a long text names",
        sizes: &[10_000, 60_000],
        size_max: 65_536,
        run: reasons::run,
    },
    Kind {
        name: "dead",
        of: "dead jobs of each of two groups, under commands about their queue",
        sizes: &[100_000, 1_000_000],
        size_max: 5_000_000,
        run: dead::run,
    },
    Kind {
        name: "crashes",
        of: "queues of a server that is killed again and again",
        sizes: &[1_000, 10_000],
        size_max: 1_000_000,
        run: crashes::run,
    },
    Kind {
        name: "pipelined",
        of: "small requests in one write of a neighbour",
        sizes: &[200, 2_000],
        size_max: 100_000,
        run: neighbours::pipelined,
    },
    Kind {
        name: "frames",
        of: "requests of 4 MiB of a neighbour",
        sizes: &[25, 250],
        size_max: 10_000,
        run: neighbours::frames,
    },
    Kind {
        name: "cold-reads",
        of: "MiB that a READ goes through, with memory for a quarter; needs root",
        sizes: &[512],
        size_max: 100_000,
        run: cold::run,
    },
];

/// The kind with this name.
pub(crate) fn find(name: &str) -> Result<&'static Kind> {
    let names = || KINDS.each_ref().map(|kind| kind.name).join(", ");
    let found = KINDS.iter().find(|kind| kind.name == name);
    found.ok_or_else(|| anyhow!("nothing called '{name}' grows here; there are {}", names()))
}

/// What to run.
pub(crate) struct Options {
    pub(crate) kinds: Vec<&'static Kind>,
    /// Instead of the sizes of the kinds.
    pub(crate) sizes: Vec<u64>,
    pub(crate) class: Class,
    /// What does not end within this is given up.
    pub(crate) patience: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) places: Places,
}

/// One kind at one size.
#[derive(Clone)]
struct Trial {
    kind: &'static str,
    size: u64,
    class: Class,
    patience: Duration,
    places: Places,
}

/// Runs all kinds at all sizes, prints each row as it comes and saves the report after each trial.
///
/// # Errors
/// A size is not allowed, or a trial failed; the others are run all the same.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut trials = Vec::new();
    for kind in &options.kinds {
        let sizes = if options.sizes.is_empty() { kind.sizes } else { &options.sizes };
        for size in sizes {
            let (name, most) = (kind.name, kind.size_max);
            ensure!(
                (1..=most).contains(size),
                "--sizes of {name}: {size}; allowed are 1 to {most}"
            );
            trials.push((*kind, *size));
        }
    }
    let mut report = Report::new(Machine::here(&options.places.dir)?);
    take_roll(&[systems::find("joblog")?], &options.places, &mut report);
    report.check_complete()?;
    let bar = progress(trials.len() as u64);
    bar.suspend(report::growth::print_head);
    for (kind, size) in trials {
        bar.set_message(format!("{} at {size}", kind.name));
        let trial = Trial {
            kind: kind.name,
            size,
            class: options.class,
            patience: options.patience,
            places: options.places.clone(),
        };
        match (kind.run)(&trial).with_context(|| format!("{} at {size}", kind.name)) {
            Ok(rows) => {
                bar.suspend(|| rows.iter().for_each(report::growth::print));
                report.growth.extend(rows);
            }
            Err(error) => {
                let by_nature = error.downcast_ref::<cold::NoCap>().is_some();
                let (system, why) = ("joblog".into(), format!("{error:#}"));
                bar.suspend(|| eprintln!("not measured: {why}"));
                report.missing.push(Missing { system, why, by_nature });
            }
        }
        report.save(options.json.as_deref())?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.check_complete()
}
