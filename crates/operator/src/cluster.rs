//! The cluster as triggers may ask it: pods, and the endpoints of services.
//!
//! Lists are answered from the API server's cache (`resourceVersion=0`), as KEDA's informers would have it, and nothing
//! of them is kept. Equal questions under way share one answer.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use http::header::ACCEPT;
use kube::Client;
use kube::core::Status;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tidemark_trigger::door::{Cluster, ServiceEndpoint};
use tidemark_trigger::{ErrorKind, SourceError};
use url::form_urlencoded;

use crate::client;
use crate::shared_reads::share_reads;

/// Pods that have not ended.
const LIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// The label by which EndpointSlices name their Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The cluster behind an API server.
pub struct KubeCluster {
    client: Client,
    timeout: Duration,
}

impl KubeCluster {
    /// The cluster of a client, with a deadline for each question.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self { client: share_reads(client, Duration::ZERO), timeout }
    }

    /// All items of a list.
    async fn list<T: DeserializeOwned>(&self, list: &List<'_>) -> Result<Vec<T>, SourceError> {
        let pages = async {
            let (mut items, mut next) = (Vec::new(), None::<String>);
            loop {
                // Not kube's own parsing: on a failure it would log the whole list, environments of pods included.
                let text = self.client.request_text(list.request(next.as_deref())?).await?;
                let page: Page<T> = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
                items.extend(page.items.unwrap_or_default());
                next = page.metadata.next.filter(|token| !token.is_empty());
                if next.is_none() {
                    return Ok(items);
                }
            }
        };
        match tokio::time::timeout(self.timeout, pages).await {
            Ok(outcome) => outcome.map_err(|error| list.failure(&error)),
            Err(_) => {
                let message = format!("{}: no answer from the API server within {:?}", list.title(), self.timeout);
                Err(SourceError::new(ErrorKind::TimedOut, message))
            }
        }
    }
}

impl Cluster for KubeCluster {
    fn live_pods<'a>(&'a self, namespace: &'a str, selector: &'a str) -> BoxFuture<'a, Result<usize, SourceError>> {
        let list = List { accept: Accept::Rows, ..List::of_live_pods(namespace, selector) };
        async move { Ok(self.list::<IgnoredAny>(&list).await?.len()) }.boxed()
    }

    fn nodes_of_live_pods<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
    ) -> BoxFuture<'a, Result<BTreeSet<Box<str>>, SourceError>> {
        async move {
            let items: Vec<PodItem> = self.list(&List::of_live_pods(namespace, selector)).await?;
            let nodes = items.into_iter().filter_map(|item| item.spec.node_name);
            Ok(nodes.filter(|node| !node.is_empty()).collect())
        }
        .boxed()
    }

    fn service_endpoints<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ServiceEndpoint>, SourceError>> {
        async move {
            let slices: Vec<SliceItem> = self.list(&List::of_slices(namespace, service)).await?;
            Ok(slices.into_iter().flat_map(SliceItem::endpoints).collect())
        }
        .boxed()
    }
}

/// What is asked for of each item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accept {
    Objects,
    /// The cells of a table alone: a twentieth of the objects, for who only counts.
    Rows,
}

/// What is listed.
struct List<'a> {
    /// Path of the group and version.
    base: &'static str,
    /// The resource as RBAC names it: its plural, and its group if it has one.
    resource: &'static str,
    namespace: &'a str,
    labels: Cow<'a, str>,
    fields: Option<&'static str>,
    accept: Accept,
}

impl<'a> List<'a> {
    fn of_live_pods(namespace: &'a str, selector: &'a str) -> Self {
        Self {
            base: "/api/v1",
            resource: "pods",
            namespace,
            labels: selector.into(),
            fields: Some(LIVE),
            accept: Accept::Objects,
        }
    }

    fn of_slices(namespace: &'a str, service: &str) -> Self {
        Self {
            base: "/apis/discovery.k8s.io/v1",
            resource: "endpointslices.discovery.k8s.io",
            namespace,
            labels: format!("{SERVICE_NAME}={service}").into(),
            fields: None,
            accept: Accept::Objects,
        }
    }

