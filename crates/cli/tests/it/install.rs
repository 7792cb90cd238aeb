//! The chart: what helm makes of it, whether a real API server takes that, and whether the rights in it are the list's,
//! enough, and no more than enough.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Parser;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_cli::args::Cli;
use tidemark_cli::manifests::{self, Contents};
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::{Instant, sleep};

#[path = "../../src/install/rbac.rs"]
mod rbac;

use rbac::{Named, Process, Scope, Setting, When};

const CHART: &str = "../../charts/tidemark";
const PATIENCE: Duration = Duration::from_secs(60);
/// The oldest and the newest Kubernetes that the chart is for.
const KUBERNETES: [&str; 2] = ["1.30.0", "1.37.0"];

/// Helm; none where the machine has none, which is said past the harness's capture.
fn helm() -> Option<PathBuf> {
    let found = xtask::helm::find().unwrap();
    if found.is_none() {
        let required = std::env::var("TIDEMARK_REQUIRE_HELM").is_ok_and(|value| value == "1");
        assert!(!required, "there is no helm");
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        // A closed standard error is no reason to fail.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: there is no helm; `cargo xtask test` provides it");
    }
    found
}

fn run(helm: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(helm).args(arguments).output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The objects of a release `tidemark` in the namespace `tidemark`.
fn rendered(helm: &Path, kubernetes: &str, settings: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["template", "tidemark", CHART, "--namespace=tidemark", "--kube-version", kubernetes];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    let text = run(helm, &arguments).unwrap_or_else(|error| panic!("{settings:?}: {error}"));
    let mut contents = Contents::default();
    manifests::parse(Path::new("chart.yaml"), &text, &mut contents);
    assert!(contents.errors.is_empty(), "{settings:?}: {:?}", contents.errors);
    contents.manifests.into_iter().map(|manifest| manifest.object).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// Compares a file of the chart with what it must hold; with `TIDEMARK_UPDATE=1` it is written.
fn check(file: &str, expected: &str) {
    let path = Path::new(CHART).join("files").join(file);
    if std::env::var("TIDEMARK_UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == expected, "{} is not current: run this test with TIDEMARK_UPDATE=1", path.display());
}

#[test]
fn the_chart_holds_the_present_list_of_rights_and_the_present_definitions() {
    check("rbac.yaml", &serde_saphyr::to_string(&rbac::data()).unwrap());
    for crd in tidemark_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        check(&format!("crds/{name}.yaml"), &serde_saphyr::to_string(&crd).unwrap());
    }
    let files = std::fs::read_dir(Path::new(CHART).join("files/crds")).unwrap().count();
    assert_eq!(files, tidemark_api::crds().len());
}

#[test]
fn helm_finds_nothing_wrong_with_the_chart() {
    let Some(helm) = helm() else { return };
    for kubernetes in KUBERNETES {
        run(&helm, &["lint", CHART, "--strict", "--kube-version", kubernetes]).unwrap();
    }
    let old = run(&helm, &["template", "tidemark", CHART, "--kube-version", "1.29.0"]).unwrap_err();
    assert!(old.contains("kubeVersion"), "{old}");
    let kedas =
        ["template", "tidemark", CHART, "--kube-version", "1.36.0", "--set", "image.keda.repository=kedacore/keda"];
    assert!(run(&helm, &kedas).unwrap_err().contains("image repository kedacore/keda is KEDA's"));
}

#[test]
fn the_roles_are_the_lists_under_either_names() {
    let Some(helm) = helm() else { return };
    for (settings, operator, configuration) in
        [(&[][..], "tidemark-operator", "tidemark-admission"), (&["kedaNames=true"], "keda-operator", "keda-admission")]
    {
        let objects = rendered(&helm, "1.36.0", settings);
        let setting = Setting { certificates: "kedaorg-certs", webhook_configuration: configuration };
        for (process, scope, kind, name) in [
            (Process::Operator, Scope::Watched, "ClusterRole", operator.to_owned()),
            (Process::Operator, Scope::Cluster, "ClusterRole", format!("{operator}-minimal-cluster-role")),
            (Process::Operator, Scope::Installation, "Role", format!("{operator}-certs")),
            (Process::Webhooks, Scope::Cluster, "ClusterRole", format!("{operator}-webhook")),
        ] {
            let rules = &named(&objects, kind, &name)["rules"];
            assert_eq!(*rules, Value::from(rbac::rules(process, scope, setting)), "{name}");
        }
        let roles = objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Role"));
        assert_eq!(roles.count(), 4, "there is no other role");
        for (binding, role) in [
            (format!("{operator}-system-auth-delegator"), rbac::METRICS_SERVER_CLUSTER_ROLE),
            (format!("{operator}-auth-reader"), rbac::METRICS_SERVER_ROLE),
        ] {
            let found = objects.iter().find(|object| object["metadata"]["name"] == *binding).unwrap();
            assert_eq!(found["roleRef"]["name"], role);
        }
        assert!(rbac::rules(Process::MetricsServer, Scope::Watched, setting).is_empty());
    }
}

#[test]
fn kedas_names_and_selectors_are_kedas_so_that_its_release_can_be_upgraded() {
    let Some(helm) = helm() else { return };
    let objects = rendered(&helm, "1.36.0", &["kedaNames=true"]);
    for (name, account) in [
        ("keda-operator", "keda-operator"),
        ("keda-operator-metrics-apiserver", "keda-metrics-server"),
        ("keda-admission-webhooks", "keda-webhook"),
    ] {
        let deployment = named(&objects, "Deployment", name);
        assert_eq!(deployment["spec"]["selector"]["matchLabels"], json!({"app": name}), "selectors cannot be changed");
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["app"], name);
        assert_eq!(deployment["spec"]["template"]["spec"]["serviceAccountName"], account);
        assert!(deployment["metadata"]["labels"]["tidemark.dev/component"].is_string(), "it is told from KEDA's");
        assert_eq!(named(&objects, "Service", name)["spec"]["selector"], json!({"app": name}));
    }
}

#[test]
fn the_processes_take_the_flags_that_the_chart_gives_them() {
    let Some(helm) = helm() else { return };
    for settings in [
        &[][..],
        &["kedaNames=true", "prometheus.operator.enabled=true", "opentelemetry.operator.enabled=true"],
        &["operator.leaderElectionID=other", "webhooks.port=9444", "logging.metricServer.level=4"],
        &["certificates.autoGenerated=false", "extraArgs.keda.ca-dir=/a", "logging.operator.format=json"],
    ] {
        let objects = rendered(&helm, "1.36.0", settings);
        let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
        let mut seen = 0;
        for deployment in deployments {
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let arguments = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
            let parsed = Cli::try_parse_from(std::iter::once("tidemark").chain(arguments));
            assert!(parsed.is_ok(), "{settings:?}: {}", parsed.unwrap_err());
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
            seen += 1;
        }
        assert_eq!(seen, 3);
    }
}

#[test]
fn where_secrets_are_restricted_no_rule_of_the_cluster_reaches_them() {
    let Some(helm) = helm() else { return };
    let objects = rendered(&helm, "1.36.0", &["permissions.operator.restrict.secret=true"]);
    for role in objects.iter().filter(|object| object["kind"] == "ClusterRole") {
        for rule in role["rules"].as_array().unwrap() {
            let holds = |key: &str, words: &[&str]| {
                rule[key].as_array().unwrap().iter().any(|word| words.contains(&word.as_str().unwrap()))
            };
            assert!(!(holds("apiGroups", &["", "*"]) && holds("resources", &["secrets", "*"])), "{rule}");
        }
    }
    let watched = rendered(&helm, "1.36.0", &["watchNamespace=a\\, b"]);
    let bindings = watched
        .iter()
        .filter(|object| object["kind"] == "RoleBinding" && object["roleRef"]["name"] == "tidemark-operator");
    let mut namespaces: Vec<_> = bindings.map(|binding| binding["metadata"]["namespace"].as_str().unwrap()).collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["a", "b", "tidemark"]);
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |key: &str| object[key].as_str().unwrap();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn install(client: &Client, objects: &[Value]) {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "tidemark"}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let mut params = PatchParams::apply("helm").force();
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap();
        let applied = api(client, object).patch(name, &params, &Patch::Apply(object)).await;
        assert!(applied.is_ok(), "{} {name}: {:?}", object["kind"], applied.unwrap_err());
    }
}

