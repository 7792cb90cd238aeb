//! `tidemark release` on a real API server: what is left of an installation can be deleted when no operator is there, and
//! nothing is done while one is.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tidemark_api::FINALIZER;
use tidemark_cli::install::rbac::{Process, Scope, Setting, rules};
use tidemark_clock::Clock;
use tidemark_operator::leader::{Elector, LeaseSettings};
use tidemark_testkit::{ControlPlane, Options};

use crate::on_control_plane::install_crds;

const INSTALLATION: &str = "tidemark";
const OTHER: &str = "example.com/other";
const EVENTS_TO: &str = "http://events.example.com";

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |key: &str| object[key].as_str().unwrap();
    let (group, version) = text("apiVersion").split_once('/').unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn object(group: &str, kind: &str, namespace: Option<&str>, name: &str, spec: &Value) -> Value {
    let mut metadata = json!({"name": name, "finalizers": [FINALIZER]});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": format!("{group}/v1alpha1"), "kind": kind, "metadata": metadata, "spec": spec})
}

/// One object of each kind that KEDA and Tidemark put the finalizer on, in a namespace if its kind is in one.
fn one_of_each(namespace: &str) -> Vec<Value> {
    let trigger = json!({"type": "cron", "metadata": {
        "timezone": "UTC", "start": "0 6 * * *", "end": "0 20 * * *", "desiredReplicas": "1",
    }});
    let job = json!({"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}],
    }}});
    let login = json!({"secretTargetRef": [{"parameter": "password", "name": "login", "key": "password"}]});
    let events = json!({"destination": {"http": {"uri": EVENTS_TO}}});
    let (scaling, eventing, inside) = ("keda.sh", "eventing.keda.sh", Some(namespace));
    let scaled = json!({"scaleTargetRef": {"name": "web"}, "triggers": [trigger]});
    vec![
        object(scaling, "ScaledObject", inside, "web", &scaled),
        object(scaling, "ScaledJob", inside, "work", &json!({"jobTargetRef": job, "triggers": [trigger]})),
        object(scaling, "TriggerAuthentication", inside, "login", &login),
        object(scaling, "ClusterTriggerAuthentication", None, "login", &login),
        object(eventing, "CloudEventSource", inside, "events", &events),
        object(eventing, "ClusterCloudEventSource", None, "events", &events),
    ]
}

async fn create(client: &Client, object: &Value) {
    let made: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let created = api(client, object).create(&PostParams::default(), &made).await;
    assert!(created.is_ok(), "{object}: {:?}", created.unwrap_err());
}

async fn create_namespaces(client: &Client, names: &[&str]) {
    for name in names {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }
}

/// The object as it is; none when it is gone.
async fn present(client: &Client, object: &Value) -> Option<DynamicObject> {
    api(client, object).get_opt(object["metadata"]["name"].as_str().unwrap()).await.unwrap()
}

async fn finalizers(client: &Client, object: &Value) -> Vec<String> {
    present(client, object).await.unwrap().metadata.finalizers.unwrap_or_default()
}

/// Gives an account exactly the rights of the list.
async fn grant(client: &Client, account: &str) {
    let setting = Setting { certificates: "kedaorg-certs", webhook_configuration: "tidemark-admission" };
    let subjects = json!([{"kind": "ServiceAccount", "name": account, "namespace": INSTALLATION}]);
    for (scope, prefix) in [(Scope::Watched, "Cluster"), (Scope::Cluster, "Cluster"), (Scope::Installation, "")] {
        let name = format!("release-{scope:?}").to_lowercase();
        let (role, mut metadata) = (format!("{prefix}Role"), json!({"name": name}));
        if prefix.is_empty() {
            metadata["namespace"] = INSTALLATION.into();
        }
        let version = "rbac.authorization.k8s.io/v1";
        let rules = rules(Process::Release, scope, setting);
        create(client, &json!({"apiVersion": version, "kind": role, "metadata": metadata, "rules": rules})).await;
        let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name});
        let kind = format!("{prefix}RoleBinding");
        let binding =
            json!({"apiVersion": version, "kind": kind, "metadata": metadata, "roleRef": of, "subjects": subjects});
        create(client, &binding).await;
    }
}

