//! The cases: what is there before, and the review that the API server would send of what is then written.

use http::Method;
use kube::Client;
use serde_json::{Map, Value, json};

use crate::on_control_plane::release::Rest;
use crate::webhooks::{Answer, RULES, cases, make_namespace, paths, send};

/// Where ours answers the rules of the webhooks' own test otherwise than KEDA's, and why.
const RULES_DIFFER: [(&str, &str); 4] = [
    ("a cpu trigger on a workload that is not there", "403 and not the 404 of the workload"),
    (
        "oauth2 beside an identity, without a client",
        "KEDA looks at oauth2 beside some identities and not beside others",
    ),
    ("event types about authentications", "KEDA's webhooks do not know the types that its operator sends"),
    ("a label on an object that has become wrong", "nothing changes that a rule looks at"),
];

/// A case of any table: `case`, `given`, `create` or `update` or `replace`, and what says how.
pub struct Case(Value);

/// What both are asked.
#[derive(Clone)]
pub struct Review {
    pub case: String,
    pub namespace: String,
    /// Why the two answer differently.
    pub differs: Option<String>,
    /// KEDA tells one of two faults, which are one for ours.
    pub either: bool,
    /// Why the API server refuses the object before it asks.
    pub refused: Option<String>,
    /// What is there beside it.
    pub given: Vec<Value>,
    pub request: Value,
}

impl Review {
    /// Where it is posted.
    pub fn path(&self) -> String {
        let [group, version, kind] =
            ["group", "version", "kind"].map(|field| self.request["kind"][field].as_str().unwrap());
        format!("/validate-{}-{version}-{}?timeout=10s", group.replace('.', "-"), kind.to_lowercase())
    }

    pub fn body(&self) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": self.request})
    }

    pub fn is_creation(&self) -> bool {
        self.request["operation"] == "CREATE"
    }

    pub fn is_dry_run(&self) -> bool {
        self.request["dryRun"] == true
    }
}

/// All cases: those of this folder, the rules of the webhooks' own test, and KEDA's own.
pub fn all() -> Vec<Case> {
    let edges = std::fs::read_to_string("tests/it/with_keda/admission/cases.yaml").unwrap();
    let mut all: Vec<_> = cases(&edges).into_iter().filter(|case| case["reasons"].is_null()).collect();
    for mut case in cases(RULES) {
        let known = RULES_DIFFER.iter().find(|(name, _)| case["case"] == *name);
        case["differs"] = known.map(|(_, reason)| *reason).into();
        all.push(case);
    }
    for kind in ["scaledobject", "scaledjob", "triggerauthentication", "cloudeventsource"] {
        let path = format!("../../../shared/conformance/admission/{kind}.json");
        match std::fs::read_to_string(&path) {
            Ok(text) => all.extend(serde_json::from_str::<Vec<Value>>(&text).unwrap().into_iter().map(conformance)),
            Err(error) => {
                assert!(std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref() != Ok("1"), "{path}: {error}");
                println!("SKIPPED: {path} not found");
            }
        }
    }
    all.into_iter().map(Case).collect()
}

/// A case of KEDA's own, in the form of ours.
fn conformance(mut case: Value) -> Value {
    let mut object = case["object"].take();
    // The client that the cases come from writes an empty one, which the definition requires.
    if object["kind"].as_str().unwrap().contains("CloudEventSource") && object["spec"].get("destination").is_none() {
        object["spec"]["destination"] = json!({});
    }
    let mut given = case["cluster"].take();
    let old = case["old"].take();
    let written = if old.is_null() { "create" } else { "replace" };
    given.as_array_mut().unwrap().extend((!old.is_null()).then_some(old));
    json!({"case": case["id"], "given": given, written: object, "dryRun": case["dryRun"]})
}

/// What KEDA and ours have seen of the cluster once they answer these so.
pub fn last() -> Vec<(Case, bool)> {
    let deployment = |resources: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "containers": [{"name": "main", "image": "x", "resources": resources}],
            }},
        }})
    };
    let mut set = deployment(json!({"requests": {"cpu": "1"}}));
    set["kind"] = "StatefulSet".into();
    let scaled = |name: &str, kind: &str, trigger: &str| {
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name}, "spec": {
            "scaleTargetRef": {"name": "web", "kind": kind}, "minReplicaCount": 1,
            "triggers": [{"type": trigger, "metadata": {"value": "1"}}],
        }})
    };
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "old"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let range = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}}]},
    });
    let case = |given: Value, create: Value| Case(json!({"case": "the last of all", "given": given, "create": create}));
    vec![
        (case(json!([scaled("first", "Deployment", "cron")]), scaled("second", "Deployment", "cron")), false),
        (case(json!([hpa]), scaled("second", "Deployment", "cron")), false),
        (case(json!([deployment(json!({})), range]), scaled("a", "Deployment", "cpu")), true),
        (case(json!([set]), scaled("a", "StatefulSet", "cpu")), true),
    ]
}

