//! The log: entries at contiguous indexes, in segments, durable when it says so.
//!
//! It knows no queue semantics, no network, and no time but what it read a moment ago: an entry's
//! facts are opaque bytes to it, and of jobs it knows only where the body of each (queue, offset)
//! lies.
//!
//! ```text
//!            append          write              sync
//!  caller ---------> tail ---------> files ---------------> durable
//!            memory        pwrite           fdatasync
//!            index         written()        synced()
//!                 `---- find, locate      read, through the map
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `format.rs` | the layout on disk, and how to change it |
//! | `entry.rs`, `frame.rs`, `segment.rs` | the three structures of the layout |
//! | `recovery.rs`, `replay.rs` | opening: which segments count, torn tail or damage; the walk |
//! | `options.rs`, `handle.rs` | how a log is kept; what others see of an open one |
//! | `tail.rs`, `shared.rs` | the end of the log in memory; appending, writing and syncing it |
//! | `index.rs`, `table.rs` | where each job lies: in memory, and in a file beside each segment |
//! | `location.rs` | reading a job from where it lies |
//! | `reader.rs` | reading written entries back |
//! | `compact.rs`, `manifest.rs` | dropping what is dead; where the log begins since |
//! | `spare.rs` | the thread that prepares segments ahead and syncs sealed ones |
//! | `vote.rs` | what a replica must not forget |
//! | `frames.rs` | all that lies in a file with frames, be it sound or not |
//! | `claim.rs` | what the names of files say of a log |
//! | `offline.rs`, `repair.rs` | looking into a log that nobody has open, and cutting it |
//! | `room.rs` | what happens when the disk is nearly full |
//! | `map.rs`, `files.rs` | the memory map; the file system as a trait |
//!
//! Nothing imports in a circle: first the leaves, then `entry`, `frame`, `segment`, `table`,
//! `index`, `replay`, `tail`, `shared`, `handle`, `recovery`, and last those that open a log to
//! look into it.
//!
//! **Invariant:** a file is never written behind a recovered tail, never truncated, and after a
//! failed write or sync never written or synced again.

mod claim;
mod compact;
mod durability;
mod entry;
mod error;
mod files;
pub mod format;
mod frame;
mod frames;
mod handle;
mod index;
mod location;
mod manifest;
mod map;
mod offline;
mod options;
mod reader;
mod recovery;
mod repair;
mod replay;
mod room;
mod segment;
mod shared;
mod spare;
mod table;
mod tail;
mod vote;

pub use claim::CHECKPOINT_EXTENSIONS;
pub use compact::{CompactBudget, CompactReport};
pub use durability::{Durability, ParseDurabilityError};
pub use entry::{EntryKind, EntryView, JobView};
pub use error::LogError;
pub use files::{DataFile, Files, Space, SystemFiles};
pub use frames::Item;
pub use handle::{FileBytes, Log, LogStats, SegmentInfo};
pub use location::{FoundJob, JobLocation};
pub use offline::{Damage, DamagedBody, Verified, dump, verify};
pub use options::LogOptions;
pub use recovery::Recovery;
pub use repair::{LostJobs, RepairPlan, repair, repair_plan};
pub use replay::{Recovered, Replay, TornTail};
pub use vote::VOTE_BYTES_MAX;
