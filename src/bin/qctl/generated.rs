//! `qctl completions` and `qctl man`: made of the definition of the command line.

use std::fs;
use std::io;
use std::path::Path;

use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use crate::args;
use crate::error::{CliError, Exit, Outcome};
use crate::output::Output;

/// `qctl completions`.
pub(crate) fn completions(shell: Shell, out: &Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::definition(), "qctl", &mut script);
    out.write(&script)?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct PagesDone<'a> {
    directory: &'a Path,
    pages: usize,
}

/// `qctl man`.
pub(crate) fn man(directory: Option<&Path>, out: &Output) -> Outcome {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        Man::new(args::definition()).render(&mut page)?;
        out.write(&page)?;
        return Ok(Exit::Done);
    };
    let failed = |error: io::Error| {
        CliError::Failed(format!("the pages can't be written to {}: {error}", directory.display()))
    };
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(args::definition(), directory).map_err(failed)?;
    let pages = fs::read_dir(directory).map_err(failed)?.count();
    let done = PagesDone { directory, pages };
    out.done(&done, &format!("The pages are in {}.", directory.display()))?;
    Ok(Exit::Done)
}
