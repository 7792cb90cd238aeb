//! A real API server that has our definitions.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use tidemark_testkit::{ControlPlane, Options};
use tokio::sync::OnceCell;

/// One control plane for all tests. Never dropped: its processes end with the test binary.
static CONTROL_PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// The control plane, or `None` (said on standard error) where there is none.
pub async fn plane() -> Option<&'static ControlPlane> {
    let start = async || -> Result<ControlPlane, ()> {
        // A skip is not kept: each test says for itself that it was skipped.
        let plane = ControlPlane::start_or_skip(Options::default()).await.ok_or(())?;
        define(&plane.client().await.unwrap()).await;
        Ok(plane)
    };
    CONTROL_PLANE.get_or_try_init(start).await.ok()
}

/// A client whose own namespace is `namespace`, new for this caller.
pub async fn client(namespace: &str) -> Option<Client> {
    let mut config = plane().await?.config().await.unwrap();
    config.default_namespace = namespace.to_owned();
    let client = Client::try_from(config).unwrap();
    let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    crate::rules::send(&client, "POST", "/api/v1/namespaces", &object).await.unwrap();
    Some(client)
}

/// Applies the definitions as a user does on a cluster that has others of the same names, and waits until they are served.
async fn define(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in tidemark_api::crds() {
        let name = definition.name_any();
        let mut other = definition.clone();
        let schema = other.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
        schema.description = Some("Of another operator.".to_owned());
        let by_another = PostParams { field_manager: Some("helm".to_owned()), ..PostParams::default() };
        api.create(&by_another, &other).await.unwrap();
        let ours = PatchParams::apply("kubectl");
        let conflict = api.patch(&name, &ours, &Patch::Apply(&definition)).await.unwrap_err();
        assert!(conflict.to_string().contains("helm"), "{conflict}");
        let applied = api.patch(&name, &ours.force(), &Patch::Apply(&definition)).await.unwrap();
        assert_eq!(
            applied.spec.versions[0].schema, definition.spec.versions[0].schema,
            "the schema of {name} is changed"
        );
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(60), established).await.unwrap().unwrap();
        let served = api.get(&name).await.unwrap();
        let conditions = served.status.and_then(|status| status.conditions).unwrap_or_default();
        let complaint = conditions.iter().find(|condition| condition.type_ == "NonStructuralSchema");
        assert!(complaint.is_none(), "{complaint:?}");
    }
}
