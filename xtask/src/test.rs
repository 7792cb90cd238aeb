//! `cargo xtask test`: set-up, all tests, clean-up.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{control_plane, helm, services};

/// Provides the control plane, starts the services and runs `cargo test` with everything required to be there:
/// what plain `cargo test` skips fails here. Without `arguments` all tests of the workspace run; the services are
/// stopped and the time of each step is printed in any case.
///
/// # Errors
/// When the set-up fails. A failing test is no error but the exit code.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let mut steps = Steps::default();
    let outcome = set_up_and_test(arguments, &mut steps);
    for (name, time) in steps.0 {
        println!("{name:<24} {:>7.1} s", time.as_secs_f64());
    }
    outcome
}

fn set_up_and_test(arguments: &[String], steps: &mut Steps) -> Result<ExitCode> {
    let assets = steps.time("control plane", control_plane::provide)?;
    let helm = steps.time("helm", helm::provide)?;
    let collector = steps.time("collector", services::collector::provide)?;
    let keda = steps.time("keda", services::keda::provide)?;
    let mut running = steps.time("start services", || services::start(&[]))?;

    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("test").current_dir(workspace());
    match arguments {
        [] => cargo.args(["--workspace", "--no-fail-fast"]).args(ci().then_some("--locked")),
        arguments => cargo.args(arguments),
    };
    cargo
        .env("KUBEBUILDER_ASSETS", assets)
        .env("TIDEMARK_TEST_HELM", helm)
        .env(services::collector::VARIABLE, collector)
        .env(services::keda::VARIABLE, keda)
        .env("TIDEMARK_REQUIRE_HELM", "1")
        .env("TIDEMARK_REQUIRE_KEDA", "1")
        .env("TIDEMARK_REQUIRE_CONTROL_PLANE", "1")
        .env("TIDEMARK_REQUIRE_SERVICES", "1")
        .envs(running.iter().flat_map(|service| service.variables.iter().map(|(name, value)| (name, value))));
    // Outside CI a checkout may stand alone; there the absence of the conformance data is a failure, not a skip.
    if ci() || workspace().join("../shared/conformance").is_dir() {
        cargo.env("TIDEMARK_REQUIRE_CONFORMANCE", "1");
    }
    let status = steps.time("cargo test", || cargo.status().context("cannot run cargo"))?;
    for service in &mut running {
        if let Err(error) = service.check() {
            eprintln!("warning: a server did not last through the tests: {error:#}");
        }
    }
    steps.time("stop services", || drop(running));
    // A cargo that was killed by a signal has no code.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// The root of the workspace: where its lock file is, from here upwards. Looked up and not compiled in, because builds
/// of several checkouts share their output.
pub fn workspace() -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    here.ancestors().find(|folder| folder.join("Cargo.lock").is_file()).unwrap_or(&here).to_owned()
}

#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn time<T>(&mut self, name: &'static str, step: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = step();
        self.0.push((name, start.elapsed()));
        result
    }
}
