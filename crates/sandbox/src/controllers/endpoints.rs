//! Services know their pods by EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::watcher::Event;
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::pods::{Pods, is_finished, ready};
use super::{Cache, Error, Key, LazyWatch, Queue, ask, cache, dynamic};

/// Most endpoints of one slice.
const SLICE: usize = 100;
/// Names a slice's Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Services.
pub(crate) fn service_kind() -> ApiResource {
    dynamic::kind("", "v1", "Service", "services")
}

/// EndpointSlices.
pub(crate) fn slice_kind() -> ApiResource {
    dynamic::kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
}

/// Runs for ever; dropping the future stops the controller.
pub(super) async fn run(client: Client) {
    let (service_kind, slice_kind) = (service_kind(), slice_kind());
    let mut services_seen = dynamic::watch_kind(&client, &service_kind);
    let mut slices_seen = dynamic::watch_kind(&client, &slice_kind);
    let mut pods_seen = LazyWatch::<Pod>::new();
    let mut controller = Controller {
        pods: Pods::new(client.clone()),
        client,
        service_kind,
        slice_kind,
        services: Cache::default(),
        by_namespace: BTreeMap::new(),
        slices: Cache::default(),
        pods_by_namespace: BTreeMap::new(),
        queue: Queue::default(),
    };
    loop {
        let synced = controller.services.synced() && controller.slices.synced() && controller.pods.synced();
        tokio::select! {
            biased;
            Some(event) = services_seen.next() => {
                controller.saw_service(event);
                if controller.is_needed() {
                    pods_seen.begin(&controller.client);
                }
            }
            Some(event) = slices_seen.next() => controller.saw_slice(event),
            Some(event) = pods_seen.next() => controller.saw_pod(event),
            key = controller.queue.next(), if synced => controller.work(key).await,
        }
    }
}

struct Controller {
    client: Client,
    service_kind: ApiResource,
    slice_kind: ApiResource,
    services: Cache<DynamicObject>,
    /// Names of the Services of each namespace that select pods.
    by_namespace: BTreeMap<String, BTreeSet<String>>,
    slices: Cache<DynamicObject>,
    pods: Pods,
    /// Names of the pods of each namespace.
    pods_by_namespace: BTreeMap<String, BTreeSet<String>>,
    queue: Queue<Key>,
}

impl Controller {
    /// Whether any Service selects pods.
    fn is_needed(&self) -> bool {
        self.by_namespace.values().any(|names| !names.is_empty())
    }

    fn saw_service(&mut self, event: Event<DynamicObject>) {
        for service in self.services.apply(event) {
            let key = Key::of(&*service);
            let names = self.by_namespace.entry(key.namespace.clone()).or_default();
            if self.services.get(&key).is_some_and(|known| selector(known).is_some()) {
                names.insert(key.name.clone());
                self.queue.push(key);
            } else {
                names.remove(&key.name);
            }
        }
    }

