use std::process::ExitStatus;
use std::time::Duration;

/// Why the control plane could not be started or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no programs to start on this machine.
    #[error("no control plane on this machine: run cargo xtask control-plane")]
    NoPrograms,
    /// Where the programs should be, they are not.
    #[error("{0}")]
    Programs(String),
    /// A file or a process could not be made.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A certificate could not be made.
    #[error("cannot make the control plane's certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The generated kubeconfig was refused.
    #[error("the generated kubeconfig is not usable: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server refused a request.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// A server ended by itself.
    #[error("{name} ended ({status}). Its last lines:\n{log}")]
    Ended {
        /// Which server.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// Something did not happen in time.
    #[error("{what}: not within {} s. {last}", limit.as_secs())]
    TooLate {
        /// What was awaited.
        what: &'static str,
        /// How long.
        limit: Duration,
        /// What the last attempt answered, or the end of a log.
        last: String,
    },
}
