//! The cells of tables, as `kubectl get` shows them.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::selector::text_of;

/// The text of a field, empty if it is none.
pub(super) fn text_at(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// The time since a timestamp.
pub(super) fn age_of(time: &Value, now: Timestamp) -> Option<SignedDuration> {
    let time: Timestamp = time.as_str()?.parse().ok()?;
    Some(now.duration_since(time))
}

/// A duration in at most two units, such as `90s`, `5m30s`, `3h`, `2d4h`.
pub(super) fn duration_text(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |large: i64, unit: char, small: i64, sub: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{sub}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => pair(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if years < 8 => pair(years, 'y', days % 365, 'd'),
        _ => format!("{years}y"),
    }
}

/// How long ago an object was created.
pub(super) fn age(value: &Value, now: Timestamp) -> Value {
    age_of(&value["metadata"]["creationTimestamp"], now).map_or("<unknown>".to_owned(), duration_text).into()
}

fn name(value: &Value) -> Value {
    value["metadata"]["name"].as_str().unwrap_or_default().into()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn joined<'a>(texts: impl Iterator<Item = &'a Value>) -> String {
    texts.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(super) fn plain(value: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(value), age(value, now)]
}

pub(super) fn namespace(value: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(value), value["status"]["phase"].clone(), age(value, now)]
}

pub(super) fn secret(value: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(value), value["type"].clone(), size(&value["data"]).into(), age(value, now)]
}

pub(super) fn config_map(value: &Value, now: Timestamp) -> Vec<Value> {
    let count = size(&value["data"]) + size(&value["binaryData"]);
    vec![name(value), count.into(), age(value, now)]
}

pub(super) fn lease(value: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(value), text_at(&value["spec"], "holderIdentity").into(), age(value, now)]
}

pub(super) fn controller_revision(value: &Value, now: Timestamp) -> Vec<Value> {
    let owner = items(&value["metadata"], "ownerReferences").find(|owner| owner["controller"] == true);
    let controller = owner.map_or("<none>".to_owned(), |owner| {
        let group = text_at(owner, "apiVersion");
        let group = group.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{}{group}/{}", text_at(owner, "kind").to_lowercase(), text_at(owner, "name"))
    });
    vec![name(value), controller.into(), number(&value["revision"]).into(), age(value, now)]
}

pub(super) fn definition(value: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(value), value["metadata"]["creationTimestamp"].clone()]
}

pub(super) fn api_service(value: &Value, now: Timestamp) -> Vec<Value> {
    let service = &value["spec"]["service"];
    let place = if service.is_null() {
        "Local".to_owned()
    } else {
        format!("{}/{}", text_at(service, "namespace"), text_at(service, "name"))
    };
    let condition = items(&value["status"], "conditions").find(|one| one["type"] == "Available");
    let available = match condition {
        None => "Unknown".to_owned(),
        Some(one) if one["status"] == "True" => "True".to_owned(),
        Some(one) => format!("{} ({})", text_at(one, "status"), text_at(one, "reason")),
    };
    vec![name(value), place.into(), available.into(), age(value, now)]
}

/// Names of containers, images and selector: the wide columns of workloads.
fn template_cells(value: &Value) -> [Value; 3] {
    let containers = || items(&value["spec"]["template"]["spec"], "containers");
    [
        joined(containers().map(|container| &container["name"])).into(),
        joined(containers().map(|container| &container["image"])).into(),
        or_none(text_of(&value["spec"]["selector"])),
    ]
}

pub(super) fn deployment(value: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&value["spec"], &value["status"]);
    let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
    let mut cells = vec![
        name(value),
        ready.into(),
        number(&status["updatedReplicas"]).into(),
        number(&status["availableReplicas"]).into(),
        age(value, now),
    ];
    cells.extend(template_cells(value));
    cells
}

pub(super) fn replica_set(value: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&value["spec"], &value["status"]);
    let mut cells = vec![
        name(value),
        number(&spec["replicas"]).into(),
        number(&status["replicas"]).into(),
        number(&status["readyReplicas"]).into(),
        age(value, now),
    ];
    cells.extend(template_cells(value));
    cells
}

pub(super) fn stateful_set(value: &Value, now: Timestamp) -> Vec<Value> {
    let ready = format!("{}/{}", number(&value["status"]["readyReplicas"]), number(&value["spec"]["replicas"]));
    let [containers, images, _] = template_cells(value);
    vec![name(value), ready.into(), age(value, now), containers, images]
}

pub(super) fn job(value: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&value["spec"], &value["status"]);
    let holds = |kind: &str| items(status, "conditions").any(|one| one["type"] == kind && one["status"] == "True");
    let state = if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if !value["metadata"]["deletionTimestamp"].is_null() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else {
        "Running"
    };
    let done = number(&status["succeeded"]);
    let completions = match spec["completions"].as_i64() {
        Some(wanted) => format!("{done}/{wanted}"),
        None if number(&spec["parallelism"]) > 1 => format!("{done}/1 of {}", number(&spec["parallelism"])),
        None => format!("{done}/1"),
    };
    let end = status["completionTime"].as_str().and_then(|text| text.parse().ok()).unwrap_or(now);
    let duration = age_of(&status["startTime"], end).map(duration_text).unwrap_or_default();
    let mut cells = vec![name(value), state.into(), completions.into(), duration.into(), age(value, now)];
    cells.extend(template_cells(value));
    cells
}

