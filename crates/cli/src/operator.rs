//! `tidemark operator`: the operator in a cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tidemark_clock::Clock;
use tidemark_operator::{Handle, Operator, Settings};
use tidemark_serving::ExternalMetrics;
use tidemark_serving::certificates::{Authority, Pair, server_config};
use tidemark_serving::front_proxy::{Access, Delegated, FrontProxy};
use tidemark_trigger::{Door, DoorSettings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::OperatorArgs;
use crate::metrics::OperatorMetrics;
use crate::signals;

/// Runs the operator until SIGINT or SIGTERM.
///
/// # Errors
/// The cluster cannot be reached, or the external metrics API cannot be served.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(crate::log_filter()).with_writer(std::io::stderr).init();
    let config = config(args.kubeconfig.as_deref()).await?;
    let client = tidemark_operator::client::build(config).context("cannot make a client for the cluster")?;
    let clock = Clock::system();
    let watch_namespaces: Vec<String> =
        args.watch_namespaces.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let settings = Settings { watch_namespaces, ..Settings::default() };
    let door = Door::new(clock, DoorSettings::default());
    let (operator, handle) = Operator::new(client.clone(), door, settings);

    let shutdown = CancellationToken::new();
    let _stop_with_this = shutdown.clone().drop_guard();
    let mut serving = tokio::task::JoinSet::new();
    if let Some(address) = args.external_metrics_address {
        let service = external_metrics(&args, address, client, handle, clock, shutdown.clone()).await?;
        serving.spawn(service);
        tracing::info!(%address, "serving external.metrics.k8s.io/v1beta1");
    }
    let mut running = serving;
    let stop = shutdown.clone();
    let mut operator = tokio::spawn(operator.run(stop));
    let outcome = tokio::select! {
        biased;
        signal = signals::stop() => signal,
        ended = &mut operator => {
            shutdown.cancel();
            while running.join_next().await.is_some() {}
            return ended.context("the operator ended unexpectedly")?.context("the operator failed");
        }
    };
    tracing::info!("stopping");
    shutdown.cancel();
    operator.await.context("the operator ended unexpectedly")?.context("the operator failed")?;
    while running.join_next().await.is_some() {}
    outcome
}

async fn config(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    match kubeconfig {
        None => kube::Config::infer().await.context("found no cluster: give --kubeconfig, or run inside a pod"),
        Some(path) => {
            let failed = || format!("cannot use the kubeconfig {}", path.display());
            let config = Kubeconfig::read_from(path).with_context(failed)?;
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.with_context(failed)
        }
    }
}

async fn external_metrics(
    args: &OperatorArgs,
    address: SocketAddr,
    client: kube::Client,
    handle: Handle,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let front_proxy = FrontProxy::read(&client).await?;
    let pair = match &args.cert_dir {
        Some(folder) => read_pair(folder)?,
        None => make_pair(args, clock)?,
    };
    let tls = server_config(&pair, Some(&front_proxy.client_ca))?;
    let access = Access::Delegated(Arc::new(Delegated::new(client, front_proxy)));
    let service = ExternalMetrics::new(Arc::new(OperatorMetrics::new(handle)), access);
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}: is it in use?"))?;
    Ok(tidemark_serving::https::serve(listener, Arc::new(tls), service, shutdown))
}

fn read_pair(folder: &Path) -> anyhow::Result<Pair> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    Ok(Pair { certificate: read("tls.crt")?, key: read("tls.key")? })
}

fn make_pair(args: &OperatorArgs, clock: Clock) -> anyhow::Result<Pair> {
    let authority = Authority::new("tidemark external metrics", clock.now())?;
    if let Some(path) = &args.ca_file {
        std::fs::write(path, authority.certificate()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(authority.server(&[&args.external_metrics_host])?)
}
