//! All leases of a log: a slab of slots, found by job, by session and by time.
//!
//! A slot takes part in three structures through links of its own: a chain of the hash table
//! (group, offset), the list of its session, and a slot of the timing wheel. So a grant and its
//! end are O(1) and a million leases take 56 MiB for the slots and 4 MiB for the table. The slab
//! does not shrink: its slots are used again.

use rustc_hash::FxHashMap;

use super::Holder;
use super::wheel::{NONE, Timed, Timer, Wheel};
use crate::types::{Grant, GroupId, Offset, SessionId};

/// The longest lease in milliseconds (49.7 days), so that a slot stays small.
pub const LEASE_MS_MAX: u64 = u32::MAX as u64;

/// Set in `owner` when the lease was restored by a replay and its worker not heard of since.
const RESTORED: u32 = 1 << 31;
/// The `owner` of a lease that belongs to no session.
const TIMED: u32 = RESTORED - 1;

const TABLE_LEN_MIN: usize = 64;

/// The cost of a lease is a promise of the design; see the head of this file.
const _: () = assert!(size_of::<LeaseSlot>() == 56);

/// One lease, or a free slot of the slab.
#[derive(Debug)]
pub(super) struct LeaseSlot {
    pub(super) offset: Offset,
    pub(super) grant: Grant,
    /// When it is over, and its neighbours in the wheel.
    timer: Timer,
    /// How long it runs from its grant, its last extension or the last start of the server.
    lease_ms: u32,
    /// 0 in a free slot.
    pub(super) group: GroupId,
    /// The index of the session, or `TIMED`; with the bit `RESTORED`.
    owner: u32,
    /// Neighbours among the leases of the session.
    session_next: u32,
    session_prev: u32,
    /// The next lease of the same hash; in a free slot, the next free slot.
    chain_next: u32,
}

/// A session that holds a lease. One that holds none is not known here.
#[derive(Debug)]
struct SessionLeases {
    id: SessionId,
    /// The newest of its leases; in a free place, `NONE`.
    head: u32,
}

#[derive(Debug)]
pub(super) struct Leases {
    slots: Vec<LeaseSlot>,
    free_slot: u32,
    count: usize,
    /// The first slot of each hash chain; as many as a power of two.
    table: Vec<u32>,
    wheel: Wheel,
    sessions: Vec<SessionLeases>,
    free_sessions: Vec<u32>,
    session_index: FxHashMap<SessionId, u32>,
}

impl LeaseSlot {
    pub(super) fn lease_ms(&self) -> u64 {
        u64::from(self.lease_ms)
    }

    /// When it is over, on the lease clock.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.timer.deadline_ms()
    }

    /// Whether the lease was restored by a replay and its worker not heard of since.
    pub(super) fn restored(&self) -> bool {
        self.owner & RESTORED != 0
    }

    fn session(&self) -> Option<u32> {
        Some(self.owner & !RESTORED).filter(|owner| *owner != TIMED)
    }
}

impl Timed for LeaseSlot {
    fn timer(&self) -> &Timer {
        &self.timer
    }

