//! Answers to requests that write, in the API server's place: as if they had been carried out.

use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::BoxError;

/// What the API server might have answered. A patch is made of what is there, which is read for it within `timeout`.
pub async fn answer(
    client: &Client,
    parts: &Parts,
    body: &Bytes,
    timeout: Duration,
) -> Result<Response<Body>, BoxError> {
    match parts.method {
        Method::POST => Ok(reply(StatusCode::CREATED, &created(body)?)),
        Method::PUT => Ok(reply(StatusCode::OK, &serde_json::from_slice(body)?)),
        Method::PATCH => {
            let path = parts.uri.path();
            // The object itself has all that its status has, and who may only read may read it.
            let path = path.strip_suffix("/status").unwrap_or(path);
            let read = Request::get(path).body(Body::empty())?;
            let (status, found) = tokio::time::timeout(timeout, async {
                let (head, body) = client.send(read).await?.into_parts();
                Ok::<_, BoxError>((head.status, body.collect_bytes().await?))
            })
            .await??;
            if !status.is_success() {
                let mut response = Response::new(Body::from(found));
                *response.status_mut() = status;
                return Ok(response);
            }
            let mut object: Value = serde_json::from_slice(&found)?;
            json_patch::merge(&mut object, &serde_json::from_slice(body)?);
            Ok(reply(StatusCode::OK, &object))
        }
        _ => Ok(reply(StatusCode::OK, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))),
    }
}

fn reply(status: StatusCode, object: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(object.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}

fn created(body: &Bytes) -> serde_json::Result<Value> {
    let mut object: Value = serde_json::from_slice(body)?;
    let metadata = &mut object["metadata"];
    if metadata["uid"].is_null() {
        metadata["uid"] = "dry-run".into();
    }
    metadata["resourceVersion"] = "0".into();
    Ok(object)
}
