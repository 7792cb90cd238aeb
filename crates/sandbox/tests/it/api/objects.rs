//! Creating, changing and deleting objects of Kubernetes kinds.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Preconditions, PropagationPolicy};

use super::*;

fn post() -> PostParams {
    PostParams::default()
}

#[tokio::test(start_paused = true)]
async fn a_created_object_is_complete() {
    let api: Api<Deployment> = Api::default_namespaced(client());
    let made = api.create(&post(), &deployment("web")).await.unwrap();
    assert_eq!(made.namespace().as_deref(), Some("default"));
    assert_eq!(made.metadata.creation_timestamp.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.uid().unwrap().len(), 36);
    let spec = &made.spec;
    assert_eq!(spec.replicas, Some(1));
    assert_eq!(spec.template.spec.as_ref().unwrap().restart_policy.as_deref(), Some("Always"));
    assert!(made.status.is_none());
    assert_eq!(api.get("web").await.unwrap(), made);
}

#[tokio::test(start_paused = true)]
async fn names_are_unique_generated_and_checked() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    api.create(&post(), &config_map("a", "1")).await.unwrap();
    let twice = refused(api.create(&post(), &config_map("a", "1")).await);
    assert_eq!(
        (twice.code, &*twice.reason, &*twice.message),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
    let bad = refused(api.create(&post(), &config_map("A_", "1")).await);
    assert_eq!((bad.code, &*bad.reason), (422, "Invalid"));
    assert_eq!(bad.details.unwrap().causes[0].field, "metadata.name");
    let generated: ConfigMap = read(json!({"metadata": {"generateName": "job-"}}));
    let first = api.create(&post(), &generated).await.unwrap().name_any();
    let second = api.create(&post(), &generated).await.unwrap().name_any();
    assert!(first.starts_with("job-") && first.len() == 9 && first != second, "{first} {second}");
}

#[tokio::test(start_paused = true)]
async fn an_update_with_an_old_version_conflicts() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    let first = api.create(&post(), &config_map("a", "1")).await.unwrap();
    let mut newer = first.clone();
    newer.data = Some(BTreeMap::from([("key".into(), "2".into())]));
    let newer = api.replace("a", &post(), &newer).await.unwrap();
    assert!(newer.resource_version() > first.resource_version());
    let stale = refused(api.replace("a", &post(), &first).await);
    assert_eq!((stale.code, &*stale.reason), (409, "Conflict"));
    assert!(stale.message.contains("the object has been modified"), "{}", stale.message);
    let same = api.replace("a", &post(), &newer).await.unwrap();
    assert_eq!(same.resource_version(), newer.resource_version(), "nothing changed");
    let unconditional = api.replace("a", &post(), &config_map("a", "3")).await.unwrap();
    assert_eq!(unconditional.data.unwrap()["key"], "3");
}

#[tokio::test(start_paused = true)]
async fn the_generation_grows_with_the_spec_and_the_status_is_apart() {
    let api: Api<Deployment> = Api::default_namespaced(client());
    api.create(&post(), &deployment("web")).await.unwrap();
    let merge = |value| async { api.patch("web", &PatchParams::default(), &Patch::Merge(value)).await.unwrap() };
    assert_eq!(merge(json!({"metadata": {"labels": {"a": "b"}}})).await.metadata.generation, Some(1));
    assert_eq!(merge(json!({"status": {"replicas": 7}})).await.status, None);
    assert_eq!(merge(json!({"spec": {"replicas": 3}})).await.metadata.generation, Some(2));
    let status = Patch::Merge(json!({"spec": {"replicas": 9}, "status": {"replicas": 3, "observedGeneration": 2}}));
    let after = api.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(after.spec.replicas, Some(3));
    assert_eq!(after.status.unwrap().replicas, Some(3));
    assert_eq!(after.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn every_patch_does_what_its_type_says() {
    let api: Api<Deployment> = Api::default_namespaced(client());
    api.create(&post(), &deployment("web")).await.unwrap();
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "nginx:2"}]}}}});
    let after = api.patch("web", &PatchParams::default(), &Patch::Strategic(strategic)).await.unwrap();
    let container = &after.spec.template.spec.unwrap().containers[0];
    assert_eq!(container.image.as_deref(), Some("nginx:2"));
    assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"), "merged, not replaced");
    let json_patch = read(json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]));
    let after = api.patch("web", &PatchParams::default(), &Patch::Json::<()>(json_patch)).await.unwrap();
    assert_eq!(after.spec.replicas, Some(4));
    let stale = Patch::Merge(json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 5}}));
    assert_eq!(refused(api.patch("web", &PatchParams::default(), &stale).await).code, 409);
    let apply = refused(api.patch("web", &PatchParams::apply("me"), &Patch::Apply(deployment("web"))).await);
    assert_eq!((apply.code, &*apply.reason), (501, "NotImplemented"));
    assert!(apply.message.contains("server-side apply"), "{}", apply.message);
}

