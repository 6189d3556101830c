//! `qctl`, the command line of Joblog.

#![cfg_attr(not(test), deny(clippy::unreachable, clippy::wildcard_enum_match_arm))]

#[macro_use]
mod output;

mod args;
mod bulk;
mod cancel;
mod color;
mod confirm;
mod dead;
mod enqueue;
mod error;
mod fetch;
mod generated;
mod group;
mod job;
mod job_name;
mod lease;
mod log;
mod moving;
mod progress;
mod queue;
mod schedule;
mod server;
mod tail;
mod top;
mod transfer;
mod values;
mod work;

use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::color::Colors;
use crate::error::{CliError, Outcome};
use crate::moving::Action;
use crate::output::Output;
use crate::server::Server;

fn main() -> ExitCode {
    let args = Args::read();
    let colors = Colors::new(args.color, &std::io::stderr());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(args));
            // A write that is stuck in a full pipe must not hold up the end.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(CliError::Failed(format!("no runtime can be started: {error}"))),
    };
    error::report(&result, colors);
    ExitCode::from(error::exit_code(&result))
}

async fn run(args: Args) -> Outcome {
    let server = Server::new(args.server);
    let out = Output::new(args.json, args.color);
    let result = match args.command {
        Command::Ping => queue::ping(&server, &out).await,
        Command::Queue(command) => queue::run(&server, command, &out).await,
        Command::Group(command) => group::run(&server, command, &out).await,
        Command::Enqueue(args) => enqueue::run(&server, args, &out).await,
        Command::Fetch(args) => fetch::fetch(&server, args, &out).await,
        Command::Peek(args) => fetch::peek(&server, args, &out).await,
        Command::Tail(args) => tail::run(&server, args, &out).await,
        Command::Export(args) => transfer::export(&server, args, &out).await,
        Command::Import(args) => transfer::import(&server, args, &out).await,
        Command::Commit(args) => lease::commit(&server, args, &out).await,
        Command::Release(args) => lease::release(&server, args, &out).await,
        Command::Fail(args) => lease::fail(&server, args, &out).await,
        Command::Extend(args) => lease::extend(&server, args, &out).await,
        Command::Cancel { jobs } => cancel::cancel(&server, &jobs, &out).await,
        Command::Dead(command) => dead::run(&server, command, &out).await,
        Command::Job(command) => job::run(&server, command, &out).await,
        Command::Move(args) => moving::run(&server, args, Action::Move, &out).await,
        Command::Copy(args) => moving::run(&server, args, Action::Copy, &out).await,
        Command::Schedule(command) => schedule::run(&server, command, &out).await,
        Command::Log(command) => log::run(command, &out),
        Command::Top(args) => top::run(&server, args, &out).await,
        Command::Completions { shell } => generated::completions(shell, &out),
        Command::Man { directory } => generated::man(directory.as_deref(), &out),
        Command::Work(args) => work::run(&server, args).await,
    };
    let written = out.flush();
    server.goodbye().await;
    let exit = result?;
    written?;
    Ok(exit)
}
