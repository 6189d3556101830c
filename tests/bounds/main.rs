//! What bounds the server: disks that fail or are full, crowds, and clients that mean harm. One of
//! them never takes the server from the others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

#[path = "../common/mod.rs"]
mod common;

mod crowds;
mod failed_log;
mod fencing;
mod limits;
mod turns;
