use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use prost::Message as _;
use tidemark_serving::certificates::Authority;
use tidemark_serving::identity::Identity;
use tidemark_serving::metrics_service::messages::{ExternalMetricValue, RawMetric};
use tidemark_serving::metrics_service::{Address, GrpcMetrics, MetricsService, RawMetrics, RawReading, client, serve};
use tidemark_serving::tls::{Policy, client_config};
use tidemark_serving::{Asked, ExternalMetric, MetricsSource, ReasonsSource, Values};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_prost::ProstCodec;

use crate::peers::{self, Client, List, Named, OPERATOR, authority, identities, named};

const PATIENCE: Duration = Duration::from_secs(20);

struct Orders;

impl MetricsSource for Orders {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        Box::pin(async move {
            if (namespace, object) != ("shop", "orders") {
                let text = "error when getting metric values error getting scalers";
                return Err(format!("{text} ScaledObject.keda.sh \"{object}\" not found"));
            }
            let timestamp = "2026-01-01T00:00:00.7Z".parse().unwrap();
            Ok(vec![ExternalMetric { name: metric.to_owned(), value: "12500m".to_owned(), timestamp }])
        })
    }
}

/// Tells what it was asked, and much of it.
struct Talkative;

impl ReasonsSource for Talkative {
    fn ask<'a>(&'a self, path: &'a str, query: &'a str) -> BoxFuture<'a, Asked> {
        Box::pin(async move { Asked { status: 404, json: format!("{path}?{query}").repeat(200_000) } })
    }
}

/// A running operator's end.
struct Operator {
    address: SocketAddr,
    identity: watch::Sender<Arc<Identity>>,
    raw: RawMetrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    async fn start(identity: Arc<Identity>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), identity).await
    }

    async fn start_at(address: SocketAddr, identity: Arc<Identity>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (identity, seen) = watch::channel(identity);
        let (raw, stop) = (RawMetrics::default(), CancellationToken::new());
        let service = MetricsService::new(Arc::new(Orders), raw.clone()).with_reasons(Arc::new(Talkative));
        let task = tokio::spawn(serve(listener, seen, Policy::default(), service, stop.clone()).unwrap());
        Self { address, identity, raw, stop, task }
    }

    async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
        self.address
    }
}

/// Our own client, with the task that keeps its connection.
struct Server {
    metrics: GrpcMetrics,
    identity: watch::Sender<Arc<Identity>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn metrics_server(address: SocketAddr, identity: Arc<Identity>) -> Server {
    let (identity, seen) = watch::channel(identity);
    let address = Address::parse(&address.to_string(), OPERATOR).unwrap();
    let (metrics, kept) = client(&address, seen, Policy::default()).unwrap();
    Server { metrics, identity, task: tokio::spawn(kept) }
}

async fn ask(server: &Server) -> Result<Vec<ExternalMetric>, String> {
    timeout(PATIENCE, server.metrics.values("shop", "orders", "s0-q")).await.expect("an answer in time")
}

async fn stranger(operator: &Operator, identity: &Identity) -> std::io::Result<Client> {
    Client::connect(operator.address, identity.client(&Policy::default()).unwrap()).await
}

#[tokio::test]
async fn a_value_crosses_the_link_and_so_does_an_error_in_the_operators_words() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own).await;
    let server = metrics_server(operator.address, others);
    let values = ask(&server).await.unwrap();
    assert_eq!((&*values[0].name, &*values[0].value), ("s0-q", "12500m"));
    assert_eq!(values[0].timestamp.to_string(), "2026-01-01T00:00:00Z");
    let error = server.metrics.values("shop", "none", "s0-q").await.unwrap_err();
    let expected = "rpc error: code = Unknown desc = error when getting metric values error getting scalers \
                    ScaledObject.keda.sh \"none\" not found";
    assert_eq!(error, expected);
}

