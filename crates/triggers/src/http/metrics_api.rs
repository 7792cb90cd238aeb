//! `metrics-api`: one number out of the reply of any HTTP endpoint.

mod number;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode};
use tidemark_trigger::metric::{external_name, metric_type, target_milli};
use tidemark_trigger::{
    Choice as _, Connection, Door, ErrorKind, HttpProfile, MetricSpec, Parameters, ParseError, ParseErrors, Reading,
    Secret, SourceError, Trigger, TriggerInput, TriggerType, parameters,
};
use url::Url;

use super::auth_modes::{AuthModes, Mode};
use super::connected;
use number::{Format, Location};
use service::{Aggregation, Service};

/// The trigger type `metrics-api`.
pub static TYPE: TriggerType = TriggerType {
    name: "metrics-api",
    scaler_name: "metricsAPIScaler",
    parameters: Declared::TABLE,
    cached_metrics: true,
    parse: |input| MetricsApi::parse(input).map(|trigger| Arc::new(trigger) as Arc<dyn Trigger>),
    inspect: parameters::inspect::<Declared>,
};

#[derive(Clone, Debug, Parameters)]
#[parameters(check = Declared::check)]
struct Declared {
    /// Full URL that is read with GET, its query included.
    #[param(from = "metadata")]
    url: Secret,
    /// Where in the reply the number stands. In JSON a path such as `jobs.waiting`, `queues.0.length`,
    /// `queues.#(name=="mail").length` or `queues.#`. In YAML and XML keys and places in lists, such as
    /// `queues.0.length`; in XML below the root element. In Prometheus' text format a series, such as
    /// `jobs{queue="mail"}`.
    #[param(from = "metadata")]
    value_location: String,
    /// Format of the reply.
    #[param(from = "metadata", default = "json")]
    format: Format,
    /// Target of the number.
    #[param(from = "metadata", default = 0)]
    target_value: f64,
    /// The trigger is active when the number is above this.
    #[param(from = "metadata", default = 0)]
    activation_target_value: f64,
    /// Accept any certificate of the endpoint.
    #[param(from = "metadata", default = false)]
    unsafe_ssl: bool,
    /// Deadline of a request. 0: that of the operator.
    #[param(from = "metadata", default = "0")]
    timeout: Duration,
    /// Read every ready endpoint of the Kubernetes service that the URL names as `service.namespace`, and aggregate the
    /// numbers. The URL's port is that of the pods. Of a dual-stack service the addresses of one family are read.
    #[param(from = "metadata", default = false)]
    aggregate_from_kube_service_endpoints: bool,
    /// How the numbers of several endpoints become one.
    #[param(from = "metadata", default = "average")]
    aggregation_type: Aggregation,
    #[param(group)]
    auth: AuthModes,
}

impl Declared {
    fn check(&self, input: &TriggerInput) -> Vec<ParseError> {
        let mut errors = Vec::new();
        if !input.as_metric_source && target_milli(self.target_value) == 0 {
            let message = if self.target_value == 0.0 {
                "no targetValue given in metadata".to_owned()
            } else {
                format!("parameter \"targetValue\" value \"{}\" must be at least 0.001", self.target_value)
            };
            errors.push(ParseError::new("targetValue", message));
        }
        errors.extend(metric_type(input).err());
        errors
    }

    fn notes(&self, input: &TriggerInput) -> Box<[String]> {
        let mut notes = Self::notes_on_keys(input);
        let unreadable = match parsed(&self.url) {
            Ok(url) if self.aggregate_from_kube_service_endpoints => Service::of(&url, self.aggregation_type).err(),
            Ok(_) => None,
            Err(cause) => Some(cause.message),
        };
        notes.extend(unreadable.map(|cause| format!("{cause}; the endpoint cannot be read")));
        if !self.aggregate_from_kube_service_endpoints && input.metadata.contains_key("aggregationType") {
            notes.push("aggregationType has no effect without aggregateFromKubeServiceEndpoints".to_owned());
        }
        notes.extend(Location::parse(self.format, &self.value_location).err());
        let without_effect = [Mode::Custom, Mode::OAuth].into_iter().filter(|mode| self.auth.has(*mode));
        notes.extend(without_effect.map(|mode| format!("authModes {} has no effect with metrics-api", mode.text())));
        notes.into()
    }

