//! Watches.

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::WatchParams;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};

use super::super::watches::{relabel, words};
use super::*;

pub async fn a_watch_goes_on_from_a_version_and_ends_in_time(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let first = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    api.create(&PostParams::default(), &config_map("b", "1")).await.unwrap();
    relabel(&api, "a", "2").await;
    api.delete("b", &DeleteParams::default()).await.unwrap();
    let params = WatchParams { timeout: Some(2), ..WatchParams::default() };
    let version = first.resource_version().unwrap();
    assert_eq!(words(&api, &params, &version).await, ["added b", "modified a", "deleted b"]);
    let mut told = words(&api, &params, "0").await;
    told.retain(|word| !word.starts_with("bookmark"));
    assert_eq!(told, ["added a"], "without a version it begins with the present state");
}

pub async fn a_selector_turns_changes_into_arrivals_and_departures(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    api.create(&PostParams::default(), &config_map("a", "in")).await.unwrap();
    let start = api.create(&PostParams::default(), &config_map("b", "out")).await.unwrap();
    for value in ["out", "in"] {
        relabel(&api, "a", value).await;
    }
    relabel(&api, "b", "gone").await;
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let params = WatchParams { timeout: Some(1), label_selector: Some("value=in".into()), ..WatchParams::default() };
    let told = words(&api, &params, &start.resource_version().unwrap()).await;
    assert_eq!(told, ["deleted a", "added a", "deleted a"]);
}

pub async fn a_streaming_list_says_when_it_is_complete(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let params = WatchParams { timeout: Some(1), ..WatchParams::streaming_lists() };
    assert_eq!(words(&api, &params, "0").await[..2], ["added a", "bookmark end"]);
}

pub async fn metadata_alone_can_be_watched(client: Client) {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &deployment("web")).await.unwrap();
    let partial: Api<PartialObjectMeta<Deployment>> = Api::default_namespaced(client.clone());
    let mut seen = std::pin::pin!(watcher(partial, watcher::Config::default()).applied_objects());
    assert_eq!(seen.next().await.unwrap().unwrap().metadata.generation, Some(1));
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    // Controllers may write the status in between.
    while seen.next().await.unwrap().unwrap().metadata.generation != Some(2) {}
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = get(&client, &path(&client, "apis/apps/v1", "deployments"), accept).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("spec").is_none());
}
