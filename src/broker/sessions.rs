//! Sessions as far as they live outside the log: who is connected, and who has been silent.
//!
//! The log knows a session only as the holder of leases; so a session without leases costs nothing
//! there, and needs nothing after a restart.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;

use super::mailbox::Mailbox;
use crate::types::SessionId;

/// A session as its connection holds it.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    /// Its id.
    pub session: SessionId,
    /// Which connection of the server's life this is, to tell it from earlier ones.
    pub(super) connection: u64,
    last_heard_ms: Arc<AtomicU64>,
}

impl SessionHandle {
    /// Notes that something came from the client, on the lease clock.
    pub(super) fn heard(&self, lease_now_ms: u64) {
        self.last_heard_ms.store(lease_now_ms, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct ConnectedSession {
    handle: SessionHandle,
    silence_ms: u64,
    mailbox: Option<Arc<Mailbox>>,
    /// When its silence is looked at next; the key in `checks`.
    check_ms: u64,
}

impl ConnectedSession {
    fn silent_at_ms(&self) -> u64 {
        self.handle.last_heard_ms.load(Ordering::Relaxed) + self.silence_ms
    }
}

/// All sessions that are connected or hold leases.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    last_connection: u64,
    all: FxHashMap<SessionId, ConnectedSession>,
    checks: BTreeSet<(u64, SessionId)>,
}

impl Sessions {
    /// Connects a session, known or not. Also gives the mailbox of the connection it had before.
    pub(super) fn connect(
        &mut self,
        session: SessionId,
        silence_ms: u64,
        mailbox: Option<Arc<Mailbox>>,
        lease_now_ms: u64,
    ) -> (SessionHandle, Option<Arc<Mailbox>>) {
        let before = self.remove(session);
        self.last_connection += 1;
        let handle = SessionHandle {
            session,
            connection: self.last_connection,
            last_heard_ms: Arc::new(AtomicU64::new(lease_now_ms)),
        };
        let check_ms = lease_now_ms + silence_ms;
        self.checks.insert((check_ms, session));
        let entry = ConnectedSession { handle: handle.clone(), silence_ms, mailbox, check_ms };
        self.all.insert(session, entry);
        (handle, before.flatten())
    }

    /// Whether the session is known.
    pub(super) fn knows(&self, session: SessionId) -> bool {
        self.all.contains_key(&session)
    }

    /// Whether this connection is still its session's.
    pub(super) fn is_current(&self, handle: &SessionHandle) -> bool {
        self.all
            .get(&handle.session)
            .is_some_and(|session| session.handle.connection == handle.connection)
    }

    /// Notes that a connection is gone. The session stays until it has been silent for too long.
    pub(super) fn disconnect(&mut self, handle: &SessionHandle) {
        if self.is_current(handle)
            && let Some(session) = self.all.get_mut(&handle.session)
        {
            session.mailbox = None;
        }
    }

    /// Forgets a session. Gives its mailbox, if it is connected, or nothing if it was not known.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Option<Arc<Mailbox>>> {
        let removed = self.all.remove(&session)?;
        self.checks.remove(&(removed.check_ms, session));
        Some(removed.mailbox)
    }

    /// The next session that has been silent for too long at `lease_now_ms`. One that was heard
    /// from since it was last looked at is looked at again later.
    pub(super) fn next_silent(&mut self, lease_now_ms: u64) -> Option<SessionId> {
        while let Some(&(check_ms, id)) = self.checks.first()
            && check_ms <= lease_now_ms
        {
            let session = self.all.get_mut(&id)?;
            let silent_at_ms = session.silent_at_ms();
            if silent_at_ms <= lease_now_ms {
                return Some(id);
            }
            session.check_ms = silent_at_ms;
            self.checks.pop_first();
            self.checks.insert((silent_at_ms, id));
        }
        None
    }

    /// The mailbox of a session, if it is connected.
    pub(super) fn mailbox(&self, session: SessionId) -> Option<Arc<Mailbox>> {
        self.all.get(&session)?.mailbox.clone()
    }

    /// The mailboxes of all connected sessions.
    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        self.all.values().filter_map(|session| session.mailbox.as_ref())
    }
}
