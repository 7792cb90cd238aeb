//! Creating, changing and deleting objects of Kubernetes kinds.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::ResourceExt;
use kube::api::ListParams;

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
    let said = "\"data.key\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    assert_eq!((bad.code, &*bad.message), (400, said));
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

#[tokio::test(start_paused = true)]
async fn warnings_name_any_field_and_never_fill_the_headers() {
    let client = client();
    let warnings = async |body: Value| {
        let request = Request::post("/api/v1/namespaces/default/configmaps").header("Content-Type", "application/json");
        let response = client.send(request.body(body.to_string().into_bytes().into()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 201);
        response.headers().get_all("warning").iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>()
    };
    let one = warnings(json!({"metadata": {"name": "a"}, "größe": 1})).await;
    assert_eq!(one, [r#"299 - "unknown field \"größe\"""#.as_bytes()]);
    let mut many = json!({"metadata": {"name": "b"}});
    for number in 0..1000 {
        many[format!("field{number}")] = json!(1);
    }
    assert!((50..200).contains(&warnings(many).await.len()));
}
