//! The live view: looks come in at their interval, keys act at once.

use std::sync::Arc;
use std::time::Duration;

use clap::builder::styling::Style;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, read};
use joblog::client::{Client, ClientError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::counts;
use super::look::{Look, Looks, Row, Sort, sort};
use super::screen::Screen;
use crate::args::TopArgs;
use crate::color::{ALARM, Colors, HEAD};
use crate::error::{CliError, Exit, Outcome};
use crate::output::Table;
use crate::values::{format_millis, format_time};

const SELECTED: Style = Style::new().invert();
const KEYS: &str = "q quit  up/down select  enter groups  esc back  p pause/resume  s sort";
/// Lines around the rows: title, gap, head, and the keys.
const OTHER_LINES: usize = 4;

/// What the view hears of.
enum News {
    Looked(Result<Look, ClientError>),
    /// A pause or its end was asked for, and what to say of it.
    Acted(Result<String, ClientError>),
    Terminal(std::io::Result<Event>),
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    On,
    Quit,
}

/// Runs until the user quits.
pub(super) async fn run(client: &Client, server: &str, args: TopArgs, colors: Colors) -> Outcome {
    let mut ends = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let (sender, mut news) = mpsc::channel(16);
    let mut view = View {
        client: client.clone(),
        news: sender.clone(),
        look_now: Arc::new(Notify::new()),
        server: server.to_owned(),
        interval: args.interval,
        sort: args.sort,
        looks: Looks::default(),
        inside: None,
        selected: None,
        problem: None,
        said: String::new(),
        colors,
    };
    tokio::spawn(look_again_and_again(
        client.clone(),
        args.queues,
        args.interval,
        Arc::clone(&view.look_now),
        sender.clone(),
    ));
    let mut screen = Screen::take()?;
    std::thread::spawn(move || read_terminal(&sender));
    loop {
        view.draw(&mut screen)?;
        let [interrupt, terminate, hangup] = &mut ends;
        let heard = tokio::select! {
            heard = news.recv() => heard,
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
        };
        let Some(heard) = heard else { return Ok(Exit::Done) };
        if view.hear(heard)? == Next::Quit {
            return Ok(Exit::Done);
        }
    }
}

async fn look_again_and_again(
    client: Client,
    only: Vec<String>,
    interval: Duration,
    look_now: Arc<Notify>,
    news: mpsc::Sender<News>,
) {
    while news.send(News::Looked(Look::ask(&client, &only).await)).await.is_ok() {
        // Either way it is time for the next one.
        drop(timeout(interval, look_now.notified()).await);
    }
}

/// Reading the terminal blocks, so it has a thread, which ends with the process.
fn read_terminal(news: &mpsc::Sender<News>) {
    loop {
        let event = read();
        let failed = event.is_err();
        if news.blocking_send(News::Terminal(event)).is_err() || failed {
            return;
        }
    }
}

struct View {
    client: Client,
    news: mpsc::Sender<News>,
    /// Told when something was changed that should be seen.
    look_now: Arc<Notify>,
    server: String,
    interval: Duration,
    sort: Sort,
    looks: Looks,
    /// The queue whose groups are shown; none for all queues.
    inside: Option<String>,
    /// The name of the row that keys are about.
    selected: Option<String>,
    /// Why the last look failed.
    problem: Option<String>,
    /// What the last key did.
    said: String,
    colors: Colors,
}

impl View {
    fn hear(&mut self, news: News) -> Result<Next, CliError> {
        match news {
            News::Looked(Ok(look)) => {
                self.looks.add(look);
                self.problem = None;
            }
            // It may come back: what was seen last stays on the screen.
            News::Looked(Err(error)) => self.problem = Some(error.to_string()),
            News::Acted(Ok(said)) => self.said = said,
            News::Acted(Err(error)) => self.said = error.to_string(),
            News::Terminal(Err(error)) => return Err(error.into()),
            News::Terminal(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                return Ok(self.press(key));
            }
            // A new size is seen when it is drawn.
            News::Terminal(Ok(_)) => {}
        }
        Ok(Next::On)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
    fn press(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Next::Quit,
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::Enter if self.inside.is_none() => {
                self.inside = self.selected.take();
                self.said.clear();
            }
            KeyCode::Esc | KeyCode::Backspace if self.inside.is_some() => {
                self.selected = self.inside.take();
                self.said.clear();
            }
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.said = format!("sorted by {:?}", self.sort).to_lowercase();
            }
            KeyCode::Char('p') => self.pause_or_resume(),
            _ => {}
        }
        Next::On
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = match &self.inside {
            None => self.looks.queues(),
            Some(queue) => self.looks.groups_of(queue),
        };
        sort(&mut rows, self.sort);
        rows
    }

    fn move_by(&mut self, by: isize) {
        let rows = self.rows();
        let at = self.selected_at(&rows).saturating_add_signed(by);
        let row = rows.get(at.min(rows.len().saturating_sub(1)));
        self.selected = row.map(|row| name(row).to_owned());
    }

    fn selected_at(&self, rows: &[Row]) -> usize {
        let is_selected = |row: &Row| self.selected.as_deref() == Some(name(row));
        rows.iter().position(is_selected).unwrap_or(0)
    }

    fn pause_or_resume(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected_at(&rows)).cloned() else { return };
        let (client, news) = (self.client.clone(), self.news.clone());
        let look_now = Arc::clone(&self.look_now);
        tokio::spawn(async move {
            let group = row.group.as_deref();
            let what = match group {
                None => format!("queue {}", row.queue),
                Some(group) => format!("group {group} of queue {}", row.queue),
            };
            let done = match row.paused {
                false => client.pause(&row.queue, group).await.map(|()| "paused"),
                true => client.resume(&row.queue, group).await.map(|()| "resumed"),
            };
            look_now.notify_one();
            // If nobody listens any more, nobody wants to know.
            drop(news.send(News::Acted(done.map(|done| format!("{done} {what}")))).await);
        });
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<(), CliError> {
        let (columns, lines) = screen.size()?;
        let rows = self.rows();
        let at = self.selected_at(&rows);
        self.selected = rows.get(at).map(|row| name(row).to_owned());
        let text = self.table(&rows).text(Colors::none());
        let mut table = text.lines();
        let cut = |line: &str| line.chars().take(columns).collect::<String>();
        let mut shown = vec![cut(&self.title(&rows)), String::new()];
        let head = table.next().unwrap_or_default();
        shown.push(self.colors.paint(HEAD, &cut(&format!("  {head}"))));
        let room = lines.saturating_sub(OTHER_LINES).max(1);
        let first = (at + 1).saturating_sub(room);
        for (number, (line, row)) in table.zip(&rows).enumerate().skip(first).take(room) {
            let line = match number == at {
                true => self.colors.paint(SELECTED, &cut(&format!("> {line}"))),
                false if row.dead > 0 => self.colors.paint(ALARM, &cut(&format!("  {line}"))),
                false => cut(&format!("  {line}")),
            };
            shown.push(line);
        }
        let last = match (&self.problem, self.said.is_empty()) {
            (Some(problem), _) => self.colors.paint(ALARM, &cut(problem)),
            (None, false) => cut(&format!("{KEYS}  | {}", self.said)),
            (None, true) => cut(KEYS),
        };
        shown.push(last);
        shown.truncate(lines);
        Ok(screen.draw(&shown)?)
    }

    fn title(&self, rows: &[Row]) -> String {
        let server = &self.server;
        let every = format_millis(self.interval.as_millis() as u64);
        let at = match self.looks.now_ms() {
            0 => "asking".to_owned(),
            now_ms => format_time(now_ms),
        };
        match &self.inside {
            None => format!("qctl top  {server}  {at}  every {every}  {} queues", rows.len()),
            Some(queue) => format!("qctl top  {server}  {at}  every {every}  queue {queue}"),
        }
    }

    fn table(&self, rows: &[Row]) -> Table {
        let counts_head = ["READY", "LEASED", "DELAYED", "DEAD", "OLDEST", "STATE"];
        let first = match self.inside {
            None => ["QUEUE", "GROUPS", "IN/S", "OUT/S"],
            Some(_) => ["GROUP", "KIND", "IN/S", "OUT/S"],
        };
        let mut table = Table::new(&[&first[..], &counts_head].concat());
        for row in rows {
            let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), format_rate);
            let mut cells = vec![name(row).to_owned(), row.about.clone()];
            cells.extend([rate(row.in_per_s), rate(row.out_per_s)]);
            cells.extend(counts(row));
            table.row(cells);
        }
        table
    }
}

fn name(row: &Row) -> &str {
    row.group.as_deref().unwrap_or(&row.queue)
}

/// A rate in as many digits as say something.
fn format_rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_digits_that_say_something() {
        let told: Vec<String> = [0.0, 0.04, 1.25, 9.96, 10.4, 12_345.6].map(format_rate).into();
        assert_eq!(told, ["0", "0.0", "1.2", "10.0", "10", "12346"]);
    }
}
