//! A Service's address is a small TCP balancer over its ready pods.
//!
//! It listens only while there is a pod to lead to: without one a connection is refused, as where nobody listens. Those
//! that are open go on when a pod or the Service goes, until one side ends them or the balancer stops.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;
use tidemark_clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::controllers::{Cache, Key, Note, Recorder, SERVICE_NAME, cache_uid, service_kind, slice_kind, watch_kind};

/// A pod has this long to take a connection before the next one is tried.
const CONNECT: Duration = Duration::from_secs(5);
/// An address that is taken by somebody else is tried again after this long.
const AGAIN: Duration = Duration::from_secs(5);

/// Runs for ever; dropping the future ends all connections.
pub(super) async fn run(client: Client, clock: Clock) {
    let mut services_seen = watch_kind(&client, &service_kind());
    let mut slices_seen = watch_kind(&client, &slice_kind());
    let (trouble, mut troubles) = mpsc::unbounded_channel();
    let mut balancer = Balancer {
        services: Cache::default(),
        slices: Cache::default(),
        fronts: BTreeMap::new(),
        tasks: JoinSet::new(),
        trouble,
    };
    let mut recorder = Recorder::new(client, clock, "service-balancer");
    loop {
        tokio::select! {
            biased;
            Some(event) = services_seen.next() => balancer.saw_service(event),
            Some(event) = slices_seen.next() => balancer.saw_slice(event),
            Some(note) = troubles.recv() => recorder.record(note).await,
            Some(_) = balancer.tasks.join_next(), if !balancer.tasks.is_empty() => {}
        }
    }
}

/// Where a Service listens, by its uid.
type Place = (String, SocketAddrV4);
type Backends = Arc<[SocketAddr]>;

struct Balancer {
    services: Cache<DynamicObject>,
    slices: Cache<DynamicObject>,
    /// The pods behind each place. A front ends when its sender goes.
    fronts: BTreeMap<Place, watch::Sender<Backends>>,
    tasks: JoinSet<()>,
    trouble: mpsc::UnboundedSender<Note>,
}

impl Balancer {
    fn saw_service(&mut self, event: Event<DynamicObject>) {
        for service in self.services.apply(event) {
            let uid = cache_uid(&*service).to_owned();
            let there = self.services.get(&Key::of(&*service)).is_some_and(|known| cache_uid(&**known) == uid);
            if there {
                self.tell_unserved(&service);
                self.settle(&service);
            } else {
                self.fronts.retain(|(of, _), _| *of != uid);
            }
        }
    }

    fn saw_slice(&mut self, event: Event<DynamicObject>) {
        let mut touched = BTreeSet::new();
        for slice in self.slices.apply(event) {
            if let Some(name) = slice.labels().get(SERVICE_NAME) {
                touched.insert(Key { namespace: slice.namespace().unwrap_or_default(), name: name.clone() });
            }
        }
        for key in touched {
            if let Some(service) = self.services.get(&key).cloned() {
                self.settle(&service);
            }
        }
    }

    /// Says what of a Service is not served.
    fn tell_unserved(&self, service: &DynamicObject) {
        let spec = &service.data["spec"];
        if spec["type"] == "ExternalName" {
            return;
        }
        let mut unserved = Vec::new();
        let ports = spec["ports"].as_array().into_iter().flatten();
        for port in ports.filter(|port| port["protocol"].as_str().is_some_and(|protocol| protocol != "TCP")) {
            unserved.push(format!("port {}: process pods have TCP Services only", port["port"]));
        }
        let address = spec["clusterIP"].as_str().unwrap_or_default();
        if address.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_loopback()) {
            unserved.push(format!("address {address}: processes have only loopback addresses in common"));
        }
        if spec["sessionAffinity"] == "ClientIP" {
            unserved.push("sessionAffinity: all processes have one address as clients".to_owned());
        }
        if !unserved.is_empty() {
            let _ = self.trouble.send(note(service, "NotImplemented", format!("not served: {}", unserved.join("; "))));
        }
    }

    /// Gives each port of a Service a front, and each front its pods.
    fn settle(&mut self, service: &Arc<DynamicObject>) {
        let uid = cache_uid(&**service).to_owned();
        let mut wanted = BTreeMap::new();
        for port in service.data["spec"]["ports"].as_array().into_iter().flatten() {
            let backends = self.backends(service, port);
            for address in addresses(service, port) {
                wanted.insert((uid.clone(), address), backends.clone());
            }
        }
        self.fronts.retain(|place, _| place.0 != uid || wanted.contains_key(place));
        for (place, backends) in wanted {
            match self.fronts.get(&place) {
                Some(front) => {
                    front.send_if_modified(|known| {
                        let changed = *known != backends;
                        *known = backends;
                        changed
                    });
                }
                None => {
                    let (sender, receiver) = watch::channel(backends);
                    let front = Front { address: place.1, service: service.clone(), trouble: self.trouble.clone() };
                    self.tasks.spawn(front.serve(receiver));
                    self.fronts.insert(place, sender);
                }
            }
        }
    }

    fn backends(&self, service: &DynamicObject, port: &Value) -> Backends {
        let name = port["name"].as_str().unwrap_or_default();
        let mut backends = BTreeSet::new();
        for slice in self.slices.owned_by(cache_uid(service)) {
            let ports = slice.data["ports"].as_array().into_iter().flatten();
            let mut fitting = ports.filter(|port| port["name"].as_str().unwrap_or_default() == name);
            let number = fitting.find_map(|port| u16::try_from(port["port"].as_u64()?).ok());
            let Some(number) = number else { continue };
            for endpoint in slice.data["endpoints"].as_array().into_iter().flatten() {
                let address = endpoint["addresses"][0].as_str().and_then(|address| address.parse().ok());
                if let Some(address) = address.filter(|_| endpoint["conditions"]["ready"] == true) {
                    backends.insert(SocketAddr::new(address, number));
                }
            }
        }
        backends.into_iter().collect()
    }
}

