//! Event sources behind real sockets: the scenarios' own HTTP source, a RabbitMQ and a Prometheus.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ConnectionProperties};
use tidemark_testkit::ResourceMetrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::world::{Source, Surroundings};

/// The longest time for one change of a source.
const PATIENCE: Duration = Duration::from_secs(20);
/// Each request to it counts in the series that scenarios ask Prometheus for, and nobody else makes any.
const COUNTED: &str = "/api/v1/status/runtimeinfo";

/// Real servers, by their URLs, and what says how much CPU is used.
pub struct Servers {
    pub rabbitmq: String,
    pub prometheus: String,
    pub usage: Arc<ResourceMetrics>,
}

impl Surroundings for Servers {
    fn queue<'a>(&'a self, name: &'a str, messages: u32) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            timeout(PATIENCE, fill(&self.rabbitmq, name, messages)).await.expect("the broker answers").unwrap();
        })
    }

    fn series(&self, value: u32) -> BoxFuture<'_, ()> {
        Box::pin(async move { timeout(PATIENCE, count_to(&self.prometheus, value)).await.expect("Prometheus answers") })
    }

    fn cpu(&self, namespace: &str, labels: &BTreeMap<String, String>, milli: u64) {
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.usage.set_cpu(namespace, labels, milli);
    }
}

/// Leaves so many messages in the queue, which is made if need be.
async fn fill(url: &str, queue: &str, messages: u32) -> lapin::Result<()> {
    // The bare slash would be the virtual host of the empty name.
    let url = format!("{}/%2f", url.trim_end_matches('/'));
    let connection = lapin::Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await?;
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    for _ in 0..messages {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue.into(), options, b"work", properties).await?.await?;
    }
    connection.close(200, "done".into()).await
}

/// Makes requests until the count of them has these last two digits.
async fn count_to(url: &str, value: u32) {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let metrics = get(address, "/metrics").await;
    let mark = format!("handler=\"{COUNTED}\"}} ");
    let counts = metrics.lines().filter(|line| line.starts_with("prometheus_http_requests_total{"));
    let count = counts.filter_map(|line| line.split_once(&mark)?.1.parse::<u32>().ok()).sum::<u32>();
    for _ in 0..(100 + value - count % 100) % 100 {
        get(address, COUNTED).await;
    }
}

/// The answer of an HTTP server, head included, which must be a good one.
pub async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    answer
}

/// Serves the source while it is up; while it is down, nothing listens at its address.
pub async fn serve(mut listener: TcpListener, address: SocketAddr, source: Arc<Source>, shutdown: CancellationToken) {
    let mut states = source.states();
    loop {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                down = states.wait_for(|state| state.down) => {
                    drop(down);
                    break;
                }
                accepted = listener.accept() => {
                    let source = source.clone();
                    let service = service_fn(move |request: http::Request<Incoming>| {
                        let response = source.answer(&request).map(Full::new);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    let stream = TokioIo::new(accepted.unwrap().0);
                    connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(stream, service));
                }
            }
        }
        drop(listener);
        connections.shutdown().await;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            up = states.wait_for(|state| !state.down) => drop(up),
        }
        listener = TcpListener::bind(address).await.unwrap();
    }
}
