//! Which jobs a FETCH gets: the fetch order of one group.
//!
//! Ranked jobs come first, the most urgent before the others; then ordinary ones. Within a rank,
//! redelivered jobs come before fresh ones, but are at most half while there are fresh ones.

use std::iter::successors;

use smallvec::SmallVec;

use super::group::Group;
use super::machine::Queue;
use super::{GroupKind, Machine, Runs, push_offset};
use crate::types::{GroupId, Offset};

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
        let Some(state) = self.groups.get(&group).filter(|g| g.kind == GroupKind::Work) else {
            return;
        };
        let Some(queue) = self.queues.get(&state.queue) else { return };
        if state.paused || queue.paused {
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
            let go_on = alternate(level.fresh_owed, level.again(), level.fresh(), |offset, _| {
                choice.of(offset, || ranked.push(offset))
            });
            if !go_on {
                return;
            }
        }
        let again = state.ready.iter().copied();
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
