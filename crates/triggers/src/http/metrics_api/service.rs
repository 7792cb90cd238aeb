//! The endpoints of a Kubernetes service, read one by one, and their numbers as one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::stream;
use futures::{FutureExt, StreamExt};
use tidemark_trigger::door::ServiceEndpoint;
use tidemark_trigger::{Choice, Door, ErrorKind, SourceError};
use tokio::time::sleep;
use url::{Host, Url};

/// Endpoints that are read at the same time.
const AT_ONCE: usize = 5;
/// What has not answered by then is left out. It is less than the operator's deadline of a whole fetch, which would lose
/// the answers of the others too.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Choice)]
pub(super) enum Aggregation {
    Average,
    Sum,
    Max,
    Min,
}

impl Aggregation {
    /// `numbers` is not empty.
    fn of(self, numbers: &[f64]) -> f64 {
        let sum = || numbers.iter().sum::<f64>();
        match self {
            Self::Average => sum() / numbers.len() as f64,
            Self::Sum => sum(),
            Self::Max => numbers.iter().copied().fold(f64::NAN, f64::max),
            Self::Min => numbers.iter().copied().fold(f64::NAN, f64::min),
        }
    }
}

/// A service of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Service {
    name: Box<str>,
    namespace: Box<str>,
    aggregation: Aggregation,
}

impl Service {
    /// The service that a URL's host names: `service.namespace`, whatever follows.
    ///
    /// # Errors
    /// The host is something else.
    pub fn of(url: &Url, aggregation: Aggregation) -> Result<Self, String> {
        let mut labels = match url.host() {
            Some(Host::Domain(host)) => host.split('.').filter(|label| !label.is_empty()),
            _ => return Err(no_service()),
        };
        let (Some(name), Some(namespace)) = (labels.next(), labels.next()) else { return Err(no_service()) };
        Ok(Self { name: name.into(), namespace: namespace.into(), aggregation })
    }

    /// The numbers of all ready endpoints as one. Endpoints that fail are left out. So are those for which there was no
    /// time, but from an average only: nobody knows what they would have added to a sum.
    ///
    /// # Errors
    /// The endpoints cannot be listed, there is none, none could be read, or there was no time to ask all.
    pub async fn number<F>(&self, door: &Door, url: &Url, read: impl Fn(Url) -> F) -> Result<f64, SourceError>
    where
        F: Future<Output = Result<f64, SourceError>>,
    {
        let endpoints = door.cluster()?.service_endpoints(&self.namespace, &self.name).await.map_err(|cause| {
            let message = "failed to get kubernetes endpoints urls from configured service URL";
            SourceError::new(cause.kind, format!("{message}: {}", cause.message))
        })?;
        let urls = self.urls(url, &endpoints);
        if urls.is_empty() {
            let message = format!("no endpoints URLs were given for the service name: {self} has no ready endpoint");
            return Err(SourceError::new(ErrorKind::MissingResource, message));
        }
        let (count, mut asked) = (urls.len(), 0);
        let answers = stream::iter(urls).enumerate().map(|(place, url)| {
            asked = place + 1;
            read(url).map(move |outcome| (place, outcome))
        });
        let mut answers: Vec<_> = answers.buffer_unordered(AT_ONCE).take_until(sleep(PATIENCE)).collect().await;
        // In their order, so that the same numbers always add up to the same.
        answers.sort_by_key(|(place, _)| *place);
        let numbers: Vec<f64> = answers.iter().filter_map(|(_, outcome)| outcome.as_ref().ok().copied()).collect();
        if numbers.is_empty() {
            return Err(self.all_failed(
                answers.into_iter().find_map(|(_, outcome)| outcome.err()),
                url,
                &endpoints,
                count,
            ));
        }
        if asked < count && self.aggregation != Aggregation::Average {
            let message = format!(
                "only {asked} of the {count} endpoints of {self} could be asked within {PATIENCE:?}; with a shorter \
                 timeout, endpoints that do not answer keep fewer others waiting"
            );
            return Err(SourceError::new(ErrorKind::TimedOut, message));
        }
        if numbers.len() < count {
            tracing::debug!(service = %self, read = numbers.len(), of = count, "endpoints that failed are left out");
        }
        Ok(self.aggregation.of(&numbers))
    }

    fn urls(&self, url: &Url, endpoints: &[ServiceEndpoint]) -> Vec<Url> {
        let port = url.port_or_known_default();
        let once = each_once(endpoints).into_iter();
        once.filter_map(|(endpoint, address)| {
            let mut url = url.clone();
            match address {
                Some(address) => url.set_ip_host(address).ok()?,
                None => url.set_host(Some(&endpoint.address)).ok()?,
            }
            url.set_port(port.filter(|port| endpoint.ports.contains(port))).ok()?;
            Some(url)
        })
        .collect()
    }