    fn notes_on_keys(input: &TriggerInput) -> Vec<String> {
        <Self as Parameters>::notes(input).into_vec()
    }
}

/// A parsed trigger.
#[derive(Debug)]
struct MetricsApi {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    declared: Box<Declared>,
}

impl MetricsApi {
    fn parse(input: &TriggerInput) -> Result<Self, ParseErrors> {
        let declared = Box::new(<Declared as Parameters>::parse(input)?);
        let name = external_name(input.index, &format!("metric-api-{}", declared.value_location));
        let metric_type = metric_type(input)?;
        let target_milli = target_milli(declared.target_value);
        Ok(Self {
            metrics: [MetricSpec::External { name, metric_type, target_milli }],
            notes: declared.notes(input),
            declared,
        })
    }

    fn endpoint(&self) -> Result<Endpoint, SourceError> {
        let declared = &*self.declared;
        let mut url = parsed(&declared.url)?;
        let location =
            Location::parse(declared.format, &declared.value_location).map_err(|cause| configuration(&cause))?;
        let service = if declared.aggregate_from_kube_service_endpoints {
            Some(Service::of(&url, declared.aggregation_type).map_err(|cause| configuration(&cause))?)
        } else {
            None
        };
        let mut headers = HeaderMap::new();
        declared.auth.authorize(&mut url, &mut headers)?;
        Ok(Endpoint {
            url,
            headers,
            profile: declared.auth.profile(declared.unsafe_ssl),
            timeout: (!declared.timeout.is_zero()).then_some(declared.timeout),
            location,
            activation: declared.activation_target_value,
            service,
        })
    }
}

impl Trigger for MetricsApi {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn connect<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        connected(self.endpoint())
    }
}

/// What is asked, and where in the reply the number stands.
struct Endpoint {
    url: Url,
    headers: HeaderMap,
    profile: HttpProfile,
    timeout: Option<Duration>,
    location: Location,
    activation: f64,
    /// The service whose endpoints are all asked, instead of the URL's host.
    service: Option<Service>,
}

impl Endpoint {
    async fn number(&self, door: &Door) -> Result<f64, SourceError> {
        match &self.service {
            None => self.number_at(door, &self.url).await,
            Some(service) => {
                service.number(door, &self.url, |url| async move { self.number_at(door, &url).await }).await
            }
        }
    }

    async fn number_at(&self, door: &Door, url: &Url) -> Result<f64, SourceError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.as_str().parse().map_err(|_| configuration("url is not a usable URL"))?;
        *request.headers_mut() = self.headers.clone();
        let reply = door.http(&self.profile, request, self.timeout).await?;
        if reply.status() != StatusCode::OK {
            let kind = kind_of(reply.status());
            return Err(SourceError::new(kind, format!("{}: api returned {}", shown(url), reply.status())));
        }
        self.location
            .number(reply.body())
            .map_err(|cause| SourceError::new(ErrorKind::BadReply, format!("{}: {cause}", shown(url))))
    }
}

impl Connection for Endpoint {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        async move {
            let value = self.number(door).await?;
            Ok(vec![Reading { value, active: value > self.activation }])
        }
        .boxed()
    }
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Authentication,
        StatusCode::NOT_FOUND => ErrorKind::MissingResource,
        _ => ErrorKind::Refused,
    }
}

/// The URL, of which no message shows more than what is wrong with it.
fn parsed(url: &Secret) -> Result<Url, SourceError> {
    let url = Url::parse(url.expose()).map_err(|cause| configuration(&format!("url is not a full URL: {cause}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(configuration(&format!("url has the scheme {scheme}, not http or https"))),
    }
}

/// The URL as messages show it: without user info, query and fragment.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn configuration(message: &str) -> SourceError {
    SourceError::new(ErrorKind::Configuration, message)
}
