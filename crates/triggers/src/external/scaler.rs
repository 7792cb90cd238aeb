//! One scaler as one trigger sees it: where it is, what it is sent, what its answers mean.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use tidemark_trigger::{
    Door, ErrorKind, HttpProfile, MetricSpec, MetricType, Secret, SourceError, TriggerInput, metric,
};

use super::contract::{GetMetricSpecResponse, GetMetricsResponse, ScaledObjectRef, Spec, Value};
use super::grpc::{self, Address, Client, Failure, Place};

/// The suffix of a metadata key whose value is taken from the container's environment.
const FROM_ENV: &str = "FromEnv";

/// The most metrics of one trigger, and the most bytes of a name: an HPA that has more is too large for the API server.
const MOST_METRICS: usize = 1000;
const LONGEST_NAME: usize = 1000;

/// Whether the value of a metadata key is taken from the container's environment.
pub fn is_from_env(key: &str) -> bool {
    key.ends_with(FROM_ENV)
}

/// What the scaler is sent of the metadata: all of it, under its own keys, variables of the environment replaced by their
/// values and left out where they have none.
pub fn sent(input: &TriggerInput) -> BTreeMap<String, String> {
    let entry = |(key, value): (&String, &String)| {
        let value = match is_from_env(key) {
            false => value.clone(),
            true => input.env.get(value.trim()).map(|secret| secret.expose().to_owned()).filter(|v| !v.is_empty())?,
        };
        Some((key.clone(), value))
    };
    input.metadata.iter().filter_map(entry).collect()
}

/// A scaler.
pub struct Scaler {
    /// The trigger's place in its object.
    pub index: usize,
    pub namespace: Box<str>,
    pub object: Box<str>,
    /// What is wrong with the address shows only when connecting, as in KEDA.
    address: Result<Address, String>,
    tls: Option<HttpProfile>,
    /// The encoded [`ScaledObjectRef`]. It may hold secrets.
    reference: Bytes,
    /// What came from the environment, the longest text first: no message may show it.
    hidden: Box<[Secret]>,
    metric_type: MetricType,
    needs_target: bool,
    /// The metrics that the scaler told by a stream, once it has.
    streamed: Mutex<Option<Arc<[MetricSpec]>>>,
}

