use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tidemark_cli::args::{Cli, Command};
use tidemark_cli::{crds, describe, operator, up};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Shim => return tidemark_sandbox::process::shim_main([]),
        Command::Crds => crds::print(),
        Command::Demo(demo) => block_on(tidemark_demo::run(demo)),
        Command::Up(args) => block_on(up::run(args)),
        Command::Operator(args) => block_on(operator::run(args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed standard error is no reason for another exit code.
            let _ = writeln!(std::io::stderr(), "tidemark: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // The provider that every other part of the program names explicitly; libraries that look for a default find it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // A name server that does not answer must not hold the end up.
    runtime.shutdown_background();
    outcome
}
