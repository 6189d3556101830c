//! Many connections: all made at once while the server stands still, as after a start; and all
//! gone at once, each with a FETCH that waits.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use joblog_protocol::Opcode;
use joblog_protocol::limits::{FETCH_WAIT_MS_MAX, SILENCE_MS_MAX};
use joblog_protocol::messages::admin::QueueSettings;
use joblog_protocol::messages::fetch::{Fetch, LeaseKind};
use joblog_protocol::messages::handles::HandleSets;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use smallvec::smallvec;

use super::ground::Ground;
use super::wire::{Client, new_session};
use super::{Trial, bulk};
use crate::proc;
use crate::result::Growth;

/// For so long the server does not accept.
const STANDSTILL: Duration = Duration::from_millis(200);
/// Files beside those of the connections, in either process.
const OTHER_FILES: u64 = 200;

pub(super) fn run(trial: &Trial) -> Result<Vec<Growth>> {
    raise_file_limit(trial.size)?;
    let mut ground = Ground::start(trial)?;
    bulk::create(&mut ground.client()?, QueueSettings::default())?;
    let server = *ground.server().pids().first().context("the server has no process")?;
    let files = proc::open_files(server);

    let memory = ground.memory_bytes();
    let address = ground.server().address.parse()?;
    ground.server().signal(Signal::STOP);
    let begun = begin_connecting(address, trial.size);
    thread::sleep(STANDSTILL);
    let woken = Instant::now();
    ground.server().signal(Signal::CONT);
    let mut clients = Vec::new();
    for stream in begun? {
        let mut client = Client::over(stream, trial.patience)?;
        client.greet(new_session(), SILENCE_MS_MAX as u32)?;
        clients.push(client);
    }
    let took = woken.elapsed();
    for client in &mut clients {
        client.send(Opcode::Fetch, put_waiting_fetch)?;
    }
    // The last one's request is in when a later one is answered.
    ground.client()?;
    ground.add_row("connect while it stands still, then FETCH", Some(took));
    ground.last_row()?.memory_before_bytes = memory;

    ground.measure("all leave", || {
        clients.clear();
        let until = Instant::now() + trial.patience;
        // The small client has a connection, too.
        while proc::open_files(server) > files + 5 {
            if Instant::now() > until {
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    })?;
    Ok(ground.into_rows())
}

/// Lets this process, and the servers that it starts, have a file for each connection.
fn raise_file_limit(connections: u64) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = connections + OTHER_FILES;
    let allowed = limit.maximum.unwrap_or(u64::MAX);
    ensure!(
        needed <= allowed,
        "{connections} connections need {needed} open files; the system allows {allowed}: raise \
         it with `ulimit -Hn`"
    );
    limit.current = limit.current.map(|current| current.max(needed));
    setrlimit(Resource::Nofile, limit).context("raising the limit on open files")
}

fn begin_connecting(address: SocketAddr, count: u64) -> Result<Vec<TcpStream>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let mut streams = Vec::new();
    for _ in 0..count {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => streams.push(TcpStream::from(socket)),
            Err(error) => return Err(error).context("connecting to the server"),
        }
    }
    Ok(streams)
}

fn put_waiting_fetch(out: &mut bytes::BytesMut) {
    let fetch = Fetch {
        queues: smallvec![bulk::QUEUE],
        group: "",
        jobs_max: 1,
        bytes_max: u32::MAX,
        wait_ms: FETCH_WAIT_MS_MAX as u32,
        lease: LeaseKind::Session { run_ms_max: None },
        by_turns: false,
        commits: HandleSets::new(),
    };
    fetch.encode(out);
}