    /// Why no endpoint could be read: as the first one says, and that the port may be the wrong one.
    fn all_failed(
        &self,
        cause: Option<SourceError>,
        url: &Url,
        endpoints: &[ServiceEndpoint],
        count: usize,
    ) -> SourceError {
        let mut message =
            format!("could not get any metric successfully from the {count} provided endpoints of {self}");
        let declared: BTreeSet<u16> = endpoints.iter().flat_map(|endpoint| endpoint.ports.iter().copied()).collect();
        if let Some(port) = url.port_or_known_default().filter(|port| !declared.contains(port)) {
            let declared: Vec<_> = declared.iter().map(u16::to_string).collect();
            let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
            message.push_str(&format!(" (the URL's port {port} is none of the pods' ports: {declared})"));
        }
        let none = || SourceError::new(ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"));
        let cause = cause.unwrap_or_else(none);
        SourceError::new(cause.kind, format!("{message}: {}", cause.message))
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "service {}/{}", self.namespace, self.name)
    }
}

/// Each ready endpoint once, with its address if that is an IP address. In a dual-stack service every pod has one of
/// either family: those of the family that has more are taken, and of IPv4 when there are as many.
fn each_once(endpoints: &[ServiceEndpoint]) -> Vec<(&ServiceEndpoint, Option<IpAddr>)> {
    let mut seen = BTreeSet::new();
    let ready = endpoints.iter().filter(|endpoint| endpoint.ready && seen.insert(&endpoint.address));
    let mut once: Vec<_> = ready.map(|endpoint| (endpoint, endpoint.address.parse::<IpAddr>().ok())).collect();
    let count = |family: fn(&IpAddr) -> bool| once.iter().filter(|(_, ip)| ip.as_ref().is_some_and(family)).count();
    let more_of_6 = count(IpAddr::is_ipv6) > count(IpAddr::is_ipv4);
    once.retain(|(_, ip)| ip.is_none_or(|ip| ip.is_ipv6() == more_of_6));
    once
}

fn no_service() -> String {
    "aggregateFromKubeServiceEndpoints needs a url whose host names a service, such as http://service.namespace:8080/path"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn endpoint(address: &str, ready: bool, ports: &[u16]) -> ServiceEndpoint {
        ServiceEndpoint { address: address.into(), ready, ports: ports.into() }
    }

    fn urls(template: &str, endpoints: &[ServiceEndpoint]) -> Vec<String> {
        let template = url(template);
        let service = Service::of(&template, Aggregation::Sum).unwrap();
        service.urls(&template, endpoints).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_host_names_service_and_namespace_with_or_without_more() {
        for host in ["http://web.shop/m", "http://web.shop:8080", "https://WEB.shop.svc.cluster.local:8080/x?y"] {
            let service = Service::of(&url(host), Aggregation::Sum).unwrap();
            assert_eq!((&*service.name, &*service.namespace), ("web", "shop"), "{host}");
        }
        for host in ["http://web/m", "http://10.0.0.1/m", "http://[::1]:80/m", "http://web./m"] {
            assert!(Service::of(&url(host), Aggregation::Sum).is_err(), "{host}");
        }
    }

    #[test]
    fn every_ready_address_is_asked_once_at_the_pods_port() {
        let endpoints = [
            endpoint("10.0.0.1", true, &[8080]),
            endpoint("10.0.0.2", false, &[8080]),
            endpoint("10.0.0.1", true, &[9090]),
            endpoint("pod.example", true, &[9090]),
        ];
        let expected = ["http://10.0.0.1:8080/m?q=1", "http://pod.example/m?q=1"];
        assert_eq!(urls("http://web.shop.svc:8080/m?q=1", &endpoints), expected);
        let default_port = [endpoint("10.0.0.1", true, &[80])];
        assert_eq!(urls("http://web.shop/m", &default_port), ["http://10.0.0.1/m"]);
        assert_eq!(urls("https://web.shop/m", &default_port), ["https://10.0.0.1/m"]);
    }

    #[test]
    fn a_pod_with_an_address_of_either_family_is_asked_once() {
        let of = |addresses: &[&str]| {
            let endpoints: Vec<_> = addresses.iter().map(|address| endpoint(address, true, &[80])).collect();
            urls("http://web.shop/m", &endpoints)
        };
        assert_eq!(of(&["fd00::1", "fd00::2", "10.0.0.1", "10.0.0.2"]), ["http://10.0.0.1/m", "http://10.0.0.2/m"]);
        // A pod from before the service became dual-stack has one address only.
        assert_eq!(of(&["10.0.0.1", "fd00::1", "fd00::2"]), ["http://[fd00::1]/m", "http://[fd00::2]/m"]);
        assert_eq!(of(&["fd00::1", "pod.example"]), ["http://[fd00::1]/m", "http://pod.example/m"]);
        let one_unready = [endpoint("fd00::1", true, &[80]), endpoint("10.0.0.1", false, &[80])];
        assert_eq!(urls("http://web.shop/m", &one_unready), ["http://[fd00::1]/m"]);
    }

    #[test]
    fn numbers_become_one() {
        let numbers = [4.0, 1.0, 7.0];
        let of = |aggregation: Aggregation| aggregation.of(&numbers);
        assert_eq!(of(Aggregation::Average), 4.0);
        assert_eq!(of(Aggregation::Sum), 12.0);
        assert_eq!((of(Aggregation::Min), of(Aggregation::Max)), (1.0, 7.0));
    }
}
