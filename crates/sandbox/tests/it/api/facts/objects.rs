//! Creating, changing and deleting objects of Kubernetes kinds.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Preconditions, PropagationPolicy};

use super::*;

fn post() -> PostParams {
    PostParams::default()
}

/// A Deployment that no controller changes meanwhile.
fn resting(name: &str) -> Deployment {
    let mut deployment = deployment(name);
    deployment.spec.paused = Some(true);
    deployment
}

pub async fn names_are_unique_generated_and_checked(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
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
    let both = json!({"metadata": {"name": "a"}, "data": {"a/b": "c"}});
    let twice_wrong = refused(send(&client, "POST", &path(&client, "api/v1", "configmaps"), both).await);
    assert_eq!(twice_wrong.code, 422, "what it is comes before whether it is there");
}

pub async fn an_update_with_an_old_version_conflicts(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let first = api.create(&post(), &config_map("a", "1")).await.unwrap();
    let mut newer = first.clone();
    newer.data = Some(BTreeMap::from([("key".into(), "2".into())]));
    let newer = api.replace("a", &post(), &newer).await.unwrap();
    assert_ne!(newer.resource_version(), first.resource_version());
    let stale = refused(api.replace("a", &post(), &first).await);
    assert_eq!((stale.code, &*stale.reason), (409, "Conflict"));
    assert!(stale.message.contains("the object has been modified"), "{}", stale.message);
    let same = api.replace("a", &post(), &newer).await.unwrap();
    assert_eq!(same.resource_version(), newer.resource_version(), "nothing changed");
    let unconditional = api.replace("a", &post(), &config_map("a", "3")).await.unwrap();
    assert_eq!(unconditional.data.unwrap()["key"], "3");
    let other = json!({"metadata": {"uid": "other"}, "data": {"key": "4"}});
    let patched = refused(api.patch("a", &PatchParams::default(), &Patch::Merge(&other)).await);
    assert_eq!((patched.code, &*patched.details.unwrap().causes[0].field), (422, "metadata.uid"));
    let mut replaced = config_map("a", "4");
    replaced.metadata.uid = Some("other".into());
    assert_eq!(refused(api.replace("a", &post(), &replaced).await).code, 409);
}

pub async fn the_generation_grows_with_the_spec_and_the_status_is_apart(client: Client) {
    let api: Api<Deployment> = Api::default_namespaced(client);
    api.create(&post(), &resting("web")).await.unwrap();
    let merge = |value| async { api.patch("web", &PatchParams::default(), &Patch::Merge(value)).await.unwrap() };
    assert_eq!(merge(json!({"metadata": {"labels": {"a": "b"}}})).await.metadata.generation, Some(1));
    assert_ne!(merge(json!({"status": {"replicas": 7}})).await.status.and_then(|status| status.replicas), Some(7));
    assert_eq!(merge(json!({"spec": {"replicas": 3}})).await.metadata.generation, Some(2));
    let status = Patch::Merge(json!({"spec": {"replicas": 9}, "status": {"replicas": 3, "observedGeneration": 2}}));
    let after = api.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(after.spec.replicas, Some(3));
    assert_eq!(after.status.unwrap().replicas, Some(3));
    assert_eq!(after.metadata.generation, Some(2));
}

pub async fn every_patch_does_what_its_type_says(client: Client) {
    let api: Api<Deployment> = Api::default_namespaced(client);
    api.create(&post(), &resting("web")).await.unwrap();
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
}

