//! A session with many leases ends: by GOODBYE, by a HELLO that names none of them, by silence.

use std::time::{Duration, Instant};

use anyhow::Result;
use joblog_protocol::Opcode;
use joblog_protocol::limits::{SILENCE_MS_MAX, SILENCE_MS_MIN};
use joblog_protocol::messages::fetch::LeaseKind;

use super::ground::Ground;
use super::wire::{Client, new_session};
use super::{Trial, bulk};
use crate::result::Growth;

const LEASE: LeaseKind = LeaseKind::Session { run_ms_max: None };
const SILENCE_MS: u32 = 2 * SILENCE_MS_MIN as u32;

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    let mut ground = Ground::start(trial)?;
    let mut client = ground.client()?;
    let mut watcher = ground.watcher()?;
    bulk::enqueue(&mut client, bulk::QUEUE, trial.size, None)?;

    bulk::take(&mut client, "", trial.size, LEASE)?;
    ground.measure("GOODBYE", || {
        client.ask(Opcode::Goodbye, |_| ())?;
        watcher.until(|group| group.leased == 0)
    })?;

    let address = ground.server().address.clone();
    let connect =
        |session, silence_ms| Client::connect_as(&address, trial.patience, session, silence_ms);
    let session = new_session();
    let mut client = connect(session, SILENCE_MS_MAX as u32)?;
    bulk::take(&mut client, "", trial.size, LEASE)?;
    drop(client);
    ground.measure("HELLO that names none", || {
        connect(session, SILENCE_MS_MAX as u32)?;
        watcher.until(|group| group.leased == 0)
    })?;

    let mut client = connect(new_session(), SILENCE_MS)?;
    bulk::take(&mut client, "", trial.size, LEASE)?;
    let due = Instant::now() + Duration::from_millis(SILENCE_MS.into());
    drop(client);
    ground.measure_from(due, "silence", || watcher.until(|group| group.leased == 0))?;
    Ok(ground.into_rows())
}
