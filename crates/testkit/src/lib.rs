//! A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager as child processes on
//! loopback ports, and stand-ins for the kubelet and the metrics server.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tidemark_testkit::{ControlPlane, Kubelet, Options};
//! use tokio_util::sync::CancellationToken;
//!
//! let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return Ok(()) };
//! let stop = CancellationToken::new();
//! let kubelet = tokio::spawn(Kubelet::run(plane.client().await?, stop.clone()));
//! // ... create a Deployment; its pods become ready ...
//! stop.cancel();
//! kubelet.await??;
//! # Ok(())
//! # }
//! ```
//!
//! The servers live in real time: nothing here works under tokio's paused clock.

mod aggregation;
mod audit;
mod certificates;
mod control_plane;
mod error;
mod kubelet;
mod tls_server;
mod usage;
mod users;
mod volume;

pub use aggregation::EXTERNAL_METRICS_SERVER_NAME;
pub use audit::{AuditTail, Audited};
pub use control_plane::{ControlPlane, Options};
pub use error::Error;
pub use kubelet::{EXIT_CODE_ANNOTATION, FINISH_AFTER_ANNOTATION, Kubelet, NODE_NAME};
pub use tls_server::TlsServer;
pub use usage::ResourceMetrics;
pub use volume::SecretVolume;
