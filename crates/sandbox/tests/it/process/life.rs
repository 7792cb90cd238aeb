//! What happens to a pod's processes in their life, and what they use.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Event;

use super::*;

#[tokio::test]
async fn a_hook_comes_before_the_end() {
    let machine = Machine::new("pre-stop");
    let mut spec = shell("trap 'echo term >> order; exit 0' TERM; echo > up; while :; do sleep 0.05; done");
    spec["containers"][0]["lifecycle"] =
        json!({ "preStop": { "exec": { "command": ["sh", "-c", "sleep 0.3; echo hook >> order"] } } });
    machine.create(spec).await;
    machine.until(is_ready).await;
    eventually("the trap is set", || machine.file("up").exists()).await;
    machine.pods().delete("pod", &DeleteParams::default()).await.unwrap();
    machine.until_gone().await;
    assert_eq!(std::fs::read_to_string(machine.file("order")).unwrap(), "hook\nterm\n");
    machine.finish().await;
}

#[tokio::test]
async fn a_hook_that_hangs_does_not_outlast_the_grace() {
    let machine = Machine::new("pre-stop-hangs");
    let mut spec = shell("exec sleep 1000");
    spec["terminationGracePeriodSeconds"] = 1.into();
    spec["containers"][0]["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sleep", "1000"] } } });
    machine.create(spec).await;
    machine.until(is_ready).await;
    machine.pods().delete("pod", &DeleteParams::default()).await.unwrap();
    let gone = await_condition(machine.pods(), "pod", |pod: Option<&Pod>| pod.is_none());
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the pod goes in time").unwrap();
    machine.finish().await;
}

#[tokio::test]
async fn what_a_process_does_not_get_is_told() {
    let machine = Machine::new("ignored");
    let mut spec = shell("exec sleep 1000");
    spec["securityContext"] = json!({ "runAsUser": 1 });
    spec["volumes"] = json!([{ "name": "data", "emptyDir": {} }]);
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    spec["containers"][0]["resources"] = json!({ "limits": { "memory": "64Mi" } });
    machine.create(spec).await;
    machine.until(is_ready).await;
    let events = Api::<Event>::namespaced(machine.client.clone(), "default");
    eventually_event(&events, "Ignored").await;
    let all = events.list(&ListParams::default()).await.unwrap().items;
    let message = all.iter().find(|event| event.reason.as_deref() == Some("Ignored")).unwrap().message.clone().unwrap();
    for word in ["volumeMounts", "securityContext", "resource limits"] {
        assert!(message.contains(word), "{message}");
    }
    machine.finish().await;
}

#[tokio::test]
async fn variables_come_from_requests_and_limits_too() {
    let machine = Machine::new("resource-variables");
    let mut spec = shell("echo $CPU $MEMORY; exec sleep 1000");
    let field = |name: &str, resource: &str, divisor: &str| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": resource, "divisor": divisor } } });
    spec["containers"][0]["env"] = json!([field("CPU", "requests.cpu", "1m"), field("MEMORY", "limits.memory", "1Mi")]);
    spec["containers"][0]["resources"] = json!({ "requests": { "cpu": "250m" }, "limits": { "memory": "64Mi" } });
    machine.create(spec).await;
    eventually("a line in the log", || machine.log() == "250 64\n").await;
    machine.finish().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn cpu_and_memory_of_processes_are_measured() {
    let machine = Machine::new("measured");
    // The work is done by a child, which the shell waits for now and then.
    machine.create(shell("while :; do (i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done); done")).await;
    machine.until(is_ready).await;
    let read = async || {
        let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/pod";
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        machine.client.request::<Value>(request).await.ok()
    };
    let measured = tokio::time::timeout(PATIENCE, async {
        loop {
            let Some(found) = read().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let usage = found["containers"][0]["usage"].clone();
            let cpu: u64 = usage["cpu"].as_str().unwrap().trim_end_matches('m').parse().unwrap();
            let memory: u64 = usage["memory"].as_str().unwrap().parse().unwrap();
            if cpu > 50 && memory > 100_000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    measured.await.expect("a busy process is measured");
    machine.finish().await;
}

#[tokio::test]
async fn a_job_of_processes_completes() {
    let machine = Machine::new("job");
    let mut template = shell("echo $JOB_COMPLETION_INDEX > done-$JOB_COMPLETION_INDEX");
    template["restartPolicy"] = "Never".into();
    let spec =
        json!({ "completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": { "spec": template } });
    let jobs: Api<Job> = Api::namespaced(machine.client.clone(), "default");
    let job = json!({ "metadata": { "name": "work" }, "spec": spec });
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
    let complete = |job: Option<&Job>| {
        let conditions = job.and_then(|job| job.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Complete"))
    };
    let job = tokio::time::timeout(PATIENCE, await_condition(jobs, "work", complete)).await.unwrap().unwrap().unwrap();
    assert_eq!(job.status.unwrap().succeeded, Some(3));
    assert!((0..3).all(|index| machine.file(&format!("done-{index}")).exists()));
    machine.finish().await;
}

#[tokio::test]
async fn a_set_of_processes_keeps_its_names() {
    let machine = Machine::new("set");
    let set = json!({ "metadata": { "name": "web" }, "spec": {
        "replicas": 2, "serviceName": "web",
        "selector": { "matchLabels": { "app": "web" } },
        "template": { "metadata": { "labels": { "app": "web" } }, "spec": shell("echo $HOSTNAME > $HOSTNAME; exec sleep 1000") },
    } });
    let sets: Api<StatefulSet> = Api::namespaced(machine.client.clone(), "default");
    sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();
    let ready = |set: Option<&StatefulSet>| {
        set.and_then(|set| set.status.as_ref()?.ready_replicas).is_some_and(|replicas| replicas == 2)
    };
    tokio::time::timeout(PATIENCE, await_condition(sets, "web", ready)).await.unwrap().unwrap();
    eventually("both wrote their name", || ["web-0", "web-1"].iter().all(|name| machine.file(name).exists())).await;
    machine.finish().await;
}
