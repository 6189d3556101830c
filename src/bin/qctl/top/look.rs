//! What a look at the server shows: rows of numbers, and rates since the look before.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Instant;

use clap::ValueEnum;
use joblog::client::{Client, ClientError, GroupKind, QueueStats};
use serde::Serialize;

/// Queues asked for at once.
const PAGE: u32 = 1000;

/// The numbers of all queues at one time.
#[derive(Debug)]
pub(crate) struct Look {
    at: Instant,
    /// The server's time of day.
    pub(crate) now_ms: u64,
    queues: Vec<QueueStats>,
}

impl Look {
    /// Asks the server: for these queues, or for all if none is named.
    pub(crate) async fn ask(client: &Client, only: &[String]) -> Result<Self, ClientError> {
        let mut look = Self { at: Instant::now(), now_ms: 0, queues: Vec::new() };
        let mut after = String::new();
        loop {
            let page = client.stats(&after, PAGE).await?;
            look.now_ms = page.now_ms;
            let last = page.queues.last().map(|last| last.queue.clone());
            let wanted = |queue: &QueueStats| only.is_empty() || only.contains(&queue.queue);
            look.queues.extend(page.queues.into_iter().filter(wanted));
            match last {
                Some(last) if page.more => after = last,
                _ => break,
            }
        }
        look.at = Instant::now();
        Ok(look)
    }
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Name,
    In,
    Out,
    Ready,
    Leased,
    Delayed,
    Dead,
    Oldest,
}

impl Sort {
    /// The next one in turn.
    pub(crate) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|sort| *sort == self).map_or(0, |at| at + 1);
        all.get(at).copied().unwrap_or(Self::Name)
    }
}

/// The numbers of a queue, all groups together, or of one group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) queue: String,
    /// None for a queue as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    pub(crate) paused: bool,
    /// How many groups a queue has, or what kind a group is.
    #[serde(skip)]
    pub(crate) about: String,
    /// Jobs enqueued in a second, since the look before.
    pub(crate) in_per_s: Option<f64>,
    /// Jobs consumed in a second, since the look before.
    pub(crate) out_per_s: Option<f64>,
    pub(crate) ready: u64,
    pub(crate) leased: u64,
    pub(crate) delayed: u64,
    pub(crate) dead: u64,
    /// How long the oldest job has waited that is neither consumed nor dead.
    pub(crate) oldest_ms: Option<u64>,
}

/// The last two looks.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    last: Option<Look>,
    /// How many were enqueued to each queue, and consumed by each of its groups, the time before.
    before: HashMap<String, Totals>,
    seconds: f64,
}

#[derive(Debug)]
struct Totals {
    enqueued: u64,
    consumed: HashMap<String, u64>,
}

impl Looks {
    /// Takes a look in, and drops the one before the last.
    pub(crate) fn add(&mut self, look: Look) {
        if let Some(last) = self.last.take() {
            self.seconds = look.at.duration_since(last.at).as_secs_f64();
            self.before = last.queues.into_iter().map(totals).collect();
        }
        self.last = Some(look);
    }

    /// The server's time at the last look.
    pub(crate) fn now_ms(&self) -> u64 {
        self.last.as_ref().map_or(0, |look| look.now_ms)
    }

    /// A row for each queue.
    pub(crate) fn queues(&self) -> Vec<Row> {
        let queues = self.last.iter().flat_map(|look| &look.queues);
        queues.map(|queue| self.whole(queue)).collect()
    }

    /// A row for each group of one queue.
    pub(crate) fn groups_of(&self, name: &str) -> Vec<Row> {
        let queues = self.last.iter().flat_map(|look| &look.queues);
        queues.filter(|queue| queue.queue == name).flat_map(|queue| self.groups(queue)).collect()
    }

    /// A row for each group of each queue, and for each queue without a group.
    pub(crate) fn all(&self) -> Vec<Row> {
        let queues = self.last.iter().flat_map(|look| &look.queues);
        let rows = |queue: &QueueStats| match queue.groups.is_empty() {
            true => vec![self.whole(queue)],
            false => self.groups(queue),
        };
        queues.flat_map(rows).collect()
    }

    fn whole(&self, queue: &QueueStats) -> Row {
        let groups = self.groups(queue);
        let sum = |number: fn(&Row) -> u64| groups.iter().map(number).sum();
        let enqueued = self.before.get(&queue.queue).map(|before| before.enqueued);
        let rates: Option<Vec<f64>> = groups.iter().map(|group| group.out_per_s).collect();
        Row {
            queue: queue.queue.clone(),
            group: None,
            paused: queue.paused,
            about: groups.len().to_string(),
            in_per_s: self.rate(enqueued, queue.next_offset),
            out_per_s: rates.filter(|rates| !rates.is_empty()).map(|rates| rates.iter().sum()),
            ready: if groups.is_empty() { queue.unconsumed } else { sum(|row| row.ready) },
            leased: sum(|row| row.leased),
            delayed: sum(|row| row.delayed),
            dead: sum(|row| row.dead),
            oldest_ms: groups.iter().filter_map(|row| row.oldest_ms).max(),
        }
    }

    fn groups(&self, queue: &QueueStats) -> Vec<Row> {
        let before = self.before.get(&queue.queue);
        let row = |group: &joblog::client::GroupStats| Row {
            queue: queue.queue.clone(),
            group: Some(group.group.clone()),
            paused: queue.paused || group.paused,
            about: match group.kind {
                GroupKind::Work => "work".to_owned(),
                GroupKind::Stream => "stream".to_owned(),
            },
            in_per_s: self.rate(before.map(|before| before.enqueued), queue.next_offset),
            out_per_s: self.rate(
                before.and_then(|before| before.consumed.get(&group.group).copied()),
                group.committed_offset + group.consumed_above,
            ),
            ready: group.ready,
            leased: group.leased,
            delayed: group.delayed,
            dead: group.dead,
            oldest_ms: group.oldest_enqueued_at_ms.map(|at| self.now_ms().saturating_sub(at)),
        };
        queue.groups.iter().map(row).collect()
    }

