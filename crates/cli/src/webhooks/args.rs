//! The flags of `tidemark webhooks`, under the names that KEDA's have.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::process::bind::Bind;
use crate::process::cluster::ClusterArgs;
use crate::process::go_bool;
use crate::process::logging::LogArgs;

/// `tidemark webhooks`.
#[derive(Debug, Args)]
pub struct WebhooksArgs {
    /// Port of the webhooks, HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 9443)]
    pub port: u16,
    /// Folder with tls.crt and tls.key, read again when they change; they are waited for
    #[arg(long, value_name = "DIR", default_value = "/certs")]
    pub cert_dir: PathBuf,
    /// Where /healthz and /readyz are served; 0 does not
    #[arg(long, value_name = "ADDRESS", default_value = ":8081")]
    pub health_probe_bind_address: Bind,
    /// Where metrics are served for Prometheus; 0 does not
    #[arg(long, value_name = "ADDRESS", default_value = ":8080")]
    pub metrics_bind_address: Bind,
    /// Accepted for KEDA's sake: there is no profiling over HTTP
    #[arg(long, value_name = "ADDRESS", default_value = "", hide = true)]
    pub profiling_bind_address: String,
    /// Accepted for KEDA's sake: scale targets are always read from the API server itself
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set, hide = true
    )]
    pub cache_miss_to_direct_client: bool,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub log: LogArgs,
}
