//! `external` and `external-push`: whatever a gRPC server of the user says.
//!
//! The scaler names its metrics: each connection asks for them once. `external-push` keeps two streams open besides, by
//! which the scaler tells that it is active, or that its metrics are others.

mod contract;
mod grpc;
mod scaler;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use prost::Message as _;
use tidemark_trigger::{
    Connection, Door, HttpProfile, MetricSpec, Parameters, ParseError, ParseErrors, Push, Reading, Secret, SourceError,
    Trigger, TriggerInput, TriggerType, metric, parameters,
};

use contract::{GET_METRIC_SPEC, GET_METRICS, GetMetricsRequest, GetMetricsResponse, IS_ACTIVE, IsActiveResponse};
use grpc::Client;
use scaler::Scaler;

/// The trigger type `external`.
pub static TYPE: TriggerType = TriggerType {
    name: "external",
    scaler_name: "externalScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, false),
    inspect: parameters::inspect::<Declared>,
};

/// The trigger type `external-push`.
pub static PUSH: TriggerType = TriggerType {
    name: "external-push",
    scaler_name: "externalPushScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| parse(input, true),
    inspect: parameters::inspect::<Declared>,
};

/// All of the metadata is sent to the scaler; what comes from a TriggerAuthentication never is.
#[derive(Parameters)]
#[parameters(check = Declared::check)]
struct Declared {
    /// Where the scaler listens: `host:port`, or another target that gRPC knows: `dns:///host:port`, `unix:///path`.
    /// Where a name stands for several servers, they are asked in turn. Each call must be answered within the operator's
    /// deadline of HTTP requests.
    #[param(from = "metadata")]
    scaler_address: String,
    /// Connect with TLS. `caCert` or a client certificate turns it on too.
    #[param(name = "enableTLS", from = "metadata", default = false)]
    enable_tls: bool,
    /// Accept any certificate of the scaler. Without TLS it has no effect.
    #[param(from = "metadata", default = false)]
    unsafe_ssl: bool,
    /// PEM text of certificates to trust besides those of the system. Turns TLS on.
    #[param(from = "auth")]
    ca_cert: Option<Secret>,
    /// PEM text of the client's certificate. Together with `tlsClientKey` it turns TLS on.
    #[param(from = "auth")]
    tls_client_cert: Option<Secret>,
    /// PEM text of the private key of `tlsClientCert`.
    #[param(from = "auth")]
    tls_client_key: Option<Secret>,
    /// Sent to the scaler under its own key, as is all of the metadata. Under a key that ends in `FromEnv` the value of the
    /// variable is sent that it names.
    #[param(rest)]
    metadata: BTreeMap<String, String>,
}

impl Declared {
    fn check(&self, input: &TriggerInput) -> Vec<ParseError> {
        metric::metric_type(input).err().into_iter().collect()
    }

    fn tls(&self) -> Option<HttpProfile> {
        let client_cert = self.tls_client_cert.clone().zip(self.tls_client_key.clone());
        let wanted = self.enable_tls || self.ca_cert.is_some() || client_cert.is_some();
        wanted.then(|| HttpProfile { unsafe_ssl: self.unsafe_ssl, ca: self.ca_cert.clone(), client_cert })
    }

    /// What a user should know although it is no error.
    fn notes(&self, sent: &BTreeMap<String, String>) -> Vec<String> {
        let mut notes = Vec::new();
        if self.unsafe_ssl && self.tls().is_none() {
            notes.push("unsafeSsl has no effect without TLS: enableTLS turns it on".to_owned());
        }
        if self.tls_client_cert.is_some() != self.tls_client_key.is_some() {
            notes.push("tlsClientCert and tlsClientKey have an effect only together".to_owned());
        }
        for key in ["caCert", "tlsClientCert", "tlsClientKey"] {
            if self.metadata.contains_key(key) {
                notes.push(format!(
                    "{key} in the metadata is only handed on to the scaler: for TLS it is taken from a \
                     TriggerAuthentication"
                ));
            }
        }
        if self.metadata.contains_key("tlsCertFile") {
            notes
                .push("tlsCertFile is only handed on to the scaler: give caCert in a TriggerAuthentication".to_owned());
        }
        for (key, variable) in &self.metadata {
            if scaler::is_from_env(key) && !sent.contains_key(key) {
                notes.push(format!(
                    "{key} is not handed on to the scaler: the container sets no variable \"{}\", or sets it to nothing",
                    variable.trim()
                ));
            }
        }
        notes
    }
}

fn parse(input: &TriggerInput, pushing: bool) -> Result<Arc<dyn Trigger>, ParseErrors> {
    let declared = <Declared as Parameters>::parse(input)?;
    let sent = scaler::sent(input);
    let mut notes = declared.notes(&sent);
    let scaler = Scaler::new(input, &declared.scaler_address, declared.tls(), sent, metric::metric_type(input)?);
    notes.extend(scaler.unusable().map(|cause| format!("{cause}; the scaler cannot be reached")));
    Ok(Arc::new(External { scaler: Arc::new(scaler), notes: notes.into(), pushing }))
}

/// A parsed trigger.
#[derive(Debug)]
struct External {
    scaler: Arc<Scaler>,
    notes: Box<[String]>,
    /// Whether the scaler has the streams of `external-push`.
    pushing: bool,
}

impl Trigger for External {
    fn metrics(&self) -> &[MetricSpec] {
        &[]
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn endpoint(&self) -> Option<String> {
        self.scaler.endpoint()
    }

    fn connect<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        async move {
            let client = self.scaler.client(door).await?;
            let metrics = match self.scaler.streamed() {
                Some(metrics) => metrics,
                None => {
                    let reply = self.scaler.ask(door, &client, GET_METRIC_SPEC, self.scaler.reference()).await?;
                    self.scaler.metrics(&reply)?
                }
            };
            Ok(Arc::new(Connected { scaler: self.scaler.clone(), client, metrics }) as Arc<dyn Connection>)
        }
        .boxed()
    }

    fn pushes(&self, door: &Door) -> Option<BoxStream<'static, Push>> {
        self.pushing.then(|| watch::pushes(&self.scaler, door))
    }
}

/// A scaler that has named its metrics.
struct Connected {
    scaler: Arc<Scaler>,
    client: Client,
    metrics: Arc<[MetricSpec]>,
}

impl Connected {
    /// The value of one metric, then whether the scaler is active: servers may count on the order.
    async fn reading(&self, door: &Door, name: &str) -> Result<Reading, SourceError> {
        let request = GetMetricsRequest {
            scaled_object_ref: self.scaler.reference(),
            metric_name: metric::remove_index(name, self.scaler.index).unwrap_or(name).to_owned(),
        };
        let asked = request.metric_name.clone();
        let request = Bytes::from(request.encode_to_vec());
        let values: GetMetricsResponse = self.scaler.ask(door, &self.client, GET_METRICS, request).await?;
        let value = self.scaler.value(&asked, &values)?;
        let state: IsActiveResponse = self.scaler.ask(door, &self.client, IS_ACTIVE, self.scaler.reference()).await?;
        Ok(Reading { value, active: state.result })
    }
}

impl Connection for Connected {
    fn metrics(&self) -> Option<Arc<[MetricSpec]>> {
        Some(self.metrics.clone())
    }

    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let mut readings = Vec::with_capacity(self.metrics.len());
            for name in self.metrics.iter().filter_map(MetricSpec::external_name) {
                readings.push(self.reading(door, name).await?);
            }
            Ok(readings)
        }
        .boxed()
    }
}
