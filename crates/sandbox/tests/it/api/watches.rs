//! Watches, as kube's client and runtime use them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};

use super::*;

fn word(event: &WatchEvent<ConfigMap>) -> String {
    match event {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        WatchEvent::Bookmark(bookmark) => {
            let end = bookmark.metadata.annotations.contains_key("k8s.io/initial-events-end");
            format!("bookmark{}", if end { " end" } else { "" })
        }
        WatchEvent::Error(status) => format!("error {} {}", status.code, status.reason),
    }
}

async fn words(api: &Api<ConfigMap>, params: &WatchParams, version: &str) -> Vec<String> {
    let events: Vec<_> = api.watch(params, version).await.unwrap().try_collect().await.unwrap();
    events.iter().map(word).collect()
}

async fn relabel(api: &Api<ConfigMap>, name: &str, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"value": value}}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_a_version_and_ends_in_time() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    let first = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    api.create(&PostParams::default(), &config_map("b", "1")).await.unwrap();
    relabel(&api, "a", "2").await;
    api.delete("b", &DeleteParams::default()).await.unwrap();
    let params = WatchParams { timeout: Some(10), ..WatchParams::default() };
    let version = first.resource_version().unwrap();
    assert_eq!(words(&api, &params, &version).await, ["added b", "modified a", "deleted b"]);
    assert_eq!(words(&api, &params, "0").await, ["added a"], "without a version it begins with the present state");
}

#[tokio::test(start_paused = true)]
async fn a_selector_turns_changes_into_arrivals_and_departures() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
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

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_gets_a_bookmark_each_minute() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    let params = WatchParams { timeout: Some(150), bookmarks: true, ..WatchParams::default() };
    assert_eq!(words(&api, &params, "1").await, ["bookmark", "bookmark"]);
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_says_when_it_is_complete() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let params = WatchParams { timeout: Some(1), ..WatchParams::streaming_lists() };
    assert_eq!(words(&api, &params, "0").await, ["added a", "bookmark end"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_older_than_the_history_is_gone() {
    let sandbox = sandbox(Options { history: 3, ..Options::default() });
    let api: Api<ConfigMap> = Api::default_namespaced(sandbox.client());
    let first = api.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    for value in ["1", "2", "3", "4"] {
        relabel(&api, "a", value).await;
    }
    let params = WatchParams::default();
    assert_eq!(words(&api, &params, &first.resource_version().unwrap()).await, ["error 410 Expired"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lives_through_a_gap_and_never_misses_the_last_state() {
    let sandbox = sandbox(Options { history: 3, ..Options::default() });
    let api: Api<ConfigMap> = Api::default_namespaced(sandbox.client());
    api.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let mut seen = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
    assert_eq!(seen.next().await.unwrap().unwrap().labels()["value"], "0");
    for value in 1..=50 {
        relabel(&api, "a", &value.to_string()).await;
    }
    let last = async {
        loop {
            let object = seen.next().await.unwrap();
            if object.is_ok_and(|object| object.labels()["value"] == "50") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), last).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watcher_runs_for_a_virtual_day() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    api.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let mut seen = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects());
    seen.next().await.unwrap().unwrap();
    for hour in 1..=24 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        relabel(&api, "a", &hour.to_string()).await;
        let object = tokio::time::timeout(Duration::from_secs(5), seen.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(object.labels()["value"], hour.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_alone_can_be_watched() {
    let client = client();
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &deployment("web")).await.unwrap();
    let partial: Api<PartialObjectMeta<Deployment>> = Api::default_namespaced(client.clone());
    let mut seen = std::pin::pin!(watcher(partial, watcher::Config::default()).applied_objects());
    assert_eq!(seen.next().await.unwrap().unwrap().metadata.generation, Some(1));
    let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
    api.patch("web", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(seen.next().await.unwrap().unwrap().metadata.generation, Some(2));
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = get(&client, "/apis/apps/v1/deployments", accept).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert!(list["items"][0].get("spec").is_none());
}
