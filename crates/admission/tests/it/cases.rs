//! What KEDA's own cases do not cover: places, reasons, and the rules that differ on purpose.

use serde_json::{Value, json};
use tidemark_admission::{Finding, Needs, Request, Target, Verdict, View, Workload, needs, review};

fn scaled_object(spec: Value) -> Value {
    let mut whole = json!({
        "scaleTargetRef": {"name": "web"},
        "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}],
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "shop", "namespace": "n"},
        "spec": whole,
    })
}

fn creation(object: &Value, view: &View<'_>) -> Verdict {
    review(&Request { object, old: None, dry_run: false }, view)
}

fn told(findings: &[Finding]) -> Vec<(String, &'static str)> {
    findings.iter().map(|finding| (finding.path.to_string(), finding.reason.unwrap_or_default())).collect()
}

fn refusals(spec: Value, view: &View<'_>) -> Vec<(String, &'static str)> {
    told(&creation(&scaled_object(spec), view).errors)
}

fn deployment(containers: Value) -> Value {
    json!({"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": containers}}}})
}

const CPU: &str = r#"[{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}]"#;

fn cpu() -> Value {
    serde_json::from_str(CPU).unwrap()
}

#[test]
fn every_fault_is_told_in_the_order_of_the_rules() {
    let other = json!({"metadata": {"name": "other"}, "spec": {"scaleTargetRef": {"name": "web"}}});
    let view = View { scaled_objects: &[other], ..View::default() };
    let spec = json!({
        "idleReplicaCount": 0, "fallback": {"failureThreshold": -1, "replicas": 1},
        "advanced": {"scalingModifiers": {"formula": "a +", "target": "1"}},
        "triggers": [{"type": "cron", "metadata": {}, "useCachedMetrics": true}],
    });
    assert_eq!(
        refusals(spec, &view),
        [
            ("spec.scaleTargetRef.name".to_owned(), "other-scaled-object"),
            ("spec.advanced.scalingModifiers.formula".to_owned(), "scaling-modifiers"),
            ("spec.idleReplicaCount".to_owned(), "incorrect-replicas"),
            ("spec.fallback.failureThreshold".to_owned(), "incorrect-fallback"),
            ("spec.triggers[0].useCachedMetrics".to_owned(), "incorrect-triggers"),
        ]
    );
}

#[test]
fn an_hpa_name_may_be_used_once() {
    let configured = json!({"advanced": {"horizontalPodAutoscalerConfig": {"name": "keda-hpa-other"}}});
    let other = json!({"metadata": {"name": "other"}, "spec": {"scaleTargetRef": {"name": "elsewhere"}}});
    let view = View { scaled_objects: &[other], ..View::default() };
    let at = "spec.advanced.horizontalPodAutoscalerConfig.name".to_owned();
    assert_eq!(refusals(configured, &view), [(at, "other-scaled-object-hpa")]);
}

#[test]
fn a_behaviour_by_formula_needs_one() {
    let spec = json!({"fallback": {"failureThreshold": 1, "replicas": 1, "behavior": "scalingModifiers"}});
    let at = "spec.fallback.behavior".to_owned();
    assert_eq!(refusals(spec, &View::default()), [(at, "scaling-modifiers-fallback")]);
}

#[test]
fn a_neighbour_whose_kind_nobody_knows_disturbs_no_one() {
    let other = json!({
        "metadata": {"name": "other"}, "spec": {"scaleTargetRef": {"name": "web", "kind": "Gone", "apiVersion": "x/v1"}},
    });
    let view = View {
        scaled_objects: std::slice::from_ref(&other),
        autoscalers: std::slice::from_ref(&other),
        ..View::default()
    };
    assert_eq!(refusals(json!({}), &view), []);
}

#[test]
fn the_own_kind_must_be_known() {
    let view = View { target: Target::UnknownKind("no matches for kind \"Gone\""), ..View::default() };
    let spec = json!({"scaleTargetRef": {"name": "web", "kind": "Gone", "apiVersion": "x/v1"}});
    assert_eq!(refusals(spec, &view), [("spec.scaleTargetRef".to_owned(), "")]);
}

