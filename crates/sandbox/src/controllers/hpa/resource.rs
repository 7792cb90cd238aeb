//! What pods use of a resource, from the resource metrics API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, ResourceExt};
use serde_json::Value;
use tidemark_engine::hpa::{self, Failure, Phase, Ready, Usage};
use tidemark_engine::quantity;
use tidemark_engine::verdict::Status;

use super::super::ask;
use super::convert::ResourceMetric;
use crate::usage::{GROUP, VERSION};

/// The pods of a selector with what the metrics API says of them.
pub(super) async fn pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    pods: &[Pod],
    metric: &ResourceMetric<'_>,
) -> Result<Vec<hpa::Pod>, Failure> {
    let failed = |message: String| {
        let what = if metric.utilization { "utilization" } else { "resource metric value" };
        let message: Arc<str> = format!(
            "failed to get {} {what}: unable to get metrics for resource {}: {message}",
            metric.name, metric.name
        )
        .into();
        Failure { reason: metric.failure(), message }
    };
    let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/pods");
    let request = Request::new(path).list(&ListParams::default().labels(selector));
    let request = request.map_err(|error| failed(error.to_string()))?;
    let answer = ask(client.request::<Value>(request)).await.map_err(|error| failed(error.sentence()))?;
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return Err(failed("no metrics returned from resource metrics API".to_owned()));
    }
    let samples: BTreeMap<_, _> =
        items.iter().filter_map(|item| Some((item["metadata"]["name"].as_str()?, sample(item, metric)?))).collect();
    Ok(pods.iter().map(|pod| measured(pod, samples.get(&*pod.name_any()).copied(), metric)).collect())
}

/// The use of all containers, or of the one that counts; `None` when one of them is not reported.
fn sample(item: &Value, metric: &ResourceMetric<'_>) -> Option<Usage> {
    let containers = item["containers"].as_array()?;
    let counts = |container: &&Value| metric.container.is_none_or(|name| container["name"] == name);
    let mut milli = None;
    for container in containers.iter().filter(counts) {
        let used = quantity::parse_milli(container["usage"][metric.name].as_str()?)?;
        milli = Some(milli.unwrap_or(0_i64).saturating_add(used));
    }
    let time: Timestamp = item["timestamp"].as_str()?.parse().ok()?;
    Some(Usage { milli: milli?, time, window: window(item["window"].as_str()?)? })
}

/// A duration as the metrics API writes it: `15s`, `1m0.5s`.
fn window(text: &str) -> Option<Duration> {
    let span: jiff::Span = text.parse().ok()?;
    Duration::try_from(jiff::SignedDuration::try_from(span).ok()?).ok()
}

fn measured(pod: &Pod, usage: Option<Usage>, metric: &ResourceMetric<'_>) -> hpa::Pod {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").and_then(|condition| {
        let status = match condition.status.as_str() {
            "True" => Status::True,
            "False" => Status::False,
            _ => Status::Unknown,
        };
        Some(Ready { status, since: condition.last_transition_time.as_ref()?.0 })
    });
    hpa::Pod {
        deleting: pod.metadata.deletion_timestamp.is_some(),
        phase: Phase::from_word(status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending")),
        started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
        ready,
        request: request(pod, metric),
        usage,
    }
}

/// What a pod requests of the resource.
fn request(pod: &Pod, metric: &ResourceMetric<'_>) -> Result<i64, Arc<str>> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let of = |resources: &Option<ResourceRequirements>| {
        let requests = resources.as_ref()?.requests.as_ref()?;
        quantity::parse_milli(&requests.get(metric.name)?.0)
    };
    if metric.container.is_none()
        && let Some(whole) = of(&spec.resources)
    {
        return Ok(whole);
    }
    let beside = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(beside));
    let mut sum = None;
    for container in all.filter(|container| metric.container.is_none_or(|name| name == container.name)) {
        let requested = of(&container.resources).ok_or_else(|| {
            let (resource, name) = (metric.name, &container.name);
            format!("missing request for {resource} in container {name} of Pod {}", pod.name_any())
        })?;
        sum = Some(sum.unwrap_or(0_i64).saturating_add(requested));
    }
    sum.ok_or_else(|| {
        format!("container {} is not part of Pod {}", metric.container.unwrap_or("?"), pod.name_any()).into()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metric(container: Option<&'static str>) -> ResourceMetric<'static> {
        ResourceMetric { name: "cpu", container, utilization: true }
    }

    #[test]
    fn a_sample_needs_all_containers_that_count() {
        let item = json!({
            "timestamp": "2026-01-01T00:00:00Z", "window": "15s",
            "containers": [{ "name": "main", "usage": { "cpu": "250m" } }, { "name": "proxy", "usage": {} }],
        });
        assert!(sample(&item, &metric(None)).is_none());
        let main = sample(&item, &metric(Some("main"))).unwrap();
        assert_eq!((main.milli, main.window), (250, Duration::from_secs(15)));
    }

    #[test]
    fn requests_add_up_with_sidecars_and_a_missing_one_is_named() {
        let container = |name: &str, cpu: Option<&str>| json!({ "name": name, "resources": { "requests": cpu.map(|cpu| json!({ "cpu": cpu })) } });
        let mut sidecar = container("mesh", Some("10m"));
        sidecar["restartPolicy"] = "Always".into();
        let pod = |proxy| {
            serde_json::from_value::<Pod>(json!({ "metadata": { "name": "web" }, "spec": {
                "initContainers": [sidecar, container("setup", Some("5"))],
                "containers": [container("main", Some("100m")), container("proxy", proxy)],
            } }))
            .unwrap()
        };
        assert_eq!(request(&pod(Some("20m")), &metric(None)), Ok(130));
        assert_eq!(request(&pod(None), &metric(Some("main"))), Ok(100));
        let missing = request(&pod(None), &metric(None)).unwrap_err();
        assert_eq!(&*missing, "missing request for cpu in container proxy of Pod web");
    }
}
