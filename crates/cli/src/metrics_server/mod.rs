//! `tidemark metrics-server`: the external metrics API behind the API server's aggregation layer, with the values of an
//! operator that is asked over gRPC.

pub mod args;
mod idle;
mod metrics;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use futures::future::BoxFuture;
use kube::Client;
use tidemark_clock::Clock;
use tidemark_serving::front_proxy::Leniency;
use tidemark_serving::identity::{self, Identity};
use tidemark_serving::metrics_service::{self, Address};
use tidemark_serving::tls::Policy;
use tidemark_telemetry::catalogue::METRICS_SERVER;
use tidemark_telemetry::catalogue::services::CLIENT;
use tidemark_telemetry::series::Series;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::aggregation::{Api, ClusterClients, Lookup, Overrides, Sources};
use crate::process::bind::Bind;
use crate::process::cluster::ClusterArgs;
use crate::process::environment;
use crate::process::metrics::{self as process_metrics, calls};
use crate::process::run::{Parts, Signals, stop};
pub use args::MetricsServerArgs;

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// There is no cluster to ask about callers, it has no aggregation layer, or the address is taken. A cluster or an
/// operator that does not answer, and certificates that are not there, are waited for.
pub async fn run(args: MetricsServerArgs) -> anyhow::Result<()> {
    args.log.init()?;
    let mut signals = Signals::listen()?;
    warn_of_what_has_no_effect(&args);
    let (shutdown, mut parts) = (CancellationToken::new(), Parts::default());
    let outcome = serve(&args, &mut signals, &mut parts, &shutdown).await;
    stop(&mut parts, &shutdown, outcome).await
}

