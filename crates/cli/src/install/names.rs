//! What the objects of an installation are called.

use serde_json::{Map, Value, json};

use crate::version::VERSION;

/// The Secret of the certificates, by either names.
pub const CERTIFICATES: &str = "kedaorg-certs";

/// Names of an installation: Tidemark's own, or those that KEDA's chart gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The installation's, which is also the name of its namespace unless another one is given.
    pub installation: &'static str,
    /// Deployment and Service; begins the names of the roles, too.
    pub operator: &'static str,
    pub operator_account: &'static str,
    pub metrics_server: &'static str,
    pub metrics_server_account: &'static str,
    pub webhooks: &'static str,
    pub webhooks_account: &'static str,
    pub webhook_configuration: &'static str,
}

/// Tidemark's own.
pub const OWN: Names = Names {
    installation: "tidemark",
    operator: "tidemark-operator",
    operator_account: "tidemark-operator",
    metrics_server: "tidemark-metrics-server",
    metrics_server_account: "tidemark-metrics-server",
    webhooks: "tidemark-webhooks",
    webhooks_account: "tidemark-webhooks",
    webhook_configuration: "tidemark-admission",
};

/// Those that KEDA's chart gives.
pub const KEDAS: Names = Names {
    installation: "keda",
    operator: "keda-operator",
    operator_account: "keda-operator",
    metrics_server: "keda-operator-metrics-apiserver",
    metrics_server_account: "keda-metrics-server",
    webhooks: "keda-admission-webhooks",
    webhooks_account: "keda-webhook",
    webhook_configuration: "keda-admission",
};

impl Names {
    /// Labels of an object that belongs to `app`.
    pub fn labels(&self, app: &str) -> Map<String, Value> {
        let labels = [
            ("app.kubernetes.io/name", app),
            ("app.kubernetes.io/component", "operator"),
            ("app.kubernetes.io/part-of", self.operator),
            ("app.kubernetes.io/version", VERSION),
            ("app.kubernetes.io/instance", self.installation),
        ];
        labels.map(|(key, value)| (key.to_owned(), value.into())).into_iter().collect()
    }

    /// The metadata of an object that belongs to `app`, in a namespace if it is in one.
    pub fn metadata(&self, name: &str, namespace: Option<&str>, app: &str) -> Value {
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        metadata["labels"] = self.labels(app).into();
        metadata
    }
}
