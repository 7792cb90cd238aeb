//! Scenarios on the sandbox, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use tidemark_cli::metrics;
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};
use tidemark_serving::front_proxy::Access;
use tokio_util::sync::CancellationToken;

use crate::scenario;
use crate::world::{Metrics, Source, World, door_to};

#[tokio::test(start_paused = true)]
async fn first_light() {
    let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
    let sandbox = Sandbox::new(clock, Options { hpa_sync_period: Duration::from_secs(2), ..Options::default() });
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let metrics = Arc::new(Metrics::default());
    metrics::mount(&sandbox, metrics.clone(), Access::Open);
    let shutdown = CancellationToken::new();
    let controllers = tokio::spawn({
        let (sandbox, shutdown) = (sandbox.clone(), shutdown.clone());
        async move { sandbox.run(shutdown).await }
    });

    let source = Arc::new(Source::default());
    let mut world = World::new(sandbox.client(), door_to(source.clone(), clock), source, metrics);
    let scenario = scenario::parse(include_str!("scenarios/first-light.yaml"), "http://source.test");
    scenario::run(scenario, &mut world).await;

    world.stop_operator().await;
    shutdown.cancel();
    controllers.await.unwrap();
}
