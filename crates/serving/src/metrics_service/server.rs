//! The operator's end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::{BoxError, service_fn};

use super::calls::{Counter, Method, answered, streamed};
use super::messages::{
    ExternalMetricValue, ExternalMetricValueList, GET_METRICS, GET_RAW_METRICS_STREAM, ListMeta, Quantity,
    RawMetricsRequest, RawMetricsResponse, SUBSCRIBE_METRIC, ScaledObjectRef, SubscriptionAck, SubscriptionRequest,
    Time, UNSUBSCRIBE_METRIC,
};
use super::raw::RawMetrics;
use super::reasons::{self, ASK};
use crate::certificates::Error;
use crate::external_metrics::{ExternalMetric, MetricsSource};
use crate::https;
use crate::identity::{self, Identity};
use crate::reasons_api::ReasonsSource;
use crate::service::service;
use crate::tls::Policy;

/// A source that has its own deadlines is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest request: three names.
const REQUEST_LIMIT: usize = 64 * 1024;

/// The two services over a source of values. Cheap to clone.
#[derive(Clone)]
pub struct MetricsService {
    source: Arc<dyn MetricsSource>,
    raw: RawMetrics,
    reasons: Option<Arc<dyn ReasonsSource>>,
    counter: Option<Counter>,
}

/// Serves both services on `listener` until `shutdown`, to clients whose certificates the CAs of `identity` have signed.
///
/// A change of `identity` holds for every later connection, and those that stand are asked to come again. Pings of
/// clients are answered at whatever pace they come.
///
/// # Errors
/// The present certificates cannot be used.
pub fn serve(
    listener: TcpListener,
    identity: watch::Receiver<Arc<Identity>>,
    policy: Policy,
    service: MetricsService,
    shutdown: CancellationToken,
) -> Result<BoxFuture<'static, ()>, Error> {
    let tls = identity::derive(identity, move |identity: &Identity| identity.server(true, &policy))?;
    Ok(https::serve(listener, tls, service, shutdown))
}

impl MetricsService {
    /// The services over a source and the raw metrics that are published.
    pub fn new(source: Arc<dyn MetricsSource>, raw: RawMetrics) -> Self {
        Self { source, raw, reasons: None, counter: None }
    }

    /// The same, telling reasons too.
    #[must_use]
    pub fn with_reasons(self, reasons: Arc<dyn ReasonsSource>) -> Self {
        Self { reasons: Some(reasons), ..self }
    }

    /// The same, telling of every call.
    #[must_use]
    pub fn counting(self, counter: Counter) -> Self {
        Self { counter: Some(counter), ..self }
    }

    async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        match request.uri().path() {
            GET_METRICS => {
                let call = service_fn(move |request: tonic::Request<ScaledObjectRef>| {
                    let (source, counter) = (self.source.clone(), self.counter.clone());
                    async move {
                        let values = values(&*source, request.into_inner());
                        let method = Method::at(GET_METRICS, false);
                        answered(counter.as_ref(), method, values).await.map(tonic::Response::new)
                    }
                });
                let codec = ProstCodec::<ExternalMetricValueList, ScaledObjectRef>::default();
                Grpc::new(codec).max_decoding_message_size(REQUEST_LIMIT).unary(call, request).await
            }
            GET_RAW_METRICS_STREAM => {
                let call = service_fn(move |request: tonic::Request<RawMetricsRequest>| {
                    let stream = raw_stream(&self.raw, &request.into_inner().subscriber);
                    let method = Method::at(GET_RAW_METRICS_STREAM, true);
                    let stream = streamed(self.counter.as_ref(), method, stream);
                    std::future::ready(stream.map(tonic::Response::new))
                });
                let codec = ProstCodec::<RawMetricsResponse, RawMetricsRequest>::default();
                Grpc::new(codec).max_decoding_message_size(REQUEST_LIMIT).server_streaming(call, request).await
            }
            SUBSCRIBE_METRIC => {
                let counted = (self.counter.clone(), Method::at(SUBSCRIBE_METRIC, false));
                subscription(request, counted, move |name, subject| self.raw.enter(name, subject)).await
            }
            UNSUBSCRIBE_METRIC => {
                let counted = (self.counter.clone(), Method::at(UNSUBSCRIBE_METRIC, false));
                subscription(request, counted, move |name, subject| self.raw.unsubscribe(name, subject)).await
            }
            ASK => match self.reasons {
                Some(source) => reasons::serve(request, self.counter, source).await,
                None => Status::unimplemented("reasons are not told here").into_http(),
            },
            path => Status::unimplemented(format!("there is no method {path}")).into_http(),
        }
    }
}

service!(
    MetricsService,
    [B: http_body::Body<Data = Bytes> + Send + 'static, B::Error: Into<BoxError> + Send],
    Body,
    |this, request| this.answer(request).await
);

async fn values(source: &dyn MetricsSource, asked: ScaledObjectRef) -> Result<ExternalMetricValueList, Status> {
    let values = timeout(PATIENCE, source.values(&asked.namespace, &asked.name, &asked.metric_name)).await;
    let values = values.map_err(|_| Status::deadline_exceeded("the metric was not read in time"))?;
    // Without a code of its own, as KEDA's operator tells its errors.
    let items = values.map_err(Status::unknown)?.into_iter().map(item).collect();
    Ok(ExternalMetricValueList { metadata: Some(ListMeta::default()), items })
}

fn item(value: ExternalMetric) -> ExternalMetricValue {
    ExternalMetricValue {
        metric_name: value.name,
        timestamp: Some(Time { seconds: value.timestamp.as_second(), nanos: 0 }),
        value: Some(Quantity { string: value.value }),
        ..Default::default()
    }
}

fn raw_stream(
    raw: &RawMetrics,
    subscriber: &str,
) -> Result<BoxStream<'static, Result<RawMetricsResponse, Status>>, Status> {
    if subscriber.is_empty() {
        return Err(Status::unknown("no subscriber is named"));
    }
    let stream = raw.stream(subscriber).ok_or_else(|| Status::resource_exhausted("there are too many subscribers"))?;
    Ok(stream.map(Ok).boxed())
}

async fn subscription<B>(
    request: Request<B>,
    (counter, method): (Option<Counter>, Method),
    change: impl Fn(&str, Option<ScaledObjectRef>) -> bool,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    let call = service_fn(move |request: tonic::Request<SubscriptionRequest>| {
        let SubscriptionRequest { subscriber, metric_metadata } = request.into_inner();
        let was_subscribed = !subscriber.is_empty() && change(&subscriber, metric_metadata);
        let answer = std::future::ready(Ok(tonic::Response::new(SubscriptionAck { was_subscribed, message: None })));
        let counter = counter.clone();
        async move { answered(counter.as_ref(), method, answer).await }
    });
    let codec = ProstCodec::<SubscriptionAck, SubscriptionRequest>::default();
    Grpc::new(codec).max_decoding_message_size(REQUEST_LIMIT).unary(call, request).await
}
