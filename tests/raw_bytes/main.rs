//! Raw bytes against a real server: what bad input gets, that the connection stays open unless
//! the stream itself can't be trusted, and that nothing a client sends brings the server down.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

#[path = "../common/mod.rs"]
mod common;

mod batches;
mod bodies;
mod frames;
mod load;
mod refusals;
mod sessions;
mod support;
mod waiting;