/// Makes what a case needs in a namespace of its own, and what the API server would ask.
pub async fn staged(client: &Client, number: usize, Case(case): Case) -> Review {
    let namespace = format!("case-{number}");
    make_namespace(client, &namespace).await;
    let given: Vec<Value> = case["given"].as_array().into_iter().flatten().cloned().map(anywhere).collect();
    for object in &given {
        let (all, one) = paths(object, &namespace);
        let made = send(client, "POST", &all, object).await;
        assert!(matches!(made.status, 201 | 422), "{}: {}", case["case"], made.message());
        if case["delete"] == object["metadata"]["name"] {
            send(client, "DELETE", &one, &Value::Null).await;
        }
    }
    let (old, object, refused) = match case["create"].is_null() {
        true => updated(client, &namespace, &case, given.last()).await,
        false => {
            let object = anywhere(case["create"].clone());
            let tried = send(client, "POST", &format!("{}?dryRun=All", paths(&object, &namespace).0), &object).await;
            let (object, refused) = sent_on(tried, object, case["raw"] == true);
            (Value::Null, object, refused)
        }
    };
    let request = request(&namespace, old, object, case["dryRun"] == true);
    Review {
        case: case["case"].as_str().unwrap().to_owned() + &of_kind(&request["kind"]["kind"]),
        differs: case["differs"].as_str().map(str::to_owned),
        either: case["either"] == true,
        namespace,
        refused,
        given,
        request,
    }
}

/// An object without its namespace, which is another one each time.
fn anywhere(mut object: Value) -> Value {
    object["metadata"].as_object_mut().unwrap().remove("namespace");
    object
}

fn of_kind(kind: &Value) -> String {
    if *kind == "ScaledObject" { String::new() } else { format!(" ({})", kind.as_str().unwrap()) }
}

/// The stored object, and what becomes of it.
async fn updated(
    client: &Client,
    namespace: &str,
    case: &Value,
    last: Option<&Value>,
) -> (Value, Value, Option<String>) {
    let of = if case["of"].is_null() { last.unwrap().clone() } else { anywhere(case["of"].clone()) };
    let path = paths(&of, namespace).1;
    if case["deleting"] == true {
        send(client, "DELETE", &path, &Value::Null).await;
    }
    let stored = send(client, "GET", &path, &Value::Null).await;
    if stored.status == 404 {
        let object = merged(of.clone(), &case["update"]);
        return (of, object, Some("it cannot even be stored".to_owned()));
    }
    let path = format!("{path}?dryRun=All");
    if case["replace"].is_null() {
        let tried = send(client, "PATCH", &path, &case["update"]).await;
        let (object, refused) = sent_on(tried, merged(stored.body.clone(), &case["update"]), false);
        return (stored.body, object, refused);
    }
    let mut object = anywhere(case["replace"].clone());
    object["metadata"]["resourceVersion"] = stored.body["metadata"]["resourceVersion"].clone();
    let tried = Rest(client.clone()).request(Method::PUT, &path, "test", "application/json", &object).await;
    let refused = tried.as_ref().err().map(ToString::to_string);
    (stored.body, tried.unwrap_or(object), refused)
}

/// What the API server makes of an object before it asks, or why it does not ask.
fn sent_on(tried: Answer, object: Value, raw: bool) -> (Value, Option<String>) {
    match tried.status {
        200 | 201 if raw => (object, None),
        200 | 201 => (tried.body, None),
        _ => (object, Some(tried.message().to_owned())),
    }
}

/// A merge patch, done.
fn merged(mut object: Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else { return patch.clone() };
    for (name, change) in fields {
        let known = object.get(name).cloned().unwrap_or(Value::Object(Map::new()));
        object[name] = merged(known, change);
    }
    object
}

fn request(namespace: &str, old: Value, mut object: Value, dry_run: bool) -> Value {
    let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
    let kind = object["kind"].as_str().unwrap();
    let (kind_named, resource) = (
        json!({"group": group, "version": version, "kind": kind}),
        json!({"group": group, "version": version, "resource": format!("{}s", kind.to_lowercase())}),
    );
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let mut request = json!({
        "uid": format!("uid-{namespace}"), "kind": kind_named, "requestKind": kind_named, "resource": resource,
        "requestResource": resource, "name": object["metadata"]["name"].as_str().unwrap_or_default(),
        "operation": operation, "userInfo": {"username": "admin", "groups": ["system:masters"]}, "oldObject": old,
        "dryRun": dry_run, "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    });
    if !kind.starts_with("Cluster") {
        object["metadata"]["namespace"] = namespace.into();
        request["namespace"] = namespace.into();
    }
    request["object"] = object;
    request
}