pub(super) fn service(value: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &value["spec"];
    let external = match spec["type"].as_str() {
        Some("ExternalName") => text_at(spec, "externalName"),
        Some("LoadBalancer") if items(spec, "externalIPs").next().is_none() => "<pending>".to_owned(),
        _ => joined(items(spec, "externalIPs")),
    };
    let ports: Vec<_> = items(spec, "ports")
        .map(|port| match port["nodePort"].as_i64() {
            Some(node) => format!("{}:{node}/{}", number(&port["port"]), text_at(port, "protocol")),
            None => format!("{}/{}", number(&port["port"]), text_at(port, "protocol")),
        })
        .collect();
    vec![
        name(value),
        spec["type"].clone(),
        or_none(text_at(spec, "clusterIP")),
        or_none(external),
        or_none(ports.join(",")),
        age(value, now),
        or_none(text_of(&json!({"matchLabels": spec["selector"]}))),
    ]
}

pub(super) fn endpoint_slice(value: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<_> = items(value, "ports").map(|port| number(&port["port"]).to_string()).collect();
    let addresses = joined(items(value, "endpoints").flat_map(|endpoint| items(endpoint, "addresses")));
    let unset = |text: String| if text.is_empty() { json!("<unset>") } else { text.into() };
    vec![name(value), value["addressType"].clone(), unset(ports.join(",")), unset(addresses), age(value, now)]
}

pub(super) fn pod(value: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&value["spec"], &value["status"]);
    // Sidecars count as containers; those that only come first count their restarts while they are at it.
    let sidecars: Vec<_> =
        items(spec, "initContainers").filter(|one| is_sidecar(one)).map(|one| &one["name"]).collect();
    let first = || items(status, "initContainerStatuses");
    let states = || items(status, "containerStatuses").chain(first().filter(|one| sidecars.contains(&&one["name"])));
    let ready = states().filter(|one| one["ready"] == true).count();
    let restarts: i64 = match initializing(value) {
        Some(_) => first().map(|one| number(&one["restartCount"])).sum(),
        None => states().map(|one| number(&one["restartCount"])).sum(),
    };
    let total = items(spec, "containers").count() + sidecars.len();
    let gates = items(spec, "readinessGates").count();
    vec![
        name(value),
        format!("{ready}/{total}").into(),
        pod_state(value).into(),
        restarts.to_string().into(),
        age(value, now),
        or_none(text_at(status, "podIP")),
        or_none(text_at(spec, "nodeName")),
        or_none(text_at(status, "nominatedNodeName")),
        if gates == 0 { "<none>".into() } else { format!("?/{gates}").into() },
    ]
}

/// Whether an init container runs beside those that follow.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// What holds up a pod whose init containers are not through, such as `Init:CrashLoopBackOff` or `Init:0/2`.
fn initializing(value: &Value) -> Option<String> {
    let (spec, status) = (&value["spec"], &value["status"]);
    if items(status, "conditions").any(|one| one["type"] == "Initialized" && one["status"] == "True") {
        return None;
    }
    let sidecar = |name: &Value| items(spec, "initContainers").any(|one| one["name"] == *name && is_sidecar(one));
    let (index, container) = items(status, "initContainerStatuses").enumerate().find(|(_, one)| {
        let done = one["state"]["terminated"]["exitCode"] == 0;
        let beside = one["started"] == true && sidecar(&one["name"]);
        !done && !beside
    })?;
    let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
    let reason = if terminated.is_object() {
        terminated["reason"].as_str().map_or_else(|| format!("ExitCode:{}", terminated["exitCode"]), str::to_owned)
    } else if let Some(reason) = waiting["reason"].as_str().filter(|reason| *reason != "PodInitializing") {
        reason.to_owned()
    } else {
        format!("{index}/{}", items(spec, "initContainers").count())
    };
    Some(format!("Init:{reason}"))
}

/// The phase, unless a container or the deletion has more to tell.
fn pod_state(value: &Value) -> String {
    let status = &value["status"];
    if !value["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".to_owned();
    }
    if let Some(state) = initializing(value) {
        return state;
    }
    let told = items(status, "containerStatuses").find_map(|container| {
        let (waiting, terminated) = (&container["state"]["waiting"], &container["state"]["terminated"]);
        let reason = waiting["reason"].as_str().or(terminated["reason"].as_str());
        match (reason, terminated["exitCode"].as_i64()) {
            (Some(reason), _) => Some(reason.to_owned()),
            (None, Some(code)) => Some(format!("ExitCode:{code}")),
            (None, None) => None,
        }
    });
    let reason = status["reason"].as_str().map(str::to_owned);
    told.or(reason).unwrap_or_else(|| text_at(status, "phase"))
}

