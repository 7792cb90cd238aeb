//! `cargo xtask`: everything a developer or the CI runs besides cargo itself.

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

  test [ARGS...]        set up the control plane and the services, run the tests, clean up; without ARGS all tests,
                        otherwise `cargo test ARGS...` (for instance: test -p tidemark-operator)
  control-plane         provide etcd, kube-apiserver, kube-controller-manager and kubectl; print their folder
  keda                  provide KEDA's operator, metrics server and webhooks, which tests compare with; print their folder
  services [NAME...]    start the servers that trigger tests need, print their addresses, run until Ctrl-C; `collector`,
                        which starts a Collector and its Prometheus, has to be named
  demo rabbitmq|http    start what the example needs, then `tidemark up` with it, until Ctrl-C; with --plot FILE play one
                        wave of load and draw what Prometheus has seen of it
  schemas [--check]     take the schemas of Kubernetes' own types that the custom resources embed from the API server;
                        with --check only tell whether the committed ones are current
  check-dependencies    licences, bans, duplicates and the number of crates in the tidemark binary
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    let Some((task, rest)) = arguments.split_first() else {
        print!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    match task.as_str() {
        "test" => return xtask::test::run(rest),
        "schemas" => return xtask::schemas::run(rest),
        "demo" => return xtask::demo::run(rest),
        "services" => xtask::services::run(rest)?,
        "control-plane" | "keda" | "check-dependencies" if !rest.is_empty() => bail!("{task} takes no arguments"),
        "control-plane" => println!("{}", xtask::control_plane::provide()?.display()),
        "keda" => println!("{}", xtask::services::keda::provide()?.display()),
        "check-dependencies" => xtask::dependencies::check()?,
        "help" | "--help" | "-h" => print!("{USAGE}"),
        unknown => bail!("there is no task {unknown:?}\n\n{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}
