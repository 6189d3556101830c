//! `qctl top`: the numbers of all queues, live on a terminal, or as a table, or as JSON.

mod live;
mod look;
mod screen;

use std::io::{self, IsTerminal};

use serde::Serialize;
use tokio::time::sleep;

pub(crate) use self::look::Sort;
use self::look::{Look, Looks, Row, sort};
use crate::args::TopArgs;
use crate::error::{Exit, Outcome};
use crate::output::{Output, Table};
use crate::server::Server;
use crate::values::format_time;

/// One look as JSON.
#[derive(Debug, Serialize)]
struct LookView {
    at: String,
    groups: Vec<Row>,
}

/// `qctl top`.
pub(crate) async fn run(server: &Server, args: TopArgs, out: &Output) -> Outcome {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if is_terminal && !args.once && !out.is_json() {
        let client = server.connect().await?;
        return live::run(client, server.address(), args, out.colors()).await;
    }
    let client = server.connect().await?;
    let mut looks = Looks::default();
    loop {
        looks.add(Look::ask(client, &args.queues).await?);
        let mut rows = looks.all();
        sort(&mut rows, args.sort);
        if !out.is_json() {
            out.write(table(&rows).text(out.colors()).as_bytes())?;
            return Ok(Exit::Done);
        }
        out.print_json(&LookView { at: format_time(looks.now_ms()), groups: rows })?;
        out.flush()?;
        if args.once {
            return Ok(Exit::Done);
        }
        sleep(args.interval).await;
    }
}

/// One look as a table. Rates need two, and so are left out.
fn table(rows: &[Row]) -> Table {
    let head = ["QUEUE", "GROUP", "READY", "LEASED", "DELAYED", "DEAD", "OLDEST", "STATE"];
    let mut table = Table::new(&head);
    for row in rows {
        let group = row.group.clone().unwrap_or_else(|| "-".to_owned());
        let mut cells = vec![row.queue.clone(), group];
        cells.extend(counts(row));
        table.row(cells);
    }
    table
}

/// What all tables end with.
fn counts(row: &Row) -> [String; 6] {
    [
        row.ready.to_string(),
        row.leased.to_string(),
        row.delayed.to_string(),
        row.dead.to_string(),
        row.oldest_ms.map_or_else(|| "-".to_owned(), format_age),
        if row.paused { "paused" } else { "" }.to_owned(),
    ]
}

/// An age to one unit.
fn format_age(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let ages = [0, 119_999, 120_000, 7_199_000, 7_200_000, 172_799_000, 172_800_000];
        let told: Vec<String> = ages.into_iter().map(format_age).collect();
        assert_eq!(told, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
