//! Scaling modifiers: one metric out of several triggers.

use serde_json::{Value, json};
use tidemark_api::ScaledObject;

use crate::world::{Says, World, queue};

const METRIC: &str = "composite-metric";

fn triggers(formula: &str) -> impl FnOnce(&mut Value) {
    let formula = formula.to_owned();
    move |object| {
        let named = |name: &str| {
            let mut trigger = queue(name);
            trigger["name"] = json!(name);
            trigger
        };
        object["spec"]["triggers"] = json!([named("a"), named("b")]);
        object["spec"]["advanced"] = json!({"scalingModifiers": {"formula": formula, "target": "5"}});
    }
}

#[tokio::test(start_paused = true)]
async fn a_formula_makes_the_only_external_metric() {
    let world = World::new().await;
    world.source.says("a", Says::Value(20.0));
    world.source.says("b", Says::Value(4.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            triggers("a - b")(o);
            let cpu = |container: Value| {
                let mut trigger = json!({"type": "cpu", "metricType": "Utilization", "metadata": {"value": "60"}});
                if !container.is_null() {
                    trigger["metadata"]["containerName"] = container;
                }
                trigger
            };
            let all = o["spec"]["triggers"].as_array_mut().unwrap();
            all.extend([cpu(Value::Null), cpu(json!("main"))]);
        })
        .await;
    world.pass(3).await;
    let hpa = world.hpa("keda-hpa-workers").await.unwrap();
    let metrics = serde_json::to_value(hpa.spec.metrics).unwrap();
    let types: Vec<_> = metrics.as_array().unwrap().iter().map(|metric| metric["type"].clone()).collect();
    assert_eq!(types, ["ContainerResource", "Resource", "External"]);
    assert_eq!(metrics[2]["external"]["metric"]["name"], METRIC);
    assert_eq!(metrics[2]["external"]["target"], json!({"type": "AverageValue", "averageValue": "5"}));
    let status = world.get("workers").await.status.unwrap();
    assert_eq!(status.composite_scaler_name.as_deref(), Some(METRIC));
    assert_eq!(status.external_metric_names.unwrap(), ["s0-metric-api-value", "s1-metric-api-value"]);
    let values = world.operator.handle.metric("default", "workers", METRIC).await.unwrap();
    assert_eq!((&*values[0].metric, values[0].value_milli), (METRIC, 16_000));
    let values = world.operator.handle.metric("default", "workers", "s0-metric-api-value").await.unwrap();
    assert_eq!((&*values[0].metric, values[0].value_milli), (METRIC, 16_000), "there is no other metric");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_composite_value_scales_from_zero_and_back() {
    let world = World::new().await;
    world.source.says("a", Says::Value(20.0));
    world.source.says("b", Says::Value(20.0));
    world.deployment("workers", 0).await;
    world.object("workers", triggers("a - b")).await;
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0, "each trigger is active, their difference is not");
    world.source.says("a", Says::Value(35.0));
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 3, "15 at 5 for each worker");
    world.source.says("a", Says::Value(1.0));
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 0, "a negative result counts as nothing");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_activation_target_must_be_passed() {
    let world = World::new().await;
    world.source.says("a", Says::Value(10.0));
    world.source.says("b", Says::Value(0.0));
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            triggers("a + b")(o);
            o["spec"]["advanced"]["scalingModifiers"]["activationTarget"] = json!("10");
        })
        .await;
    world.pass(30).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.source.says("a", Says::Value(10.5));
    world.pass(11).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_trigger_that_fails_leaves_the_workload_alone_until_the_fallback_stands_in() {
    let world = World::new().await;
    world.source.says("a", Says::Value(20.0));
    world.source.says("b", Says::Value(0.0));
    world.deployment("workers", 4).await;
    world
        .object("workers", |o| {
            triggers("a + b")(o);
            o["spec"]["fallback"] = json!({"failureThreshold": 3, "replicas": 7});
        })
        .await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 4);
    world.source.says("b", Says::Down);
    world.pass(5).await;
    let metric = || world.operator.handle.metric("default", "workers", METRIC);
    assert!(metric().await.is_err(), "one failure is tolerated, and has no value");
    assert!(world.has_event("workers", "KEDAMetricSourceFailed").await);
    world.pass(100).await;
    assert_eq!(metric().await.unwrap()[0].value_milli, 35_000);
    assert_eq!(world.replicas("workers").await, 7);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_formula_may_do_without_a_trigger_that_fails() {
    let world = World::new().await;
    world.source.says("a", Says::Value(20.0));
    world.source.says("b", Says::Value(10.0));
    world.deployment("workers", 1).await;
    world
        .object("workers", |o| {
            triggers("a ?? b")(o);
            let fallback = json!({"failureThreshold": 1, "replicas": 7, "behavior": "scalingModifiers"});
            o["spec"]["fallback"] = fallback;
        })
        .await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 4);
    world.source.says("a", Says::Down);
    world.pass(60).await;
    let value = world.operator.handle.metric("default", "workers", METRIC).await.unwrap();
    assert_eq!(value[0].value_milli, 10_000);
    world.source.says("b", Says::Value(0.0));
    world.pass(600).await;
    assert!(world.replicas("workers").await >= 1, "a dead source never means zero");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn modifiers_that_cannot_be_used_are_named_and_nothing_is_scaled() {
    for (edit, field) in [
        (json!({"formula": "a + ", "target": "5"}), "formula"),
        (json!({"formula": "a + nobody", "target": "5"}), "formula"),
        (json!({"formula": "a", "target": "0"}), "target"),
        (json!({"formula": "a", "target": "5", "activationTarget": "much"}), "activationTarget"),
        (json!({"target": "5"}), "formula"),
    ] {
        let world = World::new().await;
        world.source.says("a", Says::Value(20.0));
        world.source.says("b", Says::Value(20.0));
        world.deployment("workers", 0).await;
        world
            .object("workers", |o| {
                triggers("a")(o);
                o["spec"]["advanced"]["scalingModifiers"] = edit;
            })
            .await;
        world.pass(30).await;
        let ready = world.condition("workers", "Ready").await;
        let message = ready.message.unwrap();
        assert_eq!(ready.status, "False");
        assert!(message.contains(&format!("advanced.scalingModifiers.{field}: ")), "{message}");
        assert_eq!(world.replicas("workers").await, 0);
        world.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn modifiers_come_and_go_with_an_edit() {
    let world = World::new().await;
    world.source.says("a", Says::Value(20.0));
    world.source.says("b", Says::Value(5.0));
    world.deployment("workers", 1).await;
    world.object("workers", triggers("a + b")).await;
    world.pass(60).await;
    assert_eq!(world.replicas("workers").await, 5);
    let names = |world: &World| {
        let api = world.api::<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler>();
        async move {
            let metrics = api.get("keda-hpa-workers").await.unwrap().spec.metrics.unwrap();
            metrics.into_iter().map(|metric| metric.external.unwrap().metric.name).collect::<Vec<_>>()
        }
    };
    assert_eq!(names(&world).await, [METRIC]);
    world.patch::<ScaledObject>("workers", json!({"spec": {"advanced": null}})).await;
    world.pass(2).await;
    assert_eq!(names(&world).await, ["s0-metric-api-value", "s1-metric-api-value"]);
    assert!(world.get("workers").await.status.unwrap().composite_scaler_name.is_none());
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_formula_weighs_the_triggers_of_one_poll_together() {
    let world = World::new().await;
    let slow = |value| Says::Slow(std::time::Duration::from_secs(3), value);
    world.source.says("a", Says::Value(0.0));
    world.source.says("b", slow(0.0));
    world.deployment("workers", 0).await;
    world.object("workers", triggers("a - b")).await;
    world.pass(5).await;
    world.source.says("a", Says::Value(100.0));
    world.source.says("b", slow(100.0));
    world.pass(100).await;
    assert_eq!(world.replicas("workers").await, 0, "one of them is read first, and says nothing by itself");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_source_tells_unasked_needs_no_formula() {
    let world = World::new().await;
    world.teller.has(&[("jobs", 5000)]);
    world.deployment("workers", 0).await;
    world
        .object("workers", |o| {
            triggers("a * 1")(o);
            o["spec"]["triggers"] = json!([{"type": "teller", "name": "a", "metadata": {}}]);
            o["spec"]["advanced"]["scalingModifiers"]["activationTarget"] = json!("1000");
        })
        .await;
    world.pass(15).await;
    assert_eq!(world.replicas("workers").await, 0);
    world.teller.tells_activity();
    world.pass(1).await;
    assert_eq!(world.replicas("workers").await, 1);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_formula_that_fails_is_an_error_and_no_reason_to_scale_to_zero() {
    let world = World::new().await;
    world.source.says("a", Says::Value(3.0));
    world.source.says("b", Says::Value(1.0));
    world.deployment("workers", 2).await;
    world.object("workers", triggers("[5, 10, 20][int(b)] + a")).await;
    world.pass(30).await;
    assert_eq!(world.condition("workers", "Ready").await.status, "True");
    world.source.says("b", Says::Value(7.0));
    world.pass(600).await;
    assert!(world.replicas("workers").await >= 1);
    let ready = world.condition("workers", "Ready").await;
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("TriggerError")));
    assert!(world.operator.handle.metric("default", "workers", METRIC).await.is_err());
    world.end().await;
}
