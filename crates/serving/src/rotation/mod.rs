//! The certificates of an installation on a cluster: made, kept in a Secret, renewed, and told to the API server.
//!
//! The Secret has KEDA's name, keys and format, so that either can take over from the other. What is read from or
//! written to it is in use at once; the other processes get it as files.

pub mod material;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, SelectAll, StreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Error, Pair};
use crate::identity::Identity;
use material::{Authority, Material, Names};

/// Between two looks at how old the certificates are.
const INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// After a failure it is tried again so soon, and then ever later.
const AGAIN: Duration = Duration::from_secs(10);
const AGAIN_AT_MOST: Duration = Duration::from_secs(300);
/// Changes within this time are looked at together; whoever keeps writing something else meets us once in it.
const GATHER: Duration = Duration::from_secs(1);
/// The API server has this long to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts to write while others write.
const ATTEMPTS: u32 = 5;
/// Keys of the Secret. A CA that signs later, and those that have signed before.
const NEXT_CERTIFICATE: &str = "next-ca.crt";
const NEXT_KEY: &str = "next-ca.key";
/// Who is told, for messages.
const API_SERVICE: &str = "the APIService";
const WEBHOOKS: &str = "the ValidatingWebhookConfiguration";

/// What an installation is called.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the Secret is and the services are.
    pub namespace: String,
    /// The Secret's name.
    pub secret: String,
    /// The services; the first one gives the certificate its name.
    pub services: Vec<String>,
    /// The cluster's domain, such as `cluster.local`.
    pub domain: String,
    /// The APIServices to tell the CAs; empty leaves all alone.
    pub api_services: Vec<ApiService>,
    /// The ValidatingWebhookConfiguration to tell the CAs; none leaves it alone.
    pub webhooks: Option<String>,
    /// Who writes, for the managed fields.
    pub field_manager: String,
}

/// An APIService whose server shows the installation's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiService {
    /// Its version and group, such as `v1beta1.external.metrics.k8s.io`.
    pub name: String,
    /// Every installation has it. One that has not need not have the right to look for it either.
    pub expected: bool,
}

impl Settings {
    fn names(&self) -> Names {
        let (namespace, domain) = (&self.namespace, &self.domain);
        let of = |service: &String| {
            let full = format!("{service}.{namespace}.svc");
            [service.clone(), format!("{service}.{namespace}"), full.clone(), format!("{full}.{domain}")]
        };
        Names {
            common: self.services.first().cloned().unwrap_or_default(),
            dns: self.services.iter().flat_map(of).collect(),
        }
    }
}

/// Keeps the certificates of an installation good.
pub struct Rotation {
    client: Client,
    settings: Settings,
    clock: Clock,
    identity: watch::Sender<Option<Arc<Identity>>>,
    /// What was not there at the last look.
    missing: BTreeSet<String>,
}

