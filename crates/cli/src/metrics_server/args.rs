//! The flags of `tidemark metrics-server`, under the names that KEDA's adapter has.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::idle::Idle;
use crate::process::cluster::ClusterArgs;
use crate::process::logging::LogArgs;
use crate::process::{environment, go_bool};

/// `tidemark metrics-server`.
#[derive(Debug, Args)]
pub struct MetricsServerArgs {
    /// Port of the API, HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,
    /// Address of this machine at which the API is served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Folder with tls.crt, tls.key and ca.crt, read again when they change; they are waited for
    #[arg(long, value_name = "DIR", default_value = "/certs")]
    pub cert_dir: PathBuf,
    /// Certificate of the API, with --tls-private-key-file in place of tls.crt and tls.key of --cert-dir
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the API
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Oldest version of TLS that is spoken: VersionTLS12 or VersionTLS13
    #[arg(long, value_name = "VERSION", default_value = "")]
    pub tls_min_version: String,
    /// Cipher suites of TLS 1.2 that are spoken, separated by commas; empty means all
    #[arg(long, value_name = "SUITES", default_value = "")]
    pub tls_cipher_suites: String,
    /// CA of users who show certificates of their own, in place of the cluster's
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// CA of front proxies; with it the cluster's settings of front proxies do not hold
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies; empty allows all that the CA has signed
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers in which front proxies name the user
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers in which front proxies name the user's uid
    #[arg(long, value_name = "HEADERS", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers in which front proxies name the user's groups
    #[arg(long, value_name = "HEADERS", value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    /// How headers begin in which front proxies say more of the user
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Kubeconfig of the cluster that says whose a token is, in place of --kubeconfig
    #[arg(long, value_name = "FILE")]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig of the cluster that says who may what, in place of --kubeconfig
    #[arg(long, value_name = "FILE")]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Do not read the cluster's settings of front proxies: only those of the flags hold
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub authentication_skip_lookup: bool,
    /// Start also while the cluster's settings of front proxies cannot be read: until then only those of the flags hold
    #[arg(
        long, value_name = "BOOL", default_value = "false", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = go_bool, action = ArgAction::Set
    )]
    pub authentication_tolerate_lookup_failure: bool,
    /// How long it is believed whose a token is
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// How long it is believed that a user may do something
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long it is believed that a user may not do something
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
    /// Paths that anybody may ask for, besides those of health; with `*` at the end, all that begin so. Values are not
    /// among them
    #[arg(long, value_name = "PATHS", value_delimiter = ',', default_value = "/healthz,/readyz,/livez")]
    pub authorization_always_allow_paths: Vec<String>,
    /// Where the operator's metrics service is [default: keda-operator.NAMESPACE.svc.cluster.local:9666]
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics_service_address: Option<String>,
    /// The name that the operator's certificate is for, in place of the address's host
    #[arg(long, value_name = "NAME", default_value = "")]
    pub metrics_service_grpc_authority: String,
    /// Port where metrics are served for Prometheus, plain HTTP; 0 does not
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,
    #[command(flatten)]
    pub idle: Idle,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    environment::go_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parse(flags: &[&str]) -> Result<MetricsServerArgs, clap::Error> {
        let command = MetricsServerArgs::augment_args(Command::new("metrics-server"));
        let matches = command.try_get_matches_from([&["metrics-server"], flags].concat())?;
        MetricsServerArgs::from_arg_matches(&matches)
    }

    #[test]
    fn the_flags_of_kedas_manifests_are_taken_and_those_without_meaning_are_told() {
        let args = parse(&[
            "--port=8080",
            "--secure-port=6443",
            "--logtostderr=true",
            "--stderrthreshold=ERROR",
            "--disable-compression=true",
            "--metrics-service-address=keda-operator.keda.svc.cluster.local:9666",
            "--client-ca-file=/certs/ca.crt",
            "--tls-cert-file=/certs/tls.crt",
            "--tls-private-key-file=/certs/tls.key",
            "--cert-dir=/certs",
            "--v=0",
            "--audit-log-path=-",
            "--authentication-skip-lookup",
            "--authorization-webhook-cache-authorized-ttl=1m0s",
            "--profiling=false",
            "--msg",
            "hello",
            "--requestheader-allowed-names=a,b",
        ])
        .unwrap();
        assert_eq!(args.idle.0, ["msg", "audit-log-path", "profiling"]);
        assert!(args.authentication_skip_lookup && !args.authentication_tolerate_lookup_failure);
        assert_eq!(args.authorization_webhook_cache_authorized_ttl, Duration::from_secs(60));
        assert_eq!(args.authorization_always_allow_paths, ["/healthz", "/readyz", "/livez"]);
        assert_eq!(args.client_ca_file, Some("/certs/ca.crt".into()));
        assert_eq!(args.requestheader_allowed_names, ["a", "b"]);
        assert_eq!(parse(&[]).unwrap().idle.0, [""; 0]);
    }

    #[test]
    fn an_unknown_flag_ends_the_process_with_2() {
        for flags in [
            &["--audit-log-colour=red"][..],
            &["--secure-port=many"],
            &["--tls-cert-file=/a"],
            &["--authorization-webhook-cache-authorized-ttl=ten"],
        ] {
            assert_eq!(parse(flags).unwrap_err().exit_code(), 2, "{flags:?}");
        }
    }
}