#[test]
fn a_default_of_the_namespace_serves_for_a_request() {
    let plain = deployment(json!([{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": 1}}}]));
    let mut view = View { target: Target::Found(&plain), ..View::default() };
    let spec = || json!({"minReplicaCount": 1, "triggers": cpu()});
    assert_eq!(refusals(spec(), &view), [("spec.triggers[0]".to_owned(), "missing-requests")]);
    let range =
        |type_: &str, amount: &str| json!({"spec": {"limits": [{"type": type_, "defaultRequest": {"cpu": amount}}]}});
    let ranges = [range("Pod", "1"), range("Container", "0"), range("Container", "100m")];
    view.limit_ranges = &ranges[..2];
    assert_eq!(refusals(spec(), &view).len(), 1);
    view.limit_ranges = &ranges;
    assert_eq!(refusals(spec(), &view), []);
}

#[test]
fn only_the_named_container_must_request() {
    let plain = deployment(json!([{"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}]));
    let view = View { target: Target::Found(&plain), ..View::default() };
    for (container, refused) in [("a", 1), ("b", 0), ("none", 0), ("", 1)] {
        let mut triggers = cpu();
        triggers[0]["metadata"]["containerName"] = container.into();
        let spec = json!({"minReplicaCount": 1, "triggers": triggers});
        assert_eq!(refusals(spec, &view).len(), refused, "{container:?}");
    }
}

#[test]
fn what_the_pod_as_a_whole_asks_for_serves_all_containers_but_one_that_is_named() {
    let pod = |resources: Value| {
        let mut plain = deployment(json!([{"name": "a"}, {"name": "b"}]));
        plain["spec"]["template"]["spec"]["resources"] = resources;
        plain
    };
    for (resources, container, refused) in [
        (json!({"requests": {"cpu": "1"}}), "", 0),
        (json!({"limits": {"cpu": "1"}}), "", 0),
        (json!({"requests": {"cpu": "0"}}), "", 2),
        (json!({"requests": {"memory": "1M"}}), "", 2),
        (json!({"requests": {"cpu": "1"}}), "a", 1),
    ] {
        let plain = pod(resources);
        let mut triggers = cpu();
        triggers[0]["metadata"]["containerName"] = container.into();
        let view = View { target: Target::Found(&plain), ..View::default() };
        let spec = json!({"minReplicaCount": 1, "triggers": triggers});
        assert_eq!(refusals(spec, &view).len(), refused, "{plain} {container:?}");
    }
}

#[test]
fn cpu_alone_cannot_scale_to_zero() {
    let view = View::default();
    let reason = "scale-to-zero-requirements-not-met";
    assert_eq!(refusals(json!({"triggers": cpu()}), &view), [("spec.triggers".to_owned(), reason)]);
    let zero = json!({"minReplicaCount": 0, "triggers": cpu()});
    assert_eq!(refusals(zero, &view), [("spec.minReplicaCount".to_owned(), reason)]);
    let other = json!({"triggers": cpu(), "scaleTargetRef": {"name": "web", "kind": "Rollout", "apiVersion": "a/v1"}});
    assert_eq!(refusals(other, &view), []);
}

#[test]
fn a_rehearsal_does_not_ask_for_the_pods() {
    let object = scaled_object(json!({"triggers": cpu()}));
    let request = |dry_run| Request { object: &object, old: None, dry_run };
    let view = View { target: Target::Unreadable("not found"), ..View::default() };
    assert!(review(&request(true), &view).admitted());
    assert!(!review(&request(false), &view).admitted());
    let target = Workload { api_version: "apps/v1".into(), kind: "Deployment".into(), name: "web".into() };
    assert_eq!(needs(&request(true)), Needs { target: Some(target.clone()), pods: false, neighbours: true });
    assert_eq!(needs(&request(false)), Needs { target: Some(target), pods: true, neighbours: true });
}

#[test]
fn an_object_that_became_wrong_can_still_be_labelled() {
    let old = scaled_object(json!({"minReplicaCount": 5, "maxReplicaCount": 4}));
    let mut object = old.clone();
    object["metadata"]["labels"] = json!({"team": "a"});
    object["metadata"]["finalizers"] = json!(["finalizer.keda.sh"]);
    let update = |object: &Value| review(&Request { object, old: Some(&old), dry_run: false }, &View::default());
    assert!(update(&object).admitted());
    object["metadata"]["annotations"] = json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"});
    assert!(!update(&object).admitted());
    object["metadata"]["annotations"] = json!({});
    object["spec"]["cooldownPeriod"] = 1.into();
    assert!(!update(&object).admitted());
}

#[test]
fn an_hpa_is_taken_over_only_by_its_name() {
    let mut hpa = json!({"metadata": {"name": "own"}, "spec": {"scaleTargetRef": {
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "web",
    }}});
    let refusals = |hpa: &Value| {
        let view = View { autoscalers: std::slice::from_ref(hpa), ..View::default() };
        refusals(json!({}), &view)
    };
    assert_eq!(refusals(&hpa), [("spec.scaleTargetRef.name".to_owned(), "other-hpa")]);
    hpa["metadata"]["annotations"] = json!({"validations.keda.sh/hpa-ownership": "false"});
    assert_eq!(refusals(&hpa), []);
    hpa["metadata"] = json!({"name": "own", "ownerReferences": [{"kind": "ScaledObject", "name": "shop"}]});
    assert_eq!(refusals(&hpa), []);
}

fn authentication(spec: Value) -> Vec<String> {
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "a"}, "spec": spec,
    });
    creation(&object, &View::default()).errors.iter().map(|error| error.path.to_string()).collect()
}

#[test]
fn client_credentials_are_checked_beside_any_identity() {
    let oauth2 = json!({"type": "clientCredentials", "clientId": "", "tokenUrl": "ftp://x"});
    for spec in [json!({"oauth2": oauth2}), json!({"podIdentity": {"provider": "gcp"}, "oauth2": oauth2})] {
        assert_eq!(authentication(spec), ["spec.oauth2.clientId", "spec.oauth2.tokenUrl"]);
    }
    let sound = json!({"type": "clientCredentials", "clientId": "a", "tokenUrl": "https://login.example.com/token"});
    assert!(authentication(json!({"oauth2": sound})).is_empty());
}

#[test]
fn a_token_url_is_read_as_it_stands_and_not_mended() {
    let refused = |url: &str| {
        let oauth2 = json!({"type": "clientCredentials", "clientId": "a", "tokenUrl": url});
        !authentication(json!({"oauth2": oauth2})).is_empty()
    };
    for url in ["https://x.example/t", "HTTP://x.example", "http://[::1]:8080/t", "https://x.example:/t?a=%zz"] {
        assert!(!refused(url), "{url}");
    }
    for url in [
        "https:///t",
        "https:/x.example/t",
        "https:x.example",
        "https:\\\\x.example",
        "https://\\x.example",
        " https://x.example/t",
        "https://x.example/t\n",
        "https://x.example/%zz",
        "https://x.example/%a",
        "https://?a",
        "https://u:p@/t",
        "ftp://x.example",
        "x.example/t",
    ] {
        assert!(refused(url), "{url}");
    }
}

#[test]
fn what_cannot_be_read_is_named_and_not_quoted() {
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "a"},
        "spec": {"hashiCorpVault": {"address": 1, "authentication": "token", "secrets": [], "credential": {"token": "s3cret"}}},
    });
    let verdict = creation(&object, &View::default());
    assert_eq!(verdict.errors[0].path.to_string(), "spec.hashiCorpVault.address");
    assert!(!format!("{verdict:?}").contains("s3cret"));
}

#[test]
fn every_event_type_of_the_definition_can_be_subscribed_to() {
    let source = |subscription: Value| {
        let object = json!({
            "apiVersion": "eventing.keda.sh/v1alpha1", "kind": "CloudEventSource", "metadata": {"name": "a"},
            "spec": {"destination": {}, "eventSubscription": subscription},
        });
        creation(&object, &View::default()).admitted()
    };
    assert!(source(json!({"includedEventTypes": tidemark_api::EVENT_TYPES})));
    assert!(!source(json!({"includedEventTypes": [], "excludedEventTypes": []})));
    assert!(!source(json!({"excludedEventTypes": ["keda.scaledobject.ready"]})));
}

#[test]
fn a_scaled_job_is_asked_for_its_triggers_only() {
    let job = |name: &str, triggers: Value| {
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": name},
            "spec": {"jobTargetRef": {"template": {}}, "minReplicaCount": 9, "maxReplicaCount": 1, "triggers": triggers},
        })
    };
    let cron = json!({"type": "cron", "name": "a", "metadata": {}});
    let long = creation(&job(&"j".repeat(64), json!([cron])), &View::default());
    assert!(long.admitted() && long.warnings.len() == 1);
    let none = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": "j"}});
    let none = creation(&none, &View::default());
    assert_eq!(told(&none.errors), [("spec.triggers".to_owned(), "incorrect-triggers")]);
    let twice = creation(&job("j", json!([cron, cron])), &View::default());
    assert_eq!(told(&twice.errors), [("spec.triggers[1].name".to_owned(), "incorrect-triggers")]);
}

#[test]
fn other_kinds_pass() {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}});
    assert_eq!(creation(&object, &View::default()), Verdict::default());
    let other = json!({"apiVersion": "keda.sh/v2", "kind": "ScaledObject", "metadata": {"name": "a"}});
    assert_eq!(creation(&other, &View::default()), Verdict::default());
}

#[test]
fn an_hpa_of_a_scaled_object_that_is_in_the_way_is_not_told_beside_it() {
    let other = json!({"metadata": {"name": "other"}, "spec": {"scaleTargetRef": {"name": "web"}}});
    let hpa = |owner: &str| {
        json!({
            "metadata": {"name": "h", "ownerReferences": [{"kind": "ScaledObject", "name": owner}]},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        })
    };
    let told = |owner: &str| {
        refusals(
            json!({}),
            &View { scaled_objects: std::slice::from_ref(&other), autoscalers: &[hpa(owner)], ..View::default() },
        )
    };
    let place = || "spec.scaleTargetRef.name".to_owned();
    assert_eq!(told("other"), [(place(), "other-scaled-object")]);
    assert_eq!(told("third"), [(place(), "other-scaled-object"), (place(), "other-hpa")]);
}
