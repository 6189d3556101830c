//! Many clients at once.

use std::net::TcpStream;
use std::time::Duration;

use crate::common::{Raw, Server};

/// Clients that come while the server takes none.
const CROWD: usize = 1_000;

/// A client that finds no place tries again after a second.
const FIRST_TRY: Duration = Duration::from_millis(900);

#[test]
fn a_thousand_clients_at_once_find_a_place_before_they_are_accepted() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let most: usize = most.trim().parse().unwrap();
    assert!(most > CROWD, "this system allows {most} waiting connections: raise somaxconn");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.pause();
    let connect = |_| TcpStream::connect_timeout(&server.address(), FIRST_TRY);
    // The first that finds none ends the test: the others would wait as long.
    let connected: Result<Vec<_>, _> = (0..CROWD).map(connect).collect();
    server.resume();
    assert_eq!(connected.map(|all| all.len()).map_err(|error| error.kind()), Ok(CROWD));
    Raw::greeted(server.address()).assert_open();
}

#[test]
fn a_fetch_of_the_most_queues_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut raw = Raw::greeted(server.address());
    let names: Vec<_> = (0..255).map(|number| format!("q{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    raw.enqueue(names[254], &["in the last"]).unwrap();
    let jobs = raw.fetch(&names, 10, 0).unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].queue_ordinal, &jobs[0].payload[..]), (254, &b"in the last"[..]));
    assert!(raw.fetch(&names, 10, 0).unwrap().is_empty());
}
