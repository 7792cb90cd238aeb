//! The cluster that a person's command means, by kubectl's flags.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A cluster, and a namespace of it.
#[derive(Clone, Debug, Args)]
pub struct NamedClusterArgs {
    /// Kubeconfig [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace [default: the context's, or `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

impl NamedClusterArgs {
    /// A client for the cluster; nothing is asked yet. `None` where neither a kubeconfig nor a context is given.
    ///
    /// # Errors
    /// The kubeconfig cannot be read, or has no such context.
    pub async fn connect(&self) -> anyhow::Result<Option<Client>> {
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Ok(None);
        }
        let config = config(self.kubeconfig.as_deref(), self.context.clone()).await?;
        Ok(Some(tidemark_operator::client::build(config).context("cannot make a client for the cluster")?))
    }
}

/// What a kubeconfig says of a context of it: of the current one where none is named. Without a path, it is the user's.
///
/// # Errors
/// The kubeconfig cannot be read, or has no such context.
pub async fn config(path: Option<&Path>, context: Option<String>) -> anyhow::Result<kube::Config> {
    let failed = || match path {
        Some(path) => format!("cannot use the kubeconfig {}", path.display()),
        None => "cannot use the kubeconfig (KUBECONFIG, or ~/.kube/config)".to_owned(),
    };
    let kubeconfig = path.map_or_else(Kubeconfig::read, Kubeconfig::read_from).with_context(failed)?;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(failed)
}