/// Something did not work; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot {what} Secret {name}: {source}")]
    Secret { what: &'static str, name: String, source: kube::Error },
    #[error("cannot tell {what} {name} of the CA: {source}")]
    Tell { what: &'static str, name: String, source: kube::Error },
    #[error("{what} {name} is written by somebody else again and again")]
    Contended { what: &'static str, name: String },
    #[error(transparent)]
    Make(#[from] Error),
}

impl Rotation {
    /// The rotation, and the channel on which the certificates are told: none before the first success.
    pub fn new(client: Client, settings: Settings, clock: Clock) -> (Self, watch::Receiver<Option<Arc<Identity>>>) {
        let (identity, receiver) = watch::channel(None);
        (Self { client, settings, clock, identity, missing: BTreeSet::new() }, receiver)
    }

    /// Runs until `shutdown`. A failure is told in the log and tried again.
    // Boxed, so that it is compiled here.
    pub fn run(mut self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut changes = self.changes();
            let mut again = AGAIN;
            loop {
                let failures = self.settle().await;
                let pause = match failures.is_empty() {
                    true => {
                        again = AGAIN;
                        INTERVAL
                    }
                    false => {
                        let pause = again;
                        again = (again * 2).min(AGAIN_AT_MOST);
                        pause
                    }
                };
                for failure in failures {
                    tracing::warn!("certificates: {failure}; it is tried again within {} s", pause.as_secs());
                }
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => continue,
                    Some(()) = changes.next() => {}
                }
                if shutdown.run_until_cancelled(tokio::time::sleep(GATHER)).await.is_none() {
                    return;
                }
                while changes.next().now_or_never().flatten().is_some() {}
            }
        })
    }

    /// Something happens to the Secret, or to one of those that are told.
    fn changes(&self) -> SelectAll<BoxStream<'static, ()>> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.settings.namespace);
        let mut all = SelectAll::new();
        all.push(changes_of(secrets, "the Secret", &self.settings.secret, true));
        let of = |resource: &ApiResource| Api::<DynamicObject>::all_with(self.client.clone(), resource);
        for ApiService { name, expected } in &self.settings.api_services {
            all.push(changes_of(of(&api_services()), API_SERVICE, name, *expected));
        }
        if let Some(name) = &self.settings.webhooks {
            all.push(changes_of(of(&webhook_configurations()), WEBHOOKS, name, true));
        }
        all
    }

    /// Brings the Secret up to date, puts what is in it to use, and tells the API server. Gives what has failed.
    async fn settle(&mut self) -> Vec<Failure> {
        let material = match self.secret().await {
            Ok(material) => material,
            Err(failure) => return vec![failure],
        };
        let identity = material.identity();
        self.identity.send_if_modified(|old| {
            let changed = old.as_deref() != Some(&identity);
            if changed {
                *old = Some(Arc::new(identity));
            }
            changed
        });
        let bundle = BASE64.encode(material.bundle());
        // One that cannot be told does not keep the others from it.
        let mut failures = Vec::new();
        for api_service in self.settings.api_services.clone() {
            failures.extend(self.tell_api_service(&api_service, &bundle).await.err());
        }
        failures.extend(self.tell_webhooks(&bundle).await.err());
        failures
    }

    async fn tell_api_service(&mut self, api_service: &ApiService, bundle: &str) -> Result<(), Failure> {
        let patch = |object: &Value| {
            let differs = object["spec"]["caBundle"] != *bundle;
            differs.then(|| json!({ "spec": { "caBundle": bundle } }))
        };
        let ApiService { name, expected } = api_service;
        match self.tell(API_SERVICE, api_services(), name, *expected, patch).await {
            Err(Failure::Tell { source: kube::Error::Api(status), .. }) if status.code == 403 && !expected => {
                tracing::debug!("{API_SERVICE} {name} is not told of the CA: {}", status.message);
                Ok(())
            }
            told => told,
        }
    }

    async fn tell_webhooks(&mut self, bundle: &str) -> Result<(), Failure> {
        let Some(name) = self.settings.webhooks.clone() else { return Ok(()) };
        let patch = |object: &Value| {
            let mut hooks = object["webhooks"].as_array()?.clone();
            let mut differs = false;
            for hook in &mut hooks {
                let told = &mut hook["clientConfig"]["caBundle"];
                differs |= *told != *bundle;
                *told = bundle.into();
            }
            differs.then(|| json!({ "webhooks": hooks }))
        };
        self.tell(WEBHOOKS, webhook_configurations(), &name, true, patch).await
    }

    /// What is in the Secret, renewed if that is due.
    async fn secret(&self) -> Result<Material, Failure> {
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.settings.namespace);
        let name = &self.settings.secret;
        let failed = |what, source| Failure::Secret { what, name: name.clone(), source };
        for _ in 0..ATTEMPTS {
            let found = ask(api.get_opt(name)).await.map_err(|error| failed("read", error))?;
            let stored = found.as_ref().and_then(read);
            let due = material::renew(stored.as_ref(), &self.settings.names(), self.clock.now())?;
            let material = match (due, stored) {
                (None, Some(stored)) => return Ok(stored),
                (Some(due), _) => due,
                (None, None) => return Err(Error::Unusable("an empty Secret").into()),
            };
            let data = write(&material);
            let params =
                PostParams { field_manager: Some(self.settings.field_manager.clone()), ..PostParams::default() };
            let written = match found {
                Some(mut secret) => {
                    let kept = secret.data.get_or_insert_default();
                    kept.retain(|key, _| key != NEXT_CERTIFICATE && key != NEXT_KEY);
                    kept.extend(data);
                    ask(api.replace(name, &params, &secret)).await
                }
                None => ask(api.create(&params, &self.new_secret(data))).await,
            };
            match written {
                Ok(_) => {
                    tracing::info!(secret = name, "certificates were made or renewed");
                    return Ok(material);
                }
                // Another operator was faster: what it has written counts.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed("write", error)),
            }
        }
        Err(Failure::Contended { what: "Secret", name: name.clone() })
    }

    fn new_secret(&self, data: BTreeMap<String, ByteString>) -> Secret {
        let labels = [
            ("app", "keda-operator"),
            ("app.kubernetes.io/name", "keda-operator"),
            ("app.kubernetes.io/component", "keda-operator"),
            ("app.kubernetes.io/part-of", "keda"),
        ];
        let mut secret = Secret { data: Some(data), ..Secret::default() };
        secret.metadata.name = Some(self.settings.secret.clone());
        secret.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        secret
    }

    /// Patches an object of the API server; `patch` gives nothing where it knows the CAs.
    async fn tell(
        &mut self,
        what: &'static str,
        resource: ApiResource,
        name: &str,
        expected: bool,
        patch: impl Fn(&Value) -> Option<Value>,
    ) -> Result<(), Failure> {
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
        let failed = |source| Failure::Tell { what, name: name.to_owned(), source };
        for _ in 0..ATTEMPTS {
            let Some(object) = ask(api.get_opt(name)).await.map_err(failed)? else {
                if self.missing.insert(name.to_owned()) && expected {
                    tracing::warn!("{what} {name} is not there: it is told of the CA when it comes");
                }
                return Ok(());
            };
            self.missing.remove(name);
            let Some(mut patch) = patch(&object.data) else { return Ok(()) };
            patch["metadata"] = json!({ "resourceVersion": object.resource_version() });
            let params =
                PatchParams { field_manager: Some(self.settings.field_manager.clone()), ..PatchParams::default() };
            match ask(api.patch(name, &params, &Patch::Merge(&patch))).await {
                Ok(_) => {
                    tracing::info!("{what} {name} was told of the CA");
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Failure::Contended { what, name: name.to_owned() })
    }
}

fn api_services() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService"))
}

