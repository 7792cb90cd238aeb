//! A swap with KEDA in place, and back, as `docs/migrate-from-keda.md` tells it: helm upgrades KEDA's release to this
//! chart and rolls it back, on a real API server with its own HPA controller. KEDA's processes are KEDA's own. Somebody
//! looks at every change of the workloads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, watcher};
use rustix::process::Signal;
use serde_json::{Value, json};
use tidemark_cli::manifests::{self, Contents};
use tidemark_testkit::{Audited, ControlPlane, Kubelet, Options};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;
use xtask::services::keda::VERSION;

use super::kedas_chart::{self, ONLY_KEDAS};
use super::left::{CONDITIONS, Left, condition, held, list, nightly, orders, reports, seasonal};
use super::release::{
    ACCOUNTS, CHART, Helm, METRICS_SERVER, NAMESPACE, OPERATOR, Ports, Processes, Rest, SECRET, WEBHOOKS, named,
};
use super::sources;
use crate::scenario::SourceChange;
use crate::with_keda::processes::{self, Keda, LEASE, Part, established};
use crate::world::Source;

const PATIENCE: Duration = Duration::from_secs(60);
/// KEDA does not give its Lease back, so it lasts to its end; then one retry period. The rest is for slow machines.
const TAKEN_OVER: Duration = Duration::from_secs(17 + 5);
const LOOK: Duration = Duration::from_millis(100);
const TOKEN: &str = "let-me-in";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const AUTHENTICATION: &str = "/apis/keda.sh/v1alpha1/namespaces/default/triggerauthentications/source";
const PAGE: &str = "../../docs/migrate-from-keda.md";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tidemark_takes_over_from_keda_and_gives_back_and_no_workload_notices() {
    let Some(mut swap) = Swap::start().await else { return };
    swap.keda_scales().await;
    swap.a_dry_run_beside_keda_writes_nothing().await;
    swap.the_release_becomes_tidemarks().await;
    swap.tidemark_takes_over().await;
    swap.tidemark_scales().await;
    swap.the_release_becomes_kedas_again().await;
    swap.keda_scales_again().await;
    swap.nothing_was_noticed();
    swap.end().await;
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
                // KEDA labels one that was made in a pause when the pause ends.
                let is_labelled = meta["labels"]["scaledobject.keda.sh/name"] == *name || name == "held";
                let whole = meta["finalizers"] == json!(["finalizer.keda.sh"])
                    && is_labelled
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

struct Swap {
    plane: ControlPlane,
    rest: Rest,
    helm: Helm,
    keda: Keda,
    kedas_ports: Ports,
    ports: Ports,
    processes: Processes,
    source: Arc<Source>,
    seen: Arc<Mutex<Seen>>,
    /// Objects that both work on.
    left: Vec<Left>,
    /// What is there by path, when KEDA worked on it last.
    before: BTreeMap<String, Value>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Swap {
    /// KEDA is installed, and runs, and has taken all objects on.
    async fn start() -> Option<Self> {
        let plane = ControlPlane::start_or_skip(Options { audit: true, ..Options::default() }).await?;
        let helm = Helm::find(&plane)?;
        let client = tidemark_operator::client::build(plane.config().await.unwrap()).unwrap();
        let rest = Rest(client.clone());
        let [link, api, hooks, kedas_link, kedas_api, kedas_hooks] = free_ports().unwrap();
        let ports = Ports { link, api, hooks };
        let kedas_ports = Ports { link: kedas_link, api: kedas_api, hooks: kedas_hooks };
        let keda = Keda::prepare(&plane, kedas_ports, kedas_chart::flags).await?;
        let chart = kedas_chart::write(plane.directory(), helm.rendered(&kedas_ports.settings()), false);
        helm.run(&["install", "keda", chart.to_str().unwrap(), "--create-namespace"]);
        kedas_ports.lead(&rest).await;
        established(&rest).await;

        let mut this = Self {
            processes: Processes::new(client.clone()),
            plane,
            rest,
            helm,
            keda,
            kedas_ports,
            ports,
            source: Arc::default(),
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
        this.set(&[("orders", 35.0), ("east", 12.0), ("west", 13.0), ("nightly", 0.0), ("held", 0.0)]);
        this.keda.make_certificates().await;
        Part::ALL.into_iter().for_each(|part| this.keda.run(part));
        for part in Part::ALL {
            this.keda.until_ready(part).await;
        }
        this.plane.wait_for_external_metrics().await.unwrap();
        this.create_objects(address.port()).await;
        this.watch();
        Some(this)
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await.unwrap_or_default() });
    }

    /// Users do, and KEDA makes of it what it makes.
    async fn create_objects(&mut self, source: u16) {
        let rest = &self.rest;
        let secret = json!({"metadata": {"name": "source"}, "stringData": {"token": TOKEN}});
        rest.create("/api/v1/namespaces/default/secrets", "test", &secret).await;
        let authentication = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication", "metadata": {"name": "source"},
            "spec": {"secretTargetRef": [{"parameter": "bearerToken", "name": "source", "key": "token"}]},
        });
        rest.create(list(AUTHENTICATION), "test", &authentication).await;
        rest.create("/api/v1/namespaces", "test", &json!({"metadata": {"name": "shop"}})).await;
        self.left = vec![orders(source), reports(source), nightly(source), held(source)];
        for (left, replicas) in self.left.iter().zip([1, 3, 0, 2]) {
            left.create(rest, replicas).await;
        }
        seasonal("gone", "shop", "keda-hpa-gone").create(rest, 2).await;
        for left in &self.left {
            self.keda.until(left.name, async || left.is_worked_on(rest).await).await;
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
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), Some(*value))).collect();
        self.source.change(SourceChange { values, ..SourceChange::default() });
    }

    /// Waits, and panics with the logs of both sides when it does not come.
    async fn until(&self, what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<(), String>) {
        let began = Instant::now();
        while let Err(last) = look().await {
            let logs = || format!("{}{}", self.processes.logs(), self.keda.logs());
            assert!(began.elapsed() < within, "not within {within:?}: {what}; last: {last}\n{}", logs());
            sleep(LOOK).await;
        }
    }

    async fn until_replicas(&self, workload: &str, replicas: i64) {
        let what = format!("{workload} has {replicas} replicas");
        self.until(&what, PATIENCE, async || {
            let found = self.rest.get(workload).await["spec"]["replicas"].clone();
            if found == replicas { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }

    async fn until_holder(&self, within: Duration, is_tidemark: bool) {
        let what = if is_tidemark { "Tidemark holds the Lease" } else { "KEDA holds the Lease" };
        self.until(what, within, async || {
            let holder = self.rest.get(LEASE).await["spec"]["holderIdentity"].clone();
            let name = holder.as_str().unwrap_or_default();
            // KEDA calls itself after the machine, and Tidemark after its pod.
            let is_it = name.starts_with("keda-operator_") == is_tidemark && !name.is_empty();
            if is_it { Ok(()) } else { Err(holder.to_string()) }
        })
        .await;
    }

    /// The webhooks refuse a second object for a workload.
    async fn until_admission_judges(&self) {
        self.until("admission judges", PATIENCE, async || {
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

    /// The HPA controller reads KEDA's metrics, and has raised what needs more.
    async fn keda_scales(&mut self) {
        self.until_replicas(&self.left[0].workload_path(), 4).await;
        self.until_replicas(&self.left[1].workload_path(), 3).await;
        self.until_replicas("/apis/apps/v1/namespaces/shop/deployments/gone", 0).await;
        self.until_holder(PATIENCE, false).await;
        self.until_admission_judges().await;
        // The last word of KEDA.
        let mut paths: Vec<String> = self.left.iter().map(Left::path).collect();
        paths.extend(self.left.iter().filter(|left| !left.hpa.is_empty()).map(Left::hpa_path));
        paths.extend([AUTHENTICATION.to_owned(), secret_path()]);
        paths.extend(definition_paths());
        for path in paths {
            let found = self.rest.get(&path).await;
            self.before.insert(path, found);
        }
    }

    /// First step: it shows what it would do. Its account may do what the page says, and no more.
    async fn a_dry_run_beside_keda_writes_nothing(&mut self) {
        let objects = look_of_the_page();
        for object in &objects {
            let path = match object["kind"].as_str().unwrap() {
                "ServiceAccount" => "/api/v1/namespaces/keda/serviceaccounts",
                "ClusterRole" => "/apis/rbac.authorization.k8s.io/v1/clusterroles",
                "ClusterRoleBinding" => "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                // Its process runs here.
                _ => continue,
            };
            self.rest.create(path, "test", object).await;
        }
        let container = &named(&objects, "Deployment", "tidemark-look")["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        let nowhere = ["--metrics-bind-address=0", "--health-probe-bind-address=0", "--metrics-service-bind-address=0"];
        let mut arguments: Vec<_> =
            arguments.chain(nowhere).chain(["--reasons-bind-address=0"]).map(str::to_owned).collect();
        let kubeconfig = self.plane.service_account(NAMESPACE, "tidemark-look").await.unwrap();
        self.processes.spawn("looks", &arguments, &kubeconfig, BTreeMap::new());
        // One that would write is not to be had with these rights, nor beside KEDA.
        arguments.retain(|argument| argument != "--dry-run");
        self.processes.spawn("rash", &arguments, &kubeconfig, BTreeMap::new());
        assert_eq!(self.processes.ended("rash").await.code(), Some(1));
        let said = self.processes.log("rash");
        assert!(said.contains("KEDA's operator runs in this cluster (Deployment keda/keda-operator)"), "{said}");
        self.processes.says("looks", "all objects have been seen", PATIENCE).await;
        // KEDA would be faster now and then, so it holds its breath, for less time than its Lease has.
        self.keda.signal(Part::Operator, Signal::STOP);
        self.set(&[("nightly", 7.0)]);
        self.processes.says("looks", "would scale apps/v1.Deployment default/nightly from 0 to 1", PATIENCE).await;
        self.set(&[("nightly", 0.0)]);
        self.keda.signal(Part::Operator, Signal::CONT);
        sleep(Duration::from_secs(5)).await;
        let log = self.processes.log("looks");
        let would: Vec<_> = log.lines().filter(|line| line.contains("would ")).collect();
        let of = |what: &str| would.iter().filter(|line| line.contains(what)).count();
        assert_eq!(of("would scale"), of("would scale apps/v1.Deployment default/nightly from 0 to 1"), "{would:#?}");
        // The version in their labels, as the page says.
        let hpas = ["keda-hpa-orders", "reports", "keda-hpa-nightly", "keda-hpa-gone"];
        assert_eq!(hpas.map(|hpa| of(&format!("would change HPA {hpa}"))), [1; 4], "{would:#?}");
        assert_eq!(would.len(), of("would scale") + hpas.len(), "{would:#?}");
        assert!(self.processes.stop("looks").await.success());
        let all = self.plane.audit().unwrap();
        let own = by(&all, "system:serviceaccount:keda:tidemark-look");
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
        let only_kedas = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{ONLY_KEDAS}");
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
        for part in Part::ALL {
            assert!(self.keda.stop(part).await.success());
        }
        self.until_holder(TAKEN_OVER, true).await;
        self.processes.says(OPERATOR, "all objects have been seen", PATIENCE).await;
        self.plane.wait_for_external_metrics().await.unwrap();
        // Several polls, checks and periods of the HPA controller.
        sleep(Duration::from_secs(15)).await;
        for left in &self.left {
            self.is_kept(left, true).await;
        }
        self.what_belongs_to_all_is_kept().await;
        for path in definition_paths() {
            let found = self.rest.get(&path).await;
            assert_eq!(found["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{path}");
        }
    }

    /// Tidemark moves what KEDA would: from one to many, and from zero. It also ends what KEDA has begun, and begins what
    /// KEDA will end.
    async fn tidemark_scales(&mut self) {
        self.set(&[("orders", 55.0), ("nightly", 7.0)]);
        self.until_replicas(&self.left[0].workload_path(), 6).await;
        self.until_replicas(&self.left[2].workload_path(), 1).await;
        self.until_admission_judges().await;
        self.is_put_back(&seasonal("gone", "shop", "keda-hpa-gone")).await;
        let later = seasonal("later", "shop", "keda-hpa-later");
        later.create(&self.rest, 2).await;
        self.until_replicas(&later.workload_path(), 0).await;
        self.until("Tidemark works", PATIENCE, async || later.is_worked_on(&self.rest).await).await;
        for left in &self.left {
            self.is_kept(left, false).await;
        }
        self.what_belongs_to_all_is_kept().await;
    }

    /// An object whose target is at zero is deleted; the target gets the replicas that it had before, and nothing is left.
    async fn is_put_back(&self, left: &Left) {
        self.rest.request(http::Method::DELETE, &left.path(), "", "application/json", &Value::Null).await.unwrap();
        self.until_replicas(&left.workload_path(), 2).await;
        self.until("object and HPA are gone", PATIENCE, async || {
            let gone = [self.rest.is_absent(&left.path()).await, self.rest.is_absent(&left.hpa_path()).await];
            if gone == [true; 2] { Ok(()) } else { Err(format!("{gone:?}")) }
        })
        .await;
        assert_eq!(self.rest.get(&left.workload_path()).await["spec"]["replicas"], 2);
    }

    /// The authentication's finalizer and users, and the certificates, are as KEDA left them; the API server trusts their
    /// CA.
    async fn what_belongs_to_all_is_kept(&self) {
        let (found, before) = (self.rest.get(AUTHENTICATION).await, &self.before[AUTHENTICATION]);
        assert_eq!(found["metadata"]["finalizers"], before["metadata"]["finalizers"]);
        let users = |object: &Value| -> BTreeSet<String> {
            object["status"]["scaledobjects"].as_str().unwrap().split(',').map(str::to_owned).collect()
        };
        assert_eq!(users(&found), users(before));
        let secret = self.rest.get(&secret_path()).await;
        assert_eq!(secret, self.before[&secret_path()]);
        let bundle = &secret["data"]["ca.crt"];
        let registered = self.rest.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io");
        let decoded = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        assert_eq!(decoded(&registered.await["spec"]["caBundle"]).trim_ascii(), decoded(bundle).trim_ascii());
    }

    /// The object and its HPA are as KEDA left them; with `exactly` its status too, but for what HPAs say.
    async fn is_kept(&self, left: &Left, exactly: bool) {
        let (object, before) = (self.rest.get(&left.path()).await, &self.before[&left.path()]);
        let labels = |object: &Value| {
            let mut labels = object["metadata"]["labels"].clone();
            // KEDA gives it to one that was made in a pause when the pause ends; Tidemark at once.
            if left.hpa.is_empty() && labels.is_object() {
                labels.as_object_mut().unwrap().remove("scaledobject.keda.sh/name");
            }
            if labels == json!({}) { Value::Null } else { labels }
        };
        assert_eq!(labels(&object), labels(before), "{}", left.name);
        for place in ["/metadata/uid", "/metadata/annotations", "/metadata/finalizers", "/metadata/generation", "/spec"]
        {
            assert_eq!(object.pointer(place), before.pointer(place), "{}: {place}", left.name);
        }
        let (status, old) = (&object["status"], &before["status"]);
        let facts = [
            "hpaName",
            "originalReplicaCount",
            "scaleTargetGVKR",
            "scaleTargetKind",
            "externalMetricNames",
            "resourceMetricNames",
            "compositeScalerName",
            "pausedReplicaCount",
            "triggersTypes",
            "authenticationsTypes",
        ];
        for fact in facts {
            // Of one that was made in a pause KEDA says little until the pause ends.
            let is_kept = status[fact] == old[fact] || (left.hpa.is_empty() && old[fact].is_null());
            assert!(is_kept, "{}: status.{fact}: {status}\n{old}", left.name);
        }
        for kind in CONDITIONS {
            assert!(!condition(&object, kind).is_empty(), "{}: {status}", left.name);
        }
        if exactly {
            for kind in CONDITIONS.into_iter().chain(["HPAActive"]) {
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
        let (mut hpa, mut before) = (self.rest.get(&left.hpa_path()).await, self.before[&left.hpa_path()].clone());
        for hpa in [&mut hpa, &mut before] {
            // Each writes its own version there, as at each upgrade of KEDA.
            hpa["metadata"]["labels"]["app.kubernetes.io/version"].take();
            hpa["metadata"]["managedFields"].take();
            hpa["metadata"]["resourceVersion"].take();
            hpa["status"].take();
        }
        assert_eq!(hpa, before, "{}", left.name);
    }

    /// The way back: helm rolls the release back, Tidemark's pods end and give the Lease to KEDA's.
    async fn the_release_becomes_kedas_again(&mut self) {
        self.helm.run(&["rollback", "keda", "1"]);
        self.kedas_ports.lead(&self.rest).await;
        established(&self.rest).await;
        for path in definition_paths() {
            assert_eq!(self.rest.get(&path).await["spec"], self.before[&path]["spec"], "{path}");
        }
        Part::ALL.into_iter().for_each(|part| self.keda.run(part));
        sleep(Duration::from_secs(5)).await;
        self.until_holder(Duration::ZERO, true).await;
        for process in [OPERATOR, METRICS_SERVER, WEBHOOKS] {
            let status = self.processes.stop(process).await;
            assert!(status.success(), "{process}: {status}: {}", self.processes.log(process));
        }
        // It looks every two to four seconds; a Lease that was not given back would last for 15.
        self.until_holder(Duration::from_secs(10), false).await;
        for part in Part::ALL {
            self.keda.until_ready(part).await;
        }
    }

    /// The HPAs that Tidemark kept work on with KEDA's metrics, and KEDA ends what Tidemark has begun.
    async fn keda_scales_again(&mut self) {
        self.plane.wait_for_external_metrics().await.unwrap();
        self.until_admission_judges().await;
        self.set(&[("orders", 75.0)]);
        self.until_replicas(&self.left[0].workload_path(), 8).await;
        for left in &self.left {
            self.is_kept(left, false).await;
            if !left.hpa.is_empty() {
                let hpa = self.rest.get(&left.hpa_path()).await;
                assert_eq!(hpa["metadata"]["labels"]["app.kubernetes.io/version"], VERSION, "{}", left.name);
            }
        }
        self.what_belongs_to_all_is_kept().await;
        self.is_put_back(&seasonal("later", "shop", "keda-hpa-later")).await;
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
        assert!(deleted.is_empty(), "nobody deletes anything of the users': {deleted:#?}");
        for (deployment, _) in ACCOUNTS {
            let own = by(&all, &account(deployment));
            assert!(!own.is_empty());
            assert!(!own.iter().any(|entry| entry.is_forbidden()), "{own:#?}");
            let log = self.processes.log(deployment);
            assert!(!log.contains("panicked"), "{log}");
        }
        // Each HPA is brought to one's own version's label, and then left alone; KEDA writes one with a behavior again and
        // again, since the API server adds to that.
        let operator = account(OPERATOR);
        let took_over = by(&all, &operator)[0].received;
        for (user, times) in [(&*operator, 1..=1), (processes::USER, 1..=u32::MAX)] {
            let mut updates = BTreeMap::<&str, u32>::new();
            for entry in by(&all, user).into_iter().filter(|entry| entry.is_write() && entry.received > took_over) {
                if entry.resource == "horizontalpodautoscalers" && entry.namespace == "default" {
                    assert_eq!(entry.verb, "update", "{entry:?}");
                    *updates.entry(&entry.name).or_default() += 1;
                }
            }
            assert!(updates.len() == 3 && updates.values().all(|count| times.contains(count)), "{user}: {updates:?}");
        }
    }

    async fn end(mut self) {
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

fn secret_path() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}")
}

fn definition_paths() -> impl Iterator<Item = String> {
    tidemark_api::crds().into_iter().map(|definition| format!("{DEFINITIONS}/{}", definition.metadata.name.unwrap()))
}

/// The objects that the page says to look with.
fn look_of_the_page() -> Vec<Value> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let text = page.split("```yaml\n").nth(1).and_then(|rest| rest.split_once("```")).unwrap().0;
    let mut contents = Contents::default();
    manifests::parse(Path::new(PAGE), text, &mut contents);
    assert!(contents.errors.is_empty(), "{:?}", contents.errors);
    contents.manifests.into_iter().map(|manifest| manifest.object).collect()
}
