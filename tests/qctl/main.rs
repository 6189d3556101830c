//! `qctl` as a person or a script uses it, against a real server.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod enqueue;
mod every_command;
mod generated;
mod jobs;
mod lease;
mod log;
mod output;
mod retention;
mod settings;
mod support;
mod terminal;
mod transfer;
mod usage;
mod work;
