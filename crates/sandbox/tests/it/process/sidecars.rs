//! Containers that run beside the others of their pod.

use super::*;

/// A pod with a sidecar that writes into `order` when it is told to end.
fn with_sidecar(main: &str) -> Value {
    let mut spec = shell(main);
    spec["initContainers"] = json!([{
        "name": "beside", "image": "none", "restartPolicy": "Always",
        "command": ["sh", "-c", "trap 'echo beside >> order; exit 3' TERM; echo $$$$ > id; while :; do sleep 0.05; done"],
        // The others wait for it, so that the trap is set.
        "startupProbe": { "exec": { "command": ["test", "-s", "id"] }, "periodSeconds": 1, "failureThreshold": 60 },
    }]);
    spec
}

#[tokio::test]
async fn a_sidecar_ends_when_the_others_are_done_and_the_pod_with_it() {
    let machine = Machine::new("sidecar-done");
    let mut spec = with_sidecar("echo main >> order");
    spec["restartPolicy"] = "Never".into();
    machine.create(spec).await;
    let done = |pod: &Pod| matches!(pod.status.as_ref().unwrap().phase.as_deref(), Some("Succeeded" | "Failed"));
    let status = machine.until(done).await.status.unwrap();
    let id = id_in(&machine.file("id")).await;
    assert!(!runs(id), "no process is left when the pod is done");
    assert_eq!(std::fs::read_to_string(machine.file("order")).unwrap(), "main\nbeside\n");
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "how a sidecar ends does not count");
    let beside = &status.init_container_statuses.unwrap()[0];
    assert_eq!(beside.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    machine.finish().await;
}

#[tokio::test]
async fn a_sidecar_of_a_pod_that_is_deleted_ends_after_the_others() {
    let machine = Machine::new("sidecar-deleted");
    let main = "trap 'sleep 0.3; echo main >> order; exit 0' TERM; echo > up; while :; do sleep 0.05; done";
    machine.create(with_sidecar(main)).await;
    machine.until(is_ready).await;
    eventually("the trap is set", || machine.file("up").exists()).await;
    machine.pods().delete("pod", &DeleteParams::default()).await.unwrap();
    machine.until_gone().await;
    assert_eq!(std::fs::read_to_string(machine.file("order")).unwrap(), "main\nbeside\n");
    assert!(!runs(id_in(&machine.file("id")).await));
    machine.finish().await;
}

#[tokio::test]
async fn a_stubborn_sidecar_does_not_outlast_the_grace() {
    let machine = Machine::new("sidecar-stubborn");
    let mut spec = with_sidecar("exec sleep 1000");
    spec["terminationGracePeriodSeconds"] = 1.into();
    spec["initContainers"][0]["command"][2] = "trap '' TERM; echo $$$$ > id; while :; do sleep 0.05; done".into();
    machine.create(spec).await;
    machine.until(is_ready).await;
    let id = id_in(&machine.file("id")).await;
    machine.pods().delete("pod", &DeleteParams::default()).await.unwrap();
    let gone = await_condition(machine.pods(), "pod", |pod: Option<&Pod>| pod.is_none());
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the pod goes in time").unwrap();
    assert!(!runs(id));
    machine.finish().await;
}

#[tokio::test]
async fn a_sidecar_does_not_outlive_an_init_container_that_failed() {
    let machine = Machine::new("sidecar-init-failed");
    let mut spec = with_sidecar("exec sleep 1000");
    spec["restartPolicy"] = "Never".into();
    let failing = json!({ "name": "setup", "image": "none", "command": ["sh", "-c", "exit 1"] });
    spec["initContainers"].as_array_mut().unwrap().push(failing);
    machine.create(spec).await;
    machine.until(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Failed")).await;
    assert!(!runs(id_in(&machine.file("id")).await));
    machine.finish().await;
}
