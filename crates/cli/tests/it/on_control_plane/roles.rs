//! Every process under exactly its role, on a real API server: it is forbidden nothing, it uses all that it may, and
//! with one verb less it meets a closed door. By the list that all roles come from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tidemark_cli::install::rbac::{self, Grant, Named, Process, Scope, Setting, When};
use tidemark_clock::Clock;
use tidemark_serving::rotation::material::{Material, Names, renew};
use tidemark_testkit::{Audited, ControlPlane, Kubelet, Options};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;

use super::release::{ACCOUNTS, CHART, Helm, NAMESPACE, OPERATOR, Ports, Processes, Rest, SECRET, WEBHOOKS};
use super::tour::{CUSTOM_GROUP, TOKEN, Tour, define_picker};
use super::{install_crds, sources};
use crate::scenario::SourceChange;
use crate::world::Source;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take until it needs a right that it lacks.
const MISSED_WITHIN: Duration = Duration::from_secs(100);
/// Processes that lack a right each, at a time.
const AT_A_TIME: usize = 12;
/// Read by somebody who may not.
const REASONS: &str = "/apis/reasons.tidemark.dev/v1alpha1/namespaces/shop/scaledobjects";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";
const WEBHOOK_CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";

/// One verb on one kind.
#[derive(Clone, Copy)]
struct Right {
    process: Process,
    /// Place of the grant in the list.
    index: usize,
    grant: &'static Grant,
    resource: &'static str,
    verb: &'static str,
}

impl Right {
    fn all(process: Process) -> impl Iterator<Item = Self> {
        process.grants().iter().enumerate().flat_map(move |(index, grant)| {
            grant.resources.iter().flat_map(move |resource| {
                grant.verbs.iter().map(move |verb| Self { process, index, grant, resource, verb })
            })
        })
    }

    /// It is used after a write that somebody else has made fail: that cannot be brought about at will.
    fn is_for_conflicts(self) -> bool {
        self.process == Process::Release && self.verb == "get" && self.resource != "leases"
    }

    /// Who uses it works on what there is once in a cluster, or on all that is in it.
    fn is_used_alone(self) -> bool {
        self.process == Process::Release || self.grant.named == Named::ApiService
    }

    /// It is asked for by the API server itself, when somebody else's object is to block a deletion: see
    /// [`Right::is_missed_by`].
    fn is_for_blocking(self) -> bool {
        self.resource == "scaledobjects/finalizers"
    }

    /// Whether a request needs it.
    fn is_for(self, entry: &Audited, installation: &str, setting: Setting<'_>) -> bool {
        let (plural, sub) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        let group = if self.grant.group == "*" { CUSTOM_GROUP } else { self.grant.group };
        let place = match self.grant.scope {
            Scope::Watched => entry.namespace != installation,
            Scope::Cluster => true,
            Scope::Installation => entry.namespace == installation,
        };
        let names = rbac::rule(self.grant, setting)["resourceNames"].take();
        let named = self.grant.named == Named::All
            || names.as_array().is_some_and(|names| names.iter().any(|name| *name == *entry.name));
        entry.verb == self.verb
            && entry.group == group
            && (plural == "*" || plural == entry.resource)
            && sub == entry.subresource
            && place
            && named
    }

    /// Whether a request was refused because this right is not there.
    fn is_missed_by(self, entry: &Audited, instance: &Instance) -> bool {
        if !entry.is_forbidden() || entry.user != instance.user() {
            return false;
        }
        if self.is_for_blocking() {
            return entry.resource == "horizontalpodautoscalers" && entry.verb == "create";
        }
        // Where this one watches namespaces, it also looks for KEDA in others.
        let elsewhere = self.grant.scope == Scope::Watched && entry.namespace != instance.tour.watched;
        !elsewhere && self.is_for(entry, &instance.tour.installation, instance.setting())
    }

