//! The cases of `conformance/admission`: what the definitions and the rules together accept and refuse.

use std::collections::BTreeSet;
use std::fs;

use http::Request as HttpRequest;
use kube::Client;
use serde_json::{Value, json};
use tidemark_admission::{Finding, Request, Target, Verdict, View, needs, review};
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};

const FOLDER: &str = "../../../shared/conformance/admission";

/// Cases that are deliberately answered otherwise: their object has no `spec.destination`, which the definition requires.
/// The client that the cases come from writes an empty one.
const NO_DESTINATION: [&str; 18] = [
    "cloudeventsource-086ab917",
    "cloudeventsource-12b55b9b",
    "cloudeventsource-19231b83",
    "cloudeventsource-34a16f1e",
    "cloudeventsource-34be1862",
    "cloudeventsource-368a9b49",
    "cloudeventsource-47e1a487",
    "cloudeventsource-52240e12",
    "cloudeventsource-527e9a07",
    "cloudeventsource-6c8fd42e",
    "cloudeventsource-7ee6458f",
    "cloudeventsource-8e5fd7b7",
    "cloudeventsource-a91c9182",
    "cloudeventsource-aebc9fe0",
    "cloudeventsource-bd7d81d5",
    "cloudeventsource-d62f0f75",
    "cloudeventsource-db501f0e",
    "cloudeventsource-dd4bb39c",
];

/// The cases of a file; `None`, with a visible line, when the data is not there and need not be.
fn cases(file: &str) -> Option<Vec<Value>> {
    let path = format!("{FOLDER}/{file}");
    match fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            let required = std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref() == Ok("1");
            assert!(!required, "{path} not found: {error}");
            println!("SKIPPED: {path} not found");
            None
        }
    }
}

/// An API server that knows our definitions and has the namespace `test`.
async fn server() -> Client {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let sandbox = Sandbox::new(clock, Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = Client::new(sandbox.service(), "test");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}});
    send(&client, "/api/v1/namespaces", &namespace).await.unwrap();
    client
}

async fn send(client: &Client, path: &str, body: &Value) -> Result<Value, String> {
    let request = HttpRequest::post(path).header("Content-Type", "application/json");
    let request = request.body(body.to_string().into_bytes()).unwrap();
    client.request(request).await.map_err(|error| error.to_string())
}

/// What the definition makes of an object, or why it refuses it.
async fn defined(client: &Client, object: &Value) -> Result<Value, String> {
    let kind = object["kind"].as_str().unwrap();
    let crd = tidemark_api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap();
    let scope = if crd.spec.scope == "Namespaced" { "namespaces/test/" } else { "" };
    let (version, plural) = (object["apiVersion"].as_str().unwrap(), &crd.spec.names.plural);
    send(client, &format!("/apis/{version}/{scope}{plural}?dryRun=All"), object).await
}

/// The verdict on a write to the cluster of a case. Discovery knows no kinds but Kubernetes' own.
fn judged(cluster: &[Value], request: &Request<'_>) -> Verdict {
    let of = |kind: &str| cluster.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
    let needs = needs(request);
    let target = match &needs.target {
        Some(workload) if !matches!(workload.kind.as_str(), "Deployment" | "StatefulSet") => {
            Target::UnknownKind("no matches for this kind")
        }
        Some(workload) if needs.pods => {
            let same =
                |object: &&Value| object["kind"] == *workload.kind && object["metadata"]["name"] == *workload.name;
            cluster.iter().find(same).map_or(Target::Unreadable("not found"), Target::Found)
        }
        _ => Target::Unread,
    };
    let (scaled_objects, autoscalers) = (of("ScaledObject"), of("HorizontalPodAutoscaler"));
    let limit_ranges = of("LimitRange");
    let (scaled_objects, autoscalers, limit_ranges) = (&scaled_objects[..], &autoscalers[..], &limit_ranges[..]);
    review(request, &View { target, scaled_objects, autoscalers, limit_ranges })
}

