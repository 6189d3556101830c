//! `qctl` as scripts use it: JSON, one object a line.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::Server;

fn qctl(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qctl"));
    command.env("JOBLOG_SERVER", server.address().to_string()).stdin(Stdio::null());
    command.arg("--json").args(args).output().unwrap()
}

/// The exit code of a run.
pub(crate) fn qctl_code(server: &Server, args: &[&str]) -> i32 {
    qctl(server, args).status.code().unwrap()
}

/// The objects that a run prints, whatever its exit code.
pub(crate) fn qctl_any(server: &Server, args: &[&str]) -> Vec<Value> {
    let text = String::from_utf8(qctl(server, args).stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The objects that a run prints, which must end with this exit code.
pub(crate) fn qctl_objects(server: &Server, code: i32, args: &[&str]) -> Vec<Value> {
    let output = qctl(server, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
