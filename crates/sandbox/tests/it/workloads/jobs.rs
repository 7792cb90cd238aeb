//! Jobs.

use super::*;

fn job(name: &str, spec: Value, annotations: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": name },
        "spec": { "template": {
            "metadata": { "annotations": annotations },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }] },
        } },
    });
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job
}

fn holds(job: &Value, type_: &str) -> bool {
    let mut conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == type_ && condition["status"] == "True")
}

/// The types, status words, reasons and messages of a Job's conditions.
fn conditions(job: &Value) -> Vec<[String; 4]> {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    conditions.map(|c| [text(&c["type"]), text(&c["status"]), text(&c["reason"]), text(&c["message"])]).collect()
}

/// A status without its times and conditions.
fn counts(job: &Value) -> Value {
    let mut status = job["status"].clone();
    for field in ["conditions", "startTime", "completionTime"] {
        status.as_object_mut().unwrap().remove(field);
    }
    status
}

impl Cluster {
    async fn run(&self, job: &Value) -> String {
        self.create("apis/batch/v1", "jobs", job).await;
        self.path("apis/batch/v1", &format!("jobs/{}", job["metadata"]["name"].as_str().unwrap()))
    }
}

pub async fn a_job_is_complete_when_enough_pods_have_succeeded(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "completions": 3, "parallelism": 2 }), ends(4, 0))).await;
    let running = cluster.until(&path, |job| job["status"]["active"] == 2 && job["status"]["ready"] == 2).await;
    assert!(running["status"]["startTime"].is_string());
    let done = cluster.until(&path, |job| holds(job, "Complete")).await;
    assert_eq!(counts(&done), json!({ "ready": 0, "succeeded": 3, "terminating": 0, "uncountedTerminatedPods": {} }));
    let (reason, message) = ("CompletionsReached", "Reached expected number of succeeded pods");
    assert_eq!(
        conditions(&done),
        [["SuccessCriteriaMet", "True", reason, message], ["Complete", "True", reason, message]]
    );
    assert!(done["status"]["completionTime"].is_string());
    let pods = cluster.all_pods().await;
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert!(pod.name_any().starts_with("work-") && pod.name_any().len() == 10, "{}", pod.name_any());
        assert!(pod.finalizers().is_empty());
        assert_eq!(pod.labels()["batch.kubernetes.io/job-name"], "work");
        assert_eq!(Some(&*pod.labels()["batch.kubernetes.io/controller-uid"]), done["metadata"]["uid"].as_str());
        assert_eq!(pod.owner_references()[0].controller, Some(true));
    }
    cluster.has_event("Job", "work", "SuccessfulCreate", "Created pod: work-").await;
    cluster.has_event("Job", "work", "Completed", "Job completed").await;
}

pub async fn a_job_fails_beyond_its_backoff_limit(cluster: &Cluster) {
    let spec = json!({ "completions": 2, "parallelism": 2, "backoffLimit": 0 });
    let path = cluster.run(&job("work", spec, ends(1, 3))).await;
    let failed = cluster.until(&path, |job| holds(job, "Failed")).await;
    assert_eq!(counts(&failed), json!({ "failed": 2, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {} }));
    let (reason, message) = ("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    assert_eq!(conditions(&failed), [["FailureTarget", "True", reason, message], ["Failed", "True", reason, message]]);
    assert!(failed["status"]["completionTime"].is_null());
    cluster.has_event("Job", "work", "BackoffLimitExceeded", "Job has reached the specified backoff limit").await;
}

pub async fn a_job_that_takes_too_long_fails_and_its_pods_go(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "activeDeadlineSeconds": 2 }), json!({}))).await;
    let failed = cluster.until(&path, |job| holds(job, "Failed")).await;
    assert_eq!(counts(&failed), json!({ "failed": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {} }));
    let (reason, message) = ("DeadlineExceeded", "Job was active longer than specified deadline");
    assert_eq!(conditions(&failed), [["FailureTarget", "True", reason, message], ["Failed", "True", reason, message]]);
    cluster.until_pods(&[]).await;
}

