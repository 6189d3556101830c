//! One history: lives of a broker, each of which ends by a stop, a kill, a failing disk or a power
//! cut.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use joblog::broker::{
    Broker, BrokerError, BrokerOptions, Durability, FetchedJobs, Gated, JobBatch, JobRefusal,
    LeaseRefs, Logs, RetryTerms, SessionHandle,
};
use joblog::types::{EntryIndex, Grant, LeaseRef, Offset};
use joblog_protocol::job::{BatchBuilder, EncodedJob};
use smallvec::SmallVec;
use tempfile::{TempDir, tempdir, tempdir_in};

use crate::broker::{self, SESSION};
use crate::ledger::{Ledger, Name, Sure, Told};
use crate::support::{Disk, Random};

const QUEUES: [&str; 3] = ["mail", "images", "bills"];
/// The smallest segments that a turn of the broker fits.
const SEGMENT_BYTES: u32 = 512 << 10;
/// Few, so that answers are held for want of a synced reservation.
const RESERVED_JOBS: u64 = 8;

pub(crate) struct History {
    random: Random,
    pub(crate) dir: TempDir,
    pub(crate) disk: Disk,
    pub(crate) ledger: Ledger,
    /// Leases that the worker believes it has; whether they are synced.
    held: Vec<(Name, Grant, u64)>,
    /// One more than the highest offset given at `fsync` or before a clean stop, if nothing may
    /// be passed over.
    ends: Option<BTreeMap<&'static str, Offset>>,
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

/// A broker and who talks to it.
pub(crate) struct Life {
    pub(crate) broker: Arc<Broker>,
    session: SessionHandle,
    durability: Durability,
    /// Answers that have not left yet.
    waiting: Vec<(EntryIndex, Told)>,
    ends: BTreeMap<&'static str, Offset>,
}

fn scratch() -> TempDir {
    tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap()
}

fn traced() -> bool {
    env::var_os("JOBLOG_SEED").is_some()
}

/// The number of a job, from its payload.
fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().unwrap())
}

impl History {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            dir: scratch(),
            disk: Disk::default(),
            ledger: Ledger::default(),
            held: Vec::new(),
            ends: None,
            seen: BTreeMap::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn see(&mut self, what: &'static str) {
        if traced() {
            eprintln!("-- {what}");
        }
        *self.seen.entry(what).or_default() += 1;
    }

    /// A life from a start to its end, and what is left of the disk then.
    pub(crate) fn live(&mut self) {
        let durability = [Durability::Fsync, Durability::Interval { ms: 5 }, Durability::Os];
        let durability = durability[self.below(3) as usize];
        let calls = self.below(150);
        self.disk.trace(traced());
        match self.below(8) {
            0..4 => self.disk.cut_power_after(calls),
            4..7 => {
                let kind = [io::ErrorKind::Other, io::ErrorKind::StorageFull];
                let kind = kind[self.below(2) as usize];
                self.disk.fail_after(calls, kind);
            }
            _ => {}
        }
        if let Some(mut life) = self.start(durability) {
            for _ in 0..10 + self.below(40) {
                life.broker.settle();
                self.step(&mut life);
                self.tell(&mut life);
                if self.disk.is_cut() {
                    break;
                }
            }
            self.end(life);
        }
        let failed = self.disk.heal();
        if self.disk.is_cut() || self.below(if failed { 2 } else { 3 }) == 0 {
            self.see("power cut");
            let left = scratch();
            self.disk.leave(left.path(), &mut self.random);
            self.disk = Disk::over(left.path());
            self.dir = left;
            self.ledger.lost_power();
        }
    }

    /// Enqueues some jobs, and is killed.
    pub(crate) fn enqueue_some(&mut self, mut life: Life, times: usize) {
        for _ in 0..times {
            self.enqueue(&mut life, QUEUES[0]);
        }
        life.broker.flush();
    }

    /// Fetches all that is ready.
    pub(crate) fn fetch_all(&mut self, mut life: Life) -> Life {
        let mut before = None;
        while before != Some(self.held.len()) {
            before = Some(self.held.len());
            self.fetch(&mut life, QUEUES[0]);
        }
        life
    }

    pub(crate) fn take_all_held(&mut self) -> Vec<(Name, Grant, u64)> {
        mem::take(&mut self.held)
    }

    /// The last life, on a disk that does not fail: everything can still be had.
    pub(crate) fn finish(&mut self) {
        self.disk = Disk::over(self.dir.path());
        let life = self.start(Durability::Fsync).expect("nothing fails");
        life.broker.close().unwrap();
    }

