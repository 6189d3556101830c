//! A proxy on loopback that cuts connections at the moment that a FETCH's jobs travel.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use joblog_protocol::Opcode;
use joblog_protocol::frame::{FLAG_MORE, Header, Peek};

use super::Dice;

/// How a connection is cut when it is this reply's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Before any byte of it was passed on.
    Before,
    /// After half of it.
    Half,
}

/// The proxy. Its threads end when it is dropped and its connections are over.
pub(crate) struct CuttingProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    opcode: Opcode,
    percent: u64,
    cut: Cut,
    dice: Mutex<Dice>,
    cuts: AtomicUsize,
    passed: AtomicUsize,
    over: AtomicBool,
}

impl CuttingProxy {
    /// Listens, and passes connections on to `server`; cuts `percent` of the replies with jobs.
    pub(crate) fn start(server: SocketAddr, percent: u64, cut: Cut, seed: u64) -> Self {
        Self::start_for(Opcode::Fetch, server, percent, cut, seed)
    }

    /// As [`CuttingProxy::start`], for replies to another command.
    pub(crate) fn start_for(
        opcode: Opcode,
        server: SocketAddr,
        percent: u64,
        cut: Cut,
        seed: u64,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            opcode,
            percent,
            cut,
            dice: Mutex::new(Dice::new(seed)),
            cuts: AtomicUsize::new(0),
            passed: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let for_listener = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if for_listener.over.load(Ordering::Relaxed) {
                    return;
                }
                for_listener.serve(client.unwrap());
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// How many replies with jobs it has passed on.
    pub(crate) fn passed(&self) -> usize {
        self.shared.passed.load(Ordering::Relaxed)
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        // A server that is down is a connection that ends at once.
        let Ok(server) = TcpStream::connect(self.server) else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pass_on(from_client, to_server));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            shared.pass_replies(&server, &client);
            drop(client.shutdown(Shutdown::Both));
            drop(server.shutdown(Shutdown::Both));
        });
    }

    /// Passes on whole frames until it is time to cut, or until one side is gone.
    fn pass_replies(&self, mut server: &TcpStream, mut client: &TcpStream) {
        let mut input = Vec::new();
        let mut buffer = [0; 64 * 1024];
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            input.extend_from_slice(&buffer[..count]);
            while let Peek::Whole(header) = Header::peek(&input) {
                let frame: Vec<u8> = input.drain(..4 + header.length as usize).collect();
                let is_cut = self.is_candidate(header, &frame) && self.is_cut();
                let passed = match (is_cut, self.cut) {
                    (false, _) => &frame[..],
                    (true, Cut::Before) => &[],
                    (true, Cut::Half) => &frame[..frame.len() / 2],
                };
                if client.write_all(passed).is_err() || is_cut {
                    return;
                }
            }
        }
    }

    fn is_candidate(&self, header: Header, frame: &[u8]) -> bool {
        match self.opcode {
            Opcode::Fetch => carries_jobs(header, frame),
            opcode => header.opcode == opcode as u8,
        }
    }

    fn is_cut(&self) -> bool {
        let is_cut = self.dice.lock().unwrap().below(100) < self.percent;
        let counter = if is_cut { &self.cuts } else { &self.passed };
        counter.fetch_add(1, Ordering::Relaxed);
        is_cut
    }
}

fn carries_jobs(header: Header, frame: &[u8]) -> bool {
    let is_fetch = header.opcode == Opcode::Fetch as u8 && header.status == 0;
    is_fetch && header.flags & FLAG_MORE == 0 && frame[24..28] != [0; 4]
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    drop(std::io::copy(&mut from, &mut to));
    drop(to.shutdown(Shutdown::Write));
}

/// A proxy on loopback that can make connections half open: they stay up, and nothing passes any
/// more, as after a router that has forgotten them. Later ones work.
pub(crate) struct FreezingProxy {
    address: SocketAddr,
    /// Connections that were made before this many freezes are frozen.
    freezes: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl FreezingProxy {
    /// Listens, and passes connections on to `server`.
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (freezes, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (now, ended) = (Arc::clone(&freezes), Arc::clone(&over));
        thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let client = client.unwrap();
                let Ok(server) = TcpStream::connect(server) else { continue };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let born = now.load(Ordering::Relaxed);
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in
                    ends.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
                {
                    let now = Arc::clone(&now);
                    thread::spawn(move || pass_until_frozen(from, to, born, &now));
                }
            }
        });
        Self { address, freezes, over }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Freezes all connections that there are.
    pub(crate) fn freeze(&self) {
        self.freezes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for FreezingProxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

/// Passes bytes on; once frozen, it swallows them, the end of the connection included.
fn pass_until_frozen(mut from: TcpStream, mut to: TcpStream, born: usize, now: &AtomicUsize) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let is_frozen = now.load(Ordering::Relaxed) != born;
        if !is_frozen && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    if now.load(Ordering::Relaxed) == born {
        drop(to.shutdown(Shutdown::Both));
    }
}
