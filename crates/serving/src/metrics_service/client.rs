//! The metrics server's end: a source whose values come from the operator.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use tidemark_engine::quantity;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::calls::{Call, Counter, Method, code_name};
use super::link::{self, Place, State};
use super::messages::{ExternalMetricValue, ExternalMetricValueList, GET_METRICS, ScaledObjectRef};
use super::reasons::ANSWER_LIMIT;
use crate::certificates::Error;
use crate::external_metrics::{ExternalMetric, MetricsSource, Values};
use crate::identity::{self, Identity};
use crate::tls::Policy;

/// A request waits for the connection this long, and for its answer until this long after it came: the operator gives up
/// on a trigger after about 15 s, and the API server on us after 60.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(25);
/// As KEDA says it, and as tools around it look for it.
const NO_CONNECTION: &str = "timeout while waiting to establish gRPC connection to KEDA Metrics Service server";

/// Where the operator's metrics service is, and by what name it is called.
#[derive(Clone, Debug)]
pub struct Address {
    place: Place,
    authority: Authority,
}

/// What is wrong with an address or an authority, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct BadAddress {
    text: String,
    what: &'static str,
}

impl Address {
    /// Reads `host:port`, also with gRPC's `dns:///` or `passthrough:///` before it. `authority`, where it is not empty,
    /// is what requests carry and what the server's certificate must be for, instead of the host.
    ///
    /// # Errors
    /// Either is not what it should be.
    pub fn parse(address: &str, authority: &str) -> Result<Self, BadAddress> {
        let bad = |text: &str, what| BadAddress { text: text.to_owned(), what };
        let unusable = || bad(address, "an address of the form host:port");
        let plain = address.strip_prefix("dns:///").or_else(|| address.strip_prefix("passthrough:///"));
        let parsed: Authority = plain.unwrap_or(address).parse().map_err(|_| unusable())?;
        let port = parsed.port_u16().filter(|port| *port > 0).ok_or_else(unusable)?;
        let host = parsed.host().trim_matches(['[', ']']).to_owned();
        let authority = match authority {
            "" => parsed,
            given => given.parse().map_err(|_| bad(given, "an authority, such as a host name"))?,
        };
        let name = authority.host().trim_matches(['[', ']']).to_owned();
        let name =
            ServerName::try_from(name).map_err(|_| bad(authority.host(), "a name that a certificate can have"))?;
        Ok(Self { place: Place { host, port, name }, authority })
    }
}

/// Values from an operator over gRPC. Cheap to clone.
#[derive(Clone)]
pub struct GrpcMetrics {
    origin: Uri,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    counter: Option<Counter>,
}

/// A source of values from the operator at an address; the future keeps the connection to it and does not end.
///
/// The operator must show a certificate that the CAs of `identity` have signed. When `identity` changes, a new connection
/// is opened with it, and takes the place of the one before.
///
/// # Errors
/// The present certificates cannot be used.
pub fn client(
    address: &Address,
    identity: watch::Receiver<Arc<Identity>>,
    policy: Policy,
) -> Result<(GrpcMetrics, BoxFuture<'static, ()>), Error> {
    let tls = identity::derive(identity, move |identity: &Identity| identity.client(&policy))?;
    let (sender, state) = watch::channel(None);
    let wanted = Arc::new(Notify::new());
    let mut origin = http::uri::Parts::default();
    origin.scheme = Some(http::uri::Scheme::HTTPS);
    origin.authority = Some(address.authority.clone());
    origin.path_and_query = Some(PathAndQuery::from_static("/"));
    let origin = Uri::from_parts(origin).map_err(|_| Error::Unusable("the address of the metrics service"))?;
    let metrics = GrpcMetrics { origin, state, wanted: wanted.clone(), counter: None };
    Ok((metrics, Box::pin(link::keep(address.place.clone(), tls, sender, wanted))))
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    NotConnected,
    Status(Box<Status>),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => f.write_str(NO_CONNECTION),
            Self::Status(status) => f.write_str(&describe(status)),
        }
    }
}

impl GrpcMetrics {
    /// The same, telling of every call.
    #[must_use]
    pub fn counting(self, counter: Counter) -> Self {
        Self { counter: Some(counter), ..self }
    }