async fn answer(client: &Client, case: &Value) -> Result<Verdict, String> {
    let object = defined(client, &case["object"]).await?;
    let old = case.get("old");
    let request = Request { object: &object, old, dry_run: case["dryRun"] == true };
    let verdict = judged(case["cluster"].as_array().unwrap(), &request);
    if verdict.admitted() { Ok(verdict) } else { Err(texts(&verdict.errors).join("; ")) }
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
}

fn differences(answer: &Result<Verdict, String>, expect: &Value) -> Option<String> {
    let verdict = match (answer, expect["accepted"] == true) {
        (Ok(_), false) => return Some("is accepted, should be refused".to_owned()),
        (Err(error), true) => return Some(format!("is refused, should be accepted: {error}")),
        (Err(_), false) => return None,
        (Ok(verdict), true) => verdict,
    };
    let warnings = texts(&verdict.warnings);
    let told = |part: &Value| warnings.iter().any(|warning| warning.contains(part.as_str().unwrap()));
    let parts = |field: &str| expect[field].as_array().cloned().unwrap_or_default();
    let missing = parts("warnings").into_iter().find(|part| !told(part));
    let extra =
        parts("noWarnings").into_iter().find(|part| if *part == "*" { !warnings.is_empty() } else { told(part) });
    missing.or(extra).map(|part| format!("warnings are {warnings:?}, which is wrong about {part}"))
}

#[tokio::test(start_paused = true)]
async fn objects_are_accepted_and_refused_as_by_keda() {
    let client = server().await;
    let (mut failed, mut deviating, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for kind in ["scaledobject", "scaledjob", "triggerauthentication", "cloudeventsource"] {
        for case in cases(&format!("{kind}.json")).into_iter().flatten() {
            count += 1;
            let id = case["id"].as_str().unwrap();
            let Some(difference) = differences(&answer(&client, &case).await, &case["expect"]) else { continue };
            if !NO_DESTINATION.contains(&id) {
                failed.push(format!("{id}: {difference}"));
                continue;
            }
            deviating.insert(id.to_owned());
            let mut whole = case.clone();
            whole["object"]["spec"]["destination"] = json!({});
            let difference = differences(&answer(&client, &whole).await, &case["expect"]);
            failed.extend(difference.map(|difference| format!("{id} with a destination: {difference}")));
        }
    }
    if count == 0 {
        return;
    }
    for id in NO_DESTINATION.iter().filter(|id| !deviating.contains(**id)) {
        failed.push(format!("{id}: is on the list of deviations and does not deviate"));
    }
    println!("{count} cases");
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

/// The rules that `checks.json` asks one by one, with the reason that each gives.
const CHECKS: [(&str, &str); 3] =
    [("fallback", "incorrect-fallback"), ("replicaBounds", "incorrect-replicas"), ("triggers", "incorrect-triggers")];

#[test]
fn single_rules_accept_and_refuse_as_by_keda() {
    let mut failed = Vec::new();
    for case in cases("checks.json").into_iter().flatten() {
        let (id, op) = (case["id"].as_str().unwrap(), case["op"].as_str().unwrap());
        let (_, reason) = CHECKS.iter().find(|(known, _)| *known == op).unwrap();
        let given = &case["given"];
        let mut spec = given.get("spec").cloned().unwrap_or_else(|| given.clone());
        spec["scaleTargetRef"] = json!({"name": "web"});
        if spec["triggers"].is_null() {
            spec["triggers"] = json!([{"type": "couchdb", "metadata": {}}]);
        }
        for trigger in spec["triggers"].as_array_mut().unwrap() {
            trigger["metadata"] = json!({});
        }
        let object = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"}, "spec": spec});
        let verdict = review(&Request { object: &object, old: None, dry_run: false }, &View::default());
        let refused = verdict.errors.iter().any(|error| error.reason == Some(*reason));
        if refused == (case["expect"]["accepted"] == true) {
            failed.push(format!("{id}: {:?}", texts(&verdict.errors)));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