pub async fn a_suspended_job_has_no_pods_until_it_is_resumed(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "suspend": true, "parallelism": 2 }), json!({}))).await;
    let suspended = cluster.until(&path, |job| holds(job, "Suspended")).await;
    assert_eq!(conditions(&suspended), [["Suspended", "True", "JobSuspended", "Job suspended"]]);
    assert!(suspended["status"]["startTime"].is_null() && suspended["status"]["active"].is_null());
    cluster.merge(&path, &json!({ "spec": { "suspend": false } })).await;
    let resumed = cluster.until(&path, |job| job["status"]["ready"] == 2).await;
    assert_eq!(conditions(&resumed), [["Suspended", "False", "JobResumed", "Job resumed"]]);
    assert!(resumed["status"]["startTime"].is_string());
    cluster.merge(&path, &json!({ "spec": { "suspend": true } })).await;
    let again = cluster.until(&path, |job| holds(job, "Suspended") && job["status"]["terminating"] == 0).await;
    assert_eq!(counts(&again), json!({ "ready": 0, "terminating": 0, "uncountedTerminatedPods": {} }), "none failed");
    cluster.until_pods(&[]).await;
}

pub async fn a_finished_job_goes_after_its_time_to_live(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "ttlSecondsAfterFinished": 2 }), ends(0, 0))).await;
    cluster.until(&path, |job| holds(job, "Complete")).await;
    cluster.until(&path, Value::is_null).await;
    cluster.until_pods(&[]).await;
}

pub async fn the_pods_of_a_deleted_job_go_too(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "parallelism": 2 }), json!({}))).await;
    cluster.until(&path, |job| job["status"]["ready"] == 2).await;
    cluster.delete(&path, &json!({ "propagationPolicy": "Background" })).await;
    cluster.until(&path, Value::is_null).await;
    cluster.until_pods(&[]).await;
}

pub async fn a_namespace_goes_with_the_jobs_in_it(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "parallelism": 2 }), json!({}))).await;
    cluster.until(&path, |job| job["status"]["ready"] == 2).await;
    let finished = cluster.run(&job("done", json!({}), ends(0, 0))).await;
    cluster.until(&finished, |job| holds(job, "Complete")).await;
    let namespace = format!("/api/v1/namespaces/{}", cluster.client.default_namespace());
    cluster.delete(&namespace, &json!({})).await;
    cluster.until(&namespace, Value::is_null).await;
    cluster.until_pods(&[]).await;
}

pub async fn an_indexed_job_gives_each_pod_its_index(cluster: &Cluster) {
    let spec = json!({ "completions": 4, "parallelism": 4, "completionMode": "Indexed" });
    let path = cluster.run(&job("work", spec, ends(1, 0))).await;
    let done = cluster.until(&path, |job| holds(job, "Complete")).await;
    assert_eq!(done["status"]["completedIndexes"], "0-3");
    let pods = cluster.all_pods().await;
    let names: Vec<_> = pods.iter().map(|pod| pod.name_any()[..7].to_owned()).collect();
    assert_eq!(names, ["work-0-", "work-1-", "work-2-", "work-3-"]);
    let index = "batch.kubernetes.io/job-completion-index";
    let pod = &pods[2];
    assert_eq!((pod.labels()[index].as_str(), pod.annotations()[index].as_str()), ("2", "2"));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("work-2"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
}

pub async fn a_failure_policy_ends_a_job_or_overlooks_a_failure(cluster: &Cluster) {
    let on =
        |action: &str, code: i32| json!({ "action": action, "onExitCodes": { "operator": "In", "values": [code] } });
    let spec = json!({ "backoffLimit": 5, "podFailurePolicy": { "rules": [on("FailJob", 42), on("Ignore", 7)] } });
    let path = cluster.run(&job("work", spec.clone(), ends(1, 42))).await;
    let failed = cluster.until(&path, |job| holds(job, "Failed")).await;
    let [type_, status, reason, message] = &conditions(&failed)[0];
    assert_eq!([&**type_, status, reason], ["FailureTarget", "True", "PodFailurePolicy"]);
    let end = "failed with exit code 42 matching FailJob rule at index 0";
    assert!(message.starts_with("Container main for pod ") && message.ends_with(end), "{message}");
    assert_eq!(failed["status"]["failed"], 1);

    let path = cluster.run(&job("other", spec, ends(1, 7))).await;
    // The failed pod does not count: another one takes its place at once.
    let selector = "labelSelector=batch.kubernetes.io%2Fjob-name%3Dother";
    let pods = cluster.path("api/v1", &format!("pods?{selector}"));
    cluster.until(&pods, |pods| pods["items"].as_array().unwrap().len() > 1).await;
    assert!(cluster.get(&path).await["status"]["failed"].is_null());
}

pub async fn a_work_queue_is_done_when_one_pod_has_succeeded_and_none_runs(cluster: &Cluster) {
    let path = cluster.run(&job("work", json!({ "parallelism": 3 }), ends(1, 0))).await;
    let done = cluster.until(&path, |job| holds(job, "Complete")).await;
    assert!(done["spec"]["completions"].is_null());
    assert_eq!(done["status"]["succeeded"], 3);
}