/// Shows nothing of what the scaler is sent.
impl fmt::Debug for Scaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scaler")
            .field("namespace", &self.namespace)
            .field("object", &self.object)
            .field("index", &self.index)
            .field("address", &self.address.as_ref().map(ToString::to_string))
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Scaler {
    /// The scaler of a trigger.
    pub fn new(
        input: &TriggerInput,
        address: &str,
        tls: Option<HttpProfile>,
        sent: BTreeMap<String, String>,
        metric_type: MetricType,
    ) -> Self {
        let mut hidden: Vec<_> =
            sent.iter().filter(|(key, _)| is_from_env(key)).map(|(_, value)| Secret::from(value.as_str())).collect();
        hidden.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        let reference =
            ScaledObjectRef { name: input.object.clone(), namespace: input.namespace.clone(), scaler_metadata: sent };
        Self {
            index: input.index,
            namespace: input.namespace.as_str().into(),
            object: input.object.as_str().into(),
            address: Address::parse(address).map_err(|cause| format!("scalerAddress cannot be used: {cause}")),
            tls,
            reference: reference.encode_to_vec().into(),
            hidden: hidden.into(),
            metric_type,
            needs_target: !input.as_metric_source,
            streamed: Mutex::default(),
        }
    }

    /// Where the scaler is.
    pub fn endpoint(&self) -> Option<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        match &self.address.as_ref().ok()?.place {
            Place::Host(host, port) => Some(tidemark_trigger::endpoint(scheme, host, *port)),
            Place::Path(path) => Some(format!("unix:{}", path.display())),
        }
    }

    /// Why the scaler can never be reached.
    pub fn unusable(&self) -> Option<&str> {
        self.address.as_ref().err().map(String::as_str)
    }

    /// The object as the scaler is told of it.
    pub fn reference(&self) -> Bytes {
        self.reference.clone()
    }

    /// A share of the connections to the scaler.
    ///
    /// # Errors
    /// An address, a certificate or a proxy that cannot be used.
    pub async fn client(&self, door: &Door) -> Result<Client, SourceError> {
        let address = self.address.as_ref();
        let address = address.map_err(|cause| SourceError::new(ErrorKind::Configuration, cause.as_str()))?;
        Client::shared(door, address, self.tls.as_ref()).await.map_err(|error| {
            let message = match error.kind {
                ErrorKind::Configuration if self.tls.is_some() => {
                    format!("caCert, tlsClientCert or tlsClientKey cannot be used: {}", error.message)
                }
                _ => format!("the scaler at {address} cannot be asked: {}", error.message),
            };
            SourceError::new(error.kind, message)
        })
    }

    /// Makes a call with one reply.
    ///
    /// # Errors
    /// There is none in time, or it is no success.
    pub async fn ask<M: Message + Default + 'static>(
        &self,
        door: &Door,
        client: &Client,
        path: &'static str,
        request: Bytes,
    ) -> Result<M, SourceError> {
        let reply = client.call(path, request, door.settings().http_timeout).await;
        reply.map_err(|failure| self.error(failure, path))
    }

    /// The error for the user. Scalers like to repeat what they were sent: what is secret of that is not shown.
    pub fn error(&self, failure: Failure, path: &str) -> SourceError {
        let address = self.address.as_ref().map(ToString::to_string).unwrap_or_default();
        let answered = format!("the scaler at {address} answered {}", grpc::method(path));
        failure.into_error(&answered, |text| self.hide(text))
    }

    fn hide(&self, text: String) -> String {
        self.hidden.iter().fold(text, |text, secret| text.replace(secret.expose(), "***"))
    }

    /// The metrics that the scaler told by a stream.
    pub fn streamed(&self) -> Option<Arc<[MetricSpec]>> {
        self.streamed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over metrics that the scaler told by a stream. Gives them when they are news; an empty list is none.
    ///
    /// # Errors
    /// As [`Self::metrics`].
    pub fn adopt(&self, reply: &GetMetricSpecResponse) -> Result<Option<Arc<[MetricSpec]>>, SourceError> {
        if reply.metric_specs.is_empty() {
            return Ok(None);
        }
        let metrics = self.metrics(reply)?;
        let mut streamed = self.streamed.lock().unwrap_or_else(PoisonError::into_inner);
        if streamed.as_ref() == Some(&metrics) {
            return Ok(None);
        }
        *streamed = Some(metrics.clone());
        Ok(Some(metrics))
    }

    /// Asks the scaler for its metrics again from now on.
    pub fn forget_streamed(&self) {
        *self.streamed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The metrics that a reply names.
    ///
    /// # Errors
    /// There is none, or one that an HPA cannot have.
    pub fn metrics(&self, reply: &GetMetricSpecResponse) -> Result<Arc<[MetricSpec]>, SourceError> {
        if reply.metric_specs.is_empty() {
            return Err(SourceError::new(
                ErrorKind::MissingResource,
                "got empty metric spec: the scaler names no metric",
            ));
        }
        if reply.metric_specs.len() > MOST_METRICS {
            let message = format!("the scaler names more than {MOST_METRICS} metrics");
            return Err(SourceError::new(ErrorKind::BadReply, message));
        }
        reply.metric_specs.iter().map(|spec| self.metric(spec)).collect()
    }

    fn metric(&self, spec: &Spec) -> Result<MetricSpec, SourceError> {
        let shown: String = self.hide(spec.metric_name.clone()).chars().filter(|c| !c.is_control()).take(100).collect();
        let bad = |what: &str| SourceError::new(ErrorKind::BadReply, format!("the scaler's metric `{shown}` {what}"));
        // What a segment of a path in the metrics API may not hold.
        let unusable = |c: char| matches!(c, '/' | '%') || c.is_control();
        if spec.metric_name.contains(unusable) || spec.metric_name.len() > LONGEST_NAME {
            return Err(bad("has a name that Kubernetes does not allow"));
        }
        let target_milli = match spec.target_size_float > 0.0 {
            true => metric::target_milli(spec.target_size_float),
            false => spec.target_size.saturating_mul(1000),
        };
        if target_milli <= 0 && self.needs_target {
            return Err(bad("has no target above 0"));
        }
        let name = format!("s{}-{}", self.index, spec.metric_name).into();
        Ok(MetricSpec::External { name, metric_type: self.metric_type, target_milli })
    }

    /// The value of a metric: the sum of all values of a reply, whatever their names, each as it counts alone.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&self, asked: &str, reply: &GetMetricsResponse) -> Result<f64, SourceError> {
        if reply.metric_values.is_empty() {
            let message = format!("the scaler gave no value of the metric `{asked}`");
            return Err(SourceError::new(ErrorKind::BadReply, message));
        }
        let sum = reply.metric_values.iter().map(milli).fold(0, i64::saturating_add);
        Ok(sum as f64 / 1000.0)
    }
}

/// A value in thousandths. The float counts when it is positive; negative numbers, NaN and infinities are 0.
fn milli(value: &Value) -> i64 {
    match value.metric_value_float > 0.0 {
        true => metric::target_milli(value.metric_value_float),
        false => value.metric_value.max(0).saturating_mul(1000),
    }
}
