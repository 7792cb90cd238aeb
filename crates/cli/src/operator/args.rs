//! The flags of `tidemark operator`, under the names that KEDA's have.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::telling::MetricsArgs;
use crate::process::bind::Bind;
use crate::process::cluster::ClusterArgs;
use crate::process::go_bool;
use crate::process::logging::LogArgs;
use crate::process::otlp::OtlpArgs;

/// Where KEDA's operator finds the token with which it logs in at a Vault.
pub const VAULT_TOKEN: &str = "/var/run/secrets/keda-vault/token";

/// `tidemark operator`.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Namespaces to watch, separated by commas; empty watches all
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', env = "WATCH_NAMESPACE")]
    pub watch_namespaces: Vec<String>,
    /// Label selector of the ScaledObjects to scale, and of their HPAs
    #[arg(long, value_name = "SELECTOR", env = "WATCH_LABEL_SELECTOR", default_value = "")]
    pub watch_label_selector: String,
    /// Label selector of the authentications to write the users on
    #[arg(long, value_name = "SELECTOR", env = "WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH", default_value = "")]
    pub watch_label_selector_for_triggerauth: String,
    /// Namespace where the Secrets and ConfigMaps of ClusterTriggerAuthentications are read [default: the pod's own]
    #[arg(long, value_name = "NAMESPACE", env = "KEDA_CLUSTER_OBJECT_NAMESPACE")]
    pub cluster_object_namespace: Option<String>,
    /// Read Secrets only in the namespace of ClusterTriggerAuthentications
    #[arg(
        long, value_name = "BOOL", env = "KEDA_RESTRICT_SECRET_ACCESS", default_value = "false",
        default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = is_true,
        action = ArgAction::Set
    )]
    pub restrict_secret_access: bool,
    /// Folder of the files that ClusterTriggerAuthentications name by filePath; without it they are refused
    #[arg(long, value_name = "DIR", default_value = "")]
    pub filepath_auth_root_path: String,
    /// Seconds after which parameters from Secrets, ConfigMaps, files and environments are read again though no read has
    /// failed; 0 never does
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub auth_refresh: u64,

    /// Decide and report, beside a running KEDA if there is one, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Start although an operator of KEDA's runs in the cluster
    #[arg(long)]
    pub beside_keda: bool,

    /// Lead only while holding a Lease, and wait for it
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub leader_elect: bool,
    /// The Lease's name
    #[arg(long, value_name = "NAME", default_value = "operator.keda.sh")]
    pub leader_election_id: String,

    /// Where /healthz and /readyz are served; 0 does not
    #[arg(long, value_name = "ADDRESS", default_value = ":8081")]
    pub health_probe_bind_address: Bind,
    /// Where metrics are served for Prometheus; 0 does not
    #[arg(long, value_name = "ADDRESS", default_value = ":8080")]
    pub metrics_bind_address: Bind,
    /// Serve metrics for Prometheus
    #[arg(
        long, value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_prometheus_metrics: bool,
    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// Where the reasons of every decision are told, read-only, for `tidemark explain --address`: on loopback over HTTP
    /// [default: 127.0.0.1:8083, if it is free], at any other address over HTTPS to those whom the API server knows and
    /// lets read scaledobjects.reasons.tidemark.dev; 0 does not serve them
    #[arg(long, value_name = "ADDRESS", env = "TIDEMARK_REASONS_BIND_ADDRESS")]
    pub reasons_bind_address: Option<Bind>,
    /// Where the metrics server asks for values, gRPC with mutual TLS, once there are certificates; 0 does not serve them
    #[arg(long, value_name = "ADDRESS", default_value = ":9666")]
    pub metrics_service_bind_address: Bind,
    /// Folder with tls.crt, tls.key and ca.crt, read again when they change [default: /certs, if it is there]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Make and renew the certificates of the installation, and keep them in a Secret
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_cert_rotation: bool,
    /// The Secret's name
    #[arg(long, value_name = "NAME", default_value = "kedaorg-certs")]
    pub cert_secret_name: String,
    /// The operator's Service, for the certificate
    #[arg(long, value_name = "NAME", default_value = "keda-operator")]
    pub operator_service_name: String,
    /// The metrics server's Service, for the certificate
    #[arg(long, value_name = "NAME", default_value = "keda-metrics-apiserver")]
    pub metrics_server_service_name: String,
    /// The webhooks' Service, for the certificate
    #[arg(long, value_name = "NAME", default_value = "keda-admission-webhooks")]
    pub webhooks_service_name: String,
    /// The cluster's domain, for the certificate
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub k8s_cluster_domain: String,
    /// The cluster's name in events
    #[arg(long, value_name = "NAME", default_value = "kubernetes-default")]
    pub k8s_cluster_name: String,
    /// The ValidatingWebhookConfiguration that is told of the CA
    #[arg(long, value_name = "NAME", default_value = "keda-admission")]
    pub validating_webhook_name: String,
    /// Tell the ValidatingWebhookConfiguration of the CA
    #[arg(
        long, value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_webhook_patching: bool,
    /// Tell the APIService of the CA
    #[arg(
        long, value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub enable_apiservice_patching: bool,

    /// Folders of PEM files whose CAs are trusted besides the system's, by triggers
    #[arg(long, value_name = "DIR", default_value = "/custom/ca")]
    pub ca_dir: Vec<PathBuf>,
    /// Unused connections of triggers over HTTP that are kept, in all; 0 sets no limit
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide = true)]
    pub http_max_idle_conns: u32,
    /// Unused connections of triggers over HTTP that are kept, per host
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), hide = true)]
    pub http_max_idle_conns_per_host: u32,
    /// How long unused connections of triggers over HTTP are kept
    #[arg(long, value_name = "DURATION", default_value = "90s")]
    pub http_idle_conn_timeout: String,
    /// Accepted for KEDA's sake: there is no profiling over HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "", hide = true)]
    pub profiling_bind_address: String,

    /// Accepted for KEDA's sake: no tokens of ServiceAccounts are made yet
    #[arg(long, value_name = "MODE", value_parser = ["enforce-audience", "legacy"], default_value = "enforce-audience", hide = true)]
    pub service_account_token_mode: String,
    /// Accepted for KEDA's sake: no secrets are read from a Vault yet
    #[arg(long, value_name = "FILE", default_value = VAULT_TOKEN, hide = true)]
    pub vault_kubernetes_auth_token_file: String,

    /// Serve external.metrics.k8s.io/v1beta1 over HTTPS at this address, without a metrics server
    #[arg(long, value_name = "ADDRESS", env = "TIDEMARK_EXTERNAL_METRICS_ADDRESS")]
    pub external_metrics_address: Option<SocketAddr>,
    /// Host name under which the API server reaches the external metrics API, for the certificate made at the start
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub external_metrics_host: String,
    /// Where to write the CA of a certificate made at the start, for the caBundle of the APIService
    #[arg(long, value_name = "FILE", requires = "external_metrics_address", conflicts_with = "cert_dir")]
    pub ca_file: Option<PathBuf>,

    #[command(flatten)]
    pub otlp: OtlpArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// As KEDA reads its variable: what is not true is false.
fn is_true(text: &str) -> Result<bool, Infallible> {
    Ok(text.trim().eq_ignore_ascii_case("true") || go_bool(text) == Ok(true))
}