    /// Whether there is a connection at present.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Calls a method with one message each way.
    pub(super) async fn call<Q, A>(&self, question: Q, path: &'static str) -> Result<A, Failed>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let came = Instant::now();
        let mut again = true;
        loop {
            let mut connection = self.connection(came + CONNECTION_PATIENCE).await?;
            match self.call_once(&mut connection, question.clone(), path, came + PATIENCE).await {
                Ok(answer) => return Ok(answer),
                // The connection has broken, for instance because the leader has changed.
                Err(status) if again && is_broken(&status) => {
                    again = false;
                    self.settle().await;
                }
                Err(status) => return Err(Failed::Status(Box::new(status))),
            }
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<SendRequest<Body>, Failed> {
        let mut state = self.state.clone();
        let ready = state.wait_for(|state| match state {
            Some(connection) if !connection.is_closed() => true,
            _ => {
                self.wanted.notify_one();
                false
            }
        });
        match timeout_at(deadline, ready).await {
            Ok(Ok(ready)) => ready.clone().ok_or(Failed::NotConnected),
            // The other case: nothing keeps the connection any more, the process is about to end.
            Err(_) | Ok(Err(_)) => Err(Failed::NotConnected),
        }
    }

    /// Waits a moment for a broken connection to be known as such.
    async fn settle(&self) {
        let mut state = self.state.clone();
        state.mark_unchanged();
        let _ = tokio::time::timeout(Duration::from_millis(100), state.changed()).await;
    }

    async fn call_once<Q, A>(
        &self,
        connection: &mut SendRequest<Body>,
        question: Q,
        path: &'static str,
        deadline: Instant,
    ) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let grpc = Grpc::with_origin(Connection(connection.clone()), self.origin.clone());
        let mut grpc = grpc.max_decoding_message_size(ANSWER_LIMIT);
        let mut request = tonic::Request::new(question);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let codec = ProstCodec::<Q, A>::default();
        let call = async {
            let broken = |error: hyper::Error| Status::from_error(Box::new(error));
            grpc.ready().await.map_err(broken)?;
            grpc.unary(request, PathAndQuery::from_static(path), codec).await
        };
        let late = |_| Status::deadline_exceeded(format!("no answer in {} s", PATIENCE.as_secs()));
        let counted = Call::begin(self.counter.as_ref(), Method::at(path, false));
        counted.sent();
        let answer = timeout_at(deadline, call).await.map_err(late).flatten();
        if answer.is_ok() {
            counted.received();
        }
        counted.end(answer.as_ref().err().map_or("OK", code));
        Ok(answer?.into_inner())
    }
}

impl MetricsSource for GrpcMetrics {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        let asked = ScaledObjectRef {
            name: object.to_owned(),
            namespace: namespace.to_owned(),
            metric_name: metric.to_owned(),
        };
        Box::pin(async move {
            let list = self.call::<_, ExternalMetricValueList>(asked, GET_METRICS).await;
            list.map_err(|failed| failed.to_string())?.items.into_iter().map(value).collect()
        })
    }
}

/// A value as the API shows it; labels and window, which are never filled, are left out.
fn value(item: ExternalMetricValue) -> Result<ExternalMetric, String> {
    let value =
        item.value.map(|value| value.string).filter(|value| !value.is_empty()).unwrap_or_else(|| "0".to_owned());
    if let Err(error) = quantity::parse(&value) {
        return Err(format!("error when converting metric values {error}"));
    }
    let timestamp = item.timestamp.and_then(|time| Timestamp::from_second(time.seconds).ok()).unwrap_or_default();
    Ok(ExternalMetric { name: item.metric_name, value, timestamp })
}

/// Whether the connection broke before there was an answer.
fn is_broken(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<hyper::Error>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The code that Go's gRPC would have.
fn code(status: &Status) -> &'static str {
    code_name(if is_broken(status) { Code::Unavailable } else { status.code() })
}

/// An error as Go's gRPC writes it.
fn describe(status: &Status) -> String {
    format!("rpc error: code = {} desc = {}", code(status), status.message())
}

/// A connection as tonic wants it.
#[derive(Clone)]
struct Connection(SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics_service::messages::{Quantity, Time};

    #[test]
    fn an_address_names_the_server_and_an_authority_renames_it() {
        let keda = "keda-operator.keda.svc.cluster.local:9666";
        for (address, authority, host, name, shown) in [
            (keda, "", "keda-operator.keda.svc.cluster.local", "keda-operator.keda.svc.cluster.local", keda),
            ("dns:///op:9666", "", "op", "op", "op:9666"),
            ("127.0.0.1:1", "op.keda.svc", "127.0.0.1", "op.keda.svc", "op.keda.svc"),
            ("[::1]:1", "", "::1", "::1", "[::1]:1"),
        ] {
            let found = Address::parse(address, authority).unwrap();
            assert_eq!((&*found.place.host, found.authority.as_str()), (host, shown), "{address}");
            assert_eq!(found.place.name.to_str(), name, "{address}");
        }
        for address in ["", "op", "op:", "op:0", "http://op:1", "a b:1"] {
            assert!(Address::parse(address, "").is_err(), "{address}");
        }
        assert!(Address::parse("op:1", "a b").is_err());
    }

    #[test]
    fn values_are_kept_word_for_word_if_they_are_any() {
        let item = |text: &str| ExternalMetricValue {
            metric_name: "m".to_owned(),
            timestamp: Some(Time { seconds: 5, nanos: 0 }),
            value: Some(Quantity { string: text.to_owned() }),
            ..Default::default()
        };
        assert_eq!(value(item("12.500")).unwrap().value, "12.500");
        assert_eq!(value(item("")).unwrap().value, "0");
        assert_eq!(value(item("5")).unwrap().timestamp.as_second(), 5);
        assert!(value(item("five")).unwrap_err().starts_with("error when converting metric values "));
    }

    #[test]
    fn errors_are_told_as_gos_grpc_tells_them() {
        assert_eq!(describe(&Status::unknown("no metric")), "rpc error: code = Unknown desc = no metric");
        assert_eq!(describe(&Status::deadline_exceeded("late")), "rpc error: code = DeadlineExceeded desc = late");
        assert_eq!(describe(&Status::cancelled("x")), "rpc error: code = Canceled desc = x");
    }
}
