//! The watches of the API server, merged into one stream of changes.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tidemark_api::{
    AuthenticationKind, CloudEventSource, ClusterCloudEventSource, ClusterTriggerAuthentication, SCALED_OBJECT_LABEL,
    ScaledJob, ScaledObject, TriggerAuthentication,
};
use tidemark_trigger::causes;

use crate::observation::ResourceKind;
use crate::settings::Settings;

/// Pause after the first failure of a watch; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The same for what is only counted: a cluster may lack these kinds for good.
const LONGEST_PAUSE_OF_COUNTED: Duration = Duration::from_secs(300);

/// One event of one watch.
pub(crate) struct Change {
    pub(crate) watch: Arc<Watch>,
    pub(crate) event: Event<Subject>,
}

/// A watch: what it watches, and in which namespace (all of them without one).
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watch {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    ScaledObjects,
    Hpas,
    Deployments,
    StatefulSets,
    Authentications(AuthenticationKind),
    /// What is told of, and nothing else: no work waits for it.
    Counted(ResourceKind),
}

/// What an event is about.
pub(crate) enum Subject {
    /// A ScaledObject, or what is counted, not yet decoded: one that cannot be must not hide the others.
    Object(Box<DynamicObject>),
    Hpa(Box<HorizontalPodAutoscaler>),
    /// A workload or an authentication, of which only the metadata is watched.
    Meta(Box<ObjectMeta>),
}

type Changes = BoxStream<'static, Change>;

/// The watches that the work needs. The stream does not end.
pub(crate) fn all(client: &Client, settings: &Settings) -> SelectAll<Changes> {
    let scopes = scopes(settings);
    let selector = settings.selector.as_deref().unwrap_or_default();
    let labelled = [SCALED_OBJECT_LABEL, selector].into_iter().filter(|label| !label.is_empty());
    let hpa_selector = labelled.collect::<Vec<_>>().join(",");
    let authentications = settings.authentication_selector.as_deref().unwrap_or_default();
    let mut watches = Vec::new();
    for scope in &scopes {
        let resource = ApiResource::erase::<ScaledObject>(&());
        watches.push(dynamic(client, &resource, Kind::ScaledObjects, scope, selector));
        let hpas: Api<HorizontalPodAutoscaler> = api(client, scope);
        watches.push(watch(hpas, Kind::Hpas, scope, &hpa_selector, |hpa| Subject::Hpa(Box::new(hpa))));
        watches.push(metadata::<Deployment>(client, Kind::Deployments, scope, ""));
        watches.push(metadata::<StatefulSet>(client, Kind::StatefulSets, scope, ""));
        let kind = Kind::Authentications(AuthenticationKind::TriggerAuthentication);
        watches.push(metadata::<TriggerAuthentication>(client, kind, scope, authentications));
    }
    let kind = Kind::Authentications(AuthenticationKind::ClusterTriggerAuthentication);
    let cluster = Api::<PartialObjectMeta<ClusterTriggerAuthentication>>::all(client.clone());
    watches.push(watch(cluster, kind, &None, authentications, |object| Subject::Meta(Box::new(object.metadata))));
    stream::select_all(watches)
}

/// The watches of what is only counted: two of each namespace, or of all, and one of the cluster.
pub(crate) fn counted(client: &Client, settings: &Settings) -> Vec<Changes> {
    let selector = settings.selector.as_deref().unwrap_or_default();
    let (jobs, sources) = (ApiResource::erase::<ScaledJob>(&()), ApiResource::erase::<CloudEventSource>(&()));
    let of_cluster = ApiResource::erase::<ClusterCloudEventSource>(&());
    let kind = Kind::Counted(ResourceKind::ClusterCloudEventSource);
    let mut watches = vec![dynamic(client, &of_cluster, kind, &None, "")];
    for scope in &scopes(settings) {
        watches.push(dynamic(client, &jobs, Kind::Counted(ResourceKind::ScaledJob), scope, selector));
        watches.push(dynamic(client, &sources, Kind::Counted(ResourceKind::CloudEventSource), scope, ""));
    }
    watches
}

/// The namespaces to watch; all of them at once without one.
fn scopes(settings: &Settings) -> Vec<Option<String>> {
    match settings.watch_namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    }
}

fn dynamic(client: &Client, resource: &ApiResource, kind: Kind, scope: &Option<String>, label: &str) -> Changes {
    let api: Api<DynamicObject> = match scope {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    };
    watch(api, kind, scope, label, |object| Subject::Object(Box::new(object)))
}

fn api<K>(client: &Client, scope: &Option<String>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn metadata<K>(client: &Client, kind: Kind, scope: &Option<String>, label: &str) -> Changes
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = api(client, scope);
    watch(api, kind, scope, label, |object| Subject::Meta(Box::new(object.metadata)))
}

fn watch<K>(api: Api<K>, kind: Kind, scope: &Option<String>, label: &str, subject: fn(K) -> Subject) -> Changes
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = match label {
        "" => watcher::Config::default(),
        label => watcher::Config::default().labels(label),
    };
    let events = watcher::watcher(api, config).boxed();
    let watch = Arc::new(Watch { kind, namespace: scope.clone() });
    stream::unfold((events, 0), move |(mut events, mut failures)| {
        let watch = watch.clone();
        async move {
            loop {
                match events.next().await? {
                    Ok(event) => {
                        // The beginning of a list says nothing of its end.
                        if !matches!(event, Event::Init) {
                            failures = 0;
                        }
                        return Some((Change { watch, event: map(event, subject) }, (events, failures)));
                    }
                    Err(error) => {
                        failures += 1;
                        let (kind, namespace) = (watch.kind, &watch.namespace);
                        tracing::warn!(?kind, ?namespace, error = causes(&error), "{}", said_of(&error));
                        let longest = match kind {
                            Kind::Counted(_) => LONGEST_PAUSE_OF_COUNTED,
                            _ => LONGEST_PAUSE,
                        };
                        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(longest);
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    })
    .boxed()
}

/// What is wrong, where the operator's administrator can mend it.
fn said_of(error: &watcher::Error) -> &'static str {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code,
        _ => 0,
    };
    match code {
        401 => "watch failed: the API server does not accept the operator's credentials",
        403 => "watch failed: the operator's role does not allow to list and watch this kind",
        404 => "watch failed: the API server does not serve this kind; are the CRDs installed?",
        _ => "watch failed",
    }
}

fn map<K>(event: Event<K>, subject: fn(K) -> Subject) -> Event<Subject> {
    match event {
        Event::Apply(object) => Event::Apply(subject(object)),
        Event::Delete(object) => Event::Delete(subject(object)),
        Event::InitApply(object) => Event::InitApply(subject(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}
