//! An installation comes and goes, with helm itself and a real control plane: the test is the kubelet of the operator and
//! of the Job that ends it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, FINISH_AFTER_ANNOTATION, Kubelet, Options};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{CHART, PATIENCE, api, helm, objects, operator};

const LOOK: Duration = Duration::from_millis(100);

/// What is installed: without what the API server would ask for, as the test runs neither metrics server nor webhooks.
const SETTINGS: [&str; 4] =
    ["--set=metricsServer.enabled=false", "--set=webhooks.enabled=false", "--namespace=tidemark", "--timeout=150s"];

fn helm_command(helm: &Path, plane: &ControlPlane, arguments: &[&str]) -> Command {
    let mut command = Command::new(helm);
    command.args(arguments).arg("--kubeconfig").arg(plane.kubeconfig());
    // Its own caches and configuration, wherever it would look for them.
    for (variable, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(variable, plane.directory().join("helm").join(folder));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn scaled() -> [Value; 3] {
    let pods =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "none"}]}});
    [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": pods},
        }),
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"scaleTargetRef": {"name": "web"}, "triggers": [{
                "type": "kubernetes-workload", "metadata": {"podSelector": "app=counted", "value": "1"},
            }]},
        }),
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "TriggerAuthentication",
            // As KEDA leaves it: this finalizer is KEDA's doing only.
            "metadata": {"name": "auth", "namespace": "default", "finalizers": ["finalizer.keda.sh"]},
            "spec": {"secretTargetRef": [{"parameter": "a", "name": "b", "key": "c"}]},
        }),
    ]
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE * 2, "{what} does not come");
        sleep(LOOK).await;
    }
}

async fn finalizers(client: &Client, object: &Value) -> Vec<String> {
    let name = object["metadata"]["name"].as_str().unwrap();
    api(client, object).get(name).await.unwrap().metadata.finalizers.unwrap_or_default()
}

/// Runs what the Job's pod would run, as its account.
async fn run_job(plane: &ControlPlane, job: &Job) -> (PathBuf, Child) {
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let kubeconfig = plane.service_account("tidemark", pod.service_account_name.as_deref().unwrap()).await.unwrap();
    let log = plane.directory().join("release.log");
    let file = std::fs::File::create(&log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(pod.containers[0].args.iter().flatten()).arg(format!("--kubeconfig={}", kubeconfig.display()));
    for variable in pod.containers[0].env.iter().flatten() {
        // The namespace is the only one that comes from the pod.
        let given = variable.value.as_deref().unwrap_or_default();
        command.env(&variable.name, if variable.value_from.is_some() { "tidemark" } else { given });
    }
    let child = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    (log, child)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uninstall_by_helm_leaves_nothing_stuck_and_nothing_behind_but_the_definitions() {
    let Some(helm) = helm() else { return };
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let stop = CancellationToken::new();
    let kubelet = tokio::spawn(Kubelet::run(client.clone(), stop.clone()));

    let arguments = [&["install", "tidemark", CHART, "--create-namespace"][..], &SETTINGS].concat();
    let installed = helm_command(&helm, &plane, &arguments).output().unwrap();
    let notes = String::from_utf8_lossy(&installed.stdout).into_owned();
    assert!(installed.status.success(), "{notes} {}", String::from_utf8_lossy(&installed.stderr));
    assert!(notes.contains("rollout status deployment/tidemark-operator"), "{notes}");
    let manifest =
        helm_command(&helm, &plane, &["get", "manifest", "tidemark", "--namespace=tidemark"]).output().unwrap();
    let manifest = objects(&String::from_utf8(manifest.stdout).unwrap());
    let kubeconfig = plane.service_account("tidemark", "tidemark-operator").await.unwrap();
    let log = plane.directory().join("operator.log");
    let mut running = operator(&manifest, &kubeconfig, &log);
    let objects = scaled();
    for object in &objects {
        let name = object["metadata"]["name"].as_str().unwrap();
        api(&client, object).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    }
    until("the operator's finalizer", async || (!finalizers(&client, &objects[1]).await.is_empty()).then_some(()))
        .await;

    let arguments = [&["uninstall", "tidemark"][..], &SETTINGS[2..]].concat();
    let uninstalling = helm_command(&helm, &plane, &arguments).spawn().unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "tidemark");
    until("the end of the Deployment", async || {
        deployments.get_opt("tidemark-operator").await.unwrap().is_none().then_some(())
    })
    .await;
    let jobs: Api<Job> = Api::namespaced(client.clone(), "tidemark");
    let job = until("the Job", async || jobs.get_opt("tidemark-operator-release").await.unwrap()).await;
    // The Job is faster than the kubelet that ends the operator: it waits for the Lease.
    let (said, mut release) = run_job(&plane, &job).await;
    kill_process(Pid::from_child(&running), Signal::TERM).unwrap();
    until("the operator's end", async || running.try_wait().unwrap()).await;
    let ended = until("the Job's end", async || release.try_wait().unwrap()).await;
    assert!(ended.success(), "{}", std::fs::read_to_string(&said).unwrap());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "tidemark");
    let selector = ListParams::default().labels("batch.kubernetes.io/job-name=tidemark-operator-release");
    let pod = until("the Job's pod", async || pods.list(&selector).await.unwrap().items.pop()).await;
    let finish = Patch::Merge(json!({"metadata": {"annotations": {FINISH_AFTER_ANNOTATION: "0"}}}));
    pods.patch(pod.metadata.name.as_deref().unwrap(), &PatchParams::default(), &finish).await.unwrap();
    let output = tokio::task::spawn_blocking(|| uninstalling.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    for object in &objects[1..] {
        assert_eq!(finalizers(&client, object).await, [""; 0], "{}", object["kind"]);
        let name = object["metadata"]["name"].as_str().unwrap();
        api(&client, object).delete(name, &DeleteParams::default()).await.unwrap();
        until("the end of an object", async || {
            api(&client, object).get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }
    assert_eq!(left(&client).await, [""; 0]);
    stop.cancel();
    kubelet.await.unwrap().unwrap();
}

/// What of the release is still there, but the definitions.
async fn left(client: &Client) -> Vec<String> {
    let mut left = Vec::new();
    for (group, version, kind) in [
        ("", "v1", "ServiceAccount"),
        ("", "v1", "Service"),
        ("apps", "v1", "Deployment"),
        ("batch", "v1", "Job"),
        ("rbac.authorization.k8s.io", "v1", "Role"),
        ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
        ("apiregistration.k8s.io", "v1", "APIService"),
        ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let found = api.list(&ListParams::default().labels("app.kubernetes.io/instance=tidemark")).await.unwrap();
        left.extend(found.items.iter().map(|object| format!("{kind} {}", object.metadata.name.as_deref().unwrap())));
    }
    left
}
