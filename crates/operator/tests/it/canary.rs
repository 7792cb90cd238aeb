//! A secret is planted in every place where one may be, for every trigger type that takes one, and every source answers
//! with all that it was told. It must show up nowhere: in no log line of any level, error, Event, status, snapshot or
//! answer of the metrics API. In real time, with real sockets.

mod echo;
mod planted;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tidemark_clock::Clock;
use tidemark_operator::{Handle, Operator, Settings};
use tidemark_sandbox::{Options, Sandbox};
use tidemark_serving::external_metrics::ExternalMetrics;
use tidemark_serving::front_proxy::Access;
use tidemark_trigger::{Door, DoorSettings};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::world::Metrics;
use planted::{Case, cases, knows, leaks, unplanted};

/// Time for every trigger to be built, read, refused, read anew and asked for by the HPA.
const TIME: Duration = Duration::from_secs(12);

/// Takes a log in.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn create(client: &Client, object: Value) {
    let mut object: DynamicObject = serde_json::from_value(object).unwrap();
    let types = object.types.clone().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
    let api: Api<DynamicObject> = match types.kind.as_str() {
        "ClusterTriggerAuthentication" => Api::all_with(client.clone(), &resource),
        _ => Api::default_namespaced_with(client.clone(), &resource),
    };
    object.metadata.namespace = None;
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// All objects of a kind but for what their owners have written: their status, and all of an Event or HPA.
async fn told_by_objects(client: &Client) -> String {
    let mut told = String::new();
    for (group, version, kind) in [
        ("keda.sh", "v1alpha1", "ScaledObject"),
        ("keda.sh", "v1alpha1", "TriggerAuthentication"),
        ("keda.sh", "v1alpha1", "ClusterTriggerAuthentication"),
        ("events.k8s.io", "v1", "Event"),
        ("autoscaling", "v2", "HorizontalPodAutoscaler"),
        ("apps", "v1", "Deployment"),
        ("", "v1", "Pod"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for object in api.list(&ListParams::default()).await.unwrap() {
            let whole = matches!(kind, "Event" | "HorizontalPodAutoscaler");
            let part = if whole { &object.data } else { &object.data["status"] };
            told += &format!("{kind} {:?} {part}\n", object.metadata.name);
        }
    }
    told
}

/// What the metrics API says of all metrics, through the API server and at the operator.
async fn told_by_metrics(client: &Client, handle: &Handle) -> String {
    let mut told = String::new();
    for snapshot in handle.snapshots() {
        for trigger in &snapshot.triggers {
            let (object, metric) = (&snapshot.key.name, &trigger.metric);
            told += &format!("{:?}\n", handle.metric("default", object, metric).await);
            let selector = format!("labelSelector=scaledobject.keda.sh%2Fname%3D{object}");
            let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/{metric}?{selector}");
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            told += &format!("{:?}\n", client.request_text(request).await);
        }
    }
    told
}

/// Writes the files that authentications name.
fn files(cases: &[Case]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tidemark-canary-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for case in cases {
        if let Some((name, text)) = case.file() {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
    folder
}

/// Everything that an operator tells of the cases, by who tells it.
async fn everything(cases: &[Case], root: PathBuf) -> Vec<(&'static str, String)> {
    let clock = Clock::system();
    let sandbox = Sandbox::new(clock, Options { hpa_sync_period: Duration::from_secs(2), ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = sandbox.client();
    for object in cases.iter().flat_map(Case::objects) {
        create(&client, object).await;
    }
    let timeout = Duration::from_secs(1);
    let door = Door::new(clock, DoorSettings { http_timeout: timeout, ..DoorSettings::default() });
    let settings = Settings {
        cluster_object_namespace: Some("default".to_owned()),
        filepath_auth_root: Some(root),
        fetch_timeout: Duration::from_secs(3),
        ..Settings::default()
    };
    let (operator, handle) = Operator::new(sandbox.client(), door, settings);
    sandbox.mount(
        "external.metrics.k8s.io",
        "v1beta1",
        ExternalMetrics::new(Arc::new(Metrics(handle.clone())), Access::Open),
    );
    let mut observations = handle.observe();
    let stop = CancellationToken::new();
    let (running, controllers) = (tokio::spawn(operator.run(stop.clone())), tokio::spawn(sandbox.run(stop.clone())));
    let mut observed = String::new();
    let end = tokio::time::Instant::now() + TIME;
    while let Ok(observation) = tokio::time::timeout_at(end, observations.recv()).await {
        observed += &format!("{:?}\n", observation.unwrap());
    }
    let told = vec![
        ("observations", observed),
        ("the metrics API", told_by_metrics(&client, &handle).await),
        ("snapshots", format!("{:?}", handle.snapshots())),
        ("objects", told_by_objects(&client).await),
    ];
    stop.cancel();
    running.await.unwrap().unwrap();
    controllers.await.unwrap();
    told
}

#[test]
fn a_planted_secret_shows_up_nowhere() {
    let log = Log::default();
    // One thread, so that this log is that of everything that happens here.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // What a user sees who asks for everything: the command never lets the AMQP library write, which would log frames.
    let everything_but_frames = tracing_subscriber::EnvFilter::new("trace,lapin=off");
    let subscriber = tracing_subscriber::fmt().with_env_filter(everything_but_frames).with_ansi(false);
    let guard = subscriber.with_writer(log.clone()).set_default();
    let (mut told, missed) = runtime.block_on(async {
        let servers = echo::start(knows).await;
        let cases = cases(&servers);
        assert_eq!(unplanted(&cases), Vec::<String>::new());
        let root = files(&cases);
        let told = everything(&cases, root.clone()).await;
        std::fs::remove_dir_all(root).unwrap();
        (told, servers.told.missed())
    });
    drop(guard);
    assert!(missed.is_empty(), "{missed:?} were never told the secret");
    told.push(("the log", String::from_utf8(log.0.lock().unwrap().clone()).unwrap()));
    let mut leaking = Vec::new();
    for (who, text) in &told {
        assert!(!text.is_empty(), "{who}");
        leaking.extend(leaks(text).into_iter().map(|leak| format!("{who}: {leak}")));
    }
    leaking.dedup();
    assert!(leaking.is_empty(), "{} leaks:\n{}", leaking.len(), leaking.join("\n"));
}
