//! Kubernetes on a desk: an in-process API server with the few controllers that an autoscaler needs.
//!
//! [`Sandbox::service`] is the API as a tower service, [`Sandbox::client`] a client over it, [`Sandbox::run`] the
//! controllers, which are ordinary clients of the API. With simulated pods nothing opens a socket and everything runs
//! under tokio's paused clock: on a current-thread runtime the same input gives the same objects in the same order. With
//! pods that are processes, Services listen on loopback addresses. [`Faults`] make the API server of one client fail.
//!
//! What is not served is refused: `501 NotImplemented`, naming it.

mod api;
mod controllers;
mod faults;
pub mod process;
pub mod simulated;
mod store;
mod usage;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use tidemark_clock::Clock;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service};

pub use api::{
    AdmissionHook, AdmissionRule, AggregatedService, ApiService, ContainerLogs, HookOperation, LogLine, LogRequest,
    ResponseBody,
};
pub use faults::{Fault, FaultLayer, FaultRule, Faults, Faulty};
pub use usage::{Load, Usage};

/// Services of process pods have loopback addresses of this /16 network.
const PROCESS_SERVICES: Ipv4Addr = Ipv4Addr::new(127, 96, 0, 0);

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
    books: process::Books,
}

impl Sandbox {
    /// An empty cluster: no objects but the namespaces `default`, `kube-public` and `kube-system`.
    pub fn new(clock: Clock, options: Options) -> Self {
        let (shared, books) = (api::Shared::new(clock, options.history), process::Books::default());
        match &options.pods {
            Pods::Simulated => shared.keep_logs(Arc::new(process::Silence)),
            Pods::Processes(_) => {
                shared.keep_logs(Arc::new(books.logs.clone()));
                shared.use_service_network(PROCESS_SERVICES);
            }
        }
        Self { shared, options, books }
    }

    /// The API. Takes requests with any body, so that a server can hand its own on.
    pub fn service(&self) -> ApiService {
        ApiService::new(self.shared.clone())
    }

    /// A client of the API whose default namespace is `default`. Must be called inside a tokio runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), "default")
    }

    /// A client whose requests alone meet the faults of the layer. Must be called inside a tokio runtime.
    pub fn faulty_client(&self, faults: &FaultLayer) -> kube::Client {
        kube::Client::new(faults.layer(self.service()), "default")
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

    /// Asks a validating webhook before objects are written or deleted. One of the same name is replaced.
    pub fn admit(&self, hook: AdmissionHook) {
        self.shared.ask(hook);
    }

    /// Sets what simulated pods with these labels use of CPU and memory, or nothing any more. Of several loads that fit a
    /// pod the first by their labels counts; annotations of the pod (see [`simulated`]) come before all of them.
    pub fn set_load<'a>(
        &self,
        namespace: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        load: Option<Load>,
    ) {
        let labels: BTreeMap<_, _> =
            labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.books.gauge.set_load(namespace, labels, load);
    }

    /// Runs the controllers until `shutdown`; then everything that they started has ended. `metrics.k8s.io` is served from
    /// now on.
    // Boxed here, so that the controllers are compiled with this crate and not again with those that use it.
    pub fn run(&self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        let metrics = usage::PodMetrics::new(self.books.gauge.clone(), &self.shared);
        let service = tower::service_fn(move |request| metrics.clone().answer(request));
        self.mount(usage::GROUP, usage::VERSION, service);
        let (clock, options, books) = (self.shared.clock, self.options.clone(), self.books.clone());
        Box::pin(controllers::run(self.client(), clock, options, books, shutdown))
    }
}

/// A service as [`AdmissionHook::service`] has it.
pub fn webhook<S, B>(service: S) -> AggregatedService
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    api::webhook(service)
}
