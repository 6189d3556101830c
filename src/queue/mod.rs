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
//! | `state`, `group` | the state of one queue; of one group, with its pointer |
//! | `enqueue` | new jobs: offsets, terms, producers, unique keys |
//! | `pick` | the fetch order, and jobs that go out |
//! | `held` | jobs that are out: committed, handed back, lost |
//! | `operate` | cancel, purge, pause; dead jobs retried and dropped |
//! | `ending` | the one way out of a group and of a queue |
//! | `live` | what a queue keeps, and what goes |
//! | `queues` | queues and groups made, changed, set elsewhere, deleted |
//! | `schedules` | jobs that the server enqueues by itself |
//! | `describe`, `job` | what can be seen, of all and of one job |
//! | `facts`, `record` | the tables of facts, and of what a checkpoint is made of |
//! | `coding` | these as bytes |
//! | `records` | the state as records, and back |
//! | `settings`, `errors` | other types that pass through |
//!
//! Each of these is an index. It takes offsets and times, and knows neither machine nor group:
//!
//! | file | subject |
//! |---|---|
//! | `deadlines` | all that waits for a time, by when it is due |
//! | `offset_set` | what a group has consumed |
//! | `ranks` | jobs that stand before the ordinary ones |
//! | `delays` | jobs with a due time, and jobs that expire |
//! | `keys` | order and concurrency by key |
//! | `unique` | unique keys: held, met, freed |
//! | `producers` | which batches were enqueued lately |
//! | `results` | what workers say of the jobs that they commit |
//! | `notes` | what workers say of jobs that are out, or failed |
//! | `dead`, `removed` | dead jobs; how many left without a commit |
//! | `sizes` | the bytes of a queue's jobs |
//! | `limits`, `retry` | jobs per second; backoff and death |
//! | `leases`, `wheel` | who has which job, and until when |

mod coding;
mod dead;
mod deadlines;
mod delays;
mod describe;
mod ending;
mod enqueue;
mod errors;
mod facts;
mod group;
mod held;
mod job;
mod keys;
mod leases;
mod limits;
mod live;
mod machine;
mod notes;
mod offset_set;
mod operate;
mod pick;
mod producers;
mod queues;
mod ranks;
mod record;
mod records;
mod removed;
mod results;
mod retry;
mod schedules;
mod settings;
mod sizes;
mod state;
#[cfg(test)]
mod tests;
mod unique;
mod wheel;

use facts::runs_of;

pub use dead::DeadJob;
pub use delays::Due;
pub use describe::{GroupCounts, GroupInfo, JobState, LeaseInfo, QueueInfo};
pub use errors::{Contradiction, JobRefusal, Refusal};
pub use facts::{
    BadFact, EndReason, Fact, GroupFact, GroupKind, Holder, JobFact, JobTerms, LeaseFact, Outcome,
    QueueFact, RetryTerms, Run, Runs, ScheduleFact, SessionEnd, Start, push_offset,
};
pub use job::{JobEnd, JobInfo, JobStanding, LeaseView};
pub use keys::KeyedPlace;
pub use leases::LEASE_MS_MAX;
pub use machine::Machine;
pub use notes::LAST_ERROR_BYTES_MAX;
pub use offset_set::{CHUNK_LEN, CHUNK_WORDS, ChunkMembers};
pub use operate::{CancelVerdict, PromoteVerdict, PurgeStep};
pub use pick::Picked;
pub use producers::{EnqueuedBatch, Known, Numbered, PRODUCER_KEPT_MS, PRODUCER_WINDOW};
pub use queues::{QUEUE_GROUPS_MAX, Seek};
pub use ranks::{PRIORITY_COUNT, PRIORITY_MAX, Rank};
pub use record::{
    BadRecord, GroupRecord, JobRecord, LogRecord, MarkedPlace, QueueRecord, Record, ScheduleRecord,
};
pub use records::Restore;
pub use removed::{Removal, RemovedCounts};
pub use results::RESULT_OVERHEAD_BYTES;
pub use schedules::{
    Firing, FiringFailure, MISSED_AFTER_MS, Missed, Plan, SKIPPED_PER_FACT_MAX, Schedule,
    ScheduleMark, Settled, Step, Timing,
};
pub use settings::{
    AGE_MS_MAX, BACKOFF_DELAYS_MAX, BACKOFF_MS_MAX, DEAD_KEPT_MS, KEEP_MS_MAX, PARKED_MAX,
    QueueSettings, RATE_PER_SECOND_MAX, SettingsError,
};
pub use unique::{HeldKey, UniqueHit, UniqueInfo, UniquePlan, WishedKey};
