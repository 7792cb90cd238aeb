//! A swap with KEDA in place, and back, as `docs/migrate-from-keda.md` tells it: helm upgrades KEDA's release to this
//! chart and rolls it back, on a real API server with its own HPA controller, while somebody looks at every change of the
//! workloads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, watcher};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_serving::rotation::material::{Names, renew};
use tidemark_testkit::{Audited, ControlPlane, Kubelet, Options};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;

use super::keda::{self, Keda, LEASE, Told, is_contained};
use super::left::{Left, held, nightly, orders, reports, workload};
use super::release::{
    ACCOUNTS, CHART, Helm, METRICS_SERVER, NAMESPACE, OPERATOR, Ports, Processes, Rest, SECRET, WEBHOOKS,
};
use super::sources;
use crate::scenario::SourceChange;
use crate::world::Source;

const PATIENCE: Duration = Duration::from_secs(60);
/// KEDA does not give its Lease back, so it lasts to its end; then one retry period. The rest is for slow machines.
const TAKEN_OVER: Duration = Duration::from_secs(17 + 5);
const TOKEN: &str = "let-me-in";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidemark_takes_over_from_keda_and_gives_back_and_no_workload_notices() {
    let Some(mut swap) = Swap::start().await else { return };
    swap.keda_scales().await;
    swap.a_dry_run_beside_keda_writes_nothing().await;
    swap.the_release_becomes_tidemarks().await;
    swap.tidemark_takes_over().await;
    swap.tidemark_scales().await;
    swap.what_keda_needs_is_there().await;
    swap.the_release_becomes_kedas_again().await;
    swap.keda_scales_again().await;
    swap.nothing_was_noticed();
    swap.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_and_objects_outlive_releases_that_keep_them() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let Some(helm) = Helm::find(&plane) else { return };
    let rest = Rest(plane.client().await.unwrap());
    let stop = CancellationToken::new();
    let kubelet = tokio::spawn(Kubelet::run(rest.0.clone(), stop.clone()));
    let settings = vec!["kedaNames=true".to_owned()];
    let chart = keda::write_chart(plane.directory(), helm.rendered(&settings), true);
    helm.run(&["install", "keda", chart.to_str().unwrap(), "--create-namespace"]);
    established(&rest).await;
    rest.create(DEPLOYMENTS, "test", &workload("Deployment", "orders", 1)).await;
    let object = orders(1);
    object.create(&rest).await;
    let (before, hpa) = (rest.get(&object.path()).await, rest.get(&object.hpa_path()).await);

    // Another release takes the objects that the first one has left, if it is told to.
    helm.run(&["uninstall", "keda", "--wait"]);
    assert_eq!(rest.get(&object.path()).await, before);
    // The Job of the last uninstall finishes at once here.
    let finishes = "--set-string=uninstallJob.annotations.testkit\\.tidemark\\.dev/finish-after-seconds=0";
    let install = ["install", "tidemark", CHART, "--set=kedaNames=true", finishes];
    let refused = helm.try_run(&install).unwrap_err();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    helm.run(&[&install[..], &["--take-ownership"]].concat());
    assert_eq!(rest.get(&object.path()).await["spec"], before["spec"]);

    // A release without them leaves those that are marked.
    helm.run(&["upgrade", "tidemark", CHART, "--reuse-values", "--set=crds.install=false"]);
    helm.run(&["uninstall", "tidemark", "--wait"]);
    assert_eq!(rest.get(&object.path()).await["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(rest.get(&object.hpa_path()).await["metadata"]["uid"], hpa["metadata"]["uid"]);
    stop.cancel();
    kubelet.await.unwrap().unwrap();
}

/// Waits until the definitions that a release has brought are served.
async fn established(rest: &Rest) {
    let began = Instant::now();
    while rest.try_get("/apis/keda.sh/v1alpha1/scaledobjects").await.is_err() {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(100)).await;
    }
}

/// What was seen of the objects, from the first moment to the last.
#[derive(Default)]
struct Seen {
    /// Wanted replicas of each workload, one after the other.
    replicas: BTreeMap<String, Vec<i64>>,
    /// All HPAs that were there under a name.
    hpas: BTreeMap<String, BTreeSet<String>>,
    /// ScaledObjects that were not ready, were being deleted, or without KEDA's finalizer or label.
    harmed: Vec<String>,
}

impl Seen {
    fn note(&mut self, object: &Value, deleted: bool) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        match object["kind"].as_str().unwrap() {
            "HorizontalPodAutoscaler" => {
                let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
                self.hpas.entry(name).or_default().insert(uid);
            }
            "ScaledObject" => {
                let ready = condition(object, "Ready");
                let meta = &object["metadata"];
                let whole = meta["finalizers"] == json!(["finalizer.keda.sh"])
                    && meta["labels"]["scaledobject.keda.sh/name"] == *name
                    && meta["deletionTimestamp"].is_null();
                if deleted || ready != "True" || !whole {
                    self.harmed.push(format!("{name}: deleted: {deleted}, ready: {ready}, {meta}"));
                }
            }
            _ => {
                let replicas = self.replicas.entry(name).or_default();
                let now = if deleted { -1 } else { object["spec"]["replicas"].as_i64().unwrap() };
                if replicas.last() != Some(&now) {
                    replicas.push(now);
                }
            }
        }
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

struct Swap {
    plane: ControlPlane,
    rest: Rest,
    helm: Helm,
    keda: Option<Keda>,
    kedas_ports: Ports,
    ports: Ports,
    processes: Processes,
    source: Arc<Source>,
    told: Arc<Told>,
    seen: Arc<Mutex<Seen>>,
    left: Vec<Left>,
    /// Objects and HPAs, when KEDA worked on them last.
    before: BTreeMap<String, Value>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Swap {
    /// KEDA is installed, and runs.
    async fn start() -> Option<Self> {
        let plane = ControlPlane::start_or_skip(Options { audit: true, ..Options::default() }).await?;
        let helm = Helm::find(&plane)?;
        let client = tidemark_operator::client::build(plane.config().await.unwrap()).unwrap();
        let rest = Rest(client.clone());
        let [link, api, hooks, kedas_link, kedas_api, kedas_hooks] = free_ports().unwrap();
        let ports = Ports { link, api, hooks };
        let kedas_ports = Ports { link: kedas_link, api: kedas_api, hooks: kedas_hooks };
        let chart = keda::write_chart(plane.directory(), helm.rendered(&kedas_ports.settings()), false);
        helm.run(&["install", "keda", chart.to_str().unwrap(), "--create-namespace"]);
        kedas_ports.lead(&rest).await;
        established(&rest).await;
        store_kedas_certificates(&rest).await;

        let mut this = Self {
            processes: Processes::new(client.clone()),
            plane,
            rest,
            helm,
            keda: None,
            kedas_ports,
            ports,
            source: Arc::default(),
            told: Arc::default(),
            seen: Arc::default(),
            left: Vec::new(),
            before: BTreeMap::new(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        let (kubelets, stop) = (client.clone(), this.stop.clone());
        this.spawn(async move { Kubelet::run(kubelets, stop).await.unwrap() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        this.spawn(sources::serve(listener, address, this.source.clone(), this.stop.clone()));
        this.source.change(SourceChange { token: Some(TOKEN.to_owned()), ..SourceChange::default() });
        this.start_keda("keda-operator-7d4b9c").await;
        this.create_objects(address.port()).await;
        this.watch();
        Some(this)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await.unwrap_or_default() });
    }

    async fn start_keda(&mut self, name: &'static str) {
        let client = self.rest.0.clone();
        self.keda = Some(Keda::start(client, name, self.kedas_ports.api, self.told.clone()).await);
    }

    async fn create_objects(&mut self, source: u16) {
        let rest = &self.rest;
        let secret = json!({"metadata": {"name": "source"}, "stringData": {"token": TOKEN}});
        rest.create("/api/v1/namespaces/default/secrets", "test", &secret).await;
        let authentications = "/apis/keda.sh/v1alpha1/namespaces/default/triggerauthentications";
        let authentication = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
            "metadata": {"name": "source", "finalizers": ["finalizer.keda.sh"]},
            "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "source", "key": "token"}]},
        });
        rest.create(authentications, "test", &authentication).await;
        let users = json!({"status": {"scaledobjects": "orders,reports,nightly"}});
        rest.merge(&format!("{authentications}/source/status"), keda::MANAGER, &users).await;
        self.left = vec![orders(source), reports(source), nightly(source), held(source)];
        for (left, replicas) in self.left.iter().zip([1, 3, 0, 2]) {
            let (kind, plural, name) = left.target();
            let workloads = format!("/apis/apps/v1/namespaces/default/{plural}");
            rest.create(&workloads, "kubectl-create", &workload(kind, name, replicas)).await;
            left.create(rest).await;
        }
    }

    fn watch(&mut self) {
        for (group, version, kind) in [
            ("apps", "v1", "Deployment"),
            ("apps", "v1", "StatefulSet"),
            ("keda.sh", "v1alpha1", "ScaledObject"),
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
        ] {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            let api = Api::<DynamicObject>::namespaced_with(self.rest.0.clone(), "default", &resource);
            let seen = self.seen.clone();
            self.spawn(async move {
                let mut events = Box::pin(watcher(api, watcher::Config::default()));
                while let Some(event) = events.next().await {
                    let (object, deleted) = match event {
                        Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => (object, false),
                        Ok(watcher::Event::Delete(object)) => (object, true),
                        // What ends is begun anew.
                        _ => continue,
                    };
                    let mut object = serde_json::to_value(object).unwrap();
                    object["kind"] = kind.into();
                    seen.lock().unwrap().note(&object, deleted);
                }
            });
        }
    }

    /// From now on these values are read, by whoever reads.
    fn set(&self, values: &[(&str, f64)]) {
        let all = values.iter().map(|(name, value)| ((*name).to_owned(), Some(*value))).collect();
        self.source.change(SourceChange { values: all, ..SourceChange::default() });
        let mut told = self.told.0.lock().unwrap();
        for (name, value) in values {
            told.insert(format!("s0-metric-api-values-{name}"), *value);
        }
        let sum = |names: [&str; 2]| {
            names.iter().filter_map(|name| told.get(&format!("s0-metric-api-values-{name}"))).sum::<f64>()
        };
        let sum = sum(["east", "west"]);
        told.insert("composite-metric".to_owned(), sum);
    }

    async fn until_replicas(&self, name: &str, replicas: i64, within: Duration) {
        let path = format!("{DEPLOYMENTS}/{name}");
        let what = format!("{name} has {replicas} replicas");
        self.processes
            .until(&what, within, async || {
                let found = self.rest.get(&path).await["spec"]["replicas"].clone();
                if found == replicas { Ok(()) } else { Err(found.to_string()) }
            })
            .await;
    }

    /// The HPA controller reads KEDA's metrics, and has raised what needs more.
    async fn keda_scales(&mut self) {
        self.set(&[("orders", 35.0), ("east", 12.0), ("west", 13.0), ("nightly", 0.0)]);
        self.until_replicas("orders", 4, PATIENCE).await;
        let lease = self.rest.get(LEASE).await;
        assert!(lease["spec"]["holderIdentity"].as_str().unwrap().starts_with("keda-operator-7d4b9c_"), "{lease}");
        // The last word of KEDA on what the HPA does.
        for left in self.left.iter().filter(|left| !left.hpa.is_empty()) {
            self.before.insert(left.hpa_path(), self.rest.get(&left.hpa_path()).await);
        }
        for left in &self.left {
            self.before.insert(left.path(), self.rest.get(&left.path()).await);
        }
    }

    /// First step: it shows what it would do. Its account may read, as the page says, and no more.
    async fn a_dry_run_beside_keda_writes_nothing(&mut self) {
        let kubeconfig = self.plane.service_account("default", "looks").await.unwrap();
        let grant = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        let watched = ["get", "list", "watch"];
        let workloads = ["deployments", "statefulsets", "deployments/scale", "statefulsets/scale"];
        let authentications = ["scaledobjects", "triggerauthentications", "clustertriggerauthentications"];
        let role = json!({"metadata": {"name": "looks"}, "rules": [
            grant("keda.sh", &authentications, &watched),
            grant("autoscaling", &["horizontalpodautoscalers"], &watched),
            grant("apps", &workloads, &watched),
            grant("", &["secrets", "configmaps"], &["get"]),
            grant("", &["pods"], &["list"]),
        ]});
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        self.rest.create(roles, "test", &role).await;
        let binding = json!({
            "metadata": {"name": "looks"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looks"},
            "subjects": [{"kind": "ServiceAccount", "name": "looks", "namespace": "default"}],
        });
        self.rest.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "test", &binding).await;
        let arguments = ["operator", "--dry-run", "--metrics-bind-address=0", "--health-probe-bind-address=0"];
        let mut arguments = arguments.map(str::to_owned).to_vec();
        arguments.extend(["--metrics-service-bind-address=0", "--reasons-bind-address=0"].map(str::to_owned));
        self.processes.spawn("looks", &arguments, &kubeconfig, BTreeMap::new());
        // One that would write is not to be had with these rights, nor beside KEDA.
        arguments.retain(|argument| argument != "--dry-run");
        self.processes.spawn("rash", &arguments, &kubeconfig, BTreeMap::new());
        assert_eq!(self.processes.ended("rash").await.code(), Some(1));
        let said = self.processes.log("rash");
        assert!(said.contains("KEDA's operator runs in this cluster (Deployment keda/keda-operator)"), "{said}");
        self.processes.says("looks", "all objects have been seen", PATIENCE).await;
        self.set(&[("nightly", 7.0)]);
        self.processes.says("looks", "would scale apps/v1.Deployment default/nightly from 0 to 1", PATIENCE).await;
        self.set(&[("nightly", 0.0)]);
        sleep(Duration::from_secs(5)).await;
        let log = self.processes.log("looks");
        for other in ["orders", "reports", "held"] {
            assert!(!log.contains(&format!("would scale apps/v1.Deployment default/{other}")), "{log}");
        }
        assert!(self.processes.stop("looks").await.success());
        let all = self.plane.audit().unwrap();
        let own = by(&all, "system:serviceaccount:default:looks");
        assert!(own.len() > 10 && own.iter().all(|entry| matches!(&*entry.verb, "get" | "list" | "watch")), "{own:#?}");
        assert!(own.iter().all(|entry| !entry.is_forbidden()), "{own:#?}");
    }

    /// Second step: helm upgrades KEDA's release. Its objects become this chart's, the definitions stay, and Tidemark waits
    /// for the Lease.
    async fn the_release_becomes_tidemarks(&mut self) {
        let settings = self.ports.settings();
        let mut upgrade = vec!["upgrade", "keda", CHART];
        settings.iter().for_each(|setting| upgrade.extend(["--set", setting]));
        self.helm.run(&upgrade);
        self.ports.lead(&self.rest).await;
        let only_kedas = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{}", keda::ONLY_KEDAS);
        assert!(self.rest.is_absent(&only_kedas).await);
        let objects = self.helm.rendered(&settings);
        for (deployment, _) in ACCOUNTS {
            self.processes.start(&self.plane, &objects, deployment, self.ports).await;
        }
        self.processes.says(OPERATOR, "standing by", PATIENCE).await;
        let all = self.plane.audit().unwrap();
        let written = by(&all, &account(OPERATOR)).into_iter().filter(|entry| entry.is_write()).collect::<Vec<_>>();
        assert!(written.is_empty(), "while KEDA leads: {written:#?}");
    }

    /// KEDA's pods end; its Lease lasts to its end, and is ours then.
    async fn tidemark_takes_over(&mut self) {
        self.keda.take().unwrap().end().await;
        self.processes
            .until("Tidemark holds the Lease", TAKEN_OVER, async || {
                let holder = self.rest.get(LEASE).await["spec"]["holderIdentity"].to_string();
                if holder.starts_with("\"keda-operator_") { Ok(()) } else { Err(holder) }
            })
            .await;
        self.processes.says(OPERATOR, "all objects have been seen", PATIENCE).await;
        self.plane.wait_for_external_metrics().await.unwrap();
        // Several polls, checks and periods of the HPA controller.
        sleep(Duration::from_secs(15)).await;
        for left in &self.left {
            self.is_kept(left, true).await;
        }
    }

    /// Tidemark moves what KEDA would: from one to many, and from zero.
    async fn tidemark_scales(&mut self) {
        self.set(&[("orders", 55.0), ("nightly", 7.0)]);
        self.until_replicas("orders", 6, PATIENCE).await;
        self.until_replicas("nightly", 1, PATIENCE).await;
        self.processes
            .until("admission judges", PATIENCE, async || {
                let mut second = orders(1).written;
                second["apiVersion"] = "keda.sh/v1alpha1".into();
                second["kind"] = "ScaledObject".into();
                second["metadata"]["name"] = "second".into();
                let path = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects?dryRun=All";
                match self.rest.request(http::Method::POST, path, "", "application/json", &second).await {
                    Err(kube::Error::Api(status)) if status.message.contains("is already managed by") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
    }

    /// What KEDA would look for when it comes back, after Tidemark has worked: it would create, rename or delete nothing.
    async fn what_keda_needs_is_there(&self) {
        for left in &self.left {
            self.is_kept(left, false).await;
        }
        let authentication = "/apis/keda.sh/v1alpha1/namespaces/default/triggerauthentications/source";
        let authentication = self.rest.get(authentication).await;
        assert_eq!(authentication["metadata"]["finalizers"], json!(["finalizer.keda.sh"]));
        let users: BTreeSet<_> = authentication["status"]["scaledobjects"].as_str().unwrap().split(',').collect();
        assert_eq!(users, BTreeSet::from(["orders", "reports", "nightly"]));
        self.certificates_are_kept().await;
        for definition in tidemark_api::crds() {
            let name = definition.metadata.name.unwrap();
            let found = self.rest.get(&format!("{DEFINITIONS}/{name}")).await;
            assert_eq!(found["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{name}");
        }
    }

    /// The certificates are KEDA's still, and everybody has been told of their CA.
    async fn certificates_are_kept(&self) {
        let secret = self.rest.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}")).await;
        let by_keda = |entry: &Value| entry["manager"] == keda::MANAGER;
        assert!(secret["metadata"]["managedFields"].as_array().unwrap().iter().all(by_keda), "{secret}");
        let bundle = &secret["data"]["ca.crt"];
        let registered = self.rest.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io");
        let decoded = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        assert_eq!(decoded(&registered.await["spec"]["caBundle"]).trim_ascii(), decoded(bundle).trim_ascii());
    }

    /// The object and its HPA are as KEDA left them; with `exactly` its status too, but for what HPAs say.
    async fn is_kept(&self, left: &Left, exactly: bool) {
        let (object, before) = (self.rest.get(&left.path()).await, &self.before[&left.path()]);
        for place in ["/metadata/uid", "/metadata/labels", "/metadata/annotations", "/metadata/generation", "/spec"] {
            assert_eq!(object.pointer(place), before.pointer(place), "{}: {place}", left.name);
        }
        let (status, old) = (&object["status"], &before["status"]);
        let facts = [
            "hpaName",
            "originalReplicaCount",
            "scaleTargetGVKR",
            "scaleTargetKind",
            "externalMetricNames",
            "compositeScalerName",
            "pausedReplicaCount",
            "triggersTypes",
            "authenticationsTypes",
        ];
        for fact in facts {
            assert_eq!(status[fact], old[fact], "{}: status.{fact}: {status}", left.name);
        }
        // KEDA puts all conditions back to Unknown where one of these is missing.
        for kind in ["Ready", "Active", "Fallback", "Paused"] {
            assert!(!condition(&object, kind).is_empty(), "{}: {status}", left.name);
            if exactly {
                assert_eq!(condition(&object, kind), condition(before, kind), "{}: {kind}: {status}", left.name);
            }
        }
        // A cooldown that runs may grow, and is never cut short.
        let active = |status: &Value| status["lastActiveTime"].as_str().map(str::to_owned);
        assert!(active(status) >= active(old), "{}: {status}", left.name);
        if left.hpa.is_empty() {
            assert!(self.rest.is_absent(&format!("{}keda-hpa-{}", left.hpa_path(), left.name)).await);
            return;
        }
        let (hpa, before) = (self.rest.get(&left.hpa_path()).await, &self.before[&left.hpa_path()]);
        assert_eq!(hpa["metadata"]["uid"], before["metadata"]["uid"], "{}", left.name);
        assert_eq!(hpa["spec"], before["spec"], "{}", left.name);
        let mut wanted = left.wanted_hpa(&object);
        // KEDA writes its own version there, as at each of its upgrades.
        wanted["metadata"]["labels"]["app.kubernetes.io/version"].take();
        assert!(is_contained(&wanted, &hpa), "{wanted}\n{hpa}");
        let number = |hpa: &Value| hpa["spec"]["metrics"].as_array().unwrap().len();
        assert_eq!(number(&hpa), number(&wanted));
    }

    /// The way back: helm rolls the release back, Tidemark's pods end and give the Lease to KEDA's.
    async fn the_release_becomes_kedas_again(&mut self) {
        self.helm.run(&["rollback", "keda", "1"]);
        self.kedas_ports.lead(&self.rest).await;
        established(&self.rest).await;
        self.start_keda("keda-operator-5c6f8d").await;
        sleep(Duration::from_secs(5)).await;
        for process in [OPERATOR, METRICS_SERVER, WEBHOOKS] {
            let status = self.processes.stop(process).await;
            assert!(status.success(), "{process}: {status}: {}", self.processes.log(process));
        }
        let given = Instant::now();
        self.processes
            .until("KEDA leads", PATIENCE, async || {
                let holder = self.rest.get(LEASE).await["spec"]["holderIdentity"].to_string();
                if holder.contains("keda-operator-5c6f8d_") { Ok(()) } else { Err(holder) }
            })
            .await;
        assert!(given.elapsed() < Duration::from_secs(5), "the Lease was not given back: {:?}", given.elapsed());
    }

    /// The HPAs that Tidemark kept work on with KEDA's metrics.
    async fn keda_scales_again(&mut self) {
        self.plane.wait_for_external_metrics().await.unwrap();
        self.set(&[("orders", 75.0)]);
        self.until_replicas("orders", 8, PATIENCE).await;
        for left in &self.left {
            self.is_kept(left, false).await;
        }
    }

    fn nothing_was_noticed(&self) {
        let seen = self.seen.lock().unwrap();
        let rises = |name: &str, last: i64| {
            let replicas = &seen.replicas[name];
            assert!(replicas.is_sorted() && replicas.last() == Some(&last), "{name}: {replicas:?}");
        };
        rises("orders", 8);
        rises("nightly", 1);
        assert_eq!((&seen.replicas["reports"], &seen.replicas["held"]), (&vec![3], &vec![2]));
        assert!(seen.hpas.len() == 3 && seen.hpas.values().all(|uids| uids.len() == 1), "{:?}", seen.hpas);
        assert!(seen.harmed.is_empty(), "{:#?}", seen.harmed);

        let all = self.plane.audit().unwrap();
        let deletes = |entry: &&Audited| entry.verb.starts_with("delete") && entry.is_write();
        let users = |entry: &&Audited| entry.namespace == "default" && entry.resource != "events";
        let deleted: Vec<_> = all.iter().filter(deletes).filter(users).collect();
        assert!(deleted.is_empty(), "neither Tidemark nor a controller deletes anything of the users': {deleted:#?}");
        for (deployment, _) in ACCOUNTS {
            let own = by(&all, &account(deployment));
            assert!(!own.is_empty());
            assert!(!own.iter().any(|entry| entry.verb.starts_with("delete") || entry.is_forbidden()), "{own:#?}");
            let log = self.processes.log(deployment);
            assert!(!log.contains("panicked"), "{log}");
        }
        // Each HPA is brought to this version's label, and then left alone.
        let mut updates = BTreeMap::<&str, u32>::new();
        for entry in by(&all, &account(OPERATOR)).into_iter().filter(|entry| entry.is_write()) {
            if entry.resource == "horizontalpodautoscalers" {
                assert_eq!(entry.verb, "update", "{entry:?}");
                *updates.entry(&entry.name).or_default() += 1;
            }
        }
        assert!(updates.len() == 3 && updates.values().all(|count| *count == 1), "{updates:?}");
    }

    async fn end(mut self) {
        self.keda.take().unwrap().end().await;
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

fn account(deployment: &str) -> String {
    let account = ACCOUNTS.into_iter().find(|(name, _)| *name == deployment).unwrap().1;
    format!("system:serviceaccount:{NAMESPACE}:{account}")
}

fn by<'a>(all: &'a [Audited], user: &str) -> Vec<&'a Audited> {
    all.iter().filter(|entry| entry.user == user).collect()
}

/// As KEDA stores them, for the Services' names that its chart gives.
async fn store_kedas_certificates(rest: &Rest) {
    let of = |service: &str| {
        let full = format!("{service}.{NAMESPACE}.svc");
        [service.to_owned(), format!("{service}.{NAMESPACE}"), full.clone(), format!("{full}.cluster.local")]
    };
    let dns = [OPERATOR, METRICS_SERVER, WEBHOOKS].into_iter().flat_map(of).collect();
    let names = Names { common: OPERATOR.to_owned(), dns };
    let made = renew(None, &names, Clock::system().now()).unwrap().unwrap();
    let secret = json!({
        "metadata": {"name": SECRET, "labels": {
            "app": "keda-operator", "app.kubernetes.io/name": "keda-operator",
            "app.kubernetes.io/component": "keda-operator", "app.kubernetes.io/part-of": "keda",
        }},
        "stringData": {
            "ca.crt": made.authority.certificate, "ca.key": made.authority.key,
            "tls.crt": made.pair.certificate, "tls.key": made.pair.key,
        },
    });
    rest.create(&format!("/api/v1/namespaces/{NAMESPACE}/secrets"), keda::MANAGER, &secret).await;
    let bundle = BASE64_STANDARD.encode(&made.authority.certificate);
    let registered = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io";
    rest.merge(registered, keda::MANAGER, &json!({"spec": {"caBundle": bundle}})).await;
}
