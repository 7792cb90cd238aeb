//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use crate::operator::args::OperatorArgs;
use crate::operator::telling::MetricsArgs;
use crate::process::bind::Bind;
use crate::process::go_bool;
use crate::process::otlp::OtlpArgs;

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
    /// Say why an object has the replicas it has, who changed them last, what would change them next, and what is wrong
    Explain(crate::explain::ExplainArgs),
    /// Show all objects at a glance
    Status(crate::status::StatusArgs),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
    /// Print a whole installation as YAML, for `kubectl apply --server-side -f -`
    Manifests(crate::install::manifests::ManifestsArgs),
    /// Take the finalizer from all objects after an uninstall, so that they can be deleted
    Release(crate::install::release::ReleaseArgs),
    /// Print the completions of a shell
    Completions(crate::install::completions::CompletionsArgs),
    /// Print the version, the commit, and what it works with
    Version(crate::version::VersionArgs),
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
    /// Serve metrics for Prometheus
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_prometheus_metrics: bool,
    /// Where metrics are served for Prometheus
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub metrics_bind_address: Bind,
    #[command(flatten)]
    pub metrics: MetricsArgs,
    #[command(flatten)]
    pub otlp: OtlpArgs,
}