    /// Slices are put right again when somebody else has changed them.
    fn saw_slice(&mut self, event: Event<DynamicObject>) {
        for slice in self.slices.apply(event) {
            if slice.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER)
                && let Some(name) = slice.labels().get(SERVICE_NAME)
            {
                self.queue.push(Key { namespace: slice.namespace().unwrap_or_default(), name: name.clone() });
            }
        }
    }

    fn saw_pod(&mut self, event: Event<Pod>) {
        for pod in self.pods.apply(event) {
            let key = Key::of(&*pod);
            for name in self.by_namespace.get(&key.namespace).into_iter().flatten() {
                self.queue.push(Key { namespace: key.namespace.clone(), name: name.clone() });
            }
            let names = self.pods_by_namespace.entry(key.namespace.clone()).or_default();
            match self.pods.get(&key) {
                Some(_) => names.insert(key.name),
                None => names.remove(&key.name),
            };
        }
    }

    async fn work(&mut self, key: Key) {
        let Some(service) = self.services.get(&key).cloned() else { return self.queue.remove(&key) };
        match self.reconcile(&key, &service).await {
            Ok(()) => self.queue.succeeded(&key),
            Err(error) => {
                tracing::debug!(namespace = key.namespace, name = key.name, %error, "a Service has to wait");
                self.queue.failed(key);
            }
        }
    }

    async fn reconcile(&mut self, key: &Key, service: &DynamicObject) -> Result<(), Error> {
        let Some(selector) = selector(service).filter(|_| service.metadata.deletion_timestamp.is_none()) else {
            return Ok(());
        };
        let selected =
            |pod: &&std::sync::Arc<Pod>| selector.iter().all(|(name, value)| pod.labels().get(name) == Some(value));
        let names = self.pods_by_namespace.get(&key.namespace).into_iter().flatten();
        let pods = names.filter_map(|name| {
            self.pods.get(&Key { namespace: key.namespace.clone(), name: name.clone() }).filter(selected)
        });
        let wanted = slices(service, pods.map(|pod| &**pod));
        let labels = labels(service);
        let present: Vec<_> = self.slices.owned_by(cache::uid(service)).cloned().collect();
        let mut wanted = wanted.into_iter();
        for slice in &present {
            match wanted.next() {
                Some(content) => self.update(slice, &labels, content).await?,
                None => self.delete(slice).await?,
            }
        }
        for content in wanted {
            self.create(service, &labels, content).await?;
        }
        Ok(())
    }

    async fn create(
        &mut self,
        service: &DynamicObject,
        labels: &BTreeMap<String, String>,
        content: Value,
    ) -> Result<(), Error> {
        let mut slice = DynamicObject::new("", &self.slice_kind);
        slice.metadata.name = None;
        slice.metadata.generate_name = Some(format!("{}-", service.name_any()));
        slice.metadata.labels = Some(labels.clone());
        slice.metadata.owner_references = service.controller_owner_ref(&self.service_kind).map(|mut owner| {
            owner.block_owner_deletion = Some(true);
            vec![owner]
        });
        slice.data = content;
        slice.data["addressType"] = "IPv4".into();
        let slices = dynamic::api(&self.client, &self.slice_kind, service.namespace().as_deref());
        let created = ask(slices.create(&PostParams::default(), &slice)).await?;
        self.slices.written(created);
        Ok(())
    }

    async fn update(
        &mut self,
        slice: &DynamicObject,
        labels: &BTreeMap<String, String>,
        content: Value,
    ) -> Result<(), Error> {
        let same = |field: &str| items(&slice.data[field]) == items(&content[field]);
        if same("endpoints") && same("ports") && slice.labels() == labels {
            return Ok(());
        }
        let mut patch = content;
        patch["metadata"] =
            json!({ "uid": slice.uid(), "labels": dynamic::replacing(&json!(slice.labels()), json!(labels)) });
        let slices = dynamic::api(&self.client, &self.slice_kind, slice.namespace().as_deref());
        match ask(slices.patch(&slice.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await {
            Ok(written) => self.slices.written(written),
            Err(error) if error.is_not_found() || error.is_other_object() => self.slices.removed(slice),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn delete(&mut self, slice: &DynamicObject) -> Result<(), Error> {
        let slices = dynamic::api(&self.client, &self.slice_kind, slice.namespace().as_deref());
        let same = Preconditions { uid: slice.uid(), resource_version: None };
        match ask(slices.delete(&slice.name_any(), &DeleteParams::background().preconditions(same))).await {
            Ok(_) => self.slices.removed(slice),
            Err(error) if error.is_not_found() || error.is_conflict() => self.slices.removed(slice),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// The labels of a Service's pods; `None` when it selects none by itself.
fn selector(service: &DynamicObject) -> Option<BTreeMap<String, String>> {
    if service.data["spec"]["type"] == "ExternalName" {
        return None;
    }
    let selector = service.data["spec"]["selector"].as_object().filter(|selector| !selector.is_empty())?;
    Some(selector.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
}

fn labels(service: &DynamicObject) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.data["spec"]["clusterIP"] == "None" {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The endpoints and ports of the slices that a Service is to have: at least one, also without pods. Pods whose ports have
/// different numbers are in different slices.
fn slices<'a>(service: &DynamicObject, pods: impl Iterator<Item = &'a Pod>) -> Vec<Value> {
    let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for pod in pods.filter(|pod| !is_finished(pod)) {
        let Some(endpoint) = endpoint(service, pod) else { continue };
        let ports = ports(service, pod);
        let (_, endpoints) = groups.entry(json!(ports).to_string()).or_insert_with(|| (ports, Vec::new()));
        endpoints.push(endpoint);
    }
    let chunks = groups.into_values().flat_map(|(ports, endpoints)| {
        let chunks: Vec<_> = endpoints.chunks(SLICE).map(<[Value]>::to_vec).collect();
        chunks.into_iter().map(move |endpoints| json!({ "endpoints": endpoints, "ports": ports }))
    });
    let slices: Vec<_> = chunks.collect();
    if slices.is_empty() { vec![json!({ "endpoints": [], "ports": [] })] } else { slices }
}

/// A pod as an endpoint, once it has an address.
fn endpoint(service: &DynamicObject, pod: &Pod) -> Option<Value> {
    let address = pod.status.as_ref()?.pod_ip.as_deref().filter(|address| !address.is_empty())?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = ready(pod).is_some();
    let shown = service.data["spec"]["publishNotReadyAddresses"] == true || (serving && !terminating);
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": { "ready": shown, "serving": serving, "terminating": terminating },
        "targetRef": { "kind": "Pod", "name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid() },
    });
    let spec = pod.spec.as_ref()?;
    if let Some(node) = &spec.node_name {
        endpoint["nodeName"] = node.as_str().into();
    }
    if let Some(host) = spec.hostname.as_deref().filter(|_| spec.subdomain == service.metadata.name) {
        endpoint["hostname"] = host.into();
    }
    Some(endpoint)
}

/// The Service's ports as the pod has them; one whose name the pod does not know is left out.
fn ports(service: &DynamicObject, pod: &Pod) -> Vec<Value> {
    let ports = service.data["spec"]["ports"].as_array().into_iter().flatten();
    let port = |port: &Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::String(name) => named_port(pod, name, protocol)?,
            Value::Number(number) => i32::try_from(number.as_i64()?).ok()?,
            _ => i32::try_from(port["port"].as_i64()?).ok()?,
        };
        let mut shown =
            json!({ "name": port["name"].as_str().unwrap_or_default(), "port": number, "protocol": protocol });
        if let Some(protocol) = port["appProtocol"].as_str() {
            shown["appProtocol"] = protocol.into();
        }
        Some(shown)
    };
    ports.filter_map(port).collect()
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let beside = spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(beside).flat_map(|container| container.ports.iter().flatten());
    let mut fitting = ports
        .filter(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    fitting.next().map(|port| port.container_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> DynamicObject {
        serde_json::from_value(json!({ "metadata": { "name": "shop" }, "spec": spec })).unwrap()
    }

    fn pod(name: &str, ready: bool, web: i32) -> Pod {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": { "name": name, "namespace": "default", "uid": name },
            "spec": { "containers": [{ "name": "main", "ports": [{ "name": "web", "containerPort": web }] }] },
            "status": { "phase": "Running", "podIP": "10.0.0.1", "conditions": [{ "type": "Ready", "status": status }] },
        });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_named_port_is_the_number_that_each_pod_gives_it() {
        let service = service(json!({ "ports": [
            { "port": 80, "targetPort": "web" },
            { "name": "admin", "port": 81, "targetPort": 9000, "protocol": "TCP" },
        ] }));
        let pods = [pod("a", true, 8080), pod("b", false, 8080), pod("c", true, 8081)];
        let slices = slices(&service, pods.iter());
        assert_eq!(slices.len(), 2);
        let ports: Vec<_> = slices.iter().map(|slice| slice["ports"][0]["port"].clone()).collect();
        assert_eq!(ports, [8080, 8081]);
        assert_eq!(slices[0]["ports"][1], json!({ "name": "admin", "port": 9000, "protocol": "TCP" }));
        let ready: Vec<_> =
            items(&slices[0]["endpoints"]).iter().map(|one| one["conditions"]["ready"].clone()).collect();
        assert_eq!(ready, [true, false]);
    }

    #[test]
    fn a_service_without_pods_has_an_empty_slice_and_one_with_many_has_several() {
        let service = service(json!({ "ports": [{ "port": 80 }] }));
        assert_eq!(slices(&service, [].iter()), [json!({ "endpoints": [], "ports": [] })]);
        let pods: Vec<_> = (0..101).map(|number| pod(&format!("pod-{number}"), true, 80)).collect();
        let sizes: Vec<_> =
            slices(&service, pods.iter()).iter().map(|slice| items(&slice["endpoints"]).len()).collect();
        assert_eq!(sizes, [100, 1]);
    }
}