    /// How fast a number grew. One that went down was set back, which is no rate.
    fn rate(&self, before: Option<u64>, now: u64) -> Option<f64> {
        let grown = now.checked_sub(before?)?;
        (self.seconds > 0.0).then(|| grown as f64 / self.seconds)
    }
}

fn totals(queue: QueueStats) -> (String, Totals) {
    let consumed = |group: joblog::client::GroupStats| {
        let consumed = group.committed_offset + group.consumed_above;
        (group.group, consumed)
    };
    let consumed = queue.groups.into_iter().map(consumed).collect();
    (queue.queue, Totals { enqueued: queue.next_offset, consumed })
}

/// Sorts rows: names from a to z, numbers from the largest down.
pub(crate) fn sort(rows: &mut [Row], by: Sort) {
    let name = |row: &Row| (row.queue.clone(), row.group.clone());
    let rate =
        |one: Option<f64>, other: Option<f64>| other.unwrap_or(0.0).total_cmp(&one.unwrap_or(0.0));
    rows.sort_by(|one, other| {
        let order = match by {
            Sort::Name => Ordering::Equal,
            Sort::In => rate(one.in_per_s, other.in_per_s),
            Sort::Out => rate(one.out_per_s, other.out_per_s),
            Sort::Ready => other.ready.cmp(&one.ready),
            Sort::Leased => other.leased.cmp(&one.leased),
            Sort::Delayed => other.delayed.cmp(&one.delayed),
            Sort::Dead => other.dead.cmp(&one.dead),
            Sort::Oldest => other.oldest_ms.cmp(&one.oldest_ms),
        };
        order.then_with(|| name(one).cmp(&name(other)))
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use joblog::client::GroupStats;

    use super::*;

    fn group(name: &str, committed_offset: u64, ready: u64) -> GroupStats {
        GroupStats {
            group: name.to_owned(),
            kind: GroupKind::Work,
            paused: false,
            committed_offset,
            consumed_above: 1,
            ready,
            leased: 2,
            delayed: 3,
            dead: 4,
            oldest_enqueued_at_ms: Some(1000),
        }
    }

    fn queue(name: &str, next_offset: u64, groups: Vec<GroupStats>) -> QueueStats {
        let queue = name.to_owned();
        QueueStats { queue, paused: false, first_offset: 0, next_offset, unconsumed: 7, groups }
    }

    /// The looks at a start, and two seconds later.
    fn two_looks(first: Vec<QueueStats>, second: Vec<QueueStats>) -> Looks {
        let begun = Instant::now();
        let mut looks = Looks::default();
        looks.add(Look { at: begun, now_ms: 3000, queues: first });
        assert!(looks.queues().iter().all(|row| row.in_per_s.is_none()));
        let at = begun + Duration::from_secs(2);
        looks.add(Look { at, now_ms: 5000, queues: second });
        looks
    }

    #[test]
    fn a_queue_is_the_sum_of_its_groups_and_rates_come_from_two_looks() {
        let first = vec![queue("q", 10, vec![group("a", 4, 1), group("b", 0, 5)])];
        let second = vec![queue("q", 30, vec![group("a", 8, 1), group("b", 1, 6)])];
        let looks = two_looks(first, second);
        let rows = looks.queues();
        let row = &rows[0];
        assert_eq!((row.ready, row.leased, row.delayed, row.dead), (7, 4, 6, 8));
        assert_eq!(
            (row.in_per_s, row.out_per_s, row.oldest_ms),
            (Some(10.0), Some(2.5), Some(4000))
        );
        let groups = looks.groups_of("q");
        assert_eq!((groups[0].out_per_s, groups[1].out_per_s), (Some(2.0), Some(0.5)));
        assert_eq!(looks.all(), groups);
    }

    #[test]
    fn what_is_new_or_was_set_back_has_no_rate() {
        let first = vec![queue("q", 10, vec![group("back", 9, 0)])];
        let second = vec![
            queue("empty", 5, Vec::new()),
            queue("q", 10, vec![group("back", 0, 9), group("new", 0, 0)]),
        ];
        let looks = two_looks(first, second);
        let rows = looks.all();
        assert_eq!((rows[0].group.as_ref(), rows[0].ready, rows[0].in_per_s), (None, 7, None));
        assert_eq!((rows[1].in_per_s, rows[1].out_per_s), (Some(0.0), None));
        assert_eq!(rows[2].out_per_s, None);
    }

    #[test]
    fn rows_are_sorted_by_name_or_from_the_largest_down() {
        let queues = |ready: [u64; 3]| {
            let each = ["a", "b", "c"].into_iter().zip(ready);
            each.map(|(name, ready)| queue(name, 0, vec![group("g", 0, ready)])).collect()
        };
        let mut rows = two_looks(queues([0; 3]), queues([1, 5, 1])).queues();
        let mut names = |by| {
            sort(&mut rows, by);
            rows.iter().map(|row| row.queue.clone()).collect::<String>()
        };
        assert_eq!(names(Sort::Ready), "bac");
        assert_eq!(names(Sort::Name), "abc");
        let mut by = Sort::Name;
        let all: Vec<Sort> = Sort::value_variants()
            .iter()
            .map(|_| {
                by = by.next();
                by
            })
            .collect();
        assert_eq!(all.last(), Some(&Sort::Name), "after the last comes the first: {all:?}");
    }
}
