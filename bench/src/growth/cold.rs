//! READ through a queue that does not fit into the server's memory.

use std::fmt;

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::messages::fetch::{Read, ReadReply};

use super::ground::Ground;
use super::{Trial, bulk};
use crate::cgroup::Cap;
use crate::result::Growth;
use crate::systems::Places;

const MIB: u64 = 1024 * 1024;
/// The server and its page cache get a part of the queue's size, and at least so much.
const MEMORY_PARTS: u64 = 4;
const MEMORY_MIN: u64 = 64 * MIB;

/// There is no control group to bound the memory with.
#[derive(Debug)]
pub(super) struct NoCap(anyhow::Error);

impl fmt::Display for NoCap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#}", self.0)
    }
}

impl std::error::Error for NoCap {}

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let cap = (trial.size * MIB / MEMORY_PARTS).max(MEMORY_MIN);
    drop(Cap::new(cap).map_err(NoCap)?);
    let places = Places { memory_cap: Some(cap), ..trial.places.clone() };
    let mut ground = Ground::start(&Trial { places, ..trial.clone() })?;
    let mut client = ground.client()?;
    bulk::enqueue_large(&mut client, trial.size.div_ceil(4), 1)?;
    ground.measure("READ of all, with memory for a quarter", || {
        let mut from = 0;
        loop {
            let (queue, jobs_max, bytes_max) = (bulk::QUEUE, u32::MAX, u32::MAX);
            let read = Read { queue, from, jobs_max, bytes_max, unconsumed_by: None };
            let body = client.ask(Opcode::Read, |out| read.encode(out))?;
            let reply = ReadReply::decode(&body)?;
            if reply.next >= reply.end || reply.next == from {
                return Ok(true);
            }
            from = reply.next;
        }
    })?;
    Ok(ground.into_rows())
}
