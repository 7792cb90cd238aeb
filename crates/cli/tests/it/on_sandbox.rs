//! Scenarios on the sandbox, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tidemark_cli::metrics;
use tidemark_clock::Clock;
use tidemark_sandbox::{Load, Options, Sandbox, Usage};
use tidemark_serving::front_proxy::Access;
use tokio_util::sync::CancellationToken;

use crate::scenario::{self, Places};
use crate::world::{Metrics, Source, Surroundings, World, door_to};

/// The HTTP source stands for every server, and the sandbox itself says what pods use.
struct Doubles {
    source: Arc<Source>,
    sandbox: Sandbox,
}

impl Surroundings for Doubles {
    fn queue<'a>(&'a self, name: &'a str, messages: u32) -> BoxFuture<'a, ()> {
        self.source.set_queue(name, messages);
        Box::pin(async {})
    }

    fn series(&self, value: u32) -> BoxFuture<'_, ()> {
        self.source.set_series(value);
        Box::pin(async {})
    }

    fn cpu(&self, namespace: &str, labels: &BTreeMap<String, String>, milli: u64) {
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let load = Load::Shared(Usage { cpu_milli: milli, memory: 0 });
        self.sandbox.set_load(namespace, labels, Some(load));
    }
}

async fn play(name: &str) {
    let (_, text) = scenario::ALL.iter().find(|(file, _)| *file == name).unwrap();
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let sandbox = Sandbox::new(clock, Options { hpa_sync_period: Duration::from_secs(1), ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let metrics = Arc::new(Metrics::default());
    metrics::mount(&sandbox, metrics.clone(), Access::Open);
    let shutdown = CancellationToken::new();
    let controllers = tokio::spawn({
        let (sandbox, shutdown) = (sandbox.clone(), shutdown.clone());
        async move { sandbox.run(shutdown).await }
    });

    let source = Arc::new(Source::default());
    let doubles = Box::new(Doubles { source: source.clone(), sandbox: sandbox.clone() });
    let door = door_to(source.clone(), clock);
    let mut world = World::new(sandbox.client(), door, source, doubles, metrics);
    let url = "http://source.test";
    let places = Places { source: url, rabbitmq: url, prometheus: url };
    scenario::run(scenario::parse(text, &places), &mut world).await;

    world.stop_operator().await;
    shutdown.cancel();
    controllers.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn first_light() {
    play("first-light").await;
}

#[tokio::test(start_paused = true)]
async fn a_workload_follows_a_queue_of_rabbitmq() {
    play("rabbitmq").await;
}

#[tokio::test(start_paused = true)]
async fn a_workload_follows_a_query_of_prometheus() {
    play("prometheus").await;
}

#[tokio::test(start_paused = true)]
async fn cpu_scales_beside_an_external_trigger_and_never_wakes() {
    play("cpu-beside-external").await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_object_is_left_alone_and_goes_on_afterwards() {
    play("pause").await;
}

#[tokio::test(start_paused = true)]
async fn fallback_replicas_hold_while_the_source_is_down() {
    play("fallback").await;
}

#[tokio::test(start_paused = true)]
async fn a_formula_makes_one_metric_of_several() {
    play("formula").await;
}

#[tokio::test(start_paused = true)]
async fn of_two_triggers_the_greater_need_counts() {
    play("two-triggers").await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_restores_its_workload() {
    play("deletion-restores").await;
}

#[tokio::test(start_paused = true)]
async fn a_workload_may_come_after_its_object_and_go_and_come_back() {
    play("target-later").await;
}

#[tokio::test(start_paused = true)]
async fn a_custom_resource_with_a_scale_subresource_is_scaled() {
    play("custom-resource").await;
}
