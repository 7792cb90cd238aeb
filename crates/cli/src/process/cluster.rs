//! The way to the cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use kube::Client;
use tidemark_telemetry::series::Series;

use super::metrics;
use crate::named_cluster;

/// Deadline of one request to the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the cluster is reached.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Kubeconfig of the cluster [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Accepted for KEDA's sake: nothing holds requests to the API server back here; the server says when it has enough
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub kube_api_qps: Option<f64>,
    /// Accepted for KEDA's sake, as --kube-api-qps
    #[arg(long, value_name = "NUMBER", hide = true)]
    pub kube_api_burst: Option<u32>,
    /// Do not ask the API server for compressed answers
    #[arg(
        long, value_name = "BOOL", default_value = "true", default_missing_value = "true", num_args = 0..=1,
        require_equals = true, value_parser = super::go_bool, action = clap::ArgAction::Set
    )]
    pub disable_compression: bool,
}

impl ClusterArgs {
    /// What the arguments and the environment say of the cluster.
    ///
    /// # Errors
    /// There is no cluster, or the kubeconfig cannot be used.
    pub async fn config(&self) -> anyhow::Result<kube::Config> {
        if self.kube_api_qps.is_some() || self.kube_api_burst.is_some() {
            tracing::warn!(
                "--kube-api-qps and --kube-api-burst have no effect: the API server says when it has enough"
            );
        }
        let mut config = match self.kubeconfig.as_deref() {
            None => kube::Config::infer().await.context("found no cluster: give --kubeconfig, or run inside a pod")?,
            Some(path) => named_cluster::config(Some(path), None).await?,
        };
        config.disable_compression = self.disable_compression;
        Ok(config)
    }

    /// A client with a deadline for each request, which repeats only where that cannot do harm.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub async fn client(&self) -> anyhow::Result<Client> {
        let client = tidemark_operator::client::build(self.config().await?);
        let client = client.context("cannot make a client for the cluster")?;
        Ok(tidemark_operator::client::guard(client, PATIENCE))
    }

    /// As [`Self::client`]; besides, requests are counted in `series`.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub async fn counted_client(&self, series: &Series) -> anyhow::Result<Client> {
        Ok(tidemark_operator::client::guard(self.bare_client(series).await?, PATIENCE))
    }

    /// A client whose requests are counted in `series`, without deadlines and repeats, for who guards it.
    ///
    /// # Errors
    /// As [`Self::config`].
    pub async fn bare_client(&self, series: &Series) -> anyhow::Result<Client> {
        let config = self.config().await?;
        let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let client = tidemark_operator::client::build(config).context("cannot make a client for the cluster")?;
        Ok(metrics::counted(client, &host, series.clone()))
    }
}