    /// Opens the broker and checks what it has. None if the disk has failed meanwhile.
    pub(crate) fn start(&mut self, durability: Durability) -> Option<Life> {
        self.see("start");
        let reserved_jobs = RESERVED_JOBS;
        let options = BrokerOptions { durability, reserved_jobs, ..broker::options() };
        let ends = self.ends.take();
        // A start that fails may have reserved some offsets.
        self.ends = ends.clone().filter(|_| durability == Durability::Fsync);
        let log_options = self.disk.options_with(SEGMENT_BYTES);
        let broker = match Broker::open(self.dir.path(), log_options, options) {
            Ok(broker) => broker,
            Err(error) => {
                assert!(self.disk.has_failed(), "nothing has failed: {error}");
                return None;
            }
        };
        broker.settle();
        if self.disk.is_cut() {
            return None;
        }
        self.check(&broker, ends);
        let mailbox = Logs::new(vec![Arc::clone(&broker)]).mailbox(0);
        let grants: Vec<_> = self.held.iter().map(|(_, grant, _)| *grant).collect();
        let greeted = broker.hello(SESSION, None, &grants, &mailbox).result;
        let Ok(greeted) = greeted else {
            assert!(self.disk.has_failed());
            return None;
        };
        let (waiting, ends) = (Vec::new(), self.ends(&broker));
        Some(Life { broker, session: greeted.handle, durability, waiting, ends })
    }

