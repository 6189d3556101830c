//! What a program builds that uses the client or the worker alone.

#![allow(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeSet;
use std::process::Command;

/// The crates that these features build, without their versions.
fn crates(features: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "joblog", "--no-default-features", "--features", features])
        .args(["-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let listed = String::from_utf8(tree.stdout).unwrap();
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_client_builds_no_server_no_http_and_no_command_line() {
    // The client's own, and what those are made of; the platform's are the platform's.
    let own = [
        "base64",
        "bytes",
        "crc32fast",
        "fastrand",
        "futures-core",
        "getrandom",
        "joblog-protocol",
        "serde",
        "serde_json",
        "smallvec",
        "thiserror",
        "tokio",
        "tokio-util",
        "tracing",
    ];
    let heavy = [
        "axum",
        "clap",
        "h2",
        "http",
        "hyper",
        "indicatif",
        "memmap2",
        "parking_lot",
        "rustc-hash",
        "rustix",
        "rustls",
        "tempfile",
        "toml",
        "tower",
        "tracing-subscriber",
    ];
    let client = crates("client");
    for name in own {
        assert!(client.contains(name), "the list is read wrongly: no {name} in {client:?}");
    }
    for name in heavy {
        assert!(!client.contains(name), "the client builds {name}");
    }
    assert!(!client.contains("signal-hook-registry"), "the client handles no signals");
    assert!(client.len() <= 45, "{} crates: {client:?}", client.len());
    let worker = crates("worker");
    let more: Vec<_> = worker.difference(&client).map(String::as_str).collect();
    let layers = ["errno", "signal-hook-registry", "tower-layer", "tower-service"];
    assert!(more.iter().all(|name| layers.contains(name)), "the worker adds {more:?}");
}
