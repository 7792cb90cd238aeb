//! `tidemark completions`: scripts for shells.

use std::io::{self, Write};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;

/// `tidemark completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The script of a shell.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidemark", &mut script);
    script
}

/// Prints the script of a shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(args: &CompletionsArgs) -> anyhow::Result<()> {
    let script = script(args.shell);
    let mut out = io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).context("cannot write to standard output")
}
