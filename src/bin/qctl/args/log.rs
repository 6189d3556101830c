//! `qctl log`.

use std::path::PathBuf;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Check every byte that counts. Changes nothing.
    Verify {
        /// The data directory of the server, or that of one log.
        dir: PathBuf,
    },
    /// Print every frame. Changes nothing.
    Dump {
        /// The data directory of the server, or that of one log.
        dir: PathBuf,
    },
    /// Cut a log that is refused as damaged, in front of the damage.
    ///
    /// Says first what will be lost. What is cut is moved aside and not deleted.
    Repair {
        /// The data directory of the server, or that of one log.
        dir: PathBuf,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}
