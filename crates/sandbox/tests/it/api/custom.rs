//! Custom resources: our own definitions, and what a definition can ask for.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use tidemark_api::ScaledObject;

use super::*;

fn with_ours() -> Client {
    let sandbox = sandbox(Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    sandbox.client()
}

fn scaled_object(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"name": "web"},
            "triggers": [{"type": "cron", "metadata": {"timezone": "UTC"}}],
        },
    });
    change(&mut object);
    object
}

/// What a case does to a sound object.
type Change = Box<dyn FnOnce(&mut Value)>;

const OBJECTS: &str = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects";

#[tokio::test(start_paused = true)]
async fn our_definitions_are_served_and_every_rule_of_theirs_is_evaluated() {
    let client = with_ours();
    let request = Request::post(OBJECTS).header("Content-Type", "application/json");
    let body = scaled_object(|_| ()).to_string().into_bytes();
    let response = client.send(request.body(body.into()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(!response.headers().contains_key("warning"), "{:?}", response.headers());
    let api: Api<ScaledObject> = Api::default_namespaced(client.clone());
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items[0].spec.triggers[0].type_, "cron");
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let status = definitions.get("scaledobjects.keda.sh").await.unwrap().status.unwrap();
    let conditions = status.conditions.unwrap();
    assert!(conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True"));
}

#[tokio::test(start_paused = true)]
async fn what_the_schema_forbids_is_refused_with_its_place() {
    let client = with_ours();
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|object| object["spec"]["triggers"] = json!([])), "spec.triggers"),
        (Box::new(|object| object["spec"]["scaleTargetRef"] = json!({})), "spec.scaleTargetRef.name"),
        (Box::new(|object| object["spec"]["scaleTargetRef"]["name"] = json!("")), "spec.scaleTargetRef.name"),
        (Box::new(|object| object["spec"]["pollingInterval"] = json!(0)), "spec.pollingInterval"),
        (Box::new(|object| object["spec"]["pollingInterval"] = json!("5")), "spec.pollingInterval"),
        (
            Box::new(|object| object["spec"]["triggers"][0]["metadata"]["value"] = json!(5)),
            "spec.triggers[0].metadata.value",
        ),
        (Box::new(|object| object["spec"]["minReplicaCount"] = json!(101)), "spec"),
    ];
    for (change, field) in cases {
        let status = refused(send(&client, "POST", OBJECTS, scaled_object(change)).await);
        assert_eq!(status.code, 422, "{}", status.message);
        assert_eq!(status.details.as_ref().unwrap().causes[0].field, field, "{}", status.message);
        assert!(status.message.starts_with("ScaledObject.keda.sh \"web\" is invalid: "), "{}", status.message);
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_pruned_and_the_status_is_apart() {
    let client = with_ours();
    let sent = scaled_object(|object| {
        object["spec"]["advance"] = json!({"x": 1});
        object["status"] = json!({"hpaName": "mine"});
    });
    let made = send(&client, "POST", OBJECTS, sent).await.unwrap();
    assert!(made["spec"].get("advance").is_none() && made.get("status").is_none(), "{made}");
    let api: Api<ScaledObject> = Api::default_namespaced(client.clone());
    let status = Patch::Merge(json!({"status": {"hpaName": "keda-hpa-web"}, "spec": {"pollingInterval": 9}}));
    let after = api.patch_status("web", &PatchParams::default(), &status).await.unwrap();
    assert_eq!(after.status.unwrap().hpa_name.as_deref(), Some("keda-hpa-web"));
    assert_eq!((after.spec.polling_interval, after.metadata.generation), (None, Some(1)));
    let spec = Patch::Merge(json!({"status": {"hpaName": "other"}, "spec": {"pollingInterval": 9}}));
    let after = api.patch("web", &PatchParams::default(), &spec).await.unwrap();
    assert_eq!(after.status.unwrap().hpa_name.as_deref(), Some("keda-hpa-web"));
    assert_eq!((after.spec.polling_interval, after.metadata.generation), (Some(9), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn an_update_of_a_custom_resource_needs_a_version() {
    let client = with_ours();
    send(&client, "POST", OBJECTS, scaled_object(|_| ())).await.unwrap();
    let blind = refused(send(&client, "PUT", &format!("{OBJECTS}/web"), scaled_object(|_| ())).await);
    assert_eq!(blind.code, 422);
    assert!(blind.message.contains("must be specified for an update"), "{}", blind.message);
    let strategic = Patch::Strategic(json!({"spec": {}}));
    let api: Api<ScaledObject> = Api::default_namespaced(client);
    assert_eq!(refused(api.patch("web", &PatchParams::default(), &strategic).await).code, 415);
}

fn gadgets(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                    "labelSelectorPath": ".status.selector",
                }},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn gadget_schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer"}, "mode": {"type": "string", "default": "fast"},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }})
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GADGETS: &str = "/apis/example.com/v1/namespaces/default/gadgets";

fn gadget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn a_definition_made_through_the_api_is_served_until_it_is_deleted() {
    let client = client();
    assert_eq!(refused(send(&client, "POST", GADGETS, gadget(json!({}))).await).code, 404);
    send(&client, "POST", DEFINITIONS, gadgets(gadget_schema())).await.unwrap();
    let made = send(&client, "POST", GADGETS, gadget(json!({}))).await.unwrap();
    assert_eq!(made["spec"]["mode"], "fast");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.delete("gadgets.example.com", &DeleteParams::default()).await.unwrap();
    assert_eq!(refused(send(&client, "POST", GADGETS, gadget(json!({}))).await).code, 404);
    send(&client, "POST", DEFINITIONS, gadgets(gadget_schema())).await.unwrap();
    let list = get(&client, GADGETS, "application/json").await;
    assert_eq!(list["items"], json!([]), "its objects went with it");
}

#[tokio::test(start_paused = true)]
async fn a_custom_scale_follows_the_paths_of_its_definition() {
    let client = client();
    send(&client, "POST", DEFINITIONS, gadgets(gadget_schema())).await.unwrap();
    send(&client, "POST", GADGETS, gadget(json!({"size": 2}))).await.unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Gadget"));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client, &kind);
    let status = Patch::Merge(json!({"status": {"size": 1, "selector": "app=g"}}));
    api.patch_status("g", &PatchParams::default(), &status).await.unwrap();
    let scale = api.get_scale("g").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=g"));
    let up = Patch::Merge(json!({"spec": {"replicas": 7}}));
    api.patch_scale("g", &PatchParams::default(), &up).await.unwrap();
    let after = api.get("g").await.unwrap();
    assert_eq!((&after.data["spec"]["size"], after.metadata.generation), (&json!(7), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_cannot_be_evaluated_is_told_to_every_writer() {
    let client = client();
    let mut schema = gadget_schema();
    schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "self.size > 1"}]);
    for (path, body) in [(DEFINITIONS, gadgets(schema)), (GADGETS, gadget(json!({"size": 0})))] {
        let request = Request::post(path).header("Content-Type", "application/json");
        let response = client.send(request.body(body.to_string().into_bytes().into()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 201);
        let warning = response.headers()["warning"].to_str().unwrap();
        assert!(warning.contains("does not evaluate the rule") && warning.contains("self.size > 1"), "{warning}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_definition_is_refused() {
    let client = client();
    let mut misnamed = gadgets(gadget_schema());
    misnamed["metadata"]["name"] = json!("gadget.example.com");
    let status = refused(send(&client, "POST", DEFINITIONS, misnamed).await);
    assert_eq!(status.details.unwrap().causes[0].field, "metadata.name");
    let mut hooked = gadgets(gadget_schema());
    hooked["spec"]["conversion"] = json!({"strategy": "Webhook"});
    assert_eq!(refused(send(&client, "POST", DEFINITIONS, hooked).await).code, 501);
    let sandbox = sandbox(Options::default());
    let mut ours = tidemark_api::crds();
    ours[0].spec.versions[0].storage = false;
    let error = sandbox.install_crds(&ours).unwrap_err().to_string();
    assert!(error.contains("scaledobjects.keda.sh") && error.contains("storage version"), "{error}");
    assert!(ours[0].name_any().starts_with("scaledobjects"));
}
