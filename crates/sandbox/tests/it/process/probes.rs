//! What people are told of probes, and of containers that end.

use k8s_openapi::api::core::v1::Event;

use super::*;

/// The messages of the events of a reason, when there are some.
async fn told(machine: &Machine, reason: &str) -> Vec<String> {
    let events = Api::<Event>::namespaced(machine.client.clone(), "default");
    eventually_event(&events, reason).await;
    let all = events.list(&ListParams::default()).await.unwrap().items;
    all.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).filter_map(|event| event.message).collect()
}

#[tokio::test]
async fn a_failed_command_says_its_code_and_its_last_words() {
    let machine = Machine::new("probe-words");
    let mut spec = shell("exec sleep 1000");
    spec["containers"][0]["livenessProbe"] = json!({
        "exec": { "command": ["sh", "-c", "echo no route to the database; exit 4"] },
        "periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 1,
    });
    machine.create(spec).await;
    let unhealthy = told(&machine, "Unhealthy").await;
    assert_eq!(unhealthy[0], "Liveness probe failed: container main: exit code 4: no route to the database");
    let killing = told(&machine, "Killing").await;
    assert!(
        killing.iter().any(|said| said == "Container main failed liveness probe, will be restarted"),
        "{killing:?}"
    );
    machine.finish().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let machine = Machine::new("probe-refused");
    let mut spec = shell("exec sleep 1000");
    let readiness = json!({ "httpGet": { "path": "/healthz", "port": 9 }, "periodSeconds": 1, "failureThreshold": 1 });
    spec["containers"][0]["readinessProbe"] = readiness;
    machine.create(spec).await;
    let unhealthy = told(&machine, "Unhealthy").await.remove(0);
    assert!(unhealthy.starts_with("Readiness probe failed: container main: GET http://127."), "{unhealthy}");
    assert!(unhealthy.contains(":9/healthz: ") && unhealthy.contains("refused"), "{unhealthy}");
    machine.finish().await;
}

#[tokio::test]
async fn the_end_of_the_log_is_the_message_of_a_container_that_asks_for_it() {
    let machine = Machine::new("termination-message");
    let mut spec = shell("echo starting; echo out of cheese >&2; exit 3");
    spec["restartPolicy"] = "Never".into();
    spec["containers"][0]["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    machine.create(spec).await;
    let pod = machine.until(|pod| state(pod).is_some_and(|state| state.terminated.is_some())).await;
    let ended = state(&pod).unwrap().terminated.as_ref().unwrap();
    assert_eq!((ended.exit_code, ended.message.as_deref()), (3, Some("starting\nout of cheese")));
    machine.finish().await;
}

#[tokio::test]
async fn a_pod_that_is_not_ready_says_which_container_it_waits_for() {
    let machine = Machine::new("condition-message");
    let mut spec = shell("exec sleep 1000");
    spec["containers"][0]["readinessProbe"] = json!({ "exec": { "command": ["false"] } });
    machine.create(spec).await;
    let pod = machine.until(|pod| state(pod).is_some_and(|state| state.running.is_some())).await;
    let conditions = pod.status.unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.reason.as_deref(), Some("ContainersNotReady"));
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [main]"));
    machine.finish().await;
}