    /// The request for the first page, or the next. The first asks for all that the API server's cache has; a server
    /// that cuts the list all the same says where to go on.
    fn request(&self, next: Option<&str>) -> kube::Result<Request<Vec<u8>>> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("labelSelector", &self.labels);
        query.extend_pairs(self.fields.map(|fields| ("fieldSelector", fields)));
        match next {
            Some(token) => query.append_pair("continue", token),
            None => query.append_pair("resourceVersion", "0"),
        };
        let accept = match self.accept {
            Accept::Objects => "application/json",
            Accept::Rows => {
                query.append_pair("includeObject", "None");
                "application/json;as=Table;v=v1;g=meta.k8s.io"
            }
        };
        let plural = self.resource.split_once('.').map_or(self.resource, |(plural, _)| plural);
        let uri = format!("{}/namespaces/{}/{plural}?{}", self.base, self.namespace, query.finish());
        Request::get(uri).header(ACCEPT, accept).body(Vec::new()).map_err(kube::Error::HttpError)
    }

    fn title(&self) -> String {
        format!("list of {} with {} in namespace {}", self.resource, self.labels, self.namespace)
    }

    fn failure(&self, error: &kube::Error) -> SourceError {
        let (kind, advice) = match error {
            kube::Error::Api(status) => (kind_of(status), self.advice(status)),
            kube::Error::SerdeError(_) => (ErrorKind::BadReply, None),
            kube::Error::HttpError(_) => (ErrorKind::Configuration, None),
            _ => (ErrorKind::Unreachable, None),
        };
        let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
        SourceError::new(kind, format!("{}: {}{advice}", self.title(), client::describe(error)))
    }

    fn advice(&self, status: &Status) -> Option<String> {
        let (resource, namespace) = (self.resource, self.namespace);
        (status.code == 403).then(|| {
            format!("grant the operator's ServiceAccount the verb list on {resource} in namespace {namespace}")
        })
    }
}

fn kind_of(status: &Status) -> ErrorKind {
    match status.code {
        401 | 403 => ErrorKind::Authentication,
        404 => ErrorKind::MissingResource,
        408 | 504 => ErrorKind::TimedOut,
        _ => ErrorKind::Refused,
    }
}

/// A list, or a table.
#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Page<T> {
    #[serde(default)]
    metadata: PageMeta,
    /// Null where there are none; it must be there, or else the answer is something else and says nothing of pods.
    #[serde(alias = "rows", deserialize_with = "Option::deserialize")]
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct PodItem {
    #[serde(default)]
    spec: PodItemSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodItemSpec {
    node_name: Option<Box<str>>,
}

#[derive(Deserialize)]
struct SliceItem {
    endpoints: Option<Vec<EndpointItem>>,
    ports: Option<Vec<PortItem>>,
}

#[derive(Deserialize)]
struct EndpointItem {
    addresses: Option<Vec<Box<str>>>,
    #[serde(default)]
    conditions: EndpointConditions,
}

#[derive(Default, Deserialize)]
struct EndpointConditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct PortItem {
    port: Option<u16>,
}

impl SliceItem {
    /// Its addresses. An endpoint that does not say whether it is ready is.
    fn endpoints(self) -> Vec<ServiceEndpoint> {
        let ports: Arc<[u16]> = self.ports.into_iter().flatten().filter_map(|port| port.port).collect();
        let endpoints = self.endpoints.into_iter().flatten();
        let addresses = endpoints.flat_map(|endpoint| {
            let ready = endpoint.conditions.ready.unwrap_or(true);
            endpoint.addresses.into_iter().flatten().map(move |address| (address, ready))
        });
        addresses.map(|(address, ready)| ServiceEndpoint { address, ready, ports: ports.clone() }).collect()
    }
}

#[cfg(test)]
mod tests;
