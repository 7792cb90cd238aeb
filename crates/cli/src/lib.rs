//! The `tidemark` command: arguments and wiring.

pub mod apply;
pub mod args;
pub mod crds;
pub mod kubeconfig;
pub mod manifests;
pub mod metrics;
pub mod operator;
mod signals;
pub mod up;

use tracing_subscriber::EnvFilter;

/// `RUST_LOG`, or what an operator needs to see. The AMQP library logs what brokers say, user names included.
fn log_filter() -> EnvFilter {
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_runtime=error,lapin=off"))
}
