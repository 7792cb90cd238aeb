//! Services of this machine as the API server sees them, and APIs behind its aggregation layer.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::control_plane::get_text;
use crate::{ControlPlane, Error};

const SERVICE: &str = "tidemark-external-metrics";
const NAMESPACE: &str = "kube-system";

/// The name that the certificate of an external metrics server must hold: the API server asks for it when it connects.
pub const EXTERNAL_METRICS_SERVER_NAME: &str = "tidemark-external-metrics.kube-system.svc";

const AVAILABLE_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Version `v1beta1` of a group, served by a Service.
pub(crate) struct Aggregated<'a> {
    pub(crate) group: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) service: &'a str,
    pub(crate) port: u16,
}

impl Aggregated<'_> {
    fn name(&self) -> String {
        format!("v1beta1.{}", self.group)
    }
}

impl ControlPlane {
    /// Makes `https://127.0.0.1:port` the cluster's `external.metrics.k8s.io/v1beta1`, and waits until the API server
    /// gets answers from it. It may be called again with another port or certificate.
    ///
    /// The server must be listening, with a certificate for [`EXTERNAL_METRICS_SERVER_NAME`] that `ca_pem` vouches for
    /// (PEM; the certificate itself if it is self-signed).
    ///
    /// # Errors
    /// When the API server refuses the registration, or reports no working server within 60 s.
    pub async fn register_external_metrics(&self, port: u16, ca_pem: &str) -> Result<(), Error> {
        let api = Aggregated { group: "external.metrics.k8s.io", namespace: NAMESPACE, service: SERVICE, port };
        self.register_service(NAMESPACE, SERVICE, port).await?;
        self.register_aggregated(&api, Some(ca_pem)).await?;
        self.wait_for_aggregated(&api).await
    }

    /// The same for a Service of [`ControlPlane::register_service`], whose name with `.NAMESPACE.svc` is the
    /// certificate's, without a CA: that is somebody else's to write into the APIService. Does not wait: see
    /// [`ControlPlane::wait_for_external_metrics`].
    ///
    /// # Errors
    /// When the API server refuses the registration.
    pub async fn register_external_metrics_service(
        &self,
        namespace: &str,
        service: &str,
        port: u16,
    ) -> Result<(), Error> {
        let api = Aggregated { group: "external.metrics.k8s.io", namespace, service, port };
        self.register_aggregated(&api, None).await
    }

    /// Waits until the API server gets answers from whoever serves `external.metrics.k8s.io`.
    ///
    /// # Errors
    /// When it does not within 60 s.
    pub async fn wait_for_external_metrics(&self) -> Result<(), Error> {
        let api = Aggregated { group: "external.metrics.k8s.io", namespace: "", service: "", port: 0 };
        self.wait_for_aggregated(&api).await
    }

    /// Makes a Service, for webhook configurations and APIServices, that leads the API server to a port of the loopback.
    /// The namespace is made unless it is there.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn register_service(&self, namespace: &str, name: &str, port: u16) -> Result<(), Error> {
        let client = self.client().await?;
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        within(Api::<Namespace>::all(client.clone()).patch(namespace, &field_manager(), &Patch::Apply(object))).await?;
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            // The API server runs on this machine, not in a pod network: the name leads it to the loopback.
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        });
        let services: Api<Service> = Api::namespaced(client, namespace);
        within(services.patch(name, &field_manager(), &Patch::Apply(service))).await.map(drop)
    }

    pub(crate) async fn register_aggregated(&self, api: &Aggregated<'_>, ca_pem: Option<&str>) -> Result<(), Error> {
        let mut object = json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": api.name()},
            "spec": {
                "group": api.group,
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"name": api.service, "namespace": api.namespace, "port": api.port},
            },
        });
        if let Some(ca_pem) = ca_pem {
            object["spec"]["caBundle"] = BASE64_STANDARD.encode(ca_pem).into();
        }
        let api_services: Api<APIService> = Api::all(self.client().await?);
        within(api_services.patch(&api.name(), &field_manager(), &Patch::Apply(object))).await.map(drop)
    }

    pub(crate) async fn wait_for_aggregated(&self, api: &Aggregated<'_>) -> Result<(), Error> {
        let client = self.client().await?;
        let api_services: Api<APIService> = Api::all(client.clone());
        let deadline = Instant::now() + AVAILABLE_WITHIN;
        loop {
            let last = match available(&client, &api_services, api).await {
                Ok(()) => return Ok(()),
                Err(last) => last,
            };
            if Instant::now() >= deadline {
                return Err(Error::TooLate { what: "the aggregated API is available", limit: AVAILABLE_WITHIN, last });
            }
            sleep(PAUSE).await;
        }
    }
}

fn field_manager() -> PatchParams {
    PatchParams::apply("tidemark-testkit").force()
}

/// A request with a deadline.
pub(crate) async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(ANSWER_WITHIN, request).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => {
            Err(Error::TooLate { what: "an answer of the API server", limit: ANSWER_WITHIN, last: String::new() })
        }
    }
}

/// The condition of an earlier registration may still say yes, so the server itself is asked as well.
async fn available(client: &Client, api_services: &Api<APIService>, api: &Aggregated<'_>) -> Result<(), String> {
    let api_service = within(api_services.get(&api.name())).await.map_err(|error| error.to_string())?;
    let conditions = api_service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Available") {
        Some(condition) if condition.status == "True" => {}
        Some(condition) => return Err(condition.message.clone().unwrap_or_default()),
        None => return Err("the API server has not judged it yet".into()),
    }
    let answer = get_text(client, &format!("/apis/{}/v1beta1", api.group)).await;
    answer.map(drop).map_err(|error| error.to_string())
}