/// Runs the command; it is given up on after a minute.
async fn release(kubeconfig: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::from(Command::new(env!("CARGO_BIN_EXE_tidemark")));
    command.arg("release").arg(format!("--kubeconfig={}", kubeconfig.display())).args(arguments);
    for variable in ["POD_NAMESPACE", "WATCH_NAMESPACE", "WATCH_LABEL_SELECTOR"] {
        command.env_remove(variable);
    }
    command.kill_on_drop(true);
    let Output { status, stdout, stderr } =
        tokio::time::timeout(Duration::from_secs(60), command.output()).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

async fn delete(client: &Client, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap();
    api(client, object).delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_release_every_object_can_be_deleted_though_no_operator_is_left() {
    let options = Options { audit: true, ..Options::default() };
    let Some(plane) = ControlPlane::start_or_skip(options).await else { return };
    let client = plane.client().await.unwrap();
    install_crds(&client).await;
    create_namespaces(&client, &["apps"]).await;
    let account = plane.service_account(INSTALLATION, "tidemark-release").await.unwrap();
    grant(&client, "tidemark-release").await;
    let mut objects = one_of_each("apps");
    // Somebody else's finalizer stays.
    let mut shared = objects[0].clone();
    shared["metadata"]["name"] = "shared".into();
    shared["metadata"]["finalizers"] = json!([OTHER, FINALIZER]);
    // More than a page of a list would make the test slow; more than are changed at once does not.
    for number in 0..40 {
        let mut another = objects[0].clone();
        another["metadata"]["name"] = format!("another-{number:02}").into();
        objects.push(another);
    }
    for object in objects.iter().chain([&shared]) {
        create(&client, object).await;
    }
    // One is stuck already.
    delete(&client, &objects[0]).await;
    assert!(present(&client, &objects[0]).await.unwrap().metadata.deletion_timestamp.is_some());

    let (code, told, complained) = release(&account, &["--dry-run"]).await;
    assert_eq!(code, Some(1), "{told}{complained}");
    assert!(told.contains("ScaledObject apps/web has the finalizer"), "{told}");
    assert!(told.contains("47 objects have the finalizer"), "{told}");
    assert_eq!(finalizers(&client, &objects[1]).await, [FINALIZER], "a dry run changes nothing");

    let (code, told, complained) = release(&account, &["--namespace", INSTALLATION]).await;
    assert_eq!(code, Some(0), "{told}{complained}");
    for line in [
        "ScaledObject apps/web is free: it was being deleted, and goes now",
        "ScaledJob apps/work is free: it can be deleted",
        "ClusterTriggerAuthentication login is free: it can be deleted",
        "47 objects freed, of which 1 were being deleted",
    ] {
        assert!(told.lines().any(|told| told == line), "{line:?} is not told:\n{told}");
    }
    assert!(present(&client, &objects[0]).await.is_none(), "the one that was stuck is gone");
    assert_eq!(finalizers(&client, &shared).await, [OTHER]);
    for object in &objects[1..] {
        assert!(finalizers(&client, object).await.is_empty());
        delete(&client, object).await;
        assert!(present(&client, object).await.is_none(), "{object}");
    }
    let lease = Api::<Lease>::namespaced(client.clone(), INSTALLATION).get("operator.keda.sh").await.unwrap();
    assert_eq!(lease.spec.unwrap().holder_identity.unwrap_or_default(), "", "the Lease is given back");

    let (code, told, _) = release(&account, &["--namespace", INSTALLATION]).await;
    assert_eq!((code, told.trim()), (Some(0), "no object has the finalizer"));

    let user = format!("system:serviceaccount:{INSTALLATION}:tidemark-release");
    let audit = plane.audit().unwrap();
    let own: Vec<_> = audit.iter().filter(|entry| entry.user == user).collect();
    assert!(own.iter().any(|entry| entry.is_write()));
    let forbidden: Vec<_> = own.iter().filter(|entry| entry.is_forbidden()).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_operator_leads_nothing_is_released_and_other_namespaces_never_are() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    install_crds(&client).await;
    create_namespaces(&client, &[INSTALLATION, "apps", "foreign"]).await;
    let (own, foreign) = (one_of_each("apps").remove(0), one_of_each("foreign").remove(0));
    create(&client, &own).await;
    create(&client, &foreign).await;
    let settings =
        LeaseSettings { namespace: INSTALLATION.to_owned(), identity: "an operator".to_owned(), ..Default::default() };
    let (mut elector, _fence) = Elector::new(client.clone(), settings, Clock::system());
    elector.acquire().await;
    let kept = tokio::spawn(async move {
        let lost = elector.keep();
        // Until the first release has been refused, and a little into the second.
        let _ = tokio::time::timeout(Duration::from_secs(8), lost).await;
        elector.release().await;
    });

    let arguments = ["--namespace", INSTALLATION, "--watch-namespaces=apps", "--wait=3"];
    let (code, told, complained) = release(plane.kubeconfig(), &arguments).await;
    assert_eq!(code, Some(3), "{told}{complained}");
    assert!(complained.contains("an operator still leads"), "{complained}");
    assert_eq!(finalizers(&client, &own).await, [FINALIZER]);

    // One that waits long enough goes on when the operator has gone.
    let arguments = ["--namespace", INSTALLATION, "--watch-namespaces=apps"];
    let (code, told, complained) = release(plane.kubeconfig(), &arguments).await;
    assert_eq!(code, Some(0), "{told}{complained}");
    assert!(finalizers(&client, &own).await.is_empty());
    assert_eq!(finalizers(&client, &foreign).await, [FINALIZER], "it is another installation's");
    kept.await.unwrap();

    // The installation's namespace is gone with all that was in it.
    let (code, told, complained) = release(plane.kubeconfig(), &["--namespace=gone"]).await;
    assert_eq!(code, Some(0), "{told}{complained}");
    assert!(told.contains("there is no namespace gone"), "{told}");
    assert!(finalizers(&client, &foreign).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_object_that_cannot_be_freed_holds_no_other_up_and_is_told() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    install_crds(&client).await;
    create_namespaces(&client, &["apps"]).await;
    let account = plane.service_account(INSTALLATION, "tidemark-release").await.unwrap();
    grant(&client, "tidemark-release").await;
    let objects = one_of_each("apps");
    for object in &objects {
        create(&client, object).await;
    }
    let role = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "ClusterRole"));
    let roles: Api<DynamicObject> = Api::all_with(client.clone(), &role);
    let setting = Setting { certificates: "kedaorg-certs", webhook_configuration: "tidemark-admission" };
    let mut less = rules(Process::Release, Scope::Cluster, setting);
    less[0]["verbs"] = json!(["get", "list"]);
    let patch = Patch::Merge(json!({"rules": less}));
    roles.patch("release-cluster", &PatchParams::default(), &patch).await.unwrap();

    let (code, told, complained) = release(&account, &["--namespace", INSTALLATION]).await;
    assert_eq!(code, Some(1), "{told}{complained}");
    assert!(told.contains("ClusterTriggerAuthentication login keeps its finalizer: "), "{told}");
    for object in &objects {
        let held = object["kind"] == "ClusterTriggerAuthentication";
        assert_eq!(finalizers(&client, object).await.is_empty(), !held, "{object}");
    }
    let (code, _, complained) = release(&account, &[]).await;
    assert_eq!(code, Some(1));
    assert!(complained.contains("give --namespace"), "{complained}");
}