    fn timer_mut(&mut self) -> &mut Timer {
        &mut self.timer
    }
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free_slot: NONE,
            count: 0,
            table: vec![NONE; TABLE_LEN_MIN],
            wheel: Wheel::new(),
            sessions: Vec::new(),
            free_sessions: Vec::new(),
            session_index: FxHashMap::default(),
        }
    }

    pub(super) fn get(&self, group: GroupId, offset: Offset) -> Option<&LeaseSlot> {
        self.find(group, offset).map(|slot| self.slot(slot))
    }

    pub(super) fn holder(&self, lease: &LeaseSlot) -> Holder {
        let session = lease.session().and_then(|index| self.sessions.get(index as usize));
        session.map_or(Holder::Timed, |session| Holder::Session(session.id))
    }

    /// Adds a lease on a job that has none.
    pub(super) fn insert(
        &mut self,
        (group, offset): (GroupId, Offset),
        (holder, grant): (Holder, Grant),
        lease_ms: u32,
        now_ms: u64,
    ) {
        if self.count == self.table.len() {
            self.grow_table();
        }
        let owner = match holder {
            Holder::Session(id) => self.intern(id),
            Holder::Timed => TIMED,
        };
        let chain = hash(group, offset, self.table.len());
        let chain_next = self.table.get(chain).copied().unwrap_or(NONE);
        let slot = self.take_slot(LeaseSlot {
            offset,
            grant,
            timer: Timer::unset(),
            lease_ms,
            group,
            owner,
            session_next: NONE,
            session_prev: NONE,
            chain_next,
        });
        self.set_chain(chain, slot);
        self.link_session(slot, owner);
        self.wheel.insert(&mut self.slots, slot, now_ms.saturating_add(u64::from(lease_ms)));
        self.count += 1;
    }

    /// Ends the lease on a job; false if there is none.
    pub(super) fn remove(&mut self, group: GroupId, offset: Offset) -> bool {
        let Some(slot) = self.find(group, offset) else {
            return false;
        };
        self.unchain(slot);
        self.unlink_session(slot);
        self.wheel.remove(&mut self.slots, slot);
        self.count -= 1;
        let free_next = std::mem::replace(&mut self.free_slot, slot);
        let lease = self.slot_mut(slot);
        lease.group = GroupId(0);
        lease.chain_next = free_next;
        true
    }

    /// Ends all leases of a group. Looks at every slot.
    pub(super) fn remove_group(&mut self, group: GroupId) {
        for slot in 0..self.slots.len() as u32 {
            let lease = self.slot(slot);
            if lease.group == group {
                let offset = lease.offset;
                self.remove(group, offset);
            }
        }
    }

    /// Lets a lease run for a new duration from now on; false if there is none.
    pub(super) fn extend(
        &mut self,
        group: GroupId,
        offset: Offset,
        lease_ms: u32,
        now_ms: u64,
    ) -> bool {
        let Some(slot) = self.find(group, offset) else {
            return false;
        };
        let lease = self.slot_mut(slot);
        lease.lease_ms = lease_ms;
        lease.owner &= !RESTORED;
        self.wheel.remove(&mut self.slots, slot);
        self.wheel.insert(&mut self.slots, slot, now_ms.saturating_add(u64::from(lease_ms)));
        true
    }

    /// Lets all leases run in full from now on, and marks them as restored.
    pub(super) fn rearm(&mut self, now_ms: u64) {
        self.wheel = Wheel::new();
        for slot in 0..self.slots.len() as u32 {
            let lease = self.slot_mut(slot);
            if lease.group != GroupId(0) {
                lease.owner |= RESTORED;
                let deadline_ms = now_ms.saturating_add(u64::from(lease.lease_ms));
                self.wheel.insert(&mut self.slots, slot, deadline_ms);
            }
        }
    }

    /// The leases that are over, at most `count_max`. They stay until they are removed.
    pub(super) fn over(
        &mut self,
        now_ms: u64,
        count_max: usize,
    ) -> impl Iterator<Item = &LeaseSlot> {
        let mut over = Vec::new();
        self.wheel.collect_over(&self.slots, now_ms, count_max, &mut over);
        over.into_iter().map(|slot| self.slot(slot))
    }

    /// The leases of a session, newest first.
    pub(super) fn of_session(&self, session: SessionId) -> impl Iterator<Item = &LeaseSlot> {
        let index = self.session_index.get(&session);
        let head = index.and_then(|index| self.sessions.get(*index as usize)).map(|s| s.head);
        let first = head.filter(|head| *head != NONE).map(|head| self.slot(head));
        std::iter::successors(first, |lease| {
            Some(lease.session_next).filter(|next| *next != NONE).map(|next| self.slot(next))
        })
    }

    /// All leased jobs, by group and offset.
    pub(super) fn jobs(&self) -> Vec<(GroupId, Offset)> {
        let leases = self.slots.iter().filter(|lease| lease.group != GroupId(0));
        let mut jobs: Vec<_> = leases.map(|lease| (lease.group, lease.offset)).collect();
        jobs.sort_unstable();
        jobs
    }

    /// The sessions that hold leases, by id.
    pub(super) fn session_ids(&self) -> Vec<SessionId> {
        let mut ids: Vec<_> = self.session_index.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Notes that the worker of a session has been heard of since the last start.
    pub(super) fn mark_living(&mut self, session: SessionId) {
        let Some(&index) = self.session_index.get(&session) else {
            return;
        };
        let mut slot = self.session_mut(index).head;
        while slot != NONE {
            let lease = self.slot_mut(slot);
            lease.owner &= !RESTORED;
            slot = lease.session_next;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The heap memory in bytes; that of the session index is estimated.
    pub(super) fn heap_bytes(&self) -> usize {
        let session_bytes = size_of::<SessionLeases>() + size_of::<(SessionId, u32)>() + 1;
        self.slots.capacity() * size_of::<LeaseSlot>()
            + self.table.capacity() * size_of::<u32>()
            + self.wheel.heap_bytes()
            + self.sessions.capacity().max(self.session_index.capacity()) * session_bytes
    }

    fn find(&self, group: GroupId, offset: Offset) -> Option<u32> {
        let mut slot = *self.table.get(hash(group, offset, self.table.len()))?;
        while let Some(lease) = self.slots.get(slot as usize) {
            if lease.offset == offset && lease.group == group {
                return Some(slot);
            }
            slot = lease.chain_next;
        }
        None
    }

    fn take_slot(&mut self, lease: LeaseSlot) -> u32 {
        if self.free_slot != NONE {
            let slot = self.free_slot;
            let place = self.slot_mut(slot);
            let free_next = std::mem::replace(place, lease).chain_next;
            self.free_slot = free_next;
            return slot;
        }
        let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot < TIMED);
        self.slots.push(lease);
        slot.expect("2^31 leases would need 112 GiB, and sessions are fewer than leases")
    }

    fn unchain(&mut self, slot: u32) {
        let LeaseSlot { group, offset, chain_next, .. } = *self.slot(slot);
        let chain = hash(group, offset, self.table.len());
        let mut at = self.table.get(chain).copied().unwrap_or(NONE);
        if at == slot {
            self.set_chain(chain, chain_next);
            return;
        }
        while at != NONE {
            let lease = self.slot_mut(at);
            if lease.chain_next == slot {
                lease.chain_next = chain_next;
                return;
            }
            at = lease.chain_next;
        }
    }

    fn set_chain(&mut self, chain: usize, slot: u32) {
        if let Some(head) = self.table.get_mut(chain) {
            *head = slot;
        }
    }

    fn grow_table(&mut self) {
        self.table = vec![NONE; self.table.len() * 2];
        for slot in 0..self.slots.len() as u32 {
            let LeaseSlot { group, offset, .. } = *self.slot(slot);
            if group != GroupId(0) {
                let chain = hash(group, offset, self.table.len());
                self.slot_mut(slot).chain_next = self.table.get(chain).copied().unwrap_or(NONE);
                self.set_chain(chain, slot);
            }
        }
    }

    fn intern(&mut self, id: SessionId) -> u32 {
        if let Some(&index) = self.session_index.get(&id) {
            return index;
        }
        let session = SessionLeases { id, head: NONE };
        let index = if let Some(index) = self.free_sessions.pop() {
            *self.session_mut(index) = session;
            index
        } else {
            self.sessions.push(session);
            self.sessions.len() as u32 - 1
        };
        self.session_index.insert(id, index);
        index
    }

    fn link_session(&mut self, slot: u32, owner: u32) {
        if owner == TIMED {
            return;
        }
        let next = std::mem::replace(&mut self.session_mut(owner).head, slot);
        self.slot_mut(slot).session_next = next;
        if next != NONE {
            self.slot_mut(next).session_prev = slot;
        }
    }

    /// Takes a lease out of the list of its session, and forgets the session with its last lease.
    fn unlink_session(&mut self, slot: u32) {
        let lease = self.slot(slot);
        let Some(index) = lease.session() else { return };
        let (next, prev) = (lease.session_next, lease.session_prev);
        if next != NONE {
            self.slot_mut(next).session_prev = prev;
        }
        if prev != NONE {
            self.slot_mut(prev).session_next = next;
            return;
        }
        let session = self.session_mut(index);
        session.head = next;
        if next == NONE {
            let id = session.id;
            self.session_index.remove(&id);
            self.free_sessions.push(index);
        }
    }

    fn slot(&self, slot: u32) -> &LeaseSlot {
        self.slots.get(slot as usize).expect("a link names a slot of the slab")
    }

    fn slot_mut(&mut self, slot: u32) -> &mut LeaseSlot {
        self.slots.get_mut(slot as usize).expect("a link names a slot of the slab")
    }

    fn session_mut(&mut self, index: u32) -> &mut SessionLeases {
        self.sessions.get_mut(index as usize).expect("an owner names a session")
    }
}

/// The chain of a job in a table of `table_len`, a power of two.
fn hash(group: GroupId, offset: Offset, table_len: usize) -> usize {
    let key = offset.0 ^ u64::from(group.0).rotate_left(40);
    let bits = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (bits >> (u64::BITS - table_len.trailing_zeros())) as usize
}
