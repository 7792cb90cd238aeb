//! Tidemark beside KEDA: memory, processor time, requests and times of both, with the same objects on a real control
//! plane, one after the other. KEDA is its own operator and metrics server.
//!
//! `cargo xtask keda && cargo xtask control-plane && cargo bench -p tidemark --bench beside_keda [-- --help]`

mod objects;
mod report;
mod rest;
mod source;
mod stage;
mod systems;
mod times;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use report::Results;
use systems::{Programs, System};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Tidemark beside KEDA on a real control plane.
///
/// Each run has a control plane of its own (etcd, kube-apiserver and kube-controller-manager on this machine), one
/// operator and one metrics server. Everything takes the better part of an hour; the options make it less. At the end
/// stands a table for docs/performance.md.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure
    #[arg(long, value_name = "WHAT", value_delimiter = ',', default_value = "rest,times")]
    only: Vec<What>,
    /// Whom to measure
    #[arg(long, value_name = "WHO", value_delimiter = ',', default_value = "keda,keda-unthrottled,tidemark")]
    systems: Vec<System>,
    /// Numbers of ScaledObjects at rest
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "0,500,1000")]
    objects: Vec<usize>,
    /// How long to look at them, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    window: u64,
    /// How often to measure times, the systems in turn
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    rounds: usize,
    /// Program of Tidemark to measure in place of the one just built
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_tidemark"))]
    tidemark: PathBuf,
    /// Given by `cargo bench`; without it nothing is measured
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum What {
    /// Memory, processor time and requests at rest
    Rest,
    /// How long it takes from an object to its HPA, from an event to replicas, to read metrics, and to start
    Times,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if !options.bench {
        println!("SKIPPED: measured by `cargo bench -p tidemark --bench beside_keda` only");
        return Ok(());
    }
    let Some(keda) = xtask::services::keda::find()? else {
        println!("SKIPPED: KEDA is not built; `cargo xtask keda` does it");
        return Ok(());
    };
    let programs = Programs { keda, tidemark: options.tidemark.clone() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&options, &programs));
    Ok(())
}

async fn measure(options: &Options, programs: &Programs) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut results = Results::default();
    for &objects in options.objects.iter().filter(|_| options.only.contains(&What::Rest)) {
        // The throttle of KEDA's client would make the taking up of the objects the longest part of the run.
        for &system in options.systems.iter().filter(|system| **system != System::Keda) {
            println!("{system} at rest with {objects} ScaledObjects");
            if !rest::measure(system, programs, objects, options.window, &mut results).await {
                return;
            }
        }
    }
    let rounds = if options.only.contains(&What::Times) { options.rounds } else { 0 };
    for round in 1..=rounds {
        for &system in &options.systems {
            println!("{system}: times, round {round} of {rounds}");
            if !times::measure(system, programs, &mut results).await {
                return;
            }
        }
    }
    println!("\n{results}");
}
