//! A subscriber of raw metrics, as users write them, at either operator.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use http::uri::PathAndQuery;
use tidemark_serving::metrics_service::messages::{
    GET_RAW_METRICS_STREAM, RawMetricsRequest, RawMetricsResponse, SUBSCRIBE_METRIC, ScaledObjectRef, SubscriptionAck,
    SubscriptionRequest, UNSUBSCRIBE_METRIC,
};
use tokio::time::timeout;
use tonic::Status;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic_prost::ProstCodec;

use super::super::situation::NAMESPACE;

/// For what is read every two seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to an operator.
pub struct Subscriber(Grpc<Channel>);

/// What is told of a read: object, trigger, values in thousandths, whether they are active.
type Told = (String, String, Vec<(i64, bool)>);

fn named(object: &str, trigger: &str) -> ScaledObjectRef {
    ScaledObjectRef { name: object.to_owned(), namespace: NAMESPACE.to_owned(), metric_name: trigger.to_owned() }
}

impl Subscriber {
    /// Connects with the installation's own certificates.
    pub async fn connect(address: SocketAddr, certs: &Path, host: &str) -> Self {
        let file = |name: &str| std::fs::read(certs.join(name)).unwrap();
        let tls = ClientTlsConfig::new().domain_name(host).ca_certificate(Certificate::from_pem(file("ca.crt")));
        let tls = tls.identity(Identity::from_pem(file("tls.crt"), file("tls.key")));
        let endpoint = Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        Self(Grpc::new(timeout(PATIENCE, endpoint.connect()).await.unwrap().unwrap()))
    }

    async fn change(&mut self, path: &'static str, subscriber: &str, subject: ScaledObjectRef) -> bool {
        self.0.ready().await.unwrap();
        let request = SubscriptionRequest { subscriber: subscriber.to_owned(), metric_metadata: Some(subject) };
        let codec = ProstCodec::<SubscriptionRequest, SubscriptionAck>::default();
        let call = self.0.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec);
        let ack = timeout(PATIENCE, call).await.unwrap().unwrap().into_inner();
        assert_eq!(ack.message, None);
        ack.was_subscribed
    }

    async fn stream(&mut self, subscriber: &str) -> Result<tonic::Streaming<RawMetricsResponse>, Status> {
        self.0.ready().await.unwrap();
        let request = tonic::Request::new(RawMetricsRequest { subscriber: subscriber.to_owned() });
        let codec = ProstCodec::<RawMetricsRequest, RawMetricsResponse>::default();
        let path = PathAndQuery::from_static(GET_RAW_METRICS_STREAM);
        Ok(self.0.server_streaming(request, path, codec).await?.into_inner())
    }

    /// What the subscriber of these is told until it has heard of each that is told of at all, and what it is answered
    /// besides.
    pub async fn hear(&mut self, subjects: &[(&str, &str)], silent: &[(&str, &str)]) -> (BTreeSet<Told>, Vec<bool>) {
        let mut answers = Vec::new();
        for (object, trigger) in subjects.iter().chain(silent) {
            answers.push(self.change(SUBSCRIBE_METRIC, "dash", named(object, trigger)).await);
        }
        let (object, trigger) = subjects[0];
        answers.push(self.change(SUBSCRIBE_METRIC, "dash", named(object, trigger)).await);
        answers.push(self.change(SUBSCRIBE_METRIC, "dash", named("", trigger)).await);
        let mut stream = self.stream("dash").await.unwrap();
        let mut told = BTreeSet::new();
        let heard = |told: &BTreeSet<Told>| {
            subjects.iter().all(|(object, trigger)| told.iter().any(|told| (&*told.0, &*told.1) == (object, trigger)))
        };
        // What two triggers of one name tell, and what is told for the HPA and for polls, takes some rounds.
        let mut nothing_new = 0;
        while !heard(&told) || nothing_new < 6 * subjects.len() {
            let message = timeout(PATIENCE, stream.next()).await.unwrap_or_else(|_| panic!("only {told:?} is told"));
            nothing_new = if told.insert(read(&message.unwrap().unwrap())) { 0 } else { nothing_new + 1 };
        }
        for (object, trigger) in subjects.iter().chain(silent) {
            answers.push(self.change(UNSUBSCRIBE_METRIC, "dash", named(object, trigger)).await);
        }
        answers.push(self.change(UNSUBSCRIBE_METRIC, "dash", named(object, trigger)).await);
        // After the last subscription the stream ends, well.
        while let Some(message) = timeout(PATIENCE, stream.next()).await.expect("the stream does not end") {
            message.unwrap();
        }
        let nameless = self.stream("").await;
        answers.push(match nameless {
            Err(_) => false,
            Ok(mut stream) => matches!(timeout(PATIENCE, stream.next()).await.unwrap(), Some(Ok(_))),
        });
        (told, answers)
    }
}

fn read(message: &RawMetricsResponse) -> Told {
    let subject = message.metrics[0].metadata.clone().unwrap();
    assert_eq!(subject.namespace, NAMESPACE);
    let value = |metric: &tidemark_serving::metrics_service::messages::RawMetric| {
        assert_eq!(metric.metadata, Some(subject.clone()), "one message is about one trigger");
        assert!(metric.timestamp.is_some_and(|time| time.seconds > 1_700_000_000), "{metric:?}");
        ((metric.value * 1000.0).round() as i64, metric.is_active)
    };
    (subject.name.clone(), subject.metric_name.clone(), message.metrics.iter().map(value).collect())
}
