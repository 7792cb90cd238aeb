//! The `tidemark` command: arguments and wiring.

mod aggregation;
pub mod apply;
pub mod args;
pub mod crds;
pub mod explain;
pub mod install;
pub mod kubeconfig;
pub mod lint;
pub mod manifests;
mod merge;
pub mod metrics;
pub mod metrics_server;
pub mod named_cluster;
pub mod operator;
pub mod probe;
pub mod process;
pub mod status;
pub mod up;
pub mod version;
pub mod webhooks;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use futures::future::LocalBoxFuture;
use tidemark_trigger::causes;

use args::{Cli, Command};

/// The command, whole. It is here and not in the binary's own file, because a binary is compiled in one piece.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Shim => return tidemark_sandbox::process::shim_main([]),
        Command::Lint(args) => return lint::run(&args).unwrap_or_else(|error| failed(&error)),
        Command::Probe(args) => return block_on(Box::pin(probe::run(args))).unwrap_or_else(|error| failed(&error)),
        Command::Release(args) => {
            return block_on(Box::pin(install::release::run(args))).unwrap_or_else(|error| failed(&error));
        }
        Command::Crds => crds::print(),
        Command::Manifests(args) => install::manifests::print(&args),
        Command::Completions(args) => install::completions::print(&args),
        Command::Version(args) => version::print(&args),
        Command::Explain(args) => block_on(Box::pin(explain::run(args))),
        Command::Status(args) => block_on(Box::pin(status::run(args))),
        Command::Demo(demo) => block_on(tidemark_demo::run(demo)),
        Command::Up(args) => block_on(Box::pin(up::run(args))),
        Command::Operator(args) => block_on(Box::pin(operator::run(*args))),
        Command::MetricsServer(args) => block_on(Box::pin(metrics_server::run(*args))),
        Command::Webhooks(args) => block_on(Box::pin(webhooks::run(*args))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // A closed standard error is no reason for another exit code.
    let _ = writeln!(std::io::stderr(), "tidemark: {}", causes(&**error));
    ExitCode::FAILURE
}

fn block_on<T>(command: LocalBoxFuture<'static, anyhow::Result<T>>) -> anyhow::Result<T> {
    // The provider that every other part of the program names explicitly; libraries that look for a default find it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // A name server that does not answer must not hold the end up.
    runtime.shutdown_background();
    outcome
}

/// Logs to standard error, in colours on a terminal only.
fn log_to_standard_error() {
    tracing_subscriber::fmt()
        .with_env_filter(process::logging::filter("info"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // Where standard error is closed, saying so there would be a panic.
        .log_internal_errors(false)
        .init();
}