    fn ends(&self, broker: &Broker) -> BTreeMap<&'static str, Offset> {
        let end = |queue: &'static str| {
            let described = broker.describe_queue(queue).result.ok()?;
            Some((queue, described.summary.next))
        };
        QUEUES.into_iter().filter_map(end).collect()
    }

    /// What a start has found agrees with what was told before.
    fn check(&mut self, broker: &Broker, known: Option<BTreeMap<&'static str, Offset>>) {
        let mut found = Vec::new();
        for queue in QUEUES {
            let Ok(read) = broker.read(queue, Offset(0), usize::MAX, u64::MAX, None).result else {
                continue;
            };
            for (offset, location) in read.jobs {
                let job = location.read().unwrap();
                assert!(job.verify());
                found.push(((queue, offset), number(job.body)));
            }
            let unconsumed = broker.describe_queue(queue).result.unwrap().summary.unconsumed;
            let of_queue = found.iter().filter(|((of, _), _)| *of == queue).count() as u64;
            assert_eq!(unconsumed, of_queue);
        }
        self.ledger.found(&found);
        if let Some(known) = known {
            for (queue, end) in self.ends(broker) {
                let known = known.get(queue).copied().unwrap_or_default();
                assert!(end <= known, "{queue} passes over offsets: {end} behind {known}");
            }
        }
    }

    /// The process is killed, or stops in order.
    fn end(&mut self, life: Life) {
        let Life { broker, durability, ends, .. } = life;
        // At `fsync` nothing is passed over, whatever happens.
        self.ends = (durability == Durability::Fsync).then_some(ends.clone());
        if self.below(4) > 0 || self.disk.is_cut() {
            return;
        }
        let closed = broker.close();
        if closed.is_ok() && !self.disk.is_cut() {
            self.ledger.synced();
            self.ends = Some(ends);
            self.see("clean stop");
        }
    }

    /// Has those answers leave that may.
    fn tell(&mut self, life: &mut Life) {
        let released = life.broker.released();
        let sure = if life.durability == Durability::Fsync { Sure::Durable } else { Sure::Written };
        let (left, held): (Vec<_>, Vec<_>) =
            mem::take(&mut life.waiting).into_iter().partition(|(gate, _)| *gate <= released);
        if self.disk.is_cut() {
            return;
        }
        for (_, told) in left {
            if traced() {
                eprintln!("   told {told:?}");
            }
            self.ledger.told(told, sure);
        }
        life.waiting = held;
    }

    /// The answer of a request; none if it was refused because the disk has failed.
    fn answer<T>(&mut self, gated: Gated<T>) -> Option<(T, EntryIndex)> {
        match gated.result {
            Ok(answer) => Some((answer, gated.gates[0].index)),
            Err(BrokerError::NoSuchQueue { .. } | BrokerError::NoSuchGroup { .. }) => None,
            Err(error) => {
                assert!(self.disk.has_failed() || self.disk.is_cut(), "nothing failed: {error}");
                None
            }
        }
    }

    fn step(&mut self, life: &mut Life) {
        let queue = QUEUES[self.below(3) as usize];
        match self.below(24) {
            0..7 => self.enqueue(life, queue),
            7..11 => self.fetch(life, queue),
            11..14 => self.commit(life),
            14 => self.hand_back(life),
            15 => self.use_ended(life),
            16..20 => life.broker.flush(),
            20 | 21 => {
                let synced = life.broker.sync().is_ok();
                self.tell(life);
                if synced && !self.disk.is_cut() {
                    self.ledger.synced();
                }
            }
            22 if self.below(6) == 0 => self.delete(life, queue),
            _ => {
                self.tell(life);
                let (broker, never) = (&life.broker, AtomicBool::new(false));
                let made = match self.random.below(3) {
                    0 => broker.sweep(self.random.below(2) == 0, &never),
                    _ => broker.make_checkpoint_and_compact().map(|(_, report)| report),
                };
                if let Ok(report) = made {
                    let changed = report.segments_removed + report.segments_rewritten;
                    if changed > 0 {
                        self.see("compacted");
                    }
                    if !self.disk.is_cut() {
                        self.see("checkpoint");
                    }
                }
            }
        }
    }

    fn enqueue(&mut self, life: &mut Life, queue: &'static str) {
        let count = 1 + self.below(4);
        let size = [8, 100, 6_000, 30_000][self.below(4) as usize];
        let (mut batch, mut jobs) = (BatchBuilder::default(), Vec::new());
        for _ in 0..count {
            let job = self.ledger.add(queue);
            let mut body = job.to_le_bytes().to_vec();
            body.resize(size, job as u8);
            batch.push_encoded(EncodedJob::new(&body));
            jobs.push(job);
        }
        let enqueued = life.broker.enqueue(queue, true, JobBatch::plain(batch.batch()));
        if let Some((enqueued, gate)) = self.answer(enqueued) {
            let first = enqueued.first;
            life.ends.insert(queue, first.plus(count));
            life.waiting.push((gate, Told::Enqueued(queue, first, jobs)));
            if life.durability != Durability::Fsync && life.broker.released() < gate {
                life.broker.flush();
                if life.broker.released() < gate {
                    self.see("held");
                }
            }
        }
    }

    fn fetch(&mut self, life: &mut Life, queue: &'static str) {
        let jobs_max = 1 + self.below(3) as usize;
        let fetched = life.broker.fetch(&life.session, &broker::fetch_of(&[queue], jobs_max));
        let Some((fetched, gate)) = self.answer(fetched) else { return };
        let FetchedJobs::Now(grants) = fetched.jobs else { panic!("it does not wait") };
        // Jobs are read when they leave; what is in memory is written for that.
        life.broker.flush();
        let mut jobs = Vec::new();
        for job in &grants.jobs {
            let Ok(read) = job.location.read() else { continue };
            jobs.push(((queue, job.offset), job.grant, number(read.body)));
        }
        self.held.extend(&jobs);
        if !jobs.is_empty() {
            life.waiting.push((gate, Told::Granted(jobs)));
        }
    }

    pub(crate) fn set((queue, offset): Name, grant: Grant) -> LeaseRefs<'static> {
        let jobs = SmallVec::from_iter([LeaseRef { offset, grant }]);
        LeaseRefs { queue, group: "default", jobs }
    }

    fn take_held(&mut self) -> Option<(Name, Grant, u64)> {
        let at = self.below(self.held.len().max(1) as u64) as usize;
        (at < self.held.len()).then(|| self.held.swap_remove(at))
    }

    fn commit(&mut self, life: &mut Life) {
        let Some((name, grant, job)) = self.take_held() else { return };
        self.ledger.perhaps_consumed([job]);
        let committed = life.broker.commit(&[Self::set(name, grant)]);
        let Some((verdicts, gate)) = self.answer(committed) else { return };
        match verdicts[0] {
            Ok(()) | Err(JobRefusal::AlreadyConsumed) => {
                life.waiting.push((gate, Told::Committed(vec![job])));
            }
            // A power cut has taken the lease back, or the queue is another one.
            Err(_) => self.see("lease lost"),
        }
    }

    fn hand_back(&mut self, life: &mut Life) {
        let Some((name, grant, _)) = self.take_held() else { return };
        let set = Self::set(name, grant);
        let ended = if self.below(2) == 0 {
            let released = life.broker.release(&set, 0);
            self.answer(released).map(|(verdicts, gate)| (verdicts[0].is_ok(), gate))
        } else {
            let failed = life.broker.fail(&set, RetryTerms::POLICY, "no ink");
            self.answer(failed).map(|(verdicts, gate)| (verdicts[0].is_ok(), gate))
        };
        if let Some((true, gate)) = ended {
            life.waiting.push((gate, Told::Ended(name, grant)));
        }
    }

    /// A token whose lease is over does nothing.
    fn use_ended(&mut self, life: &mut Life) {
        let choose = self.random.next();
        let Some((name, grant)) = self.ledger.ended(choose) else { return };
        let set = Self::set(name, grant);
        let released = life.broker.release(&set, 0);
        if let Some((verdicts, _)) = self.answer(released) {
            assert!(verdicts[0].is_err(), "{name:?} was released with a token that is over");
            self.see("old token");
        }
    }

    fn delete(&mut self, life: &mut Life, queue: &'static str) {
        let jobs = self.ledger.of_queue(queue);
        self.ledger.perhaps_consumed(jobs.iter().copied());
        let deleted = life.broker.delete_queue(queue);
        if let Some(((), gate)) = self.answer(deleted) {
            self.held.retain(|((held, _), ..)| *held != queue);
            life.waiting.push((gate, Told::Deleted(jobs)));
            self.see("deleted");
        }
    }
}
