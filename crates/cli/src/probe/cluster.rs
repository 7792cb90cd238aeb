//! The cluster that has what the files do not.

use std::path::Path;

use anyhow::Context;
use http::{Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tower::BoxError;

/// A client for a context of a kubeconfig; nothing is asked yet.
///
/// # Errors
/// The kubeconfig cannot be read, or has no such context.
pub(super) async fn connect(kubeconfig: Option<&Path>, context: Option<String>) -> anyhow::Result<Client> {
    let failed = || match kubeconfig {
        Some(path) => format!("cannot use the kubeconfig {}", path.display()),
        None => "cannot use the kubeconfig (KUBECONFIG, or ~/.kube/config)".to_owned(),
    };
    let config = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = kube::Config::from_custom_kubeconfig(config.with_context(failed)?, &options).await;
    tidemark_operator::client::build(config.with_context(failed)?).with_context(failed)
}

/// Reads what is in the files from them, and everything else from the cluster, if there is one.
pub(super) fn overlay(files: Client, cluster: Option<Client>) -> Client {
    let Some(cluster) = cluster else { return files };
    let namespace = cluster.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (files, cluster) = (files.clone(), cluster.clone());
        async move {
            if request.method() == Method::GET {
                let found = files.send(Request::get(request.uri().clone()).body(Body::empty())?).await?;
                if found.status() != StatusCode::NOT_FOUND {
                    return Ok(found);
                }
            }
            cluster.send(request).await.map_err(BoxError::from)
        }
    });
    Client::new(service, namespace)
}
