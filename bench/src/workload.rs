//! The workloads: what each does, and what it stands for.

use std::time::Duration;

use crate::engine::{Pace, Plan};
use crate::systems::System;

/// How long a worker holds a slow job.
const SLOW_TIME: Duration = Duration::from_millis(5);

/// How a workload goes about its jobs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// First all are enqueued, then all are consumed; both are timed.
    Apart,
    /// Half of the connections enqueue while the other half waits for jobs and consumes.
    Together,
    /// One job at a time goes to a waiting consumer.
    HandOff,
    /// Jobs are sent on schedule, so many a second, to waiting consumers.
    Open { per_second: f64 },
    /// So many jobs lie there; some of them are consumed.
    Backlog { jobs: u64 },
}

/// A workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) stands_for: &'static str,
    pub(crate) kind: Kind,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) batch: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) queues: usize,
    /// One job in ten keeps its worker busy for a while.
    pub(crate) slow: bool,
    /// Part of `qbench compare` without names.
    pub(crate) main: bool,
    /// Only run with --large.
    pub(crate) large: bool,
}

/// Jobs in a request where filling or draining is not timed.
pub(crate) const FILL_BATCH: usize = 500;

const BASE: Workload = Workload {
    name: "",
    stands_for: "",
    kind: Kind::Apart,
    connections: 50,
    in_flight: 1,
    batch: 1,
    payload_bytes: 100,
    queues: 1,
    slow: false,
    main: false,
    large: false,
};

/// All workloads.
pub(crate) const ALL: [Workload; 20] = [
    Workload {
        name: "c1",
        stands_for: "one producer, then one worker: the round trip",
        connections: 1,
        main: true,
        ..BASE
    },
    Workload {
        name: "c50",
        stands_for: "50 web processes enqueue; 50 workers consume: redis-benchmark's own setting",
        main: true,
        ..BASE
    },
    Workload {
        name: "c50-p16",
        stands_for: "50 clients with 16 requests in flight each",
        in_flight: 16,
        main: true,
        ..BASE
    },
    Workload {
        name: "c50-p64",
        stands_for: "50 clients with 64 requests in flight each",
        in_flight: 64,
        ..BASE
    },
    Workload {
        name: "c1-p64",
        stands_for: "one client with 64 requests in flight",
        connections: 1,
        in_flight: 64,
        ..BASE
    },
    Workload {
        name: "c50-1k",
        stands_for: "as c50, with payloads of 1 KiB",
        payload_bytes: 1024,
        ..BASE
    },
    Workload {
        name: "c50-p16-1k",
        stands_for: "as c50-p16, with payloads of 1 KiB",
        in_flight: 16,
        payload_bytes: 1024,
        ..BASE
    },
    Workload {
        name: "batch",
        stands_for: "50 clients; 100 jobs in each request",
        batch: 100,
        main: true,
        ..BASE
    },
    Workload {
        name: "batch-c1",
        stands_for: "one client; 100 jobs in each request",
        connections: 1,
        batch: 100,
        ..BASE
    },
    Workload {
        name: "together",
        stands_for: "a queue that is kept empty: 25 producers, 25 waiting workers",
        kind: Kind::Together,
        main: true,
        ..BASE
    },
    Workload {
        name: "together-p16",
        stands_for: "as together, each producer with 16 requests in flight",
        kind: Kind::Together,
        in_flight: 16,
        ..BASE
    },
    Workload {
        name: "hand-off",
        stands_for: "how soon a waiting worker has a job: one at a time",
        kind: Kind::HandOff,
        connections: 2,
        main: true,
        ..BASE
    },
    Workload {
        name: "open-5k",
        stands_for: "5,000 jobs a second on schedule, 10 producers, 10 waiting workers",
        kind: Kind::Open { per_second: 5_000.0 },
        connections: 20,
        main: true,
        ..BASE
    },
    Workload {
        name: "open-20k",
        stands_for: "20,000 jobs a second on schedule, 25 producers, 25 waiting workers",
        kind: Kind::Open { per_second: 20_000.0 },
        ..BASE
    },
    Workload {
        name: "queues-10",
        stands_for: "as c50, the jobs spread over 10 queues",
        queues: 10,
        ..BASE
    },
    Workload {
        name: "queues-1000",
        stands_for: "as c50, the jobs spread over 1,000 queues",
        queues: 1_000,
        ..BASE
    },
    Workload {
        name: "slow",
        stands_for: "as c50, one job in ten takes its worker 5 ms",
        slow: true,
        ..BASE
    },
    Workload {
        name: "backlog-10k",
        stands_for: "10,000 jobs lie there: memory, disk, restart, and work",
        kind: Kind::Backlog { jobs: 10_000 },
        in_flight: 16,
        ..BASE
    },
    Workload {
        name: "backlog-1m",
        stands_for: "a million jobs lie there: memory, disk, restart, and work",
        kind: Kind::Backlog { jobs: 1_000_000 },
        in_flight: 16,
        ..BASE
    },
    Workload {
        name: "backlog-10m",
        stands_for: "ten million jobs of 1 KiB lie there: memory, disk, restart, and work",
        kind: Kind::Backlog { jobs: 10_000_000 },
        payload_bytes: 1024,
        in_flight: 16,
        large: true,
        ..BASE
    },
];

