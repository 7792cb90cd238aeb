//! The API through the real kube client, under the paused clock.

mod custom;
mod facts;
mod hooks;
mod kinds;
mod objects;
mod served;
mod watches;

use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};

/// A sandbox on New Year's Day 2026 without controllers.
fn sandbox(options: Options) -> Sandbox {
    Sandbox::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), options)
}

fn client() -> Client {
    sandbox(Options::default()).client()
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn deployment(name: &str) -> Deployment {
    read(json!({
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "nginx:1"}]},
            },
        },
    }))
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    read(json!({"metadata": {"name": name, "labels": {"value": value}}, "data": {"key": value}}))
}

/// The Status with which a request was refused.
fn refused<T: std::fmt::Debug>(outcome: Result<T, kube::Error>) -> Status {
    match outcome {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// The answer to a GET with an Accept header, as JSON.
async fn get(client: &Client, path: &str, accept: &str) -> Value {
    let request = Request::get(path).header("Accept", accept).body(Vec::new()).unwrap();
    client.request(request).await.unwrap()
}

/// The answer to a request with a JSON body.
async fn send(client: &Client, method: &str, path: &str, body: Value) -> Result<Value, kube::Error> {
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await
}
