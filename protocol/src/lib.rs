//! The wire protocol of Joblog, as `SPEC.md` beside this crate describes it.
//!
//! A pure codec: it does no I/O, reads no clock, and knows no server. [`frame`] finds and writes
//! frames, [`messages`] reads and writes their bodies, and [`opcode`], [`error_code`] and
//! [`limits`] are the tables that SPEC.md repeats.

#![cfg_attr(not(test), deny(clippy::unreachable, clippy::wildcard_enum_match_arm))]

#[cfg(feature = "codec")]
pub mod codec;
pub mod error_code;
pub mod frame;
pub mod job;
pub mod limits;
pub mod messages;
pub mod name;
pub mod opcode;
pub mod unique;
pub mod wire;

pub use error_code::ErrorCode;
pub use job::Job;
pub use opcode::Opcode;
pub use wire::{DecodeError, Token};
