//! The bodies of requests and replies, one file for each role.
//!
//! Every message has `encode(&self, &mut BytesMut)`, which appends its body, and
//! `decode(&[u8])`, which reads a whole body and refuses what the layout does not allow.

pub mod admin;
pub mod bulk;
pub mod enqueue;
pub mod fetch;
pub mod handles;
pub mod job_info;
pub mod lease;
pub mod moving;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod stats;
pub mod wait;
