//! What the server takes of a disk, and what it does when there is no more.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

#[path = "../common/mod.rs"]
mod common;
mod full;
mod restarts;
mod small_disk;
