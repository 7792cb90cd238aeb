//! Services over pods that are processes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};

use k8s_openapi::api::core::v1::{Event, Service};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xtask::network::free_ports;

use super::*;

/// Plays a server in a pod: it says the pod's name and then repeats each line.
#[test]
fn server_entry() {
    if !entered_as("process::services::server_entry") {
        return;
    }
    let variable = |name: &str| std::env::var(name).unwrap();
    let listener = TcpListener::bind(format!("{}:{}", variable("IP"), variable("PORT"))).unwrap();
    let name = variable("NAME");
    for stream in listener.incoming() {
        let (mut stream, name) = (stream.unwrap(), name.clone());
        std::thread::spawn(move || {
            writeln!(stream, "{name}").unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.map_while(Result::ok).for_each(|line| writeln!(stream, "{line}").unwrap());
        });
    }
}

fn server(port: u16) -> Value {
    let mut command = vec![std::env::current_exe().unwrap().display().to_string()];
    command.extend(entry("process::services::server_entry").into_iter().map(|word| word.into_string().unwrap()));
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    json!({ "containers": [{
        "name": "main", "image": "none", "command": command,
        "env": [field("NAME", "metadata.name"), field("IP", "status.podIP"), { "name": "PORT", "value": port.to_string() }],
        "ports": [{ "name": "http", "containerPort": port }],
        "readinessProbe": { "tcpSocket": { "port": "http" }, "periodSeconds": 1 },
    }] })
}

impl Machine {
    async fn service(&self, spec: Value) -> Service {
        let services: Api<Service> = Api::namespaced(self.client.clone(), "default");
        let service = json!({ "metadata": { "name": "shop" }, "spec": spec });
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap()
    }
}

fn address(service: &Service, port: u16) -> SocketAddr {
    let ip = service.spec.as_ref().unwrap().cluster_ip.as_ref().unwrap();
    format!("{ip}:{port}").parse().unwrap()
}

/// The name of the pod that a connection leads to, and the connection.
async fn connect(address: SocketAddr) -> Option<(String, tokio::io::BufReader<TcpStream>)> {
    let mut stream = tokio::io::BufReader::new(TcpStream::connect(address).await.ok()?);
    let mut name = String::new();
    stream.read_line(&mut name).await.ok()?;
    Some((name.trim().to_owned(), stream)).filter(|(name, _)| !name.is_empty())
}

async fn until_reached(address: SocketAddr, wanted: &[&str]) {
    let mut seen = std::collections::BTreeSet::new();
    let reached = tokio::time::timeout(PATIENCE, async {
        while !wanted.iter().all(|name| seen.contains(*name)) {
            match connect(address).await {
                Some((name, _)) => drop(seen.insert(name)),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    assert!(reached.await.is_ok(), "only {seen:?} of {wanted:?} at {address}");
}

async fn until_refused(address: SocketAddr) {
    let refused = tokio::time::timeout(PATIENCE, async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(refused.await.is_ok(), "{address} is still served");
}

#[tokio::test]
async fn a_service_leads_to_its_ready_pods_in_turn() {
    let machine = Machine::new("service-turns");
    let [port, inner] = free_ports().unwrap();
    let spec = json!({ "selector": { "tier": "back" }, "ports": [{ "port": port, "targetPort": "http" }] });
    let address = address(&machine.service(spec).await, port);
    assert!(address.ip().is_loopback());
    until_refused(address).await;
    machine.create_named("a", server(inner)).await;
    until_reached(address, &["a"]).await;
    machine.create_named("b", server(inner)).await;
    until_reached(address, &["a", "b"]).await;
    let names = [connect(address).await.unwrap().0, connect(address).await.unwrap().0];
    assert_ne!(names[0], names[1], "they take turns");
    machine.pods().delete("a", &DeleteParams::default()).await.unwrap();
    machine.pods().delete("b", &DeleteParams::default()).await.unwrap();
    until_refused(address).await;
    machine.finish().await;
}

#[tokio::test]
async fn an_open_connection_outlives_its_service() {
    let machine = Machine::new("service-drain");
    let [port, inner] = free_ports().unwrap();
    let spec = json!({ "selector": { "tier": "back" }, "ports": [{ "port": port, "targetPort": inner }] });
    let address = address(&machine.service(spec).await, port);
    machine.create_named("a", server(inner)).await;
    until_reached(address, &["a"]).await;
    let (_, mut connection) = connect(address).await.unwrap();
    let services: Api<Service> = Api::namespaced(machine.client.clone(), "default");
    services.delete("shop", &DeleteParams::default()).await.unwrap();
    until_refused(address).await;
    connection.write_all(b"still here\n").await.unwrap();
    let mut answer = String::new();
    connection.read_line(&mut answer).await.unwrap();
    assert_eq!(answer, "still here\n");
    machine.finish().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let machine = Machine::new("service-taken");
    let [port, inner] = free_ports().unwrap();
    let spec = json!({ "selector": { "tier": "back" }, "ports": [{ "port": port, "targetPort": inner }] });
    let address = address(&machine.service(spec).await, port);
    let taken = TcpListener::bind(address).unwrap();
    machine.create_named("a", server(inner)).await;
    let events = Api::<Event>::namespaced(machine.client.clone(), "default");
    eventually_event(&events, "FailedToListen").await;
    drop(taken);
    until_reached(address, &["a"]).await;
    machine.finish().await;
}

#[tokio::test]
async fn a_container_is_told_where_services_are() {
    let machine = Machine::new("service-links");
    let [port] = free_ports().unwrap();
    let service = machine.service(json!({ "selector": { "tier": "none" }, "ports": [{ "port": port }] })).await;
    machine.create(shell("echo $SHOP_SERVICE_HOST:$SHOP_SERVICE_PORT; exec sleep 1000")).await;
    let expected = format!("{}\n", address(&service, port));
    eventually("the address in the log", || machine.log() == expected).await;
    machine.finish().await;
}