pub(super) fn autoscaler(value: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&value["spec"], &value["status"]);
    let target = &spec["scaleTargetRef"];
    let mut targets: Vec<_> = items(spec, "metrics")
        .enumerate()
        .map(|(index, metric)| metric_text(metric, &status["currentMetrics"][index]))
        .collect();
    let hidden = targets.len().saturating_sub(2);
    targets.truncate(2);
    let mut text = targets.join(", ");
    if hidden > 0 {
        text.push_str(&format!(" + {hidden} more..."));
    }
    vec![
        name(value),
        format!("{}/{}", text_at(target, "kind"), text_at(target, "name")).into(),
        or_none(text),
        spec["minReplicas"].as_i64().map_or("<unset>".to_owned(), |count| count.to_string()).into(),
        number(&spec["maxReplicas"]).into(),
        number(&status["currentReplicas"]).into(),
        age(value, now),
    ]
}

/// The present value of a metric against its target, such as `7/5 (avg)` or `cpu: <unknown>/80%`.
fn metric_text(metric: &Value, current: &Value) -> String {
    let kind = text_at(metric, "type");
    let member = match kind.as_str() {
        "ContainerResource" => "containerResource".to_owned(),
        other => other.to_lowercase(),
    };
    let (target, now) = (&metric[&member]["target"], &current[&member]["current"]);
    let prefix = match kind.as_str() {
        "Resource" | "ContainerResource" => format!("{}: ", text_at(&metric[&member], "name")),
        _ => String::new(),
    };
    let quantity = |value: &Value| value.as_str().map_or("<unknown>".to_owned(), str::to_owned);
    if let Some(percent) = target["averageUtilization"].as_i64() {
        let used = now["averageUtilization"].as_i64().map_or("<unknown>".to_owned(), |used| format!("{used}%"));
        return format!("{prefix}{used}/{percent}%");
    }
    if target["averageValue"].is_string() {
        let average = if kind == "External" || kind == "Object" { " (avg)" } else { "" };
        return format!("{prefix}{}/{}{average}", quantity(&now["averageValue"]), quantity(&target["averageValue"]));
    }
    format!("{prefix}{}/{}", quantity(&now["value"]), quantity(&target["value"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let text = |seconds| duration_text(SignedDuration::from_secs(seconds));
        let got: Vec<_> = [0, 119, 120, 125, 3600, 12_000, 30_000, 200_000, 800_000].into_iter().map(text).collect();
        assert_eq!(got, ["0s", "119s", "2m", "2m5s", "60m", "3h20m", "8h", "2d7h", "9d"]);
        assert_eq!(text(-1), "0s");
        assert_eq!(text(-5), "<invalid>");
    }

    #[test]
    fn an_autoscaler_shows_values_against_targets() {
        let value = json!({
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9, "metrics": [
                {"type": "External", "external": {"target": {"averageValue": "5"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}},
                {"type": "External", "external": {"target": {"value": "5"}}},
            ]},
            "status": {"currentReplicas": 2, "currentMetrics": [{"external": {"current": {"averageValue": "3500m"}}}]},
        });
        let cells = autoscaler(&value, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "Deployment/web");
        assert_eq!(cells[2], "3500m/5 (avg), cpu: <unknown>/80% + 1 more...");
    }

    #[test]
    fn an_init_container_that_fails_is_what_the_pod_shows() {
        let shown = |state: Value, phase: &str| {
            let value = json!({
                "spec": {"initContainers": [{"name": "first"}], "containers": [{"name": "main"}]},
                "status": {
                    "phase": phase,
                    "initContainerStatuses": [{"name": "first", "restartCount": 2, "state": state}],
                    "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "PodInitializing"}}}],
                },
            });
            let cells = pod(&value, Timestamp::UNIX_EPOCH);
            (cells[2].as_str().unwrap_or_default().to_owned(), cells[3].clone())
        };
        let cases = [
            (json!({"waiting": {"reason": "CrashLoopBackOff"}}), "Init:CrashLoopBackOff"),
            (json!({"terminated": {"reason": "Error", "exitCode": 1}}), "Init:Error"),
            (json!({"waiting": {"reason": "PodInitializing"}}), "Init:0/1"),
            (json!({"running": {}}), "Init:0/1"),
        ];
        for (state, expected) in cases {
            assert_eq!(shown(state, "Pending"), (expected.to_owned(), json!("2")));
        }
        let through = shown(json!({"terminated": {"reason": "Completed", "exitCode": 0}}), "Pending");
        assert_eq!(through, ("PodInitializing".to_owned(), json!("0")));
    }

    #[test]
    fn a_waiting_container_tells_more_than_the_phase() {
        let state =
            |container: Value| pod_state(&json!({"status": {"phase": "Pending", "containerStatuses": [container]}}));
        assert_eq!(state(json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}})), "CrashLoopBackOff");
        assert_eq!(state(json!({"state": {"terminated": {"exitCode": 3}}})), "ExitCode:3");
        assert_eq!(state(json!({"state": {"running": {}}})), "Pending");
    }
}
