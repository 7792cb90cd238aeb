//! What is to be seen in a namespace, so written that it can be compared with another one: all fields of all objects by
//! their paths, without what is another one each time, such as uids and times.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::stage::Stage;

/// Values by path, by object (`Kind/name`).
pub type Seen = BTreeMap<String, BTreeMap<String, String>>;

const SCALED_OBJECTS: &str = "/apis/keda.sh/v1alpha1/namespaces/{}/scaledobjects";
const AUTHENTICATIONS: &str = "/apis/keda.sh/v1alpha1/namespaces/{}/triggerauthentications";
const HPAS: &str = "/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/{}/events";
const TARGETS: [&str; 4] = [
    "/apis/apps/v1/namespaces/{}/deployments",
    "/apis/apps/v1/namespaces/{}/statefulsets",
    "/apis/apps/v1/namespaces/{}/replicasets",
    "/apis/test.example/v1/namespaces/{}/flocks",
];
/// What differs from object to object and from time to time.
const FLEETING: [&str; 7] = [
    "/uid",
    "/resourceVersion",
    "/creationTimestamp",
    "/managedFields",
    "/generation",
    "/lastTransitionTime",
    "/namespace",
];

/// All of a namespace.
pub async fn look(stage: &Stage, namespace: &str) -> Seen {
    let list = async |path: &str, kind: &str| {
        let mut list = stage.rest.get(&path.replace("{}", namespace)).await;
        let items = list["items"].as_array_mut().unwrap().iter_mut().map(Value::take).collect::<Vec<_>>();
        let name = |item: &Value| format!("{kind}/{}", item["metadata"]["name"].as_str().unwrap());
        items.into_iter().map(|item| (name(&item), item)).collect::<Vec<_>>()
    };
    let mut seen = Seen::new();
    let mut add = |name: String, parts: &[(&str, &Value)]| {
        let fields = seen.entry(name).or_default();
        parts.iter().for_each(|(path, value)| flatten(path, value, namespace, fields));
    };
    for (name, item) in list(SCALED_OBJECTS, "ScaledObject").await {
        add(name, &[("/metadata", &item["metadata"]), ("/spec", &item["spec"]), ("/status", &item["status"])]);
    }
    for (name, item) in list(AUTHENTICATIONS, "TriggerAuthentication").await {
        add(name, &[("/metadata", &item["metadata"]), ("/status", &item["status"])]);
    }
    for (name, item) in list(HPAS, "HPA").await {
        let mut conditions = item["status"]["conditions"].as_array().into_iter().flatten();
        let active = conditions.find(|condition| condition["type"] == "ScalingActive");
        add(name.clone(), &[("/metadata", &item["metadata"]), ("/spec", &item["spec"])]);
        if let Some(active) = active {
            add(name, &[("/active/status", &active["status"]), ("/active/reason", &active["reason"])]);
        }
    }
    for (path, kind) in TARGETS.into_iter().zip(["Deployment", "StatefulSet", "ReplicaSet", "Flock"]) {
        for (name, item) in list(path, kind).await {
            if item["metadata"]["ownerReferences"].is_null() {
                let metadata = &item["metadata"];
                let replicas = ("/replicas", &item["spec"]["replicas"]);
                add(name, &[("/labels", &metadata["labels"]), ("/finalizers", &metadata["finalizers"]), replicas]);
            }
        }
    }
    events(&list(EVENTS, "").await, namespace, &mut seen);
    seen
}

/// The notes of the events of an object, by type and reason; beside them who has told and what is said to have been done.
fn events(list: &[(String, Value)], namespace: &str, seen: &mut Seen) {
    let mut all: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (_, event) in list {
        let text = |field: &str| event[field].as_str().unwrap_or_default();
        let regarding = &event["regarding"];
        let kind = regarding["kind"].as_str().unwrap();
        if !matches!(kind, "ScaledObject" | "TriggerAuthentication") {
            continue;
        }
        let object = format!("{kind}/{}", regarding["name"].as_str().unwrap());
        let path = format!("/events/{} {}", text("type"), text("reason"));
        let action = if text("action") == text("note") { "note" } else { text("action") };
        for (below, value) in [("", text("note")), ("/action", action), ("/by", text("reportingController"))] {
            let key = (object.clone(), format!("{path}{below}"));
            all.entry(key).or_default().insert(value.replace(namespace, "NAMESPACE"));
        }
    }
    for ((object, path), values) in all {
        let text = values.into_iter().collect::<Vec<_>>().join(" | ");
        seen.entry(object).or_default().insert(path, text);
    }
}

/// Every value in it by its path. Conditions stand by their types.
fn flatten(path: &str, value: &Value, namespace: &str, into: &mut BTreeMap<String, String>) {
    if FLEETING.iter().any(|fleeting| path.ends_with(fleeting)) {
        return;
    }
    let text = match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                flatten(&format!("{path}/{name}"), field, namespace, into);
            }
            return;
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                let key = item["type"].as_str().filter(|_| path.ends_with("/conditions"));
                flatten(&format!("{path}/{}", key.map_or(index.to_string(), str::to_owned)), item, namespace, into);
            }
            return;
        }
        Value::Null => return,
        Value::String(text) if !path.ends_with("Time") => text.replace(namespace, "NAMESPACE"),
        Value::String(_) => "a time".to_owned(),
        // How many failures there were depends on how often the HPA has asked.
        Value::Number(number) if path.ends_with("/numberOfFailures") => {
            if number.as_u64() == Some(0) { "none" } else { "some" }.to_owned()
        }
        value => value.to_string(),
    };
    into.insert(path.replace(namespace, "NAMESPACE"), text);
}

/// Something that is not the same at both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub object: String,
    pub path: String,
    pub keda: Option<String>,
    pub tidemark: Option<String>,
}

/// All differences. An object that only one has is one.
pub fn differences(keda: &Seen, tidemark: &Seen) -> Vec<Difference> {
    let mut found = Vec::new();
    for object in keda.keys().chain(tidemark.keys()).collect::<BTreeSet<_>>() {
        let tell = |path: &str, keda: Option<String>, tidemark: Option<String>| Difference {
            object: object.clone(),
            path: path.to_owned(),
            keda,
            tidemark,
        };
        let (Some(ours), Some(theirs)) = (tidemark.get(object), keda.get(object)) else {
            let there = |seen: &Seen| seen.contains_key(object).then(|| "is there".to_owned());
            found.push(tell("", there(keda), there(tidemark)));
            continue;
        };
        for path in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
            let (theirs, ours) = (theirs.get(path), ours.get(path));
            if theirs != ours {
                found.push(tell(path, theirs.cloned(), ours.cloned()));
            }
        }
    }
    found
}

/// Whether a text is that of a pattern, in which `*` is any text.
pub fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((begin, rest)) => text.strip_prefix(begin).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| fits(rest, &text[at..]))
        }),
    }
}

#[test]
fn a_star_is_any_text() {
    assert!(fits("a*c", "abbc") && fits("*", "") && fits("a", "a") && fits("*b*", "abc"));
    assert!(!fits("a*c", "ab") && !fits("a", "ab"));
}