/// The workload with this name.
pub(crate) fn find(name: &str) -> anyhow::Result<Workload> {
    let found = ALL.into_iter().find(|workload| workload.name == name);
    found.ok_or_else(|| {
        let names = ALL.map(|workload| workload.name).join(", ");
        anyhow::anyhow!("there is no workload '{name}'; there are {names}")
    })
}

impl Workload {
    /// Why a system can't do it, if it can't.
    pub(crate) fn refuses(&self, system: &dyn System) -> Option<&'static str> {
        match self.kind {
            Kind::Backlog { .. } if system.pushes() => {
                Some("it shares out what is there: a part can't be asked for")
            }
            _ if self.queues > 1 => system.one_queue(),
            _ => None,
        }
    }

    /// The plan that enqueues jobs.
    pub(crate) fn enqueue(&self, queues: &[String], jobs: std::ops::Range<u64>) -> Plan {
        Plan {
            producers: self.connections,
            consumers: 0,
            producer_slots: self.in_flight,
            consumer_slots: 1,
            batch: self.batch,
            payload_bytes: self.payload_bytes,
            queues: queues.to_vec(),
            enqueue: jobs,
            consume: 0,
            wait: false,
            may_be_empty: false,
            pace: Pace::Closed,
            slow: None,
        }
    }

    /// The plan that consumes jobs.
    pub(crate) fn consume(&self, queues: &[String], jobs: u64, system: &dyn System) -> Plan {
        Plan {
            producers: 0,
            consumers: self.connections,
            consumer_slots: self.in_flight,
            consume: jobs,
            wait: system.pushes(),
            slow: self.slow.then_some(SLOW_TIME),
            ..self.enqueue(queues, 0..0)
        }
    }

    /// The plan that does both at once.
    pub(crate) fn both(&self, queues: &[String], jobs: u64) -> Plan {
        Plan {
            producers: self.connections / 2,
            consumers: self.connections / 2,
            consume: jobs,
            wait: true,
            pace: match self.kind {
                Kind::HandOff => Pace::OneByOne,
                Kind::Open { per_second } => Pace::PerSecond(per_second),
                _ => Pace::Closed,
            },
            ..self.enqueue(queues, 0..jobs)
        }
    }

    /// Fills a queue quickly, whatever the workload: not timed.
    pub(crate) fn fill(&self, queues: &[String], jobs: u64) -> Plan {
        Plan { producer_slots: 4, batch: FILL_BATCH, ..self.enqueue(queues, 0..jobs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::BYTES_MIN;

    #[test]
    fn names_are_unique_and_each_says_what_it_stands_for() {
        for (place, workload) in ALL.iter().enumerate() {
            assert!(!workload.stands_for.is_empty(), "{}", workload.name);
            assert!(ALL[..place].iter().all(|other| other.name != workload.name));
            assert!(workload.payload_bytes >= BYTES_MIN);
        }
    }
}
