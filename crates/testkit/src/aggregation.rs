//! The external metrics API behind the API server's aggregation layer.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::control_plane::get_text;
use crate::{ControlPlane, Error};

const NAME: &str = "tidemark-external-metrics";
const NAMESPACE: &str = "kube-system";

/// The name that the certificate of an external metrics server must hold: the API server asks for it when it connects.
pub const EXTERNAL_METRICS_SERVER_NAME: &str = "tidemark-external-metrics.kube-system.svc";

const AVAILABLE_WITHIN: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

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
        let client = self.client().await?;
        let field_manager = PatchParams::apply("tidemark-testkit").force();
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            // The API server runs on this machine, not in a pod network: the name leads it to the loopback.
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        });
        let api_service = json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
            "spec": {
                "group": "external.metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "service": {"name": NAME, "namespace": NAMESPACE, "port": port},
                "caBundle": BASE64_STANDARD.encode(ca_pem),
            },
        });
        let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
        within(services.patch(NAME, &field_manager, &Patch::Apply(service))).await?;
        let api_services: Api<APIService> = Api::all(client.clone());
        let name = "v1beta1.external.metrics.k8s.io";
        within(api_services.patch(name, &field_manager, &Patch::Apply(api_service))).await?;
        wait_until_available(&client, &api_services, name).await
    }
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(ANSWER_WITHIN, request).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => {
            Err(Error::TooLate { what: "an answer of the API server", limit: ANSWER_WITHIN, last: String::new() })
        }
    }
}

async fn wait_until_available(client: &Client, api_services: &Api<APIService>, name: &str) -> Result<(), Error> {
    let deadline = Instant::now() + AVAILABLE_WITHIN;
    loop {
        // The condition of an earlier registration may still say yes, so the server itself is asked as well.
        let condition = availability(&within(api_services.get(name)).await?);
        let answer = get_text(client, "/apis/external.metrics.k8s.io/v1beta1").await;
        let last = match (condition, answer) {
            (Ok(()), Ok(_)) => return Ok(()),
            (Err(reason), _) => reason,
            (Ok(()), Err(error)) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(Error::TooLate {
                what: "the external metrics API is available",
                limit: AVAILABLE_WITHIN,
                last,
            });
        }
        sleep(PAUSE).await;
    }
}

fn availability(api_service: &APIService) -> Result<(), String> {
    let conditions = api_service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Available") {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => Err(condition.message.clone().unwrap_or_default()),
        None => Err("the API server has not judged it yet".into()),
    }
}