async fn serve(
    args: &MetricsServerArgs,
    signals: &mut Signals,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let address = (args.bind_address, args.secure_port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen at {}:{}: is it in use?", address.0, address.1))?;
    let operator = operator(args)?;
    let clock = Clock::system();
    let series = process_metrics::series(clock);
    let bind: Bind = match args.port {
        0 => "0".parse(),
        port => format!(":{port}").parse(),
    }
    .map_err(|error| anyhow!("--port: {error}"))?;
    let telling = process_metrics::serve(bind, METRICS_SERVER, series.clone(), shutdown.clone());
    parts.start_fallible("the metrics for Prometheus", telling);
    let clients = clients(args, &series).await?;
    let prepared = async {
        let (identity, following) = identity::follow(args.cert_dir.clone(), true).await;
        let (own, own_following) = own_identity(args, identity.clone()).await;
        let (source, link) = metrics_service::client(&operator, identity, environment::tls_policy()?)?;
        let source = Arc::new(source.counting(calls(series.clone(), &CLIENT)));
        let reasons = source.clone();
        let source = Arc::new(metrics::Counted { source, series: series.clone(), clock });
        let sources = Sources::Both { metrics: source, reasons };
        let (overrides, lookup, leniency) = (overrides(args), lookup(args), leniency(args));
        let api = Api { sources, clients, overrides, lookup, leniency, policy: api_policy(args) };
        Ok((api.prepare().await?, own, following, own_following, link))
    };
    let Some(ready) = parts.do_while_they_run(signals, prepared).await? else { return Ok(()) };
    let (prepared, own, following, own_following, link) = ready;
    let dates = process_metrics::expiry(series, own.clone(), shutdown.clone());
    parts.start("the dates of the API's certificate", dates);
    for (name, part) in [
        ("the files of the certificates", following),
        ("the files of the API's certificate", own_following),
        ("the link to the operator", link),
    ] {
        let shutdown = shutdown.clone();
        parts.start(name, async move {
            shutdown.run_until_cancelled(part).await;
        });
    }
    tracing::info!(
        port = args.secure_port,
        "serving external.metrics.k8s.io/v1beta1 and reasons.tidemark.dev/v1alpha1"
    );
    parts.start("the external metrics API", prepared.serve(listener, own, shutdown.clone()));
    let nothing_else = std::future::pending::<anyhow::Result<()>>();
    parts.do_while_they_run(signals, nothing_else).await.map(drop)
}

/// Where the operator is.
fn operator(args: &MetricsServerArgs) -> anyhow::Result<Address> {
    let default = || format!("keda-operator.{}.svc.cluster.local:9666", environment::pod_namespace());
    let address = args.metrics_service_address.clone().unwrap_or_else(default);
    Address::parse(&address, &args.metrics_service_grpc_authority)
        .context("--metrics-service-address, --metrics-service-grpc-authority")
}

async fn clients(args: &MetricsServerArgs, series: &Series) -> anyhow::Result<ClusterClients> {
    let settings = args.cluster.counted_client(series).await?;
    let of = async |kubeconfig: &Option<PathBuf>| -> anyhow::Result<Client> {
        match kubeconfig {
            None => Ok(settings.clone()),
            Some(path) => {
                let cluster = ClusterArgs { kubeconfig: Some(path.clone()), ..args.cluster.clone() };
                cluster.counted_client(series).await
            }
        }
    };
    Ok(ClusterClients {
        authentication: of(&args.authentication_kubeconfig).await?,
        authorization: of(&args.authorization_kubeconfig).await?,
        settings,
    })
}

fn lookup(args: &MetricsServerArgs) -> Lookup {
    match (args.authentication_skip_lookup, args.authentication_tolerate_lookup_failure) {
        (true, _) => Lookup::Skipped,
        (false, true) => Lookup::Tolerated,
        (false, false) => Lookup::Required,
    }
}

fn leniency(args: &MetricsServerArgs) -> Leniency {
    Leniency {
        tokens: args.authentication_token_webhook_cache_ttl,
        allowed: args.authorization_webhook_cache_authorized_ttl,
        refused: args.authorization_webhook_cache_unauthorized_ttl,
        open_paths: args.authorization_always_allow_paths.clone(),
    }
}

fn overrides(args: &MetricsServerArgs) -> Overrides {
    Overrides {
        users_ca_file: args.client_ca_file.clone(),
        front_proxy_ca_file: args.requestheader_client_ca_file.clone(),
        allowed_names: args.requestheader_allowed_names.clone(),
        username_headers: args.requestheader_username_headers.clone(),
        uid_headers: args.requestheader_uid_headers.clone(),
        group_headers: args.requestheader_group_headers.clone(),
        extra_prefixes: args.requestheader_extra_headers_prefix.clone(),
    }
}

/// The certificate of the API: its own files, or that of the installation.
async fn own_identity(
    args: &MetricsServerArgs,
    shared: watch::Receiver<Arc<Identity>>,
) -> (watch::Receiver<Arc<Identity>>, BoxFuture<'static, ()>) {
    let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_private_key_file) else {
        return (shared, Box::pin(std::future::pending()));
    };
    if is_in(certificate, &args.cert_dir, "tls.crt") && is_in(key, &args.cert_dir, "tls.key") {
        return (shared, Box::pin(std::future::pending()));
    }
    identity::follow_files(certificate.clone(), key.clone()).await
}

fn is_in(file: &Path, folder: &Path, name: &str) -> bool {
    file == folder.join(name)
}

/// TLS of the API, by the flags that API servers have.
fn api_policy(args: &MetricsServerArgs) -> Policy {
    let minimum = match args.tls_min_version.as_str() {
        "" => None,
        version => Some(version.trim_start_matches("Version")),
    };
    let (policy, warnings) = Policy::parse(minimum, Some(&args.tls_cipher_suites));
    for warning in warnings {
        tracing::warn!("TLS: {warning}");
    }
    policy
}

fn warn_of_what_has_no_effect(args: &MetricsServerArgs) {
    let idle: Vec<String> = args.idle.0.iter().map(|name| format!("--{name}")).collect();
    if !idle.is_empty() {
        tracing::warn!("without effect here, and accepted for KEDA's sake: {}", idle.join(", "));
    }
}
