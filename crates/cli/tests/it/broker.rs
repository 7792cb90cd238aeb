//! The RabbitMQ example against a real broker, and what goes wrong with one.
//!
//! The broker is named by `TIDEMARK_TEST_RABBITMQ_AMQP`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ConnectionProperties};
use tidemark_api::{ScaledObject, TriggerAuthentication};
use tokio::time::timeout;

use crate::desk::{Desk, Up, skip, workload};

/// Deadline of what the broker is asked for.
const PATIENCE: Duration = Duration::from_secs(20);
const VARIABLE: &str = "TIDEMARK_TEST_RABBITMQ_AMQP";

/// The broker's URL, or a visible skip.
fn broker() -> Option<String> {
    let url = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        skip("TIDEMARK_REQUIRE_SERVICES", &format!("{VARIABLE} is not set (`cargo xtask services` starts a broker)"));
    }
    url
}

/// `HOST:PORT` of a URL.
fn address(url: &str) -> &str {
    let rest = url.split_once("://").unwrap().1;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split('/').next().unwrap()
}

/// A channel to the broker. It lives as long as the connection beside it.
async fn channel(url: &str) -> (lapin::Connection, Channel) {
    // The bare slash would be the virtual host of the empty name.
    let url = format!("{}/%2f", url.trim_end_matches('/'));
    let open = async {
        let connection = lapin::Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    };
    timeout(PATIENCE, open).await.expect("the broker answers")
}

async fn delete(url: &str, queue: &str) {
    let (_connection, channel) = channel(url).await;
    let deleted = channel.queue_delete(queue.into(), QueueDeleteOptions::default());
    timeout(PATIENCE, deleted).await.expect("the broker answers").unwrap();
}

async fn waiting(url: &str, queue: &str) -> u32 {
    let (_connection, channel) = channel(url).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    timeout(PATIENCE, declared).await.expect("the broker answers").unwrap().message_count()
}

async fn produce(desk: &Desk, url: &str, queue: &str, count: u32) {
    let count = count.to_string();
    let arguments = ["demo", "rabbitmq-producer", "--queue", queue, "--count", &count];
    let output = desk.tidemark(&arguments, &[("AMQP_URL", url)]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
}

#[tokio::test]
async fn a_hundred_messages_bring_consumers_an_empty_queue_none_and_nothing_outlives_a_killed_up() {
    let Some(url) = broker() else { return };
    let queue = "work_queue";
    delete(&url, queue).await;
    let desk = Desk::new();
    desk.copy_example("rabbitmq", &[("localhost:5672", address(&url))]);
    produce(&desk, &url, queue, 0).await;
    let up = Up::start(&desk, &["rabbitmq"], &[]).await;
    up.until_ready_is("rabbitmq-consumer", "True", &[]).await;
    up.until_replicas(10, "rabbitmq-consumer", 0..=0).await;

    produce(&desk, &url, queue, 100).await;
    up.until_replicas(60, "rabbitmq-consumer", 2..=10).await;
    assert!(desk.processes("demo rabbitmq-consumer").len() > 1, "{:?}", desk.processes(""));
    up.until_replicas(120, "rabbitmq-consumer", 0..=0).await;
    assert_eq!(waiting(&url, queue).await, 0, "the consumers did all the work before they went");

    produce(&desk, &url, queue, 100).await;
    up.until_replicas(60, "rabbitmq-consumer", 1..=10).await;
    assert!(!desk.processes("demo rabbitmq-consumer").is_empty(), "{:?}", desk.processes(""));
    up.kill();
    desk.until_no_process_is_left().await;
    delete(&url, queue).await;
}

#[tokio::test]
async fn a_refused_login_and_a_missing_queue_say_so_and_disturb_no_other_object() {
    let Some(url) = broker() else { return };
    let (queue, place) = ("tidemark-e2e-healthy", address(&url));
    delete(&url, queue).await;
    delete(&url, "tidemark-e2e-absent").await;
    let desk = Desk::new();
    produce(&desk, &url, queue, 3).await;
    let trigger = |host: &str, queue: &str| {
        format!("{{type: rabbitmq, metadata: {{host: '{host}', queueName: {queue}, mode: QueueLength, value: '5'}}}}")
    };
    desk.write("m/healthy.yaml", &workload("healthy", "maxReplicaCount: 4", &trigger(&url, queue)));
    desk.write("m/absent.yaml", &workload("absent", "", &trigger(&url, "tidemark-e2e-absent")));
    let wrong = format!("amqp://guest:sesame-one@{place}/");
    desk.write("m/inline.yaml", &workload("inline", "", &trigger(&wrong, queue)));
    desk.write("m/login.yaml", &login(place, queue));
    // The log tells more than by default, and still no password.
    let environment = [("RUST_LOG", "debug")];
    let up = Up::start(&desk, &["m", "--simulate-pods"], &environment).await;

    up.until_replicas(20, "healthy", 1..=1).await;
    let refused = format!("{place} refused the login");
    up.until_ready_is("inline", "False", &[&refused]).await;
    up.until_ready_is("login", "False", &[&refused]).await;
    let absent = format!("there is no queue `tidemark-e2e-absent` in the vhost `/` of {place}");
    up.until_ready_is("absent", "False", &[&absent]).await;
    up.until_event("login", "KEDAScalerFailed", &refused).await;
    up.until_event("absent", "KEDAScalerFailed", &absent).await;
    for name in ["absent", "inline", "login"] {
        up.until_replicas(5, name, 0..=0).await;
    }

    up.until_ready_is("healthy", "True", &[]).await;
    produce(&desk, &url, queue, 47).await;
    up.until_replicas(45, "healthy", 4..=4).await;
    let told = told(&up).await;
    assert!(told.contains(&refused));
    for secret in ["sesame-one", "sesame-two", &STANDARD.encode(login_url(place))] {
        assert!(!told.contains(secret), "{secret} in: {told}");
    }
    up.interrupt().await;
    delete(&url, queue).await;
}

fn login_url(place: &str) -> String {
    format!("amqp://guest:sesame-two@{place}/")
}

/// An object that takes its login from a Secret, by a TriggerAuthentication.
fn login(place: &str, queue: &str) -> String {
    let trigger = format!(
        "{{type: rabbitmq, authenticationRef: {{name: login}}, metadata: {{queueName: {queue}, mode: QueueLength, \
         value: '5'}}}}"
    );
    workload("login", "", &trigger)
        + &format!(
            "---
apiVersion: v1
kind: Secret
metadata: {{name: login}}
stringData: {{url: '{url}'}}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {{name: login}}
spec: {{secretTargetRef: [{{parameter: host, name: login, key: url}}]}}
",
            url = login_url(place)
        )
}

/// Everything that Tidemark itself has said: its output, events, statuses, and the objects that it has made.
async fn told(up: &Up<'_>) -> String {
    let read = async {
        let all = ListParams::default();
        let objects = Api::<ScaledObject>::all(up.client.clone()).list(&all).await.unwrap();
        let authentications = Api::<TriggerAuthentication>::all(up.client.clone()).list(&all).await.unwrap();
        let hpas = Api::<HorizontalPodAutoscaler>::all(up.client.clone()).list(&all).await.unwrap();
        let pods = Api::<Pod>::all(up.client.clone()).list(&all).await.unwrap();
        let statuses: Vec<_> = objects.items.iter().map(|object| &object.status).collect();
        let events = up.events().await;
        serde_json::to_string(&(statuses, authentications.items, hpas.items, pods.items, events)).unwrap()
    };
    timeout(PATIENCE, read).await.expect("the API answers") + &up.log()
}
