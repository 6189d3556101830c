//! Which jobs a FETCH gets: the fetch order of one group, and the jobs that go out.
//!
//! Ranked jobs come first, the most urgent before the others; then ordinary ones. Within a rank,
//! redelivered jobs come before fresh ones, but are at most half while there are fresh ones.

use std::iter::successors;

use smallvec::SmallVec;

use super::group::Group;
use super::held::lease_fits;
use super::machine::{Machine, inside, work_group};
use super::state::Queue;
use super::{
    Contradiction, Fact, GroupFact, GroupKind, Holder, JobRefusal, KeyedPlace, LeaseFact, Run,
    Runs, push_offset,
};
use crate::types::{Grant, GroupId, KeyHash, Offset};

/// Jobs chosen by [`Machine::pick`], in fetch order. Reusable, so that it keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct Picked {
    ranked: SmallVec<[Offset; 4]>,
    redelivered: SmallVec<[Offset; 4]>,
    fresh: Runs,
    fresh_count: usize,
}

impl Picked {
    /// Nothing picked.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many jobs were picked.
    pub fn len(&self) -> usize {
        self.ranked.len() + self.redelivered.len() + self.fresh_count
    }

    /// Whether no job was picked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The jobs in the order of their grants: by rank, and of the ordinary ones the redelivered
    /// before the fresh, by offset.
    pub fn offsets(&self) -> impl Iterator<Item = Offset> {
        let fresh = self.fresh.iter().flat_map(|run| run.offsets());
        self.ranked.iter().chain(&self.redelivered).copied().chain(fresh)
    }

    /// The jobs as runs, in the same order.
    pub fn runs(&self) -> Runs {
        let mut runs = Runs::new();
        for offset in self.ranked.iter().chain(&self.redelivered) {
            push_offset(&mut runs, *offset);
        }
        runs.extend_from_slice(&self.fresh);
        runs
    }

    fn clear(&mut self) {
        self.ranked.clear();
        self.redelivered.clear();
        self.fresh.clear();
        self.fresh_count = 0;
    }
}

impl Machine {
    /// Replaces `picked` by up to `jobs_max` jobs that can be granted now, in fetch order, as the
    /// limits of the queue allow.
    ///
    /// Redelivered and fresh jobs of a rank are chosen in turn; an odd one falls to either in turn.
    /// `take` is asked about each job in the order in which they are chosen; it says no if the job
    /// does not fit any more, which ends the pick.
    pub fn pick(
        &self,
        group: GroupId,
        jobs_max: usize,
        take: &mut dyn FnMut(Offset) -> bool,
        picked: &mut Picked,
    ) {
        picked.clear();
        let Some((state, queue)) = self.of(group) else { return };
        if state.kind == GroupKind::Stream || state.paused || queue.paused {
            return;
        }
        let room = usize::try_from(state.room(queue, self.now.log_ms)).unwrap_or(usize::MAX);
        let jobs_max = jobs_max.min(room);
        if jobs_max == 0 {
            return;
        }
        let mut choice = Choice { queue, now_log_ms: self.now.log_ms, left: jobs_max, take };
        for level in state.ranked.iter() {
            let ranked = &mut picked.ranked;
            let go_on = alternate(level.fresh_owed(), level.again(), level.fresh(), |offset, _| {
                choice.of(offset, || ranked.push(offset))
            });
            if !go_on {
                return;
            }
        }
        let again = state.again();
        alternate(state.fresh_owed, again, fresh(state, queue), |offset, is_again| {
            choice.of(offset, || match is_again {
                true => picked.redelivered.push(offset),
                false => {
                    push_offset(&mut picked.fresh, offset);
                    picked.fresh_count += 1;
                }
            })
        });
    }

    /// Whether a FETCH would get a job. Cheap.
    pub fn has_for_fetch(&self, group: GroupId) -> bool {
        self.of(group).is_some_and(|(state, queue)| {
            let has_room = || state.room(queue, self.now.log_ms) > 0;
            state.ready_count(queue) > 0 && !state.paused && !queue.paused && has_room()
        })
    }

    /// When the next bucket that was emptied holds a job again, on the clock of the log.
    pub fn next_refill_log_ms(&self) -> Option<u64> {
        self.deadlines.refills.first_ms()
    }

    /// Whether the keys of jobs matter to a group, so that they must be read before it can be
    /// fetched from.
    pub fn is_keyed(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_some_and(|state| state.keys.is_some())
    }

    /// How many jobs of a keyed group can be fetched without another key being read.
    pub fn at_hand_count(&self, group: GroupId) -> usize {
        self.groups.get(&group).map_or(0, Group::at_hand_count)
    }