pub async fn the_scale_of_a_deployment_is_read_and_written(client: Client) {
    let api: Api<Deployment> = Api::default_namespaced(client.clone());
    api.create(&post(), &resting("web")).await.unwrap();
    let mut scale = api.get_scale("web").await.unwrap();
    assert_eq!(scale.status.as_ref().unwrap().selector.as_deref(), Some("app=web"));
    scale.spec.as_mut().unwrap().replicas = Some(5);
    // Controllers may write the Deployment in between.
    let version = scale.metadata.resource_version.take();
    let written = api.replace_scale("web", &post(), &scale).await.unwrap();
    assert_eq!(written.spec.unwrap().replicas, Some(5));
    scale.metadata.resource_version = version;
    let stale = refused(api.replace_scale("web", &post(), &scale).await);
    assert_eq!(stale.code, 409);
    let zero = Patch::Merge(json!({"spec": {"replicas": 0}}));
    api.patch_scale("web", &PatchParams::default(), &zero).await.unwrap();
    let after = api.get("web").await.unwrap();
    assert_eq!((after.spec.replicas, after.metadata.generation), (Some(0), Some(3)));
    for junk in [json!({}), json!([]), json!(5), json!({"metadata": {"name": "web"}, "spec": 5})] {
        let path = path(&client, "apis/apps/v1", "deployments/web/scale");
        assert_eq!(refused(send(&client, "PUT", &path, junk.clone()).await).code, 400, "{junk}");
    }
    let mut other = api.get_scale("web").await.unwrap();
    (other.metadata.uid, other.metadata.resource_version) = (Some("other".into()), None);
    assert_eq!(refused(api.replace_scale("web", &post(), &other).await).code, 409);
    let below = Patch::Merge(json!({"spec": {"replicas": -1}}));
    assert_eq!(refused(api.patch_scale("web", &PatchParams::default(), &below).await).code, 422);
}

pub async fn a_finalizer_holds_an_object_until_it_is_taken_away(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
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

pub async fn a_deletion_has_conditions_and_can_be_rehearsed(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
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

pub async fn a_collection_is_deleted_by_selector(client: Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    for (name, value) in [("a", "x"), ("b", "y"), ("c", "x")] {
        api.create(&post(), &config_map(name, value)).await.unwrap();
    }
    let only = ListParams::default().labels("value=x");
    let gone = api.delete_collection(&DeleteParams::default(), &only).await.unwrap().left().unwrap();
    assert_eq!(gone.items.len(), 2);
    let left = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["b"]);
}

pub async fn an_autoscaler_is_completed_and_checked_as_on_a_real_server(client: Client) {
    let api: Api<HorizontalPodAutoscaler> = Api::default_namespaced(client);
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

pub async fn unknown_fields_warn_or_are_refused(client: Client) {
    let path = &*path(&client, "api/v1", "secrets");
    let body = json!({"metadata": {"name": "s"}, "stringdata": {"a": "b"}});
    let strict = refused(send(&client, "POST", &format!("{path}?fieldValidation=Strict"), body.clone()).await);
    let message =
        "Secret in version \"v1\" cannot be handled as a Secret: strict decoding error: unknown field \"stringdata\"";
    assert_eq!((strict.code, &*strict.message), (400, message));
    let request = Request::post(path).header("Content-Type", "application/json");
    let response = client.send(request.body(body.to_string().into_bytes().into()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], r#"299 - "unknown field \"stringdata\"""#);
    let mistyped = json!({"metadata": {"name": "t"}, "immutable": "yes"});
    let status = refused(send(&client, "POST", path, mistyped).await);
    assert_eq!(status.code, 400);
    assert!(status.message.contains("immutable"), "{}", status.message);
}

pub async fn a_rehearsed_write_changes_nothing(client: Client) {
    let api: Api<Secret> = Api::default_namespaced(client);
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

pub async fn an_event_is_seen_through_both_groups(client: Client) {
    let new: k8s_openapi::api::events::v1::Event = read(json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Scaled", "reason": "Scaled",
        "regarding": {"kind": "Deployment", "name": "web", "namespace": client.default_namespace()}, "note": "from 0 to 1",
        "reportingController": "tidemark.dev/operator", "reportingInstance": "x", "type": "Normal",
    }));
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(client.clone());
    events.create(&post(), &new).await.unwrap();
    let old: Api<Event> = Api::default_namespaced(client);
    let about = ListParams::default().fields("involvedObject.name=web");
    let listed = old.list(&about).await.unwrap();
    assert_eq!(listed.items[0].message.as_deref(), Some("from 0 to 1"));
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:09.000000Z"}});
    let after = events.patch("e", &PatchParams::default(), &Patch::Merge(series)).await.unwrap();
    assert_eq!((after.note.as_deref(), after.series.unwrap().count), (Some("from 0 to 1"), 2));
    let retold = Patch::Merge(json!({"note": "again"}));
    assert_eq!(refused(events.patch("e", &PatchParams::default(), &retold).await).code, 422);
    old.patch("e", &PatchParams::default(), &Patch::Merge(json!({"message": "again"}))).await.unwrap();
    let mut timeless = new;
    timeless.metadata.name = Some("t".into());
    timeless.event_time = None;
    assert_eq!(refused(events.create(&post(), &timeless).await).code, 422);
}

pub async fn a_strategic_patch_without_a_merge_key_is_refused(client: Client) {
    let api: Api<Deployment> = Api::default_namespaced(client);
    api.create(&post(), &resting("web")).await.unwrap();
    for containers in [json!([{"image": "nginx:2"}]), json!(["nginx"]), json!([{"name": "main", "$patch": "other"}])] {
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}));
        assert_eq!(refused(api.patch("web", &PatchParams::default(), &patch).await).code, 500);
    }
}

