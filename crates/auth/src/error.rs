//! What stops a resolution.

/// Why parameters cannot be resolved. No message carries a value, only names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The API server refused a read, answered nonsense or did not answer.
    #[error("{object} could not be read: {cause}")]
    Unreadable {
        /// What was read, such as `Secret shop/broker`.
        object: String,
        cause: String,
    },
    /// A container takes its environment from an object that is not there, and does not call it optional.
    #[error("{object} does not exist; container \"{container}\" of the scale target takes its environment from it")]
    MissingForContainer { object: String, container: String },
    /// The scale target's pods have no such container.
    #[error("the scale target has no container \"{0}\"")]
    UnknownContainer(String),
    /// The container's variables are larger than what a process can be given.
    #[error("container \"{0}\" of the scale target: its environment is larger than 6 MiB, which no process can have")]
    EnvironmentTooLarge(String),
    /// The authentication uses a source that this version cannot read.
    #[error("{object}: {field} is not supported yet")]
    Unsupported {
        /// The authentication, such as `TriggerAuthentication shop/broker`.
        object: String,
        /// The field of its spec.
        field: &'static str,
    },
    /// A ClusterTriggerAuthentication names Secrets or ConfigMaps, and nothing says in which namespace they are.
    #[error("{object}: set the cluster object namespace, where its Secrets and ConfigMaps are read")]
    NoClusterObjectNamespace { object: String },
    /// Secrets may be read from the cluster object namespace only.
    #[error("{object}: Secrets of namespace {namespace} may not be read, because secret access is restricted")]
    Restricted { object: String, namespace: String },
    /// A file of parameters cannot be used.
    #[error("{object}: filePath {path}: {cause}")]
    File { object: String, path: String, cause: String },
    /// The authentication contradicts itself.
    #[error("{object}: {cause}")]
    Invalid { object: String, cause: &'static str },
}
