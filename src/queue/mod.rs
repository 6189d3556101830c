//! The state machine: where every job of a log stands for every group.
//!
//! Pure, synchronous and deterministic: time and seeds are arguments, and the order of no hash
//! map leaks out. **Invariant:** it knows no log, no file, no socket and no protocol.
//!
//! One rule runs through it. A request is *validated* against the [`Machine`] by a method that
//! changes nothing and gives a [`Fact`]; the fact is appended to the log; and then it is *applied*
//! ([`Machine::apply`]). A replay applies the same facts, so applying takes no decision. A fact
//! that cannot follow those before it is a [`Contradiction`]: the log is damaged or foreign.
//!
//! | file | subject |
//! |---|---|
//! | `machine` | the state, and how a fact changes it |
//! | `requests` | validation: requests become facts or refusals |
//! | `describe` | what can be seen |
//! | `facts`, `record` | the tables of facts, and of what a checkpoint is made of |
//! | `coding` | these as bytes |
//! | `records` | the state as records, and back |
//! | `settings`, `errors` | other types that pass through |
//! | `group` | the state of one group |
//! | `fresh` | its pointer: which jobs are fresh, and which are set aside |
//! | `pick`, `ranks` | the fetch order, and jobs that stand before the ordinary ones |
//! | `offset_set` | what a group has consumed |
//! | `limits` | jobs out at once, and jobs per second |
//! | `leases`, `wheel` | who has which job, and until when |
//! | `retention`, `sizes` | what a queue keeps, and what goes |
//! | `retry` | backoff and death |
//! | `delays` | jobs enqueued with a due time |
//! | `producers` | which batches were enqueued lately |
//! | `keys` | order and concurrency by key |
//! | `expiry` | jobs that are not delivered after a time |
//! | `dead` | dead jobs: listed, retried, dropped |
//! | `unique` | unique keys: held, met, freed |
//! | `update` | changes of a queue's settings |
//! | `withdraw` | jobs that are cancelled or purged, and pauses |
//! | `job` | one job as people ask about it: its state, progress and last error |
//! | `results` | what workers say of the jobs that they commit, and how jobs ended |
//! | `removed` | jobs that leave a group without a commit |
//! | `reserved` | offsets reserved ahead of their use, and passed over after a crash |
//! | `schedules` | jobs that the server enqueues by itself |

mod coding;
mod dead;
mod delays;
mod describe;
mod errors;
mod expiry;
mod facts;
mod fresh;
mod group;
mod job;
mod keys;
mod leases;
mod limits;
mod machine;
mod offset_set;
mod pick;
mod producers;
mod ranks;
mod record;
mod records;
mod removed;
mod requests;
mod reserved;
mod results;
mod retention;
mod retry;
mod schedules;
mod settings;
mod sizes;
#[cfg(test)]
mod tests;
mod unique;
mod update;
mod wheel;
mod withdraw;

pub use dead::DeadJob;
pub use delays::Due;
pub use describe::{GroupCounts, GroupInfo, JobState, LeaseInfo, QueueInfo};
pub use errors::{Contradiction, JobRefusal, Refusal};
pub use facts::{
    BadFact, EndReason, Fact, GroupFact, GroupKind, Holder, JobFact, JobTerms, LeaseFact, Outcome,
    QueueFact, Retry, Run, Runs, ScheduleFact, SessionEnd, Start, push_offset,
};
pub use job::{JobInfo, JobStanding, LAST_ERROR_BYTES_MAX, LeaseView};
pub use keys::KeyedPlace;
pub use leases::LEASE_MS_MAX;
pub use machine::Machine;
pub use offset_set::{CHUNK_LEN, CHUNK_WORDS, ChunkMembers};
pub use pick::Picked;
pub use producers::{EnqueuedBatch, Known, Numbered, PRODUCER_KEPT_MS, PRODUCER_WINDOW};
pub use ranks::{PRIORITY_COUNT, PRIORITY_MAX, Rank};
pub use record::{
    BadRecord, GroupRecord, JobRecord, LogRecord, MarkedPlace, QueueRecord, Record, ScheduleRecord,
};
pub use records::Restore;
pub use removed::{Removal, RemovedCounts};
pub use results::{JobEnd, RESULT_OVERHEAD_BYTES};
pub use retention::Seek;
pub use schedules::{
    Failure, Firing, MISSED_AFTER_MS, Missed, Plan, SKIPPED_PER_FACT_MAX, Schedule, ScheduleMark,
    Settled, Step, Timing,
};
pub use settings::{
    AGE_MS_MAX, BACKOFF_DELAYS_MAX, BACKOFF_MS_MAX, DEAD_KEPT_MS, KEEP_MS_MAX, PARKED_MAX,
    QueueSettings, RATE_PER_SECOND_MAX, SettingsError,
};
pub use unique::{HeldKey, UniqueHit, UniqueInfo, UniquePlan, WishedKey};
pub use withdraw::{Cancel, Purge};
