//! The workloads, what grows, and the systems.

use anyhow::Result;
use serde_json::json;

use crate::growth;
use crate::systems::{self, Class};
use crate::workload;

/// Prints them.
pub(crate) fn print(as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(&list())?);
        return Ok(());
    }
    println!("Workloads (* runs by default, + only with --large):");
    for workload in workload::ALL {
        let mark = if workload.main {
            '*'
        } else if workload.large {
            '+'
        } else {
            ' '
        };
        println!("{mark} {:14} {}", workload.name, workload.stands_for);
    }
    println!("\nWhat grows, at the sizes by default:");
    for kind in &growth::KINDS {
        println!("  {:14} {} {:?}", kind.name, kind.of, kind.sizes);
    }
    println!("\nSystems, and what a crash loses at each class:");
    for system in systems::ALL {
        println!("  {:14} {} ({})", system.name(), system.how(), system.package());
        for class in Class::ALL {
            let words = match system.loses(class) {
                Ok(loses) => loses.to_owned(),
                Err(why) => format!("not to be had: {why}"),
            };
            println!("    {:7} {words}", class.name());
        }
    }
    Ok(())
}

fn list() -> serde_json::Value {
    let workloads = workload::ALL.map(|workload| {
        json!({
            "name": workload.name,
            "stands_for": workload.stands_for,
            "main": workload.main,
            "large": workload.large,
        })
    });
    let systems = systems::ALL.map(|system| {
        let classes: Vec<_> = Class::ALL
            .into_iter()
            .filter_map(|class| {
                let loses = system.loses(class).ok()?;
                Some(json!({"class": class.name(), "loses": loses}))
            })
            .collect();
        json!({"name": system.name(), "how": system.how(), "classes": classes})
    });
    let grows = growth::KINDS
        .each_ref()
        .map(|kind| json!({"name": kind.name, "of": kind.of, "sizes": kind.sizes}));
    json!({"workloads": workloads, "systems": systems, "grows": grows})
}
