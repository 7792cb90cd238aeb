//! What an installation may set.

use std::path::PathBuf;
use std::time::Duration;

use crate::leader::Fence;

/// Whether an operator writes to the API server.
#[derive(Clone, Debug, Default)]
pub enum Writes {
    #[default]
    Always,
    /// While the fence is open: it leads.
    Behind(Fence),
    /// Never: a dry run. What it would have written is told in observations as if it had been.
    Never,
}

impl Writes {
    /// Whether what is told to be written is.
    pub fn are_real(&self) -> bool {
        !matches!(self, Self::Never)
    }
}

/// Settings of the operator. `Default` is what an installation gets that sets nothing.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces to watch; empty means all.
    pub watch_namespaces: Vec<String>,
    /// Value of the label `app.kubernetes.io/version` on HorizontalPodAutoscalers.
    pub hpa_version_label: String,
    /// Where the Secrets and ConfigMaps of ClusterTriggerAuthentications are read; none refuses them.
    pub cluster_object_namespace: Option<String>,
    /// Secrets are read only from `cluster_object_namespace`.
    pub restrict_secret_access: bool,
    /// The folder of the files that ClusterTriggerAuthentications name by `filePath`; none refuses them.
    pub filepath_auth_root: Option<PathBuf>,
    /// How old authentication parameters may become before they are read again; zero reads them only when a trigger is
    /// built and after a failed read.
    pub auth_refresh: Duration,
    /// Deadline of one fetch: the read of one trigger, its rebuild and second attempt included.
    pub fetch_timeout: Duration,
    /// Deadline of one request to the API server.
    pub request_timeout: Duration,
    /// First polls of the objects found at start are spread over at most this long.
    pub first_poll_spread: Duration,
    /// Label selector of the ScaledObjects to scale, and of their HPAs; none takes all.
    pub selector: Option<String>,
    /// Label selector of the authentications to write the users on; none takes all.
    pub authentication_selector: Option<String>,
    /// Whether the operator writes.
    pub writes: Writes,
    /// The machine or pod name that Kubernetes Events carry.
    pub hostname: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            watch_namespaces: Vec::new(),
            hpa_version_label: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_object_namespace: None,
            restrict_secret_access: false,
            filepath_auth_root: None,
            auth_refresh: Duration::from_secs(300),
            fetch_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            first_poll_spread: Duration::from_secs(30),
            selector: None,
            authentication_selector: None,
            writes: Writes::Always,
            hostname: "tidemark".to_owned(),
        }
    }
}
