use std::process::ExitCode;

use clap::Parser;
use tidemark_cli::args::{Cli, Command};
use tidemark_cli::{crds, operator, up};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Shim => return tidemark_sandbox::process::shim_main([]),
        Command::Crds => crds::print(),
        Command::Demo(demo) => runtime().and_then(|runtime| runtime.block_on(tidemark_demo::run(demo))),
        Command::Up(args) => runtime().and_then(|runtime| runtime.block_on(up::run(args))),
        Command::Operator(args) => runtime().and_then(|runtime| runtime.block_on(operator::run(args))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidemark: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // The provider that every other part of the program names explicitly; libraries that look for a default find it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
