//! What triggers may ask of the cluster that their objects live in.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::SourceError;

/// The cluster, as far as triggers read it. Answers may be as old as the API server's cache.
///
/// Implementations set a deadline for each call, and name in a refusal what must be granted.
pub trait Cluster: Send + Sync {
    /// The number of pods of a namespace that match a label selector and have not ended: their phase is neither
    /// `Succeeded` nor `Failed`. Whether they are ready, scheduled or about to be deleted does not matter.
    ///
    /// # Errors
    /// The cluster did not answer, or refused.
    fn live_pods<'a>(&'a self, namespace: &'a str, selector: &'a str) -> BoxFuture<'a, Result<usize, SourceError>>;

    /// The names of the nodes that such pods were given to, each once.
    ///
    /// # Errors
    /// As for [`live_pods`](Self::live_pods).
    fn nodes_of_live_pods<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<BTreeSet<Box<str>>, SourceError>>;

    /// The addresses behind a Service, slice by slice; none where there is no such Service.
    ///
    /// # Errors
    /// The cluster did not answer, or refused.
    fn service_endpoints<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ServiceEndpoint>, SourceError>>;
}

/// One address behind a Service. The same address may appear several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// An IP address, or a host name.
    pub address: Box<str>,
    /// It takes requests, as far as the cluster knows.
    pub ready: bool,
    /// The ports that are declared for it, as pods number them.
    pub ports: Arc<[u16]>,
}
