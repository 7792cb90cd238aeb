//! Peers that know the contract only from its wire: messages written out here once more, over a plain HTTP/2 connection.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tidemark_clock::Clock;
use tidemark_serving::certificates::Authority;
use tidemark_serving::identity::Identity;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// The name that operators' certificates are for.
pub const OPERATOR: &str = "keda-operator.keda.svc";

pub fn authority(name: &str) -> Authority {
    Authority::new(name, Clock::system().now()).unwrap()
}

/// The operator's identity and the metrics server's, of one authority.
pub fn identities(authority: &Authority) -> [Arc<Identity>; 2] {
    let pairs = [authority.server(&[OPERATOR]).unwrap(), authority.client("metrics-server").unwrap()];
    pairs.map(|pair| Arc::new(Identity { pair, ca: authority.certificate() }))
}

/// What KEDA's `ScaledObjectRef` is on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub metric: String,
}

/// The list as Kubernetes' encoder writes it: nested messages as bytes, so that nothing is left to our own structs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct List {
    #[prost(bytes = "vec", tag = "1")]
    pub meta: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub items: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Subscriber {
    #[prost(string, tag = "1")]
    pub subscriber: String,
    #[prost(message, optional, tag = "2")]
    pub metric: Option<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    #[prost(bool, tag = "1")]
    pub was_subscribed: bool,
    #[prost(string, optional, tag = "2")]
    pub message: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Raw {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub metrics: Vec<Vec<u8>>,
}

/// A client that is not ours.
pub struct Client(Grpc<Connection>);

#[derive(Clone)]
struct Connection(SendRequest<Body>);

impl tower::Service<Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Client {
    pub async fn connect(address: SocketAddr, tls: ClientConfig) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(OPERATOR).unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
        let (sender, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self(Grpc::with_origin(Connection(sender), format!("https://{OPERATOR}").parse().unwrap())))
    }

    pub async fn metrics(&mut self, namespace: &str, name: &str, metric: &str) -> Result<List, Status> {
        let named = named(namespace, name, metric);
        self.unary("/api.MetricsService/GetMetrics", named, ProstCodec::<Named, List>::default()).await
    }

    pub async fn subscribe(&mut self, subscriber: &str, metric: Named) -> bool {
        self.change("/api.RawMetricsService/SubscribeMetric", subscriber, metric).await
    }

    pub async fn unsubscribe(&mut self, subscriber: &str, metric: Named) -> bool {
        self.change("/api.RawMetricsService/UnsubscribeMetric", subscriber, metric).await
    }

    async fn change(&mut self, path: &'static str, subscriber: &str, metric: Named) -> bool {
        let request = Subscriber { subscriber: subscriber.to_owned(), metric: Some(metric) };
        let ack = self.unary(path, request, ProstCodec::<Subscriber, Ack>::default()).await.unwrap();
        assert_eq!(ack.message, None);
        ack.was_subscribed
    }

    pub async fn raw(&mut self, subscriber: &str) -> Result<Streaming<Raw>, Status> {
        self.0.ready().await.unwrap();
        let request = tonic::Request::new(Subscriber { subscriber: subscriber.to_owned(), metric: None });
        let path = PathAndQuery::from_static("/api.RawMetricsService/GetRawMetricsStream");
        let codec = ProstCodec::<Subscriber, Raw>::default();
        Ok(self.0.server_streaming(request, path, codec).await?.into_inner())
    }

    pub async fn unary<M, R>(&mut self, path: &'static str, message: M, codec: ProstCodec<M, R>) -> Result<R, Status>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.0.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        let path = PathAndQuery::from_static(path);
        Ok(self.0.unary(tonic::Request::new(message), path, codec).await?.into_inner())
    }
}

pub fn named(namespace: &str, name: &str, metric: &str) -> Named {
    Named { name: name.to_owned(), namespace: namespace.to_owned(), metric: metric.to_owned() }
}

/// An operator that is not ours: it answers every question alike, in the words of Go's encoder.
pub fn operator(listener: TcpListener, identity: &Identity, answer: Result<List, Status>) -> JoinHandle<()> {
    let policy = tidemark_serving::tls::Policy::default();
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(true, &policy).unwrap()));
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    assert_eq!(request.uri().path(), "/api.MetricsService/GetMetrics");
                    assert!(request.headers().contains_key("grpc-timeout"));
                    let call = service_fn(move |_: tonic::Request<Named>| {
                        std::future::ready(answer.clone().map(tonic::Response::new))
                    });
                    let codec = ProstCodec::<List, Named>::default();
                    Ok::<_, std::convert::Infallible>(server::Grpc::new(codec).unary(call, request).await)
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    })
}