/// Whether the API server lets an account do something.
async fn may(client: &Client, account: &str, attributes: &Value) -> bool {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:tidemark", "system:authenticated"];
    let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {
        "user": format!("system:serviceaccount:tidemark:{account}"), "groups": groups,
        "resourceAttributes": attributes,
    }}))
    .unwrap();
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

async fn comes_to(client: &Client, account: &str, attributes: &Value, allowed: bool) {
    let start = Instant::now();
    while may(client, account, attributes).await != allowed {
        assert!(start.elapsed() < PATIENCE, "{account} {attributes}: allowed should be {allowed}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_the_objects_and_refuses_each_right_that_is_taken_away() {
    let Some(helm) = helm() else { return };
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    // Without what reaches everything, so that no right hides behind another.
    let settings = ["rbac.enabledCustomScaledRefKinds=false", "permissions.operator.restrict.secret=true"];
    let objects = rendered(&helm, "1.36.0", &settings);
    install(&client, &objects).await;
    let setting = Setting { certificates: "kedaorg-certs", webhook_configuration: "tidemark-admission" };
    for (process, account, scope, kind, role) in [
        (Process::Operator, "tidemark-operator", Scope::Watched, "ClusterRole", "tidemark-operator"),
        (
            Process::Operator,
            "tidemark-operator",
            Scope::Cluster,
            "ClusterRole",
            "tidemark-operator-minimal-cluster-role",
        ),
        (Process::Operator, "tidemark-operator", Scope::Installation, "Role", "tidemark-operator-certs"),
        (Process::Webhooks, "tidemark-webhooks", Scope::Cluster, "ClusterRole", "tidemark-operator-webhook"),
    ] {
        let role = named(&objects, kind, role);
        for grant in process.grants().iter().filter(|grant| grant.scope == scope) {
            if matches!(grant.when, When::AnyTarget | When::SecretsEverywhere) {
                continue;
            }
            let name = match grant.named {
                Named::All => Value::Null,
                _ => rbac::rule(grant, setting)["resourceNames"][0].clone(),
            };
            let of = role["rules"].as_array().unwrap();
            let index = of.iter().position(|rule| *rule == rbac::rule(grant, setting)).unwrap();
            for verb in grant.verbs {
                for resource in grant.resources {
                    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                    // In the installation's own namespace, its own Lease's right would allow it.
                    let namespace = if grant.named == Named::KedasLease { "keda" } else { "tidemark" };
                    let mut attributes = json!({
                        "verb": verb, "group": grant.group, "resource": resource, "subresource": subresource,
                        "namespace": namespace,
                    });
                    if !name.is_null() {
                        attributes["name"] = name.clone();
                    }
                    comes_to(&client, account, &attributes, true).await;
                    let mut less = of.clone();
                    less[index]["verbs"].as_array_mut().unwrap().retain(|present| present != verb);
                    if less[index]["verbs"].as_array().unwrap().is_empty() {
                        less.remove(index);
                    }
                    put(&client, role, &less).await;
                    comes_to(&client, account, &attributes, false).await;
                    put(&client, role, of).await;
                }
            }
        }
    }
}

async fn put(client: &Client, role: &Value, rules: &[Value]) {
    let name = role["metadata"]["name"].as_str().unwrap();
    let patch = Patch::Merge(json!({"rules": rules}));
    api(client, role).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Brings the operator's own arguments from the chart to this machine's ports and files.
fn operator(objects: &[Value], kubeconfig: &Path, log: &Path) -> std::process::Child {
    let container = &named(objects, "Deployment", "tidemark-operator")["spec"]["template"]["spec"]["containers"][0];
    let given = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    let given = given.filter(|argument| !argument.starts_with("--cert-dir"));
    let own =
        ["--health-probe-bind-address=0", "--metrics-bind-address=0", "--metrics-service-bind-address=127.0.0.1:0"];
    let log = std::fs::File::create(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(given).args(own).arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.env("POD_NAMESPACE", "tidemark").env("WATCH_NAMESPACE", "").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_does_its_work_with_the_charts_rights_and_is_forbidden_nothing() {
    let Some(helm) = helm() else { return };
    let options = Options { audit: true, ..Options::default() };
    let Some(plane) = ControlPlane::start_or_skip(options).await else { return };
    let client = plane.client().await.unwrap();
    // The webhooks do not run here.
    let objects = rendered(&helm, "1.36.0", &["webhooks.enabled=false"]);
    install(&client, &objects).await;
    let kubeconfig = plane.service_account("tidemark", "tidemark-operator").await.unwrap();
    let log = plane.directory().join("operator.log");
    let mut child = operator(&objects, &kubeconfig, &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();

    let labels = json!({"app": "web"});
    let pods = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}});
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pods},
    });
    let counted = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "default", "labels": {"app": "counted"}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    });
    let scaled = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"scaleTargetRef": {"name": "web"}, "pollingInterval": 1, "triggers": [{
            "type": "kubernetes-workload", "metadata": {"podSelector": "app=counted", "value": "1"},
        }]},
    });
    for object in [&web, &counted, &scaled] {
        let name = object["metadata"]["name"].as_str().unwrap();
        api(&client, object).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    }
    let start = Instant::now();
    while api(&client, &web).get("web").await.unwrap().data["spec"]["replicas"] == 0 {
        assert!(start.elapsed() < PATIENCE, "nothing is scaled: {}", said());
        sleep(Duration::from_millis(100)).await;
    }
    let scaled: Api<ScaledObject> = Api::namespaced(client.clone(), "default");
    scaled.delete("web", &DeleteParams::default()).await.unwrap();
    while scaled.get_opt("web").await.unwrap().is_some() {
        assert!(start.elapsed() < PATIENCE, "it keeps its finalizer: {}", said());
        sleep(Duration::from_millis(100)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let account = "system:serviceaccount:tidemark:tidemark-operator";
    let all = plane.audit().unwrap();
    let own: Vec<_> = all.iter().filter(|entry| entry.user == account).collect();
    assert!(own.iter().any(|entry| entry.subresource == "scale" && entry.is_write()), "{}", said());
    assert!(own.iter().any(|entry| entry.resource == "apiservices" && entry.is_write()), "{}", said());
    let forbidden: Vec<_> = own.iter().filter(|entry| entry.is_forbidden()).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}
