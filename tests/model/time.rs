//! Time that passes, sessions that end or come back, and restarts.

use joblog::queue::{EndReason, Fact, Holder, LeaseFact, Machine, Outcome, SessionEnd};
use joblog::types::{Grant, GroupId, Offset, SessionId};

use crate::replay::{look, replay, replay_onto, restored};
use crate::world::{Lease, Place, World};

impl World {
    pub(crate) fn pass_time(&mut self) {
        let span_ms = [10, 3_000, 40_000, 4_000_000][self.rng.below(4) as usize];
        // Now and then more than a day, after which producers are forgotten.
        let days_ms = if self.rng.below(90) == 0 { 87_000_000 } else { 0 };
        let passed_ms = days_ms + self.rng.below(span_ms);
        self.log_ms += passed_ms;
        self.lease_ms += passed_ms;
        self.machine.advance(self.stamp());
        self.note_due();
        self.forget_producers();
        self.forget_results();
        self.lapse();
        self.drop_aged();
        let limit = if self.rng.below(2) == 0 { 2 } else { 1_000 };
        let (now_ms, seed) = (self.lease_ms, self.rng.next());
        let facts = self.machine.take_expired(now_ms, self.log_ms, seed, limit);
        // Asked again before they are applied, it says the same.
        assert_eq!(facts, self.machine.take_expired(now_ms, self.log_ms, seed, limit));
        let mut over = self.leases();
        over.retain(|(.., lease)| lease.deadline_ms <= now_ms);
        assert_eq!(facts.len(), over.len().min(limit));
        for fact in facts {
            self.expect_crash(&fact, |crash| EndReason::Expired { crash });
            let Fact::Lease(LeaseFact::Ended { group, offset, .. }) = fact else { panic!() };
            assert!(over.iter().any(|(g, o, _)| (*g, *o) == (group, offset)));
            self.record(fact);
            self.seen.insert("expired");
        }
    }

    pub(crate) fn note_due(&mut self) {
        let mut due = Vec::new();
        for (id, group) in &self.groups {
            for (offset, job) in &group.jobs {
                match job.place {
                    Place::Delayed(due_ms) if due_ms <= self.log_ms => {
                        due.push((due_ms, *id, *offset));
                    }
                    _ => {}
                }
            }
        }
        due.sort_unstable();
        due.into_iter().for_each(|(_, id, offset)| self.note_back(id, offset));
        self.note_enqueued_due();
        self.free_keys();
    }

    fn session_leases(&self, session: SessionId) -> Vec<(GroupId, Offset, Lease)> {
        let mut leases = self.leases();
        leases.retain(|(.., lease)| lease.holder == Holder::Session(session));
        leases
    }

    pub(crate) fn end_session(&mut self) {
        let session = self.session();
        let leases = self.session_leases(session);
        let silent = self.rng.below(2) == 0;
        let end = if silent { SessionEnd::Silent } else { SessionEnd::Goodbye };
        let seed = self.rng.next();
        let facts = self.machine.end_session(session, end, self.log_ms, seed);
        assert_eq!(facts.len(), leases.len());
        for fact in facts {
            if silent {
                self.expect_crash(&fact, |crash| EndReason::SessionLost { crash });
                self.seen.insert("silent");
            } else {
                self.expect_end(&fact, EndReason::Undelivered, Outcome::Ready);
                self.seen.insert("goodbye");
            }
            self.record(fact);
        }
        assert!(self.session_leases(session).is_empty());
    }

    pub(crate) fn resume_session(&mut self) {
        let session = self.session();
        let mut held = Vec::new();
        let mut kept = Vec::new();
        for (group, offset, lease) in self.session_leases(session) {
            if self.rng.below(3) > 0 {
                held.push(lease.grant);
                kept.push((group, offset, Lease { restored: false, ..lease }));
            }
        }
        // A grant that is not the session's must not matter.
        held.extend(self.rng.one_of(&self.grants).map(|(.., grant)| grant));
        let own = self.session_leases(session);
        kept.extend(own.into_iter().filter(|(.., lease)| Some(&lease.grant) == held.last()));
        for fact in self.machine.resume_session(session, &held) {
            self.expect_end(&fact, EndReason::Undelivered, Outcome::Ready);
            self.record(fact);
            self.seen.insert("resumed");
        }
        for (group, offset, lease) in kept {
            let lease = Lease { restored: false, ..lease };
            self.job_mut(group, offset).place = Place::Leased(lease.clone());
            assert_eq!(self.machine.lease(group, offset).unwrap().grant, lease.grant);
            assert!(held.contains(&lease.grant));
        }
        let all_held = |(.., lease): &(GroupId, Offset, Lease)| held.contains(&lease.grant);
        assert!(self.session_leases(session).iter().all(all_held));
        self.check_leases();
    }

    /// A second machine goes on from the last checkpoint to now, and is the next.
    pub(crate) fn make_checkpoint(&mut self) {
        self.checkpoint = (restored(&self.since_checkpoint()), self.records.len());
        self.seen.insert("checkpoint");
    }

    fn since_checkpoint(&self) -> Machine {
        let (machine, count) = &self.checkpoint;
        let replayed = replay_onto(restored(machine), &self.records[*count..]);
        replayed.expect("what was applied once replays")
    }

    pub(crate) fn restart(&mut self) {
        let from_checkpoint = self.rng.below(2) == 0;
        let mut rebuilt = match from_checkpoint {
            true => self.since_checkpoint(),
            false => replay(&self.records).expect("what was applied once replays"),
        };
        self.lease_ms = self.rng.below(1_000_000_000);
        self.term += 1;
        rebuilt.advance(self.stamp());
        assert_eq!(look(&rebuilt), look(&self.machine), "seed {}", self.seed);
        // Which grant is next is no fact of the log, but a start raises it beyond doubt.
        self.machine.raise_grants(Grant(self.term << 32));
        rebuilt.raise_grants(Grant(self.term << 32));
        assert!(rebuilt.records().eq(self.machine.records()), "seed {}", self.seed);
        rebuilt.rearm(self.lease_ms);
        self.machine = rebuilt;
        for (group, offset, lease) in self.leases() {
            let deadline_ms = self.lease_ms + lease.lease_ms;
            let lease = Lease { deadline_ms, restored: true, ..lease };
            self.job_mut(group, offset).place = Place::Leased(lease);
        }
        self.seen.insert("restart");
        self.check_all();
    }
}
