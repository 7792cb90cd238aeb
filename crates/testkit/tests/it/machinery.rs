//! Users, the record of requests, an etcd that hangs, usage of CPU, mounted Secrets.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tidemark_testkit::{ControlPlane, Kubelet, Options, SecretVolume};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::scenario::{create_deployment, eventually};

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

fn code<T: std::fmt::Debug>(outcome: Result<T, kube::Error>) -> u16 {
    match outcome {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn accounts_may_do_what_their_roles_say_and_the_record_tells_who_did_what() {
    let Some(plane) = ControlPlane::start_or_skip(Options { audit: true, ..Options::default() }).await else { return };
    let admin = plane.client().await.unwrap();
    let account = client(&plane.service_account("team", "worker").await.unwrap()).await;
    assert_eq!(account.default_namespace(), "team");
    let maps: Api<ConfigMap> = Api::default_namespaced(account.clone());
    assert_eq!(code(maps.list(&ListParams::default()).await), 403);

    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "create"]});
    let role = json!({"metadata": {"name": "maps"}, "rules": [rule]});
    let roles: Api<ClusterRole> = Api::all(admin.clone());
    roles.create(&PostParams::default(), &serde_json::from_value(role).unwrap()).await.unwrap();
    let group = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": {"name": "maps"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "maps"},
        "subjects": [{"kind": "ServiceAccount", "name": "worker", "namespace": "team"}],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(admin);
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    eventually("the role holds", async || code(maps.list(&ListParams::default()).await) == 200).await;
    let map = serde_json::from_value(json!({"metadata": {"name": "mine"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(code(maps.delete("mine", &DeleteParams::default()).await), 403);

    let mut tail = plane.follow_audit();
    assert!(tail.news().unwrap().len() > 3);
    let user = client(&plane.user("jane", &["readers"]).unwrap()).await;
    assert_eq!(code(Api::<Secret>::all(user).list(&ListParams::default()).await), 403);

    let news = tail.news().unwrap();
    assert!(news.iter().any(|entry| entry.user == "jane") && !news.iter().any(|entry| entry.name == "mine"));
    let audit = plane.audit().unwrap();
    let of = |user: &str| {
        let own = audit.iter().filter(|entry| entry.user == user && !entry.resource.is_empty());
        own.map(|entry| (&*entry.verb, &*entry.resource, &*entry.name, entry.status)).collect::<Vec<_>>()
    };
    let worker = of("system:serviceaccount:team:worker");
    assert_eq!(worker.first(), Some(&("list", "configmaps", "", 403)));
    assert_eq!(
        worker[worker.len() - 2..],
        [("create", "configmaps", "mine", 201), ("delete", "configmaps", "mine", 403)]
    );
    assert_eq!(of("jane"), [("list", "secrets", "", 403)]);
}

#[tokio::test]
async fn an_etcd_that_hangs_answers_no_write_and_loses_nothing() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.client().await.unwrap());
    let map = |name: &str| serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    maps.create(&PostParams::default(), &map("before")).await.unwrap();
    plane.pause_etcd().unwrap();
    let (post, during) = (PostParams::default(), map("during"));
    assert!(timeout(Duration::from_secs(2), maps.create(&post, &during)).await.is_err(), "etcd hangs");
    plane.continue_etcd().unwrap();
    eventually("writes work again", async || maps.create(&PostParams::default(), &map("after")).await.is_ok()).await;
    assert!(maps.get("before").await.is_ok());
}

#[tokio::test]
async fn an_hpa_scales_on_the_cpu_that_a_test_says_is_used() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let stop = CancellationToken::new();
    let kubelet = tokio::spawn(Kubelet::run(client.clone(), stop.clone()));
    let usage = plane.serve_resource_metrics().await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    create_deployment(&deployments, "worker", 1).await;
    let requests = json!([{"name": "main", "resources": {"requests": {"cpu": "100m"}}}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": requests}}}});
    deployments.patch("worker", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    usage.set_cpu("default", [("app", "worker")], 150);
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let hpa = json!({
        "metadata": {"name": "worker"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "worker"},
            "maxReplicas": 10,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    });
    let hpas: Api<HorizontalPodAutoscaler> = Api::default_namespaced(client);
    hpas.create(&PostParams::default(), &serde_json::from_value(hpa).unwrap()).await.unwrap();
    eventually("150m over 50m each make 3 replicas", async || {
        deployments.get("worker").await.unwrap().spec.replicas == Some(3)
    })
    .await;
    stop.cancel();
    kubelet.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_mounted_secret_changes_all_its_files_at_once() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let volume = SecretVolume::mount(client, "default", "pair", &plane.directory().join("volume")).unwrap();
    let read = |name: &str| std::fs::read_to_string(volume.folder().join(name)).ok();
    let secret = |a: &str| json!({"metadata": {"name": "pair"}, "stringData": {"a": a, "b": a}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret("1")).unwrap()).await.unwrap();
    eventually("the files are there", async || read("a").is_some() && read("b").is_some()).await;
    let link = std::fs::read_link(volume.folder().join("..data")).unwrap();
    secrets.patch("pair", &PatchParams::default(), &Patch::Merge(secret("2"))).await.unwrap();
    eventually("they have changed", async || read("a").as_deref() == Some("2")).await;
    assert_eq!(read("b").as_deref(), Some("2"));
    assert_ne!(std::fs::read_link(volume.folder().join("..data")).unwrap(), link);
    secrets.patch("pair", &PatchParams::default(), &Patch::Merge(json!({"data": {"b": null}}))).await.unwrap();
    eventually("a key that has gone is no file", async || read("b").is_none()).await;
}
