//! A thousand objects at rest, in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde_json::json;
use tidemark_api::ScaledObject;
use tidemark_clock::Clock;
use tidemark_operator::{Operator, Settings};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_trigger::Door;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const OBJECTS: usize = 1_000;

async fn create(client: &Client, number: usize) {
    let name = format!("w{number}");
    let deployment = json!({
        "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "worker"}]}}},
    });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment).unwrap()).await.unwrap();
    let trigger = json!({"type": "metrics-api", "metadata": {
        "url": format!("http://source/{name}"), "valueLocation": "value", "targetValue": "5"}});
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
        "spec": {"scaleTargetRef": {"name": name}, "triggers": [trigger]},
    });
    let objects: Api<ScaledObject> = Api::default_namespaced(client.clone());
    objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// A client whose requests are counted by method and whether they are watches.
fn counted(sandbox: &Sandbox, counts: Arc<Mutex<BTreeMap<String, usize>>>) -> Client {
    let service = sandbox.service();
    let service = tower::service_fn(move |request: Request<Body>| {
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let kind = if watch { "watch".to_owned() } else { format!("{} {}", request.method(), request.uri().path()) };
        *counts.lock().unwrap().entry(kind).or_default() += 1;
        service.clone().oneshot(request)
    });
    Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_objects_ask_the_api_server_for_nothing_but_watches() {
    let clock = Clock::starting_at("2026-01-05T08:00:00Z".parse().unwrap());
    let sandbox = Sandbox::new(clock, Options { history: 10_000, ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    for number in 0..OBJECTS {
        create(&client, number).await;
    }
    let polls = Arc::new(Mutex::new(0));
    let door = Door::in_process(clock, {
        let polls = polls.clone();
        move |_| {
            *polls.lock().unwrap() += 1;
            Box::pin(async { Ok(Response::new(Bytes::from_static(b"{\"value\": 0}"))) })
        }
    });
    let counts = Arc::<Mutex<BTreeMap<_, _>>>::default();
    let (operator, handle) = Operator::new(counted(&sandbox, counts.clone()), door, Settings::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(operator.run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(120)).await;
    let ready = handle.snapshots().iter().filter(|s| s.ready.as_ref().is_some_and(|r| r.status == "True")).count();
    assert_eq!(ready, OBJECTS);
    (*polls.lock().unwrap(), *counts.lock().unwrap()) = (0, BTreeMap::new());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!((19_000..=21_000).contains(&*polls.lock().unwrap()), "{} polls", polls.lock().unwrap());
    let asked = counts.lock().unwrap().clone();
    assert!(asked.keys().all(|kind| kind == "watch"), "{asked:?}");
    // Nine kinds are watched, and each watch lasts about 5 minutes.
    // Nine kinds are watched, and each watch lasts about 5 minutes.
    assert!(asked.get("watch").is_none_or(|watches| *watches <= 27), "{asked:?}");
    stop.cancel();
    running.await.unwrap().unwrap();
}