    fn describe(self) -> String {
        format!("{:?}: {} {}/{} ({:?})", self.process, self.verb, self.grant.group, self.resource, self.grant.scope)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_is_forbidden_nothing_and_uses_all_that_its_role_allows() {
    let Some(plane) = ControlPlane::start_or_skip(audited()).await else { return };
    let Some(helm) = Helm::find(&plane) else { return };
    let stage = Stage::set(&plane).await;
    let [link, api, hooks, reasons] = free_ports().unwrap();
    let ports = Ports { link, api, hooks };
    let mut settings = ports.settings();
    settings.push("reasonsApi.operator.enabled=true".to_owned());
    settings.push(format!("reasonsApi.operator.port={reasons}"));
    // So that KEDA's own Lease is another one.
    settings.push("operator.leaderElectionID=tour".to_owned());
    let mut install = vec!["install", "keda", CHART, "--create-namespace"];
    settings.iter().for_each(|setting| install.extend(["--set", setting]));
    helm.run(&install);
    ports.lead(&stage.rest).await;
    define_picker(&stage.rest).await;
    let tour = Tour { strict: true, custom: true, ..stage.tour("shop", NAMESPACE, "keda-admission") };
    tour.prepare().await;

    let processes = Processes::new(stage.rest.0.clone());
    let objects = helm.rendered(&settings);
    for (deployment, _) in ACCOUNTS {
        processes.start(&plane, &objects, deployment, ports).await;
    }
    plane.wait_for_external_metrics().await.unwrap();
    let toured = tokio::spawn(async move {
        tour.operate().await;
        tour.admit().await;
    });
    assert!(toured.await.is_ok(), "see above; {}", processes.logs());
    for (port, path) in [(api, "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/none"), (reasons, REASONS)] {
        read_with_a_token(&plane, port, path).await;
    }
    for (deployment, _) in ACCOUNTS {
        let status = processes.stop(deployment).await;
        assert!(status.success(), "{deployment}: {status}: {}", processes.log(deployment));
    }

    // Watches are recorded when they have ended.
    sleep(Duration::from_secs(1)).await;
    let all = plane.audit().unwrap();
    let setting = Setting { certificates: SECRET, webhook_configuration: "keda-admission" };
    let user = |account: &str| format!("system:serviceaccount:{NAMESPACE}:{account}");
    for (process, account) in [
        (Process::Operator, user(ACCOUNTS[0].1)),
        (Process::MetricsServer, user(ACCOUNTS[1].1)),
        (Process::Webhooks, user(ACCOUNTS[2].1)),
    ] {
        let own: Vec<_> = all.iter().filter(|entry| entry.user == account).collect();
        let forbidden: Vec<_> = own.iter().filter(|entry| entry.is_forbidden()).collect();
        assert!(!own.is_empty() && forbidden.is_empty(), "{process:?}: {forbidden:#?}");
        let used = |right: &Right| own.iter().any(|entry| right.is_for(entry, NAMESPACE, setting));
        let unused = Right::all(process).filter(|right| !right.is_for_blocking() && !used(right));
        let unused: Vec<_> = unused.map(Right::describe).collect();
        assert!(unused.is_empty(), "granted, and needed by nothing that was done: {unused:#?}");
    }
    for resource in ["tokenreviews", "subjectaccessreviews"] {
        let asks = |entry: &&Audited| entry.user == user(ACCOUNTS[1].1) && entry.resource == resource;
        assert!(all.iter().any(|entry| asks(&entry)), "{resource}");
    }
    stage.clear().await;
}

/// Somebody who comes by himself, not through the API server, and may not read.
async fn read_with_a_token(plane: &ControlPlane, port: u16, path: &str) {
    let kubeconfig = plane.service_account("default", "reader").await.unwrap();
    let rest = Rest(direct(&kubeconfig, port).await);
    let began = Instant::now();
    loop {
        match rest.try_get(path).await {
            Err(kube::Error::Api(status)) if status.code == 403 => return,
            other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// A client of a server on this machine, with the token of a kubeconfig.
async fn direct(kubeconfig: &Path, port: u16) -> Client {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    document["clusters"][0]["cluster"] =
        json!({"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true});
    let kubeconfig: Kubeconfig = serde_json::from_value(document).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// For each verb on each kind of the list: a process that lacks it, and nothing else, is put to all of its work, until the
/// record of the API server shows that it was refused for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_verb_less_a_process_meets_a_closed_door() {
    let Some(plane) = ControlPlane::start_or_skip(audited()).await else { return };
    let stage = Stage::set(&plane).await;
    install_crds(&stage.rest.0).await;
    define_picker(&stage.rest).await;
    for version in ["v1beta1.external.metrics.k8s.io", "v1alpha1.reasons.tidemark.dev"] {
        let (version, group) = version.split_once('.').unwrap();
        let object = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "none", "namespace": "default"},
        }});
        stage.rest.create("/apis/apiregistration.k8s.io/v1/apiservices", "test", &object).await;
    }
    let material = stage.serve_webhooks().await;
    let rights = Process::ALL.into_iter().flat_map(Right::all).filter(|right| !right.is_for_conflicts());
    let (alone, together): (Vec<_>, Vec<_>) = rights.partition(|right| right.is_used_alone());
    let (mut missing, mut number) = (Vec::new(), 0);
    for rights in together.chunks(AT_A_TIME).chain(alone.chunks(1)) {
        let mut instances = JoinSet::new();
        for right in rights {
            number += 1;
            let instance = Instance::new(&stage, &plane, *right, number).await;
            let (material, forbidden) = (material.clone(), stage.forbidden.clone());
            instances.spawn(async move { instance.misses_it(&material, &forbidden).await });
        }
        while let Some(outcome) = instances.join_next().await {
            missing.extend(outcome.unwrap().err());
        }
    }
    println!("{number} rights were taken away, one at a time");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    the_metrics_server_needs_each_built_in_right(&stage, &plane, &material).await;
    stage.clear().await;
}

fn audited() -> Options {
    Options { audit: true, ..Options::default() }
}

/// What all instances share.
struct Stage {
    rest: Rest,
    source: u16,
    /// Refused requests so far.
    forbidden: Arc<Mutex<Vec<Audited>>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Stage {
    async fn set(plane: &ControlPlane) -> Self {
        let client = tidemark_operator::client::build(plane.config().await.unwrap()).unwrap();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (kubelets, ended) = (client.clone(), stop.clone());
        tasks.spawn(async move { Kubelet::run(kubelets, ended).await.unwrap() });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = Arc::new(Source::default());
        let values = BTreeMap::from([("one".to_owned(), Some(5.0))]);
        source.change(SourceChange { values, token: Some(TOKEN.to_owned()), ..SourceChange::default() });
        tasks.spawn(sources::serve(listener, address, source, stop.clone()));
        let forbidden = Arc::<Mutex<Vec<Audited>>>::default();
        let (mut record, found, ended) = (plane.follow_audit(), forbidden.clone(), stop.clone());
        tasks.spawn(async move {
            while !ended.is_cancelled() {
                let news = record.news().unwrap();
                found.lock().unwrap().extend(news.into_iter().filter(Audited::is_forbidden));
                sleep(Duration::from_millis(200)).await;
            }
        });
        Self { rest: Rest(client), source: address.port(), forbidden, stop, tasks }
    }

    fn tour(&self, watched: &str, installation: &str, webhooks: &str) -> Tour {
        Tour {
            rest: self.rest.clone(),
            watched: watched.to_owned(),
            installation: installation.to_owned(),
            webhooks: webhooks.to_owned(),
            source: self.source,
            custom: false,
            strict: false,
        }
    }

    /// The Service of all webhooks, which differ by their ports; gives their certificates.
    async fn serve_webhooks(&self) -> Material {
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        self.rest.create("/api/v1/namespaces", "test", &namespace).await;
        let service = json!({"metadata": {"name": WEBHOOKS}, "spec": {
            "type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}],
        }});
        self.rest.create(&format!("/api/v1/namespaces/{NAMESPACE}/services"), "test", &service).await;
        let dns = vec![format!("{WEBHOOKS}.{NAMESPACE}.svc"), format!("{OPERATOR}.{NAMESPACE}.svc")];
        renew(None, &Names { common: OPERATOR.to_owned(), dns }, Clock::system().now()).unwrap().unwrap()
    }

    async fn clear(mut self) {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

/// A process that lacks a right, in namespaces of its own.
struct Instance {
    right: Right,
    tour: Tour,
    kubeconfig: PathBuf,
    port: u16,
    /// Somebody else, who asks it.
    reader: PathBuf,
    processes: Processes,
}

impl Instance {
    async fn new(stage: &Stage, plane: &ControlPlane, right: Right, number: usize) -> Self {
        let watched = format!("lacking-{number:03}");
        let custom = right.grant.when == When::AnyTarget;
        let tour = Tour { custom, ..stage.tour(&watched, &format!("{watched}-system"), &watched) };
        let account = async |name| plane.service_account(&tour.installation, name).await.unwrap();
        let (kubeconfig, reader) = (account("process").await, account("reader").await);
        let [port] = free_ports().unwrap();
        Self { right, tour, kubeconfig, port, reader, processes: Processes::without_certificates() }
    }

    fn user(&self) -> String {
        format!("system:serviceaccount:{}:process", self.tour.installation)
    }

    fn setting(&self) -> Setting<'_> {
        Setting { certificates: SECRET, webhook_configuration: &self.tour.webhooks }
    }

    /// Whether the process runs into the right that it lacks; says what is wrong when it does not.
    async fn misses_it(mut self, material: &Material, forbidden: &Mutex<Vec<Audited>>) -> Result<(), String> {
        self.tour.prepare().await;
        self.grant().await;
        self.start(material).await;
        let missed = async {
            let began = Instant::now();
            while !forbidden.lock().unwrap().iter().any(|entry| self.right.is_missed_by(entry, &self)) {
                if began.elapsed() > MISSED_WITHIN {
                    return false;
                }
                sleep(Duration::from_millis(200)).await;
            }
            true
        };
        let working = async {
            loop {
                match self.right.process {
                    Process::Operator if self.serves_reasons() => self.ask_for_reasons().await,
                    Process::Operator => self.tour.operate().await,
                    Process::Webhooks => self.tour.admit().await,
                    _ => std::future::pending().await,
                }
                self.tour.prepare().await;
            }
        };
        let found = tokio::select! {
            biased;
            found = missed => found,
            () = working => false,
        };
        let log = || self.processes.log("process");
        match found {
            true if !log().contains("panicked") => Ok(()),
            true => Err(format!("{}: {}", self.right.describe(), log())),
            false => Err(format!("{} is not missed: {}", self.right.describe(), log())),
        }
    }

    /// It is put to serving the reasons.
    fn serves_reasons(&self) -> bool {
        self.right.grant.when == When::ReasonsPort
    }

    async fn ask_for_reasons(&self) {
        let _ = Rest(direct(&self.reader, self.port).await).try_get(REASONS).await;
        sleep(Duration::from_millis(500)).await;
    }

    /// Gives the account what the list says, but for the one right.
    async fn grant(&self) {
        if self.serves_reasons() {
            let object = json!({
                "metadata": {"name": self.tour.watched},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": rbac::METRICS_SERVER_ROLE},
                "subjects": [{"kind": "ServiceAccount", "name": "process", "namespace": self.tour.installation}],
            });
            self.tour.rest.create(&format!("{ROLES}/namespaces/kube-system/rolebindings"), "test", &object).await;
        }
        let (name, rest) = (&self.tour.watched, &self.tour.rest);
        for (scope, role, binding, namespace) in [
            (Scope::Watched, "ClusterRole", "RoleBinding", &self.tour.watched),
            (Scope::Cluster, "ClusterRole", "ClusterRoleBinding", &String::new()),
            (Scope::Installation, "Role", "RoleBinding", &self.tour.installation),
        ] {
            let name = format!("{name}-{scope:?}").to_lowercase();
            let path = |kind: &str| match kind.starts_with("Cluster") {
                true => format!("{ROLES}/{}s", kind.to_lowercase()),
                false => format!("{ROLES}/namespaces/{namespace}/{}s", kind.to_lowercase()),
            };
            let rules = self.rules(scope);
            rest.create(&path(role), "test", &json!({"metadata": {"name": name}, "rules": rules})).await;
            let object = json!({
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "process", "namespace": self.tour.installation}],
            });
            rest.create(&path(binding), "test", &object).await;
        }
    }

    fn rules(&self, scope: Scope) -> Vec<Value> {
        let mut rules = Vec::new();
        for (index, grant) in self.right.process.grants().iter().enumerate() {
            // What is granted for all kinds would hide that something else is not.
            let reads_scales = (self.right.resource, self.right.verb) == ("*/scale", "get");
            let hides = match grant.resources {
                // It holds for all parts of all kinds.
                ["*"] => !self.tour.custom || reads_scales,
                _ => grant.when == When::AnyTarget && !self.tour.custom,
            };
            if grant.scope != scope || hides {
                continue;
            }
            let rule = rbac::rule(grant, self.setting());
            if index != self.right.index {
                rules.push(rule);
                continue;
            }
            for resource in grant.resources {
                let lacks = |verb: &&&str| *resource == self.right.resource && **verb == self.right.verb;
                let verbs: Vec<_> = grant.verbs.iter().filter(|verb| !lacks(verb)).collect();
                let mut rule = rule.clone();
                (rule["resources"], rule["verbs"]) = (json!([resource]), json!(verbs));
                rules.extend((!verbs.is_empty()).then_some(rule));
            }
        }
        rules
    }

    async fn start(&mut self, material: &Material) {
        let tour = &self.tour;
        let variables = BTreeMap::from(
            [
                ("POD_NAMESPACE", &tour.installation),
                ("WATCH_NAMESPACE", &tour.watched),
                ("WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH", &format!("tour={}", tour.watched)),
                ("KEDA_CLUSTER_OBJECT_NAMESPACE", &tour.installation),
            ]
            .map(|(name, value)| (name.to_owned(), value.clone())),
        );
        let arguments = match self.right.process {
            Process::Operator => {
                self.register(material).await;
                vec![
                    "operator".to_owned(),
                    "--leader-elect".to_owned(),
                    "--leader-election-id=tour".to_owned(),
                    "--enable-cert-rotation=true".to_owned(),
                    format!("--enable-apiservice-patching={}", self.right.grant.named == Named::ApiService),
                    format!("--validating-webhook-name={}", tour.webhooks),
                    "--metrics-service-bind-address=127.0.0.1:0".to_owned(),
                    "--metrics-bind-address=0".to_owned(),
                    "--health-probe-bind-address=0".to_owned(),
                    match self.serves_reasons() {
                        true => format!("--reasons-bind-address=0.0.0.0:{}", self.port),
                        false => "--reasons-bind-address=0".to_owned(),
                    },
                ]
            }
            Process::Webhooks => {
                write_certificates(material, &self.processes.certificates());
                self.register(material).await;
                vec![
                    "webhooks".to_owned(),
                    format!("--port={}", self.port),
                    format!("--cert-dir={}", self.processes.certificates().display()),
                    "--metrics-bind-address=0".to_owned(),
                    "--health-probe-bind-address=0".to_owned(),
                ]
            }
            Process::Release => {
                tour.abandon().await;
                ["release", "--leader-election-id=tour"].map(str::to_owned).to_vec()
            }
            Process::MetricsServer => unreachable!("it has no grants of its own"),
        };
        self.processes.spawn("process", &arguments, &self.kubeconfig, variables);
    }

    /// A webhook for the ScaledObjects of the namespace; for the operator one that leads nowhere.
    async fn register(&self, material: &Material) {
        let mut client = json!({"service": {
            "name": WEBHOOKS, "namespace": NAMESPACE, "path": "/validate-keda-sh-v1alpha1-scaledobject",
            "port": self.port,
        }});
        if self.right.process == Process::Webhooks {
            client["caBundle"] = BASE64_STANDARD.encode(material.bundle()).into();
        }
        let object = json!({"metadata": {"name": self.tour.webhooks}, "webhooks": [{
            "name": "vscaledobject.kb.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Ignore", "timeoutSeconds": 5, "clientConfig": client,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.tour.watched}},
            "rules": [{
                "apiGroups": ["keda.sh"], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["scaledobjects"],
            }],
        }]});
        self.tour.rest.create(WEBHOOK_CONFIGURATIONS, "test", &object).await;
    }
}

fn write_certificates(material: &Material, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let (pair, bundle) = (&material.pair, material.bundle());
    for (name, text) in [("tls.crt", &pair.certificate), ("tls.key", &pair.key), ("ca.crt", &bundle)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

/// Of the rights that Kubernetes' own roles hold for it, one is not there.
async fn the_metrics_server_needs_each_built_in_right(stage: &Stage, plane: &ControlPlane, material: &Material) {
    let reader = plane.service_account("default", "reader").await.unwrap();
    for (number, lacks) in ["tokenreviews", "subjectaccessreviews", "configmaps"].into_iter().enumerate() {
        let namespace = format!("metrics-{number}");
        let kubeconfig = plane.service_account(&namespace, "process").await.unwrap();
        let subject = json!({"kind": "ServiceAccount", "name": "process", "namespace": namespace});
        let cluster_role = format!("{ROLES}/clusterroles/{}", rbac::METRICS_SERVER_CLUSTER_ROLE);
        let role = format!("{ROLES}/namespaces/kube-system/roles/{}", rbac::METRICS_SERVER_ROLE);
        for (path, kind) in [(cluster_role, "ClusterRole"), (role, "Role")] {
            let mut rules = stage.rest.get(&path).await["rules"].take();
            rules.as_array_mut().unwrap().retain(|rule| rule["resources"] != json!([lacks]));
            let list = path.rsplit_once('/').unwrap().0.to_owned();
            stage.rest.create(&list, "test", &json!({"metadata": {"name": namespace}, "rules": rules})).await;
            let binding = json!({
                "metadata": {"name": namespace}, "subjects": [subject],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": namespace},
            });
            let list = list.replace("roles", "rolebindings");
            stage.rest.create(&list, "test", &binding).await;
        }
        let [port] = free_ports().unwrap();
        let processes = Processes::without_certificates();
        let certs = processes.certificates();
        write_certificates(material, &certs);
        let arguments = [
            "metrics-server".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            "--port=0".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", certs.display()),
            "--metrics-service-address=127.0.0.1:1".to_owned(),
        ];
        processes.spawn("process", &arguments, &kubeconfig, BTreeMap::new());
        let user = format!("system:serviceaccount:{namespace}:process");
        let asking = async {
            let rest = Rest(direct(&reader, port).await);
            loop {
                let _ = rest.try_get("/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/none").await;
                sleep(Duration::from_millis(200)).await;
            }
        };
        let what = format!("{lacks} are missed");
        let missed = processes.until(&what, PATIENCE, async || {
            let forbidden = stage.forbidden.lock().unwrap();
            match forbidden.iter().any(|entry| entry.user == user && entry.resource == lacks) {
                true => Ok(()),
                false => Err(processes.log("process")),
            }
        });
        tokio::select! {
            biased;
            () = missed => {}
            () = asking => {}
        }
    }
}
