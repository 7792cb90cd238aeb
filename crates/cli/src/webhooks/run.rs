//! The process.

use anyhow::{Context, anyhow};
use tidemark_clock::Clock;
use tidemark_serving::https;
use tidemark_serving::identity::{self, derive};
use tidemark_telemetry::catalogue::WEBHOOKS;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Admission, Synced, WebhooksArgs};
use crate::process::bind::Bind;
use crate::process::health::{self, Health};
use crate::process::run::{Parts, Signals, stop};
use crate::process::{environment, metrics};

/// What `/readyz` waits for.
const VIEW: &str = "the view of the cluster";
const CERTIFICATE: &str = "the certificate";

/// Serves admission until SIGINT or SIGTERM.
///
/// # Errors
/// There is no cluster to look at, or an address is taken. A cluster that does not answer, and certificates that are not
/// there, are waited for; the log and `/readyz` say so.
pub async fn run(args: WebhooksArgs) -> anyhow::Result<()> {
    args.log.init()?;
    let mut signals = Signals::listen()?;
    if !args.profiling_bind_address.is_empty() {
        tracing::warn!("--profiling-bind-address has no effect: there is no profiling over HTTP");
    }
    let (shutdown, mut parts) = (CancellationToken::new(), Parts::default());
    let outcome = serve(&args, &mut signals, &mut parts, &shutdown).await;
    stop(&mut parts, &shutdown, outcome).await
}

async fn serve(
    args: &WebhooksArgs,
    signals: &mut Signals,
    parts: &mut Parts,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    // Before anything is waited for: an address that is taken is a mistake to be told at once.
    let bind: Bind = format!(":{}", args.port).parse().map_err(|error| anyhow!("--port: {error}"))?;
    let listener = bind.listen().await?.context("--port: the webhooks need one")?;
    let policy = environment::tls_policy()?;
    let clock = Clock::system();
    let series = metrics::series(clock);
    let telling = metrics::serve(args.metrics_bind_address, WEBHOOKS, series.clone(), shutdown.clone());
    parts.start_fallible("the metrics for Prometheus", telling);
    let client = args.cluster.bare_client(&series).await?;
    let hostname = environment::variable("HOSTNAME").unwrap_or_else(|| "tidemark".to_owned());
    let admission = Admission::new(client, clock, &hostname, vec![super::metrics::counter(series.clone())]);
    let health = Health::new();
    health.set(VIEW, Err("it is being read".to_owned()));
    health.set(CERTIFICATE, Err("waiting for tls.crt and tls.key".to_owned()));
    let probes = health::serve(args.health_probe_bind_address, health.clone(), shutdown.clone());
    parts.start_fallible("the health probes", probes);
    let (service, synced) = (admission.service(), admission.synced());
    parts.start("the view of the cluster", admission.run(shutdown.clone()));
    parts.start("readiness", readiness(synced, health.clone(), shutdown.clone()));
    let identity = async { Ok(identity::follow(args.cert_dir.clone(), false).await) };
    let Some((identity, following)) = parts.do_while_they_run(signals, identity).await? else { return Ok(()) };
    parts.start("the dates of the certificate", metrics::expiry(series.clone(), identity.clone(), shutdown.clone()));
    let tls = derive(identity, move |identity| identity.server(false, &policy))?;
    let stop = shutdown.clone();
    parts.start("the files of the certificate", async move {
        stop.run_until_cancelled(following).await;
    });
    tracing::info!(port = args.port, "serving admission");
    parts.start("admission", https::serve(listener, tls, service, shutdown.clone()));
    health.set(CERTIFICATE, Ok(()));
    let nothing_else = std::future::pending::<anyhow::Result<()>>();
    parts.do_while_they_run(signals, nothing_else).await.map(drop)
}

/// Says when the cluster has been read; ends with the process.
async fn readiness(mut synced: watch::Receiver<Synced>, health: Health, shutdown: CancellationToken) {
    let read = async { synced.wait_for(|synced| synced.all()).await.is_ok() };
    if shutdown.run_until_cancelled(read).await == Some(true) {
        tracing::info!("the cluster has been read");
        health.set(VIEW, Ok(()));
    }
    shutdown.cancelled().await;
}
