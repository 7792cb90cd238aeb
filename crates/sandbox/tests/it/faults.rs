//! An API server that fails by a seed.

use std::time::Duration;

use futures::StreamExt;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tidemark_clock::Clock;
use tidemark_sandbox::{Fault, FaultLayer, FaultRule, Faults, Options, Sandbox};

use crate::lab::pass_seconds;

fn sandbox() -> Sandbox {
    Sandbox::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Options::default())
}

fn faulty(fault: Fault, share: f64) -> (Sandbox, FaultLayer, Api<ConfigMap>) {
    with(FaultRule::new(fault, share))
}

fn with(rule: FaultRule) -> (Sandbox, FaultLayer, Api<ConfigMap>) {
    let sandbox = sandbox();
    let layer = Faults::new(1).with(rule).layer();
    let api = Api::default_namespaced(sandbox.faulty_client(&layer));
    (sandbox, layer, api)
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "key": value } })).unwrap()
}

fn value(map: &ConfigMap) -> &str {
    &map.data.as_ref().unwrap()["key"]
}

fn patch(value: &str) -> Patch<serde_json::Value> {
    Patch::Merge(json!({ "data": { "key": value } }))
}

fn refused<T: std::fmt::Debug>(outcome: kube::Result<T>) -> Status {
    match outcome {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn honest(client: Client) -> Api<ConfigMap> {
    Api::default_namespaced(client)
}

#[tokio::test(start_paused = true)]
async fn a_conflict_strikes_updates_alone_and_changes_nothing() {
    let (sandbox, layer, api) = faulty(Fault::Conflict, 1.0);
    api.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let conflict = refused(api.patch("a", &PatchParams::default(), &patch("2")).await);
    assert_eq!((conflict.code, &*conflict.reason), (409, "Conflict"));
    assert_eq!(value(&honest(sandbox.client()).get("a").await.unwrap()), "1");
    assert_eq!(layer.log(), ["0.000 conflict PATCH /api/v1/namespaces/default/configmaps/a"]);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_request_is_told_when_to_come_again() {
    let retry_after = Duration::from_secs(7);
    let (sandbox, layer, _) = faulty(Fault::Throttled { retry_after }, 1.0);
    let service = tower::Layer::layer(&layer, sandbox.service());
    let request = http::Request::get("/api/v1/pods").body(kube::client::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"7".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_hides_a_write_that_was_done() {
    let (sandbox, _, api) = faulty(Fault::AnswerLost, 1.0);
    assert_eq!(refused(api.create(&PostParams::default(), &map("a", "1")).await).code, 504);
    assert_eq!(value(&honest(sandbox.client()).get("a").await.unwrap()), "1");
    assert_eq!(value(&api.get("a").await.unwrap()), "1", "reads are not concerned");
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_shows_an_earlier_state() {
    let (sandbox, _, api) = faulty(Fault::Stale, 1.0);
    let honest = honest(sandbox.client());
    assert_eq!(refused(api.get("a").await).code, 404);
    honest.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    assert_eq!(refused(api.get("a").await).code, 404, "it has not seen the object yet");
    let list = api.list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.clone().unwrap();
    honest.patch("a", &PatchParams::default(), &patch("2")).await.unwrap();
    let stale = api.list(&ListParams::default()).await.unwrap();
    assert_eq!((value(&stale.items[0]), stale.metadata.resource_version.unwrap()), ("1", version.clone()));
    let recent = ListParams::default().at(&version).matching(kube::api::VersionMatch::NotOlderThan);
    assert_eq!(value(&api.list(&recent).await.unwrap().items[0]), "2", "a promise about the version is kept");
}

#[tokio::test(start_paused = true)]
async fn a_rule_holds_for_its_time_its_method_and_its_part_of_the_path() {
    let minute = Duration::from_secs(60);
    let rule =
        FaultRule::new(Fault::Failed { status: 503 }, 1.0).between(minute, 2 * minute).of(Method::GET, "/configmaps");
    let (_sandbox, _, api) = with(rule);
    assert_eq!(refused(api.get("a").await).code, 404);
    pass_seconds(61).await;
    assert_eq!(refused(api.get("a").await).code, 503);
    api.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    pass_seconds(60).await;
    assert_eq!(value(&api.get("a").await.unwrap()), "1");
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_ends_and_a_delayed_one_keeps_the_order() {
    let longest = Duration::from_secs(30);
    let (sandbox, _, api) = faulty(Fault::WatchCut { longest }, 1.0);
    let start = tokio::time::Instant::now();
    let mut watch = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert!(watch.next().await.is_none());
    assert!(start.elapsed() < longest);
    drop(sandbox);

    let (sandbox, _, api) = faulty(Fault::WatchDelayed { longest }, 1.0);
    let honest = honest(sandbox.client());
    let watch = watcher(api, watcher::Config::default()).applied_objects();
    let mut watch = std::pin::pin!(watch);
    honest.create(&PostParams::default(), &map("a", "0")).await.unwrap();
    let writes = async {
        for number in 1..20 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            honest.patch("a", &PatchParams::default(), &patch(&number.to_string())).await.unwrap();
        }
        std::future::pending::<()>().await;
    };
    let start = tokio::time::Instant::now();
    let mut seen = Vec::new();
    let reads = async {
        while seen.last() != Some(&19) {
            seen.push(value(&watch.next().await.unwrap().unwrap()).parse::<u32>().unwrap());
        }
    };
    tokio::select! {
        () = writes => {}
        () = reads => {}
    }
    assert!(seen.is_sorted() && start.elapsed() > Duration::from_secs(40), "{seen:?} after {:?}", start.elapsed());
}

/// Waits a second after each error. The usual back-off of watches draws lots that no seed knows of.
struct EverySecond;

impl Iterator for EverySecond {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_secs(1))
    }
}

impl kube::runtime::utils::Backoff for EverySecond {
    fn reset(&mut self) {}
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_told_to_start_anew_sees_everything_again() {
    let minute = Duration::from_secs(60);
    let rule = FaultRule::new(Fault::WatchExpired, 1.0).between(Duration::ZERO, minute);
    let (sandbox, layer, api) = with(rule);
    honest(sandbox.client()).create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let mut watch = watcher(api, watcher::Config::default()).backoff(EverySecond).boxed();
    let until = tokio::time::Instant::now() + 2 * minute;
    let mut listings = 0;
    while let Ok(Some(event)) = tokio::time::timeout_at(until, watch.next()).await {
        listings += u32::from(matches!(event, Ok(watcher::Event::Init)));
    }
    assert!(listings > 2, "{listings}");
    assert!(layer.log().iter().all(|line| line.contains("watch expired GET /api/v1/namespaces/default/configmaps")));
}

/// What a client that does not give up meets and leaves behind in a bad time.
async fn a_bad_time(seed: u64) -> String {
    let sandbox = sandbox();
    let layer = Faults::bad_time(seed, Duration::from_secs(300)).layer();
    let client = sandbox.faulty_client(&layer);
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut told = Vec::new();
    // The usual back-off of watches draws lots that no seed knows of.
    let watch = watcher(api.clone(), watcher::Config::default()).applied_objects();
    let watch = async {
        let mut watch = std::pin::pin!(watch);
        while let Some(event) = watch.next().await {
            match event {
                Ok(map) => told.push(format!("{} {}", map.name_any(), value(&map))),
                Err(error) => {
                    told.push(error.to_string());
                    pass_seconds(1).await;
                }
            }
        }
    };
    let mut met = Vec::new();
    let writes = async {
        for round in 0..120 {
            let name = format!("map-{}", round % 7);
            let outcome = match round % 5 {
                0 => api.delete(&name, &DeleteParams::default()).await.map(|_| ()),
                1 | 2 => api.create(&PostParams::default(), &map(&name, &round.to_string())).await.map(drop),
                3 => api.get(&name).await.map(drop),
                _ => api.patch(&name, &PatchParams::default(), &patch(&round.to_string())).await.map(drop),
            };
            met.push(outcome.map_or_else(|error| error.to_string(), |()| "ok".to_owned()));
            pass_seconds(3).await;
        }
    };
    tokio::select! {
        biased;
        () = writes => {}
        () = watch => {}
    }
    let left = honest(sandbox.client()).list(&ListParams::default()).await.unwrap();
    let left = serde_json::to_string(&left.items).unwrap();
    format!("{}\n{}\n{}\n{left}", layer.log().join("\n"), met.join("\n"), told.join("\n"))
}

#[test]
fn two_runs_of_one_seed_are_equal_byte_for_byte() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(a_bad_time(seed))
    };
    let runs: Vec<_> = (0..20).map(run).collect();
    for (seed, first) in (0..).zip(&runs) {
        assert!(*first == run(seed), "seed {seed} has two outcomes");
    }
    for word in [
        "conflict",
        "throttled",
        "failed",
        "answer lost",
        "delayed",
        "stale",
        "watch cut",
        "watch delayed",
        "watch expired",
    ] {
        let strikes = |run: &&String| run.lines().any(|line| line.contains(&format!(" {word} ")));
        assert!(word == "watch delayed" || runs.iter().any(|run| strikes(&run)), "no {word}");
    }
    assert!(runs.windows(2).all(|pair| pair[0] != pair[1]), "seeds differ");
}
