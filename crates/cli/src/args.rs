//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use crate::operator::args::OperatorArgs;

/// Event-driven autoscaling for Kubernetes.
// Charts append their users' flags to their own: the last one counts, as with KEDA.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, about, propagate_version = true, args_override_self = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole system on this machine: Kubernetes API, controllers, operator, pods as local processes
    Up(Up),
    /// Run the operator in a cluster
    Operator(Box<OperatorArgs>),
    /// Serve external.metrics.k8s.io/v1beta1 behind the API server's aggregation layer, with the operator's values
    MetricsServer(Box<crate::metrics_server::MetricsServerArgs>),
    /// Serve the admission webhooks
    Webhooks(Box<crate::webhooks::WebhooksArgs>),
    /// Check manifests without a cluster: definitions, admission rules, the parameters of every trigger
    Lint(crate::lint::LintArgs),
    /// Read each trigger of manifests once, from the real event source, and show what came of it
    Probe(crate::probe::ProbeArgs),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
    /// Print the version
    Version,
    /// Run one of the small programs of the examples
    #[command(subcommand)]
    Demo(tidemark_demo::Demo),
    /// Run the processes of one pod; `up` starts this by itself
    #[command(hide = true)]
    Shim,
}

/// `tidemark up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Manifest files, or folders of them
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Where to write the kubeconfig [default: tidemark/PORT/kubeconfig under the user's state folder]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Port of the Kubernetes API on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 6445, env = "TIDEMARK_PORT")]
    pub port: u16,
    /// Namespace where the Secrets and ConfigMaps of ClusterTriggerAuthentications are read; it is made
    #[arg(long, value_name = "NAMESPACE", default_value = "keda", env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: String,
    /// Pods only become Running and Ready; no process is started
    #[arg(long)]
    pub simulate_pods: bool,
    /// Print lines instead of a live screen, also on a terminal
    #[arg(long)]
    pub plain: bool,
    /// Do not apply files again when they change
    #[arg(long)]
    pub no_watch: bool,
}