    /// Adds to `jobs` up to `count_max` jobs whose keys are to be read next; none if the group is
    /// not keyed.
    pub fn next_unread(&self, group: GroupId, count_max: usize, jobs: &mut Vec<Offset>) {
        let Some((state, queue)) = self.of(group) else { return };
        let Some(keys) = &state.keys else { return };
        // Those lie before the pointer, and so come before others of their keys.
        jobs.extend(keys.unread().iter().take(count_max));
        let mut next = state.next_fetch;
        while jobs.len() < count_max && next < queue.next {
            jobs.push(next);
            next = state.next_fresh(queue, next.next());
        }
    }

    /// Has the pointer pass jobs with their keys: those that [`next_unread`](Self::next_unread)
    /// has named, in that order. Only so many of them as can be parked; none, if that is none.
    pub fn pass(&self, group: GroupId, jobs: &[(Offset, Option<KeyHash>)]) -> Option<Fact> {
        let (state, queue) = self.of(group)?;
        let keys = state.keys.as_ref()?;
        let room = queue.settings.parked_max.saturating_sub(keys.parked_count());
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let (_, first_key) = jobs.first()?;
        let passes = first_key.is_none_or(|key| keys.has_place(key));
        let mut runs: Vec<(Run, Option<KeyHash>)> = Vec::new();
        for (offset, key) in jobs.iter().take(room.max(usize::from(passes))) {
            match runs.last_mut() {
                Some((run, last)) if last == key && run.end() == Some(*offset) => run.count += 1,
                _ => runs.push((Run { first: *offset, count: 1 }, *key)),
            }
        }
        (!runs.is_empty()).then_some(Fact::Group(GroupFact::KeysRead { group, runs }))
    }

    /// Grants the picked jobs. `first_grant` is [`next_grant`](Self::next_grant), plus the number
    /// of jobs granted by other facts of the same entry that have not been applied yet.
    ///
    /// # Errors
    /// [`JobRefusal::LeaseTooLong`].
    pub fn grant(
        &self,
        group: GroupId,
        holder: Holder,
        lease_ms: u64,
        first_grant: Grant,
        picked: &Picked,
    ) -> Result<Fact, JobRefusal> {
        lease_fits(lease_ms)?;
        let runs = picked.runs();
        Ok(Fact::Lease(LeaseFact::Granted { group, holder, lease_ms, first_grant, runs }))
    }

    /// The number that the next grant gets.
    pub fn next_grant(&self) -> Grant {
        self.next_grant
    }
}

/// What the facts do, and what a record gives back.
impl Machine {
    pub(super) fn granted(
        &mut self,
        group: GroupId,
        (holder, first_grant): (Holder, Grant),
        lease_ms: u32,
        runs: &[Run],
        lease_now_ms: u64,
    ) -> Result<(), Contradiction> {
        self.undelay(group, runs.iter().copied());
        let Self { queues, groups, leases, deadlines, next_grant, .. } = self;
        let (state, queue) = work_group(groups, queues, group)?;
        let mut grant = first_grant;
        if grant < *next_grant {
            return Err(Contradiction::GrantTwice { found: grant, least: *next_grant });
        }
        let (mut fresh_count, mut redelivered_count, mut ranked_count) = (0_u64, 0_u64, 0_u64);
        for run in runs {
            inside(group, *run, queue.next)?;
            for offset in run.offsets() {
                if offset == state.next_fetch {
                    state.pass_fresh(queue);
                    fresh_count += 1;
                } else if state.keys.as_mut().is_some_and(|keys| keys.grant(offset)) {
                    fresh_count += 1;
                } else if state.take_waiting(queue, deadlines, (group, offset), true) {
                    let ranked = u64::from(queue.ranks.get(offset).is_some());
                    ranked_count += ranked;
                    redelivered_count += 1 - ranked;
                } else {
                    return Err(Contradiction::NotReady(group, offset));
                }
                leases.insert((group, offset), (holder, grant), lease_ms, lease_now_ms);
                let next = grant.0.checked_add(1).map(Grant);
                grant =
                    next.ok_or(Contradiction::GrantTwice { found: grant, least: *next_grant })?;
            }
        }
        *next_grant = grant;
        let count = fresh_count + redelivered_count + ranked_count;
        state.leased_count += count;
        if fresh_count != redelivered_count {
            state.fresh_owed = redelivered_count > fresh_count;
        }
        if let (Some(bucket), Some(rate)) = (state.bucket, queue.settings.rate()) {
            let rest = bucket.without(count, rate, self.now.log_ms);
            let (before, after) = (bucket.refill_log_ms(rate), rest.refill_log_ms(rate));
            state.bucket = Some(rest);
            deadlines.refills.moved(group, before, after);
        }
        Ok(())
    }