/// Where a port of a Service is to be reached: at the Service's own address, and on this machine's at a node port.
fn addresses(service: &DynamicObject, port: &Value) -> Vec<SocketAddrV4> {
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let tcp = port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
    if service.data["spec"]["type"] == "ExternalName" || !tcp {
        return Vec::new();
    }
    let own = service.data["spec"]["clusterIP"].as_str().and_then(|address| address.parse::<Ipv4Addr>().ok());
    let own = own.filter(Ipv4Addr::is_loopback).zip(number(&port["port"]));
    let node = number(&port["nodePort"]).map(|port| (Ipv4Addr::LOCALHOST, port));
    own.into_iter().chain(node).map(|(address, port)| SocketAddrV4::new(address, port)).collect()
}

fn note(service: &DynamicObject, reason: &'static str, message: String) -> Note {
    Note { about: service.object_ref(&service_kind()), warning: true, reason, message }
}

/// One address of a Service.
struct Front {
    address: SocketAddrV4,
    service: Arc<DynamicObject>,
    trouble: mpsc::UnboundedSender<Note>,
}

impl Front {
    /// Serves until the sender of the pods has gone, and the last connection with it.
    async fn serve(self, mut backends: watch::Receiver<Backends>) {
        let mut connections = JoinSet::new();
        let mut turn = 0;
        while let Some(listener) = self.listen(&mut backends, &mut connections).await {
            loop {
                tokio::select! {
                    biased;
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                    changed = backends.changed() => {
                        if changed.is_err() || backends.borrow().is_empty() {
                            break;
                        }
                    }
                    accepted = listener.accept() => match accepted {
                        Ok((connection, _)) => {
                            let pods = backends.borrow().clone();
                            turn += 1;
                            connections.spawn(relay(connection, pods, turn));
                        }
                        // Too many open files, as a rule: better a moment later than never again.
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    },
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    /// Waits for a pod, and then for the address. `None` when the Service has gone.
    async fn listen(
        &self,
        backends: &mut watch::Receiver<Backends>,
        connections: &mut JoinSet<()>,
    ) -> Option<TcpListener> {
        loop {
            let wait = if backends.borrow_and_update().is_empty() {
                Duration::MAX
            } else {
                match TcpListener::bind(SocketAddr::V4(self.address)).await {
                    Ok(listener) => return Some(listener),
                    Err(error) => self.tell(&error),
                }
                AGAIN
            };
            tokio::select! {
                biased;
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                changed = backends.changed() => changed.ok()?,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn tell(&self, error: &io::Error) {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "; give the Service a port from 1024 on",
            io::ErrorKind::AddrNotAvailable => "; this machine does not have the address",
            _ => "",
        };
        let message = format!("cannot listen on {}: {error}{hint}", self.address);
        let _ = self.trouble.send(note(&self.service, "FailedToListen", message));
    }
}

/// Leads a connection to a pod: to the one whose turn it is, or to the next that takes it.
async fn relay(mut client: TcpStream, pods: Backends, turn: usize) {
    for offset in 0..pods.len() {
        let pod = pods[(turn + offset) % pods.len()];
        let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT, TcpStream::connect(pod)).await else { continue };
        // Small messages are not held back; where that fails they are only slower.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        // How it ends is the two sides' business.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        return;
    }
    // A reset comes nearest to a refusal.
    let _ = client.set_zero_linger();
}
