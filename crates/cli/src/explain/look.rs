//! What the user of a kubeconfig sees of an object besides: the ScaledObject and its workload.

use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::Value;
use tidemark_reasons::Workload;

/// An answer has this long; what does not come in time is not there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is seen of an object and its workload. What may not be read, or is not there, is left out.
pub(super) async fn seen(client: &Client, namespace: &str, name: &str) -> Workload {
    let object = scaled_object(client, namespace, name).await;
    let workload = match &object {
        Value::Null => Value::Null,
        object => workload(client, namespace, &object["spec"]["scaleTargetRef"]).await,
    };
    Workload::seen(&workload, &object)
}

/// The ScaledObject; null where it is not there or may not be read.
pub(super) async fn scaled_object(client: &Client, namespace: &str, name: &str) -> Value {
    get(client, &format!("/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/{name}")).await
}

/// What the object's status says without an operator, to be put behind a sentence; empty where nothing is known.
pub(super) fn status(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let told: Vec<String> = conditions
        .filter(|condition| condition["status"] != "Unknown" && !condition["reason"].is_null())
        .map(|condition| {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            format!("\n  {} {}: {}", text("type"), text("status"), text("message"))
        })
        .collect();
    match told.is_empty() {
        true => String::new(),
        false => format!("\nThe object's status, as it was last written:{}", told.concat()),
    }
}

async fn workload(client: &Client, namespace: &str, reference: &Value) -> Value {
    let api_version = reference["apiVersion"].as_str().filter(|version| !version.is_empty()).unwrap_or("apps/v1");
    let kind = reference["kind"].as_str().filter(|kind| !kind.is_empty()).unwrap_or("Deployment");
    let Some(name) = reference["name"].as_str() else { return Value::Null };
    let base = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
    let Some(plural) = plural(client, &base, kind).await else { return Value::Null };
    get(client, &format!("{base}/namespaces/{namespace}/{plural}/{name}")).await
}

/// The name of a kind in paths.
async fn plural(client: &Client, base: &str, kind: &str) -> Option<String> {
    match (base, kind) {
        ("/apis/apps/v1", "Deployment") => return Some("deployments".to_owned()),
        ("/apis/apps/v1", "StatefulSet") => return Some("statefulsets".to_owned()),
        _ => {}
    }
    let resources = get(client, base).await;
    let is_it = |resource: &&Value| {
        resource["kind"] == kind && resource["name"].as_str().is_some_and(|name| !name.contains('/'))
    };
    let found = resources["resources"].as_array()?.iter().find(is_it)?;
    found["name"].as_str().map(str::to_owned)
}

async fn get(client: &Client, path: &str) -> Value {
    let Ok(request) = Request::get(path).body(Vec::new()) else { return Value::Null };
    match tokio::time::timeout(PATIENCE, client.request::<Value>(request)).await {
        Ok(Ok(value)) => value,
        // Not to be read by this user, or not there.
        Ok(Err(_)) | Err(_) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_is_told_as_far_as_it_says_anything() {
        let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "reason": "R", "message": message});
        let conditions = json!([condition("Ready", "False", "no target"), condition("Active", "Unknown", "")]);
        let object = json!({"status": {"conditions": conditions}});
        assert_eq!(status(&object), "\nThe object's status, as it was last written:\n  Ready False: no target");
        assert_eq!(status(&Value::Null), "");
    }
}