#[tokio::test]
async fn a_client_that_is_not_ours_reads_what_the_contract_says() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own).await;
    let mut keda = stranger(&operator, &others).await.unwrap();
    let list = keda.metrics("shop", "orders", "s0-q").await.unwrap();
    assert_eq!(list.meta, b"");
    assert_eq!(list.items, [b"\x0a\x04s0-q\x1a\x06\x08\x80\xf2\xd6\xca\x06\x2a\x08\x0a\x0612500m".to_vec()]);
    let status = keda.metrics("shop", "none", "s0-q").await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    let codec = ProstCodec::<Named, List>::default();
    let status = keda.unary("/api.MetricsService/GetMore", named("a", "b", "c"), codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_operator_that_is_not_ours_is_understood() {
    let [own, others] = identities(&authority("ca"));
    let value = ExternalMetricValue { metric_name: "s0-q".to_owned(), ..Default::default() };
    // As Go writes it: a value of 1.5k without a window, and a list whose metadata has empty strings.
    let item = [value.encode_to_vec(), b"\x1a\x04\x08\x05\x10\x00\x2a\x06\x0a\x041.5k".to_vec()].concat();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let list = List { meta: b"\x0a\x00\x12\x00\x1a\x00".to_vec(), items: vec![item] };
    let task = peers::operator(listener, &own, Ok(list));
    let server = metrics_server(address, others);
    let values = ask(&server).await.unwrap();
    assert_eq!((&*values[0].value, values[0].timestamp.as_second()), ("1.5k", 5));
    task.abort();
}

#[tokio::test]
async fn reasons_cross_the_link_however_many_there_are() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own).await;
    let server = metrics_server(operator.address, others);
    let answer = timeout(PATIENCE, server.metrics.ask("/apis/reasons.tidemark.dev/v1alpha1", "limit=5")).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json.len(), "/apis/reasons.tidemark.dev/v1alpha1?limit=5".len() * 200_000);
}

#[tokio::test]
async fn kedas_operator_tells_no_reasons_and_one_that_is_away_is_said_to_be() {
    let [own, others] = identities(&authority("ca"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_kept, identity) = watch::channel(own);
    // As KEDA's it knows the metrics only.
    let service = MetricsService::new(Arc::new(Orders), RawMetrics::default());
    let task = tokio::spawn(serve(listener, identity, Policy::default(), service, CancellationToken::new()).unwrap());
    let server = metrics_server(address, others.clone());
    let answer = timeout(PATIENCE, server.metrics.ask("/", "")).await.unwrap();
    assert_eq!(answer.status, 501, "{}", answer.json);
    assert!(answer.json.contains("it is KEDA's, or an older Tidemark"), "{}", answer.json);
    task.abort();
    let nowhere = metrics_server("127.0.0.1:1".parse().unwrap(), others);
    let answer = timeout(PATIENCE, nowhere.metrics.ask("/", "")).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.json);
}

#[tokio::test]
async fn who_has_no_certificate_of_the_ca_gets_nothing() {
    let own = authority("ca");
    let [operator, others] = identities(&own);
    let operator = Operator::start(operator).await;
    let nobody = client_config(None, &own.certificate(), &Policy::default()).unwrap();
    let foreign =
        Identity { pair: authority("other").client("metrics-server").unwrap().clone(), ca: others.ca.clone() };
    for config in [nobody, foreign.client(&Policy::default()).unwrap()] {
        // With TLS 1.3 a client learns only at its first request that it was turned away.
        let outcome = async {
            Client::connect(operator.address, config)
                .await?
                .metrics("shop", "orders", "m")
                .await
                .map_err(std::io::Error::other)
        };
        assert!(timeout(PATIENCE, outcome).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn an_operator_whose_certificate_is_another_cas_or_another_names_is_not_talked_to() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own.clone()).await;
    let foreign = Arc::new(Identity { pair: others.pair.clone(), ca: authority("other").certificate() });
    let elsewhere = Address::parse(&operator.address.to_string(), "somebody.else.svc").unwrap();
    let (renamed, kept) = client(&elsewhere, watch::channel(others).1, Policy::default()).unwrap();
    let kept = tokio::spawn(kept);
    let server = metrics_server(operator.address, foreign);
    let expected = "timeout while waiting to establish gRPC connection to KEDA Metrics Service server";
    let (first, second) = tokio::join!(ask(&server), renamed.values("shop", "orders", "m"));
    assert_eq!((first.unwrap_err().as_str(), second.unwrap_err().as_str()), (expected, expected));
    kept.abort();
}

#[tokio::test]
async fn an_operator_that_comes_back_is_found_again_within_seconds() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own.clone()).await;
    let server = metrics_server(operator.address, others);
    ask(&server).await.unwrap();
    let address = operator.stop().await;
    let asked = tokio::spawn({
        let metrics = server.metrics.clone();
        async move { metrics.values("shop", "orders", "s0-q").await }
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!server.metrics.is_connected());
    let _operator = Operator::start_at(address, own).await;
    timeout(PATIENCE, asked).await.unwrap().unwrap().expect("the request that waited is answered");
    ask(&server).await.unwrap();
}

