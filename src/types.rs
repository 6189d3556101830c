//! The ids and numbers that every layer shares. A leaf: it imports nothing of the project.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A log of the server, counted from 0. A queue lives in one of them.
    LogId(u16)
}

number! {
    /// A queue within its log. Ids start at 1 and are never given twice; 0 means no queue.
    QueueId(u32)
}

number! {
    /// A group within its log. Ids start at 1 and are never given twice, across all queues.
    GroupId(u32)
}

number! {
    /// The position of a job in its queue. `queue:offset` names one job for ever.
    Offset(u64)
}

number! {
    /// The index of an entry in its log: contiguous, the first entry has 1; 0 means none.
    EntryIndex(u64)
}

number! {
    /// Which start (later: which leadership) wrote an entry. Each start has a higher one.
    Term(u64)
}

number! {
    /// The number of one grant, and so of one lease; what a client knows as the token.
    ///
    /// The upper 32 bits begin at the term of the start that granted it and the lower ones count,
    /// so a number is never given twice, also not after a backup was restored. 0 is no lease's.
    Grant(u64)
}

number! {
    /// What a job's key is known by: the first 64 bits of a hash that stays the same for ever.
    KeyHash(u64)
}

/// A job and the lease on it, as its worker names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRef {
    /// Its offset.
    pub offset: Offset,
    /// The lease that the worker believes it has; 0 for a token that this server never gave.
    pub grant: Grant,
}

impl Offset {
    /// The offset after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The offset `count` places on.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// A client's identity over its reconnects: 128 random bits, chosen by the client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Who enqueues: 128 random bits, chosen by the producer. All zeros stand for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub [u8; 16]);

/// The two clocks that stand in every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Wall-clock time in milliseconds since the Unix epoch. It may jump.
    pub wall_ms: u64,
    /// The log's own time in milliseconds: it never goes back, and runs on over restarts.
    pub log_ms: u64,
}
