//! Kubernetes on a desk: an in-process API server with the few controllers that an autoscaler needs.
//!
//! [`Sandbox::service`] is the API as a tower service, [`Sandbox::client`] a client over it, [`Sandbox::run`] the
//! controllers, which are ordinary clients of the API. Nothing opens a socket, and with simulated pods everything runs
//! under tokio's paused clock: on a current-thread runtime the same input gives the same objects in the same order.
//!
//! What is not served is refused: `501 NotImplemented`, naming it.

mod api;
mod controllers;
pub mod process;
mod store;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use tidemark_clock::Clock;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

pub use api::{AggregatedService, ApiService, ResponseBody};

/// Settings of a sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a pod is.
    pub pods: Pods,
    /// Settings of the HorizontalPodAutoscaler controller.
    pub hpa: tidemark_engine::hpa::Controls,
    /// Time between two passes over a HorizontalPodAutoscaler. 15 s unless set.
    pub hpa_sync_period: Duration,
    /// Time from a simulated pod's creation until it is ready. 1 s unless set.
    pub pod_startup: Duration,
    /// Changes of each resource that are remembered, or as many as there are objects of it if that is more; a watch that
    /// falls further behind is told to start anew. 1000 unless set. Each keeps an old state of an object in memory.
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pods: Pods::Simulated,
            hpa: tidemark_engine::hpa::Controls { downscale_stabilization: Duration::from_secs(300), tolerance: 0.1 },
            hpa_sync_period: Duration::from_secs(15),
            pod_startup: Duration::from_secs(1),
            history: 1000,
        }
    }
}

/// What a pod is.
#[derive(Clone, Debug)]
pub enum Pods {
    /// A state that becomes ready after [`Options::pod_startup`].
    Simulated,
    /// Processes on this machine. Needs the real clock.
    Processes(process::Settings),
}

/// Why a sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A CustomResourceDefinition is refused.
    #[error("CustomResourceDefinition {name}: {message}")]
    Definition {
        /// Its name.
        name: String,
        /// What the API server says.
        message: String,
    },
}

/// A Kubernetes cluster in this process. Cheap to clone; clones are the same cluster.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<api::Shared>,
    options: Options,
}

impl Sandbox {
    /// An empty cluster: no objects but the namespaces `default`, `kube-public` and `kube-system`.
    pub fn new(clock: Clock, options: Options) -> Self {
        Self { shared: api::Shared::new(clock, options.history), options }
    }

    /// The API. Takes requests with any body, so that a server can hand its own on.
    pub fn service(&self) -> ApiService {
        ApiService::new(self.shared.clone())
    }

    /// A client of the API whose default namespace is `default`. Must be called inside a tokio runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), "default")
    }

    /// Installs CustomResourceDefinitions before anyone asks for their objects.
    ///
    /// # Errors
    /// When a definition is refused; those before it are installed.
    pub fn install_crds(&self, crds: &[CustomResourceDefinition]) -> Result<(), Error> {
        for crd in crds {
            api::install(&self.shared, crd).map_err(|message| {
                let name = crd.metadata.name.clone().unwrap_or_default();
                Error::Definition { name, message }
            })?;
        }
        Ok(())
    }

    /// Serves a version of a group by another service, as the aggregation layer does. It gets requests with their whole
    /// path; an APIService object and discovery show it. Mounting the same version again replaces the service.
    pub fn mount<S, B>(&self, group: &str, version: &str, service: S)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        api::mount(&self.shared, group, version, service);
    }

    /// Runs the controllers until `shutdown`; then everything that they started has ended.
    // Boxed here, so that the controllers are compiled with this crate and not again with those that use it.
    pub fn run(&self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(controllers::run(self.client(), self.shared.clock, self.options.clone(), shutdown))
    }
}
