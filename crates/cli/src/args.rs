//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Event-driven autoscaling for Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, about, propagate_version = true)]
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
    Operator(OperatorArgs),
    /// Check manifests without a cluster: definitions, admission rules, the parameters of every trigger
    Lint(crate::lint::LintArgs),
    /// Read each trigger of manifests once, from the real event source, and show what came of it
    Probe(crate::probe::ProbeArgs),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
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

/// `tidemark operator`.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Kubeconfig of the cluster [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespaces to watch, separated by commas; empty watches all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', env = "WATCH_NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// Namespace where the Secrets and ConfigMaps of ClusterTriggerAuthentications are read [default: the pod's own]
    #[arg(long, value_name = "NAMESPACE", env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: Option<String>,
    /// Folder of the files that ClusterTriggerAuthentications name by filePath; without it they are refused
    #[arg(long, value_name = "DIR")]
    pub filepath_auth_root_path: Option<PathBuf>,
    /// Seconds after which parameters from Secrets, ConfigMaps, files and environments are read again though no read has
    /// failed; 0 never does
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub auth_refresh: u64,
    /// Serve external.metrics.k8s.io/v1beta1 over HTTPS at this address
    #[arg(long, value_name = "ADDRESS", env = "TIDEMARK_EXTERNAL_METRICS_ADDRESS")]
    pub external_metrics_address: Option<SocketAddr>,
    /// Folder with tls.crt and tls.key for the external metrics API, read again when they change; without it a
    /// certificate is made at every start
    #[arg(long, value_name = "DIR", requires = "external_metrics_address")]
    pub cert_dir: Option<PathBuf>,
    /// Host name under which the API server reaches the external metrics API, for the certificate made at the start
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub external_metrics_host: String,
    /// Where to write the CA of a certificate made at the start, for the caBundle of the APIService
    #[arg(long, value_name = "FILE", requires = "external_metrics_address", conflicts_with = "cert_dir")]
    pub ca_file: Option<PathBuf>,
}