    pub(super) fn passed(
        &mut self,
        group: GroupId,
        runs: &[(Run, Option<KeyHash>)],
    ) -> Result<(), Contradiction> {
        self.undelay(group, runs.iter().map(|(run, _)| *run));
        let (state, queue) = work_group(&mut self.groups, &self.queues, group)?;
        for (run, key) in runs {
            inside(group, *run, queue.next)?;
            for offset in run.offsets() {
                let keys = state.keys.as_mut().ok_or(Contradiction::NotKeyed(group))?;
                let unread = keys.unread().contains(&offset);
                if !unread && offset != state.next_fetch {
                    return Err(Contradiction::NotReady(group, offset));
                }
                keys.pass(offset, *key);
                if !unread {
                    state.pass_fresh(queue);
                }
            }
        }
        Ok(())
    }

    /// Takes back from a record what is known of a job's key. Whether the job has a mark.
    pub(super) fn restore_keyed(
        &mut self,
        group: GroupId,
        offset: Offset,
        key: Option<KeyHash>,
        place: KeyedPlace,
    ) -> Result<bool, &'static str> {
        let is_leased = self.leases.get(group, offset).is_some();
        let (state, queue, _) = self.parts(group).ok_or("there is no group before it")?;
        let mark = state.past(offset);
        let is_delayed = mark.is_some_and(|mark| mark.due_log_ms.is_some());
        let is_dead = state.dead.contains(offset);
        let is_open = offset < state.next_fetch
            && !state.consumed.contains(offset)
            && queue.delays.get(offset).is_none();
        let waits_again = state.waits_again(queue, offset);
        let keys = state.keys.as_mut().ok_or("keys do not matter to this group")?;
        let fits = match place {
            _ if is_leased || waits_again => place == KeyedPlace::Holding,
            _ if is_delayed || is_dead => match keys.stays(is_dead) {
                true => place == KeyedPlace::Holding,
                false => place == KeyedPlace::Away,
            },
            KeyedPlace::Parked => true,
            KeyedPlace::Passed | KeyedPlace::Unread => mark.is_none(),
            KeyedPlace::Holding | KeyedPlace::Away => false,
        };
        match is_open && fits && keys.restore(offset, key, place) {
            true => Ok(mark.is_some()),
            false => Err("the job can't have this place"),
        }
    }
}

/// What may be chosen still.
struct Choice<'a> {
    queue: &'a Queue,
    now_log_ms: u64,
    /// Jobs.
    left: usize,
    take: &'a mut dyn FnMut(Offset) -> bool,
}

impl Choice<'_> {
    /// Chooses the next job if it can be; false if it is the last one or can't be.
    fn of(&mut self, offset: Offset, choose: impl FnOnce()) -> bool {
        // A fact will say that it has expired, and then what is behind it is looked at.
        if self.queue.is_over(offset, self.now_log_ms) || !(self.take)(offset) {
            return false;
        }
        choose();
        self.left -= 1;
        self.left > 0
    }
}

/// The fresh jobs of a group, ordinary ones, in order.
fn fresh<'a>(state: &'a Group, queue: &'a Queue) -> impl Iterator<Item = Offset> + 'a {
    let inside = |offset: &Offset| *offset < queue.next;
    // Where keys matter, only those can go that the pointer has passed.
    let passed = state.keys.iter().flat_map(|keys| keys.passed().iter().copied());
    let first = Some(state.next_fetch).filter(|_| state.keys.is_none());
    let ahead = successors(first.filter(inside), move |offset| {
        Some(state.next_fresh(queue, offset.next())).filter(inside)
    });
    ahead.chain(passed)
}

/// Offers jobs of two sorts in turn, and what is left of one when the other is at its end, until
/// told to stop; false then. Each is offered with whether it is of the first sort.
fn alternate(
    fresh_owed: bool,
    again: impl Iterator<Item = Offset>,
    fresh: impl Iterator<Item = Offset>,
    mut offer: impl FnMut(Offset, bool) -> bool,
) -> bool {
    let (mut again, mut fresh) = (again.peekable(), fresh.peekable());
    let mut fresh_turn = fresh_owed;
    loop {
        let is_again = again.peek().is_some() && !(fresh_turn && fresh.peek().is_some());
        let next = if is_again { again.peek() } else { fresh.peek() };
        let Some(&offset) = next else { return true };
        if !offer(offset, is_again) {
            return false;
        }
        if is_again {
            again.next()
        } else {
            fresh.next()
        };
        fresh_turn = is_again;
    }
}
