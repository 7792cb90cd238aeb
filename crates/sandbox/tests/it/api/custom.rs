//! Custom resources: our own definitions, and what a definition can ask for.

pub use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::ListParams;
use tidemark_api::ScaledObject;

use super::*;

fn with_ours() -> Client {
    let sandbox = sandbox(Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    sandbox.client()
}

pub fn scaled_object(change: impl FnOnce(&mut Value)) -> Value {
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
pub type Change = Box<dyn FnOnce(&mut Value)>;

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

pub fn gadgets(schema: Value) -> Value {
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

pub fn gadget_schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer"}, "mode": {"type": "string", "default": "fast"},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }})
}

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GADGETS: &str = "/apis/example.com/v1/namespaces/default/gadgets";

pub fn gadget(spec: Value) -> Value {
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
async fn a_rule_that_cannot_be_evaluated_is_refused_with_its_definition() {
    let client = client();
    let mut schema = gadget_schema();
    schema["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "isURL(self.mode)"}]);
    let status = refused(send(&client, "POST", DEFINITIONS, gadgets(schema)).await);
    assert_eq!(status.code, 422);
    let said = "not implemented by the sandbox: the function isURL of the Common Expression Language";
    assert!(status.message.contains(said), "{}", status.message);
    assert_eq!(refused(send(&client, "POST", GADGETS, gadget(json!({}))).await).code, 404);
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
