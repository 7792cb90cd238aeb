//! `tidemark up` follows its files.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::desk::{Desk, Up};

#[tokio::test]
async fn files_that_change_are_applied_again_and_what_kubectl_changed_stays() {
    let desk = Desk::new();
    desk.write("m/web.yaml", &web("one"));
    desk.write("m/settings.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n");
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;
    up.until_replicas(30, "web", 1..=1).await;
    let deployments: Api<Deployment> = Api::default_namespaced(up.client.clone());
    let scale = serde_json::json!({"spec": {"replicas": 2}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&scale)).await.unwrap();

    desk.write("m/web.yaml", &web("two"));
    desk.until(20, "the label is changed", async || {
        let found = up.deployment("web").await?;
        let label = found.metadata.labels.unwrap_or_default().get("tier").cloned();
        if label.as_deref() == Some("two") { Ok(()) } else { Err(format!("{label:?}")) }
    })
    .await;
    up.until_replicas(10, "web", 2..=2).await;
    let stamped = |line: &str| line.ends_with("Z Deployment web changed, from m/web.yaml:1");
    assert!(up.log().lines().any(stamped), "{}", up.log());

    // A broken file says so, and takes nothing away.
    desk.write("m/web.yaml", "kind: [\n");
    desk.until(20, "the broken file is reported", async || match up.log() {
        log if log.contains("m/web.yaml:1:7: not valid YAML") => Ok(()),
        log => Err(log),
    })
    .await;
    std::fs::remove_file(desk.folder().join("m/settings.yaml")).unwrap();
    let settings: Api<ConfigMap> = Api::default_namespaced(up.client.clone());
    desk.until(20, "the object of a file that is gone is deleted", async || {
        match settings.get_opt("settings").await.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        }
    })
    .await;
    assert!(up.deployment("web").await.is_ok());

    desk.write("m/web.yaml", &web("three").replace("name: web", "name: shop"));
    up.until_replicas(20, "shop", 1..=1).await;
    desk.until(20, "the object that was renamed is gone under its old name", async || {
        if up.deployment("web").await.is_err() { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
    assert_eq!(up.log().matches("not valid YAML").count(), 1, "{}", up.log());
}

#[tokio::test]
async fn an_item_of_a_list_that_kubectl_changed_stays_beside_one_that_changed_in_the_file() {
    let desk = Desk::new();
    let texts =
        |a: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: login}}\nstringData: {{a: {a}, b: two}}\n");
    desk.write("m/web.yaml", &web("one"));
    desk.write("m/login.yaml", &texts("one"));
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;
    up.until_replicas(30, "web", 1..=1).await;
    let deployments: Api<Deployment> = Api::default_namespaced(up.client.clone());
    let image = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "web:2", "command": ["sleep", "600"]}, {"name": "sidecar", "image": "proxy"},
    ]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(&image)).await.unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(up.client.clone());
    let theirs = json!({"stringData": {"b": "theirs"}});
    secrets.patch("login", &PatchParams::default(), &Patch::Merge(&theirs)).await.unwrap();

    desk.write("m/web.yaml", &web("one").replace("name: main,", "name: main, workingDir: /tmp,"));
    desk.write("m/login.yaml", &texts("three"));
    desk.until(20, "the container has the folder of the file, and the image and neighbour of kubectl", async || {
        let found = up.deployment("web").await?;
        let pod = found.spec.template.spec.unwrap_or_default();
        let all: Vec<_> = pod
            .containers
            .iter()
            .map(|one| (one.name.as_str(), one.image.as_deref(), one.working_dir.as_deref()))
            .collect();
        let wanted = [("main", Some("web:2"), Some("/tmp")), ("sidecar", Some("proxy"), None)];
        if all == wanted { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    desk.until(20, "the Secret has the file's new text and kubectl's", async || {
        let data = secrets.get("login").await.map_err(|error| error.to_string())?.data.unwrap_or_default();
        let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        match (text("a").as_deref(), text("b").as_deref()) {
            (Some("three"), Some("theirs")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_there_before_the_file_outlives_it() {
    let desk = Desk::new();
    let definitions = String::from_utf8(desk.tidemark(&["crds"], &[]).await.stdout).unwrap();
    desk.write("m/crds.yaml", &definitions);
    desk.write("m/own.yaml", &namespace("own"));
    desk.write("m/keda.yaml", &namespace("keda"));
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;
    for file in ["m/crds.yaml", "m/own.yaml"] {
        std::fs::remove_file(desk.folder().join(file)).unwrap();
    }
    let namespaces: Api<Namespace> = Api::all(up.client.clone());
    desk.until(20, "the namespace of the file is gone", async || {
        match namespaces.get_opt("own").await.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        }
    })
    .await;
    let stays =
        "CustomResourceDefinition scaledobjects.keda.sh is in no file any more; it stays, for it was there before";
    desk.until(20, "the definitions stay", async || match up.log() {
        log if log.contains(stays) => Ok(()),
        log => Err(log),
    })
    .await;
    assert!(up.scaled_object("none").await.is_err_and(|error| error.contains("\"none\" not found")));
}

#[tokio::test]
async fn without_the_watch_files_are_applied_once() {
    let desk = Desk::new();
    desk.write("m/own.yaml", &namespace("own"));
    let up = Up::start(&desk, &["m", "--simulate-pods", "--no-watch"], &[]).await;
    let neighbour = Desk::new();
    let folder = desk.folder().join("m");
    let following = Up::start(&neighbour, &[folder.to_str().unwrap(), "--simulate-pods"], &[]).await;
    desk.write("m/other.yaml", &namespace("other"));
    let found = async |up: &Up<'_>, name: &str| Api::<Namespace>::all(up.client.clone()).get_opt(name).await.unwrap();
    neighbour
        .until(20, "the one that follows the files has seen the new one", async || {
            found(&following, "other").await.map(drop).ok_or("it is not there".to_owned())
        })
        .await;
    assert!(found(&up, "own").await.is_some());
    assert!(found(&up, "other").await.is_none());
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

/// A Deployment of one pod with a label.
fn web(tier: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{tier: {tier}}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: main, image: web, command: [sleep, '600']}}]}}
"
    )
}
