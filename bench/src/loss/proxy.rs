//! A proxy that cuts connections while a reply with a job travels: the server has sent it, and the
//! worker never gets it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// The seed of the dice.
const SEED: u64 = 58;

/// What all connections of the proxy share.
#[derive(Debug)]
struct Shared {
    server: String,
    /// What a chunk must contain, all of it, to carry a job.
    marks: Vec<Vec<u8>>,
    share: f64,
    cuts: AtomicU64,
    stopped: AtomicBool,
}

/// A running proxy; it takes no more connections once dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts one that cuts this share of the replies with a job.
    pub(crate) fn start(server: &str, marks: &[&[u8]], share: f64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            server: server.into(),
            marks: marks.iter().map(|mark| mark.to_vec()).collect(),
            share,
            cuts: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        thread::spawn(move || {
            for (number, client) in (0_u64..).zip(listener.incoming()) {
                if inner.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (inner, Ok(client)) = (Arc::clone(&inner), client) else { continue };
                thread::spawn(move || carry(&client, &inner, number));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Connections cut so far.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it has stopped.
        drop(TcpStream::connect(&self.address));
    }
}

/// Carries one connection until either side ends it, or it is cut.
fn carry(client: &TcpStream, shared: &Shared, number: u64) {
    let Ok(server) = TcpStream::connect(&shared.server) else {
        // A server that is just being restarted: the client tries again.
        thread::sleep(Duration::from_millis(5));
        return;
    };
    let settings = [client.set_nodelay(true), server.set_nodelay(true)];
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    if settings.iter().all(Result::is_ok) {
        let upward = thread::spawn(move || copy(&from, &to, |_| false));
        let mut dice = fastrand::Rng::with_seed(SEED ^ number.wrapping_mul(0x9e37_79b9));
        copy(&server, client, |chunk| {
            let has_job = shared.marks.iter().all(|mark| contains(chunk, mark));
            let cut = has_job && dice.f64() < shared.share;
            shared.cuts.fetch_add(u64::from(cut), Ordering::SeqCst);
            cut
        });
        drop(upward.join());
    }
}

/// Copies until the end of either, or until `cut` says so of a chunk, which then stays here.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut cut: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let chunk = buffer.get(..count).unwrap_or_default();
        if cut(chunk) || to.write_all(chunk).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // It may be closed already.
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn contains(chunk: &[u8], mark: &[u8]) -> bool {
    chunk.windows(mark.len()).any(|window| window == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || copy(&stream, &stream.try_clone().unwrap(), |_| false));
            }
        });
        address
    }

    #[test]
    fn a_chunk_with_all_marks_is_cut_and_never_arrives() {
        let proxy = Proxy::start(&echo(), &[b"one", b"two"], 1.0).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut answer = [0; 3];
        client.write_all(b"one").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!((&answer, proxy.cuts()), (b"one", 0));
        client.write_all(b"one and two").unwrap();
        assert!(client.read_exact(&mut answer).is_err());
        assert_eq!(proxy.cuts(), 1);
    }
}
