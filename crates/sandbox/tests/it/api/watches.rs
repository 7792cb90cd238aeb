//! Watches, as kube's client and runtime use them.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
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

pub async fn words(api: &Api<ConfigMap>, params: &WatchParams, version: &str) -> Vec<String> {
    let events: Vec<_> = api.watch(params, version).await.unwrap().try_collect().await.unwrap();
    events.iter().map(word).collect()
}

pub async fn relabel(api: &Api<ConfigMap>, name: &str, value: &str) {
    let patch = Patch::Merge(json!({"metadata": {"labels": {"value": value}}}));
    api.patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_gets_a_bookmark_each_minute() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    let params = WatchParams { timeout: Some(150), bookmarks: true, ..WatchParams::default() };
    assert_eq!(words(&api, &params, "1").await, ["bookmark", "bookmark"]);
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
    let mut seen = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
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
    let mut seen = std::pin::pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
    seen.next().await.unwrap().unwrap();
    for hour in 1..=24 {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        relabel(&api, "a", &hour.to_string()).await;
        let object = tokio::time::timeout(Duration::from_secs(5), seen.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(object.labels()["value"], hour.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_may_last_for_any_number_of_seconds() {
    let client = client();
    let path = "/api/v1/configmaps?watch=1&resourceVersion=1&timeoutSeconds=";
    for seconds in [u64::MAX, 0] {
        let request = Request::get(format!("{path}{seconds}")).body(Vec::new().into()).unwrap();
        let body = client.send(request).await.unwrap().into_body();
        let ended = tokio::time::timeout(Duration::from_secs(60), body.collect()).await;
        assert!(ended.is_err(), "{seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_a_busy_resource_ends_in_time() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    api.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let busy = async {
        for value in 0.. {
            relabel(&api, "a", &value.to_string()).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let params = WatchParams { timeout: Some(5), ..WatchParams::default() };
    tokio::select! {
        told = words(&api, &params, "1") => assert!(told.len() > 1000, "{}", told.len()),
        () = busy => {}
        () = tokio::time::sleep(Duration::from_secs(6)) => panic!("it goes on"),
    }
}
