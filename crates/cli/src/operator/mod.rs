//! `tidemark operator`: the operator in a cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tidemark_clock::Clock;
use tidemark_operator::{Operator, Settings};
use tidemark_trigger::{Door, DoorSettings};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::OperatorArgs;
use crate::parts::Parts;
use crate::signals::{self, Signals};
use crate::{aggregation, log_to_standard_error};

/// Runs the operator until SIGINT or SIGTERM.
///
/// # Errors
/// There is no cluster to work on, or the external metrics API cannot be served. A cluster that does not answer, or that
/// lacks the CRDs, is waited for, and the log says so; only the external metrics API needs it at the start.
pub async fn run(args: OperatorArgs) -> anyhow::Result<()> {
    log_to_standard_error();
    let mut signals = Signals::listen()?;
    let config = config(args.kubeconfig.as_deref()).await?;
    let client = tidemark_operator::client::build(config).context("cannot make a client for the cluster")?;
    let clock = Clock::system();
    let watch_namespaces: Vec<String> =
        args.watch_namespaces.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    let cluster_object_namespace = args.cluster_object_namespace.clone().or_else(pod_namespace);
    let settings = Settings {
        watch_namespaces,
        cluster_object_namespace,
        filepath_auth_root: args.filepath_auth_root_path.clone(),
        auth_refresh: Duration::from_secs(args.auth_refresh),
        ..Settings::default()
    };
    let door = Door::new(clock, DoorSettings::default());
    let (operator, handle) = Operator::new(client.clone(), door, settings);

    let shutdown = CancellationToken::new();
    let mut parts = Parts::default();
    if let Some(address) = args.external_metrics_address {
        let prepared = async {
            let listener = listen(address).await?;
            aggregation::prepare(&args, listener, client, handle, clock, shutdown.clone()).await
        };
        let Some(service) = parts.do_while_they_run(&mut signals, prepared).await? else { return Ok(()) };
        parts.start("the external metrics API", service);
        tracing::info!(%address, "serving external.metrics.k8s.io/v1beta1");
    }
    parts.start_fallible("the operator", operator.run(shutdown.clone()));
    let nothing_else = std::future::pending::<anyhow::Result<()>>();
    let outcome = parts.do_while_they_run(&mut signals, nothing_else).await;
    tracing::info!("stopping");
    shutdown.cancel();
    tokio::select! {
        biased;
        () = async { while parts.join_one().await {} } => outcome.map(drop),
        again = signals::again() => again.and(Err(anyhow!("stopped at once by a second signal"))),
    }
}

/// The namespace of the pod that this process runs in; none outside of a cluster.
fn pod_namespace() -> Option<String> {
    let namespace = std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok()?;
    Some(namespace.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}: is it in use?"))
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