fn webhook_configurations() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
    ))
}

fn changes_of<K>(api: Api<K>, what: &'static str, name: &str, expected: bool) -> BoxStream<'static, ()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).any_semantic();
    let mut warned = !expected;
    let events = watcher(api, config).filter_map(move |event| {
        let refused = event.as_ref().err().map(ToString::to_string);
        // After a gap anything may have happened: the end of the list is a change too.
        let told = matches!(event, Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone));
        let first = refused.is_some() && !std::mem::replace(&mut warned, refused.is_some());
        async move {
            let Some(error) = refused else { return told.then_some(()) };
            if first {
                let hours = INTERVAL.as_secs() / 3600;
                tracing::warn!("changes of {what} are seen within {hours} h only: it cannot be watched: {error}");
            }
            tokio::time::sleep(AGAIN).await;
            None
        }
    });
    events.boxed()
}

async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer,
        Err(late) => Err(kube::Error::Service(Box::new(late))),
    }
}

/// What a Secret holds; none where that is nothing. What is missing or unreadable is an empty text, and found broken.
fn read(secret: &Secret) -> Option<Material> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| data.get(key).and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).unwrap_or_default();
    let pair = Pair { certificate: text("tls.crt"), key: text("tls.key") };
    let (bundle, key) = (text("ca.crt"), text("ca.key"));
    if [&bundle, &key, &pair.certificate, &pair.key].iter().all(|text| text.is_empty()) {
        return None;
    }
    let mut authorities = split(&bundle);
    let certificate = authorities.remove(0);
    let next = Authority { certificate: text(NEXT_CERTIFICATE), key: text(NEXT_KEY) };
    // Somebody who does not know of it, KEDA, may have written the bundle anew: nobody has been told of it then.
    let is_next = |pem: &String| pem.trim() == next.certificate.trim();
    let told = authorities.iter().any(is_next);
    authorities.retain(|pem| !is_next(pem));
    Some(Material { authority: Authority { certificate, key }, next: told.then_some(next), former: authorities, pair })
}

/// The certificates of a bundle, one text each; at least one.
fn split(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let mut all: Vec<String> = bundle.split_inclusive(END).map(|pem| format!("{}\n", pem.trim())).collect();
    all.retain(|pem| pem.contains(END));
    if all.is_empty() {
        all.push(bundle.to_owned());
    }
    all
}

fn write(material: &Material) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::from([
        ("ca.crt", material.bundle()),
        ("ca.key", material.authority.key.clone()),
        ("tls.crt", material.pair.certificate.clone()),
        ("tls.key", material.pair.key.clone()),
    ]);
    if let Some(next) = &material.next {
        data.insert(NEXT_CERTIFICATE, next.certificate.clone());
        data.insert(NEXT_KEY, next.key.clone());
    }
    data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()
}