#[tokio::test(start_paused = true)]
async fn the_scale_of_a_deployment_is_read_and_written() {
    let api: Api<Deployment> = Api::default_namespaced(client());
    api.create(&post(), &deployment("web")).await.unwrap();
    let mut scale = api.get_scale("web").await.unwrap();
    assert_eq!(scale.status.as_ref().unwrap().selector.as_deref(), Some("app=web"));
    scale.spec.as_mut().unwrap().replicas = Some(5);
    let written = api.replace_scale("web", &post(), &scale).await.unwrap();
    assert_eq!(written.spec.unwrap().replicas, Some(5));
    let stale = refused(api.replace_scale("web", &post(), &scale).await);
    assert_eq!(stale.code, 409);
    let zero = Patch::Merge(json!({"spec": {"replicas": 0}}));
    api.patch_scale("web", &PatchParams::default(), &zero).await.unwrap();
    let after = api.get("web").await.unwrap();
    assert_eq!((after.spec.replicas, after.metadata.generation), (Some(0), Some(3)));
    let below = Patch::Merge(json!({"spec": {"replicas": -1}}));
    assert_eq!(refused(api.patch_scale("web", &PatchParams::default(), &below).await).code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_holds_an_object_until_it_is_taken_away() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    let mut held = config_map("a", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    api.create(&post(), &held).await.unwrap();
    let pending = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(pending.metadata.deletion_timestamp.is_some());
    let again = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(again.resource_version(), pending.resource_version());
    let more = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}));
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &more).await).code, 422);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("a", &PatchParams::default(), &free).await.unwrap();
    assert_eq!(refused(api.get("a").await).message, "configmaps \"a\" not found");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_has_conditions_and_can_be_rehearsed() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    let made = api.create(&post(), &config_map("a", "1")).await.unwrap();
    let other = Preconditions { uid: Some("other".into()), resource_version: None };
    let conflict = refused(api.delete("a", &DeleteParams::default().preconditions(other)).await);
    assert_eq!(conflict.code, 409);
    api.delete("a", &DeleteParams::default().dry_run()).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().uid(), made.uid());
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    let waiting = api.delete("a", &foreground).await.unwrap().left().unwrap();
    assert_eq!(waiting.finalizers(), ["foregroundDeletion"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_leaves_its_pods_behind_unless_told_otherwise() {
    let api: Api<Job> = Api::default_namespaced(client());
    let job: Job = read(json!({
        "metadata": {"name": "j"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}},
    }));
    let made = api.create(&post(), &job).await.unwrap();
    let spec = made.spec.as_ref().unwrap();
    let labels = spec.selector.as_ref().unwrap().match_labels.as_ref().unwrap();
    assert_eq!(labels["batch.kubernetes.io/controller-uid"], made.uid().unwrap());
    let waiting = api.delete("j", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(waiting.finalizers(), ["orphan"]);
    assert!(api.delete("j", &DeleteParams::background()).await.unwrap().is_right());
    let mut always = job;
    always.spec.as_mut().unwrap().template.spec.as_mut().unwrap().restart_policy = None;
    assert_eq!(refused(api.create(&post(), &always).await).code, 422);
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_deleted_by_selector() {
    let api: Api<ConfigMap> = Api::default_namespaced(client());
    for (name, value) in [("a", "x"), ("b", "y"), ("c", "x")] {
        api.create(&post(), &config_map(name, value)).await.unwrap();
    }
    let only = ListParams::default().labels("value=x");
    let gone = api.delete_collection(&DeleteParams::default(), &only).await.unwrap().left().unwrap();
    assert_eq!(gone.items.len(), 2);
    let left = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_placed_pod_is_deleted_when_its_kubelet_says_so() {
    let api: Api<Pod> = Api::default_namespaced(client());
    let pod: Pod = read(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let made = api.create(&post(), &pod).await.unwrap();
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    let placed = Patch::Merge(json!({"spec": {"nodeName": "here"}}));
    api.patch("p", &PatchParams::default(), &placed).await.unwrap();
    let dying = api.delete("p", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(dying.metadata.deletion_grace_period_seconds, Some(30));
    assert_eq!(dying.metadata.deletion_timestamp.unwrap().0.to_string(), "2026-01-01T00:00:30Z");
    api.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap().right().unwrap();
    assert_eq!(refused(api.get("p").await).code, 404);
    api.create(&post(), &pod).await.unwrap();
    assert!(api.delete("p", &DeleteParams::default()).await.unwrap().is_right(), "nobody runs it");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_its_contents_along() {
    let client = client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    let missing = refused(shop.create(&post(), &config_map("a", "1")).await);
    assert_eq!((missing.code, &*missing.message), (404, "namespaces \"shop\" not found"));
    let namespace: Namespace = read(json!({"metadata": {"name": "shop"}}));
    namespaces.create(&post(), &namespace).await.unwrap();
    let mut held = config_map("held", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    shop.create(&post(), &config_map("a", "1")).await.unwrap();
    shop.create(&post(), &held).await.unwrap();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    assert_eq!(namespaces.get("shop").await.unwrap().status.unwrap().phase.as_deref(), Some("Terminating"));
    assert_eq!(shop.list(&ListParams::default()).await.unwrap().items.len(), 1, "the held one is left");
    let late = refused(shop.create(&post(), &config_map("late", "1")).await);
    assert_eq!((late.code, &*late.details.unwrap().causes[0].reason), (403, "NamespaceTerminating"));
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    shop.patch("held", &PatchParams::default(), &free).await.unwrap();
    assert_eq!(refused(namespaces.get("shop").await).code, 404);
    assert_eq!(refused(namespaces.delete("default", &DeleteParams::default()).await).code, 403);
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_is_completed_and_checked_as_on_a_real_server() {
    let api: Api<HorizontalPodAutoscaler> = Api::default_namespaced(client());
    let autoscaler = |target: &str| {
        read::<HorizontalPodAutoscaler>(json!({
            "metadata": {"name": "keda-hpa-web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 10,
                "metrics": [{"type": "External", "external": {
                    "metric": {"name": "s0-cron"}, "target": {"type": "AverageValue", "averageValue": target},
                }}],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
        }))
    };
    let bad = refused(api.create(&post(), &autoscaler("0")).await);
    assert_eq!(bad.code, 422);
    assert_eq!(bad.details.unwrap().causes[0].field, "spec.metrics[0].external.target.averageValue");
    let made = api.create(&post(), &autoscaler("5")).await.unwrap();
    let spec = made.spec;
    assert_eq!(spec.min_replicas, Some(1));
    let behavior = spec.behavior.unwrap();
    assert_eq!(behavior.scale_up.unwrap().policies.unwrap().len(), 2);
    assert_eq!(behavior.scale_down.unwrap().select_policy.as_deref(), Some("Max"));
    let merge = Patch::Merge(json!({"status": {"desiredReplicas": 3, "currentReplicas": 2}}));
    let after = api.patch_status("keda-hpa-web", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(after.status.unwrap().desired_replicas, 3);
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_warn_or_are_refused() {
    let client = client();
    let path = "/api/v1/namespaces/default/secrets";
    let body = json!({"metadata": {"name": "s"}, "stringdata": {"a": "b"}});
    let strict = refused(send(&client, "POST", &format!("{path}?fieldValidation=Strict"), body.clone()).await);
    assert_eq!((strict.code, &*strict.message), (400, "strict decoding error: unknown field \"stringdata\""));
    let request = Request::post(path).header("Content-Type", "application/json");
    let response = client.send(request.body(body.to_string().into_bytes().into()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], r#"299 - "unknown field \"stringdata\"""#);
    let mistyped = json!({"metadata": {"name": "t"}, "immutable": "yes"});
    let status = refused(send(&client, "POST", path, mistyped).await);
    assert_eq!(status.code, 400);
    assert!(status.message.contains("immutable"), "{}", status.message);
}

#[tokio::test(start_paused = true)]
async fn a_rehearsed_write_changes_nothing() {
    let api: Api<Secret> = Api::default_namespaced(client());
    let secret: Secret = read(json!({"metadata": {"name": "s"}, "stringData": {"password": "x"}}));
    let dry = PostParams { dry_run: true, field_manager: None };
    let shown = api.create(&dry, &secret).await.unwrap();
    assert_eq!(shown.data.unwrap()["password"].0, b"x");
    assert_eq!(refused(api.get("s").await).code, 404);
    api.create(&post(), &secret).await.unwrap();
    let patch = Patch::Merge(json!({"stringData": {"password": "y"}}));
    api.patch("s", &PatchParams::default().dry_run(), &patch).await.unwrap();
    assert_eq!(api.get("s").await.unwrap().data.unwrap()["password"].0, b"x");
    api.patch("s", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(api.get("s").await.unwrap().data.unwrap()["password"].0, b"y");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_seen_through_both_groups() {
    let client = client();
    let new: k8s_openapi::api::events::v1::Event = read(json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Scaled", "reason": "Scaled",
        "regarding": {"kind": "Deployment", "name": "web", "namespace": "default"}, "note": "from 0 to 1",
        "reportingController": "tidemark", "reportingInstance": "x", "type": "Normal",
    }));
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(client.clone());
    events.create(&post(), &new).await.unwrap();
    let old: Api<Event> = Api::default_namespaced(client);
    let about = ListParams::default().fields("involvedObject.name=web");
    let listed = old.list(&about).await.unwrap();
    assert_eq!(listed.items[0].message.as_deref(), Some("from 0 to 1"));
    let series = Patch::Merge(
        json!({"note": "again", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}}),
    );
    let after = events.patch("e", &PatchParams::default(), &series).await.unwrap();
    assert_eq!((after.note.as_deref(), after.series.unwrap().count), (Some("again"), 2));
}

#[tokio::test(start_paused = true)]
async fn selectors_narrow_lists() {
    let client = client();
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    for (name, value) in [("a", "x"), ("b", "y"), ("c", "z")] {
        api.create(&post(), &config_map(name, value)).await.unwrap();
    }
    let names = |params: ListParams| {
        let api = api.clone();
        async move { api.list(&params).await.unwrap().iter().map(ResourceExt::name_any).collect::<Vec<_>>() }
    };
    assert_eq!(names(ListParams::default().labels("value in (x,z)")).await, ["a", "c"]);
    assert_eq!(names(ListParams::default().labels("value!=x,value")).await, ["b", "c"]);
    assert_eq!(names(ListParams::default().fields("metadata.name=b")).await, ["b"]);
    assert_eq!(names(ListParams::default().limit(1)).await, ["a", "b", "c"], "lists are never cut");
    let bad = refused(api.list(&ListParams::default().fields("data.key=x")).await);
    assert_eq!((bad.code, &*bad.message), (400, "field label not supported: data.key"));
    let everywhere: Api<ConfigMap> = Api::all(client);
    assert_eq!(everywhere.list(&ListParams::default()).await.unwrap().items.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_same_requests_make_the_same_cluster() {
    async fn story() -> String {
        let client = client();
        let api: Api<Deployment> = Api::default_namespaced(client.clone());
        for name in ["b", "a"] {
            api.create(&post(), &deployment(name)).await.unwrap();
        }
        let generated: ConfigMap = read(json!({"metadata": {"generateName": "x-"}}));
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        maps.create(&post(), &generated).await.unwrap();
        api.delete("b", &DeleteParams::default()).await.unwrap();
        let deployments = get(&client, "/apis/apps/v1/deployments", "application/json").await;
        format!("{deployments}{}", get(&client, "/api/v1/configmaps", "application/json").await)
    }
    assert_eq!(story().await, story().await);
}