pub async fn options_that_cannot_be_are_refused(client: Client) {
    let maps = path(&client, "api/v1", "configmaps");
    for (query, code) in [
        ("labelSelector=a%20b", 400),
        ("labelSelector=a%3D-x", 400),
        ("fieldSelector=data.key%3Dx", 400),
        ("limit=x", 400),
        ("timeoutSeconds=x", 400),
        ("resourceVersion=x", 400),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422),
        ("resourceVersion=1&resourceVersionMatch=Other", 422),
        ("watch=1&sendInitialEvents=true", 422),
        ("watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan", 422),
    ] {
        assert_eq!(refused(send(&client, "GET", &format!("{maps}?{query}"), json!(null)).await).code, code, "{query}");
    }
    for query in ["dryRun=Some", "fieldValidation=Never"] {
        let body = json!({"metadata": {"name": "a"}});
        assert_eq!(refused(send(&client, "POST", &format!("{maps}?{query}"), body).await).code, 422, "{query}");
    }
    let policy = json!({"propagationPolicy": "Never"});
    send(&client, "POST", &maps, json!({"metadata": {"name": "a"}})).await.unwrap();
    assert_eq!(refused(send(&client, "DELETE", &format!("{maps}/a"), policy).await).code, 422);
}

pub async fn what_no_object_may_look_like_is_refused(client: Client) {
    let maps = path(&client, "api/v1", "configmaps");
    for (body, code) in [
        (json!([]), 400),
        (json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "a"}}), 400),
        (json!({"kind": 5, "metadata": {"name": "a"}}), 400),
        (json!({"metadata": "a"}), 400),
        (json!({"metadata": {"name": "a", "namespace": "elsewhere"}}), 400),
        (json!({"metadata": {"name": "a"}, "data": {"key": 1}}), 400),
        (json!({"metadata": {}}), 422),
        (json!({"metadata": {"name": "a", "finalizers": ["unqualified"]}}), 422),
        (json!({"metadata": {"name": "a", "labels": {"a b": "c"}}}), 422),
        (json!({"metadata": {"name": "a"}, "data": {"a/b": "c"}}), 422),
    ] {
        assert_eq!(refused(send(&client, "POST", &maps, body.clone()).await).code, code, "{body}");
    }
    send(&client, "POST", &maps, json!({"metadata": {"name": "a"}})).await.unwrap();
    let renamed = json!({"metadata": {"name": "b"}});
    assert_eq!(refused(send(&client, "PUT", &format!("{maps}/a"), renamed).await).code, 400);
    assert_eq!(
        refused(send(&client, "POST", "/api/v1/configmaps", json!({"metadata": {"name": "a"}})).await).code,
        405
    );
    let elsewhere = "/api/v1/namespaces/not-there/configmaps";
    assert_eq!(refused(send(&client, "POST", elsewhere, json!({"metadata": {"name": "a"}})).await).code, 404);
}
