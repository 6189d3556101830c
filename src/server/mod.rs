//! The server: sockets, connections, and the translation between wire and broker.
//!
//! Connections are pinned to I/O threads, each with a runtime of its own. A connection is one task:
//! it decodes all complete frames of one read, acts on each, and sends all replies that may leave
//! in one write.
//!
//! **Invariant:** the server decides nothing about jobs. It checks the form of what arrives, and
//! asks the broker.
//!
//! | file | subject |
//! |---|---|
//! | `listen` | accepting, I/O threads, shutdown |
//! | `connection` | one connection's task: read, act, hold replies, write |
//! | `commands` | the table of the commands, and each of them: decode, call, reply |
//! | `errors` | errors to codes and texts |
//! | `reply` | replies that wait for their gate, and their bytes |
//! | `convert` | tokens, and other conversions that several commands need |
//! | `data_dir` | one server per data directory; how long a sync takes here |

mod commands;
mod connection;
mod convert;
pub mod data_dir;
mod errors;
mod listen;
mod reply;

pub use listen::{ServeError, bind, serve};

/// What every connection needs to know.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Bytes of the largest job.
    pub job_bytes_max: usize,
    /// Time of a session lease in milliseconds, if the FETCH does not say.
    pub run_ms_max: u64,
    /// I/O threads; the brokers have as many shards.
    pub io_threads: usize,
    /// Connections at most; more are refused with `TOO_MANY`.
    pub connections_max: usize,
}
