//! The kinds of Kubernetes: what is refused, completed and merged.

use super::*;

fn pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    });
    change(&mut pod);
    pod
}

pub async fn a_wrong_type_is_refused_with_its_place(client: Client) {
    let path = path(&client, "api/v1", "pods");
    for (body, said) in [
        (
            pod(|pod| pod["spec"]["containers"][0]["image"] = json!(true)),
            "json: cannot unmarshal bool into Go struct field Container.spec.containers.image of type string",
        ),
        (
            pod(|pod| pod["spec"]["priority"] = json!("high")),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            pod(|pod| pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": "http"}])),
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            pod(|pod| pod["metadata"]["labels"] = json!({"a": 1})),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            pod(|pod| pod["spec"]["containers"] = json!({"name": "main"})),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            pod(|pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "much"}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let status = refused(send(&client, "POST", &path, body).await);
        let message = format!("Pod in version \"v1\" cannot be handled as a Pod: {said}");
        assert_eq!((status.code, &*status.message), (400, &*message));
    }
    let secret = json!({"metadata": {"name": "s"}, "data": {"a": "?"}});
    let status = refused(send(&client, "POST", &super::path(&client, "api/v1", "secrets"), secret).await);
    assert!(status.message.contains("illegal base64 data at input byte 0"), "{}", status.message);
}

pub async fn quantities_are_kept_in_one_way_of_writing(client: Client) {
    let limits = json!({"cpu": "1500m", "memory": "1024Mi", "example.com/thing": 2});
    let mut body = pod(|pod| pod["spec"]["containers"][0]["resources"] = json!({"limits": limits}));
    body["spec"]["containers"][0]["resources"]["requests"] =
        json!({"cpu": 0.5, "memory": "0.5Gi", "example.com/thing": "2"});
    let made = send(&client, "POST", &path(&client, "api/v1", "pods"), body).await.unwrap();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"cpu": "1500m", "memory": "1Gi", "example.com/thing": "2"}));
    assert_eq!(resources["requests"], json!({"cpu": "500m", "memory": "512Mi", "example.com/thing": "2"}));
}

pub async fn lists_of_a_service_and_of_a_pod_merge_by_their_keys(client: Client) {
    let strategic = async |path: String, body: Value| -> Value {
        let request = Request::patch(path).header("Content-Type", "application/strategic-merge-patch+json");
        client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
    };
    let services = path(&client, "api/v1", "services");
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [
        {"name": "http", "port": 80}, {"name": "admin", "port": 90, "targetPort": "a"},
    ]}});
    send(&client, "POST", &services, service).await.unwrap();
    let patch = json!({"spec": {"ports": [{"port": 90, "targetPort": 9}, {"port": 80, "$patch": "delete"}, {"port": 70, "name": "new"}]}});
    let after = strategic(format!("{services}/s"), patch).await;
    let ports: Vec<_> = after["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| json!([port["name"], port["port"], port["targetPort"]]))
        .collect();
    assert_eq!(ports, [json!(["admin", 90, 9]), json!(["new", 70, 70])]);
    let deployments = path(&client, "apis/apps/v1", "deployments");
    let mut web = serde_json::to_value(deployment("web")).unwrap();
    web["spec"]["paused"] = json!(true);
    web["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]);
    web["spec"]["template"]["spec"]["tolerations"] = json!([{"key": "x"}]);
    send(&client, "POST", &deployments, web).await.unwrap();
    let patch = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "main", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}],
        "tolerations": [{"key": "y", "operator": "Exists"}],
    }}}});
    let after = strategic(format!("{deployments}/web"), patch).await;
    let spec = &after["spec"]["template"]["spec"];
    let mut names: Vec<_> = spec["containers"][0]["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{}={}", one["name"], one["value"]))
        .collect();
    names.sort();
    assert_eq!(names, ["\"A\"=\"1\"", "\"B\"=\"3\"", "\"C\"=\"4\""]);
    assert_eq!(spec["tolerations"], json!([{"key": "y", "operator": "Exists"}]), "one value as a whole");
}

pub async fn an_autoscaler_is_seen_through_both_versions(client: Client) {
    let two = path(&client, "apis/autoscaling/v2", "horizontalpodautoscalers");
    let one = path(&client, "apis/autoscaling/v1", "horizontalpodautoscalers");
    let object = json!({"metadata": {"name": "h"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}, "maxReplicas": 3, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "External", "external": {
                "metric": {"name": "s0", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "5"},
            }},
        ],
    }});
    send(&client, "POST", &two, object).await.unwrap();
    let old = get(&client, &format!("{one}/h"), "application/json").await;
    assert_eq!(old["apiVersion"], "autoscaling/v1");
    assert_eq!((&old["spec"]["targetCPUUtilizationPercentage"], &old["spec"]["minReplicas"]), (&json!(50), &json!(1)));
    let noted = old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap();
    let noted: Value = serde_json::from_str(noted).unwrap();
    assert_eq!(
        noted,
        json!([{"type": "External", "external": {
            "metricName": "s0", "metricSelector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "5",
        }}])
    );
    let mut other = json!({"metadata": {"name": "o"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "w"}, "maxReplicas": 3,
        "targetCPUUtilizationPercentage": 70,
    }});
    send(&client, "POST", &one, other.clone()).await.unwrap();
    let new = get(&client, &format!("{two}/o"), "application/json").await;
    assert_eq!(
        new["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}])
    );
    other["spec"]["maxReplicas"] = json!(0);
    other["metadata"]["name"] = json!("bad");
    assert_eq!(refused(send(&client, "POST", &one, other).await).code, 422);
}

pub async fn a_revision_keeps_its_data(client: Client) {
    let path = path(&client, "apis/apps/v1", "controllerrevisions");
    let revision = json!({"metadata": {"name": "r"}, "revision": 1, "data": {"spec": {"any": ["thing", null]}}});
    let made = send(&client, "POST", &path, revision).await.unwrap();
    assert_eq!(made["data"], json!({"spec": {"any": ["thing", null]}}));
    let mut other = made.clone();
    other["revision"] = json!(2);
    let mut after = send(&client, "PUT", &format!("{path}/r"), other).await.unwrap();
    assert_eq!(after["revision"], 2);
    after["data"] = json!({"spec": {}});
    assert_eq!(refused(send(&client, "PUT", &format!("{path}/r"), after).await).code, 422);
}

pub async fn a_job_gets_its_selector(client: Client) {
    let path = path(&client, "apis/batch/v1", "jobs");
    let job = json!({"metadata": {"name": "j"}, "spec": {"suspend": true, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}],
    }}}});
    let made = send(&client, "POST", &path, job.clone()).await.unwrap();
    let uid = &made["metadata"]["uid"];
    assert_eq!(made["spec"]["selector"]["matchLabels"], json!({"batch.kubernetes.io/controller-uid": uid}));
    let labels = &made["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&labels["job-name"], &labels["controller-uid"]), (&json!("j"), uid));
    let spec = &made["spec"];
    assert_eq!(
        json!([
            spec["parallelism"],
            spec["completions"],
            spec["backoffLimit"],
            spec["completionMode"],
            spec["podReplacementPolicy"]
        ]),
        json!([1, 1, 6, "NonIndexed", "TerminatingOrFailed"])
    );
    let mut always = job;
    always["metadata"]["name"] = json!("k");
    always["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    let status = refused(send(&client, "POST", &path, always).await);
    assert_eq!(status.details.unwrap().causes[0].field, "spec.template.spec.restartPolicy");
}
