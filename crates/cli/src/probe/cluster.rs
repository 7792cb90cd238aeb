//! The cluster that has what the files do not.

use http::{Method, Request, StatusCode};
use kube::Client;
use kube::client::Body;
use tower::BoxError;

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