/// A CA that vouches for both, as during a rotation.
fn both(old: &Authority, new: &Authority) -> String {
    format!("{}{}", old.certificate(), new.certificate())
}

#[tokio::test]
async fn certificates_change_under_the_readers_and_nobody_notices_but_those_of_the_old_ca() {
    let (old, new) = (authority("old"), authority("new"));
    let [own, others] = identities(&old);
    let operator = Operator::start(own.clone()).await;
    let server = metrics_server(operator.address, others.clone());
    let done = CancellationToken::new();
    let reader = tokio::spawn({
        let (metrics, done) = (server.metrics.clone(), done.clone());
        async move {
            let mut reads = 0;
            while !done.is_cancelled() {
                metrics.values("shop", "orders", "s0-q").await.expect("every read is answered");
                reads += 1;
            }
            reads
        }
    });
    let [new_own, new_others] = identities(&new);
    let with = |identity: &Identity, ca: String| Arc::new(Identity { pair: identity.pair.clone(), ca });
    let settle = || tokio::time::sleep(Duration::from_millis(300));
    settle().await;
    let mut keda = stranger(&operator, &others).await.unwrap();
    keda.metrics("shop", "orders", "m").await.unwrap();
    // Both CAs are trusted first, then the certificates change, then the old CA goes.
    operator.identity.send_replace(with(&own, both(&old, &new)));
    server.identity.send_replace(with(&others, both(&old, &new)));
    settle().await;
    operator.identity.send_replace(with(&new_own, both(&old, &new)));
    settle().await;
    server.identity.send_replace(with(&new_others, both(&old, &new)));
    settle().await;
    operator.identity.send_replace(new_own);
    server.identity.send_replace(new_others);
    settle().await;
    done.cancel();
    let reads: u32 = timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert!(reads > 50, "{reads} reads");
    // Who still has the old CA's certificate was sent away, and does not come in again.
    assert!(keda.metrics("shop", "orders", "m").await.is_err());
    let again = Identity { pair: others.pair.clone(), ca: both(&old, &new) };
    let outcome = async {
        stranger(&operator, &again).await?.metrics("shop", "orders", "m").await.map_err(std::io::Error::other)
    };
    assert!(timeout(PATIENCE, outcome).await.unwrap().is_err());
}

#[tokio::test]
async fn a_client_with_a_certificate_may_be_silent_as_long_as_it_likes() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own).await;
    let mut keda = stranger(&operator, &others).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(15)).await;
    tokio::time::resume();
    keda.metrics("shop", "orders", "m").await.unwrap();
}

#[tokio::test]
async fn a_subscriber_gets_raw_metrics_until_it_ends_its_last_subscription() {
    let [own, others] = identities(&authority("ca"));
    let operator = Operator::start(own).await;
    let mut keda = stranger(&operator, &others).await.unwrap();
    assert_eq!(keda.raw("").await.unwrap_err().code(), Code::Unknown);
    let queue = || named("shop", "orders", "queue");
    assert!(!keda.subscribe("dash", named("shop", "", "queue")).await);
    assert!(!keda.subscribe("dash", queue()).await);
    assert!(keda.subscribe("dash", queue()).await);
    let mut stream = keda.raw("dash").await.unwrap();
    let time = "2026-01-01T00:00:00Z".parse().unwrap();
    let reading = RawReading {
        namespace: "shop",
        object: "orders",
        trigger: "queue",
        values: vec![1.5, 2.0],
        active: true,
        time,
    };
    operator.raw.publish(&reading);
    let message = timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
    let values: Vec<_> =
        message.metrics.iter().map(|metric| RawMetric::decode(metric.as_slice()).unwrap().value).collect();
    assert_eq!(values, [1.5, 2.0]);
    assert!(keda.unsubscribe("dash", queue()).await);
    assert!(timeout(PATIENCE, stream.message()).await.unwrap().unwrap().is_none());
    operator.stop().await;
}
