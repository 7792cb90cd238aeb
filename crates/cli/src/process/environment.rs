//! KEDA's environment variables.

use std::env;
use std::time::Duration;

use anyhow::{Context, bail};
use tidemark_serving::tls::Policy;

/// A variable's value; none where it is not set, or is no text.
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// The namespace of this installation: of its lease, its certificates, its services.
pub fn pod_namespace() -> String {
    let set = variable("POD_NAMESPACE").filter(|namespace| !namespace.trim().is_empty());
    set.map(|namespace| namespace.trim().to_owned()).or_else(own_namespace).unwrap_or_else(|| "keda".to_owned())
}

/// The namespace of the pod that this process runs in; none outside of a cluster.
pub fn own_namespace() -> Option<String> {
    let namespace = std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok()?;
    Some(namespace.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

/// The TLS versions and cipher suites of what is served, by `KEDA_SERVICE_MIN_TLS_VERSION` and
/// `KEDA_SERVICE_TLS_CIPHER_LIST`, which default to those of HTTP.
///
/// # Errors
/// None today: what is not understood is logged.
pub fn tls_policy() -> anyhow::Result<Policy> {
    let minimum = variable("KEDA_SERVICE_MIN_TLS_VERSION").or_else(|| {
        // Of the one for HTTP, an invalid value is the default.
        variable("KEDA_HTTP_MIN_TLS_VERSION").filter(|value| matches!(value.as_str(), "TLS12" | "TLS13"))
    });
    let ciphers = variable("KEDA_SERVICE_TLS_CIPHER_LIST").or_else(|| variable("KEDA_HTTP_TLS_CIPHER_LIST"));
    let (policy, warnings) = Policy::parse(minimum.as_deref(), ciphers.as_deref());
    for warning in warnings {
        tracing::warn!("TLS: {warning}");
    }
    Ok(policy)
}

/// A length of time as Go writes it, such as `15s` or `1m30s`.
///
/// # Errors
/// It is none; the message says so.
pub fn go_duration(text: &str) -> anyhow::Result<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    if rest.is_empty() {
        bail!("{text:?} is not a duration such as 15s");
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => bail!("{text:?} is not a duration such as 15s"),
        };
        total += number.parse::<f64>().with_context(|| format!("{text:?} is not a duration such as 15s"))? * seconds;
        rest = after;
    }
    Duration::try_from_secs_f64(total).with_context(|| format!("{text:?} is too long"))
}

/// A length of time of a variable, as Go writes it.
///
/// # Errors
/// It is set, and is none.
pub fn duration(name: &str, default: Duration) -> anyhow::Result<Duration> {
    match variable(name) {
        None => Ok(default),
        Some(text) if text.trim().is_empty() => Ok(default),
        Some(text) => go_duration(&text).with_context(|| format!("environment variable {name}")),
    }
}

/// How long a bound token of a ServiceAccount is to be valid, by `KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY`.
///
/// # Errors
/// It is no duration from one hour to six.
pub fn token_expiry() -> anyhow::Result<Duration> {
    const NAME: &str = "KEDA_BOUND_SERVICE_ACCOUNT_TOKEN_EXPIRY";
    let hour = Duration::from_secs(3600);
    let expiry = duration(NAME, hour)?;
    if !(hour..=6 * hour).contains(&expiry) {
        bail!("environment variable {NAME}: {expiry:?} is not between 1h and 6h");
    }
    Ok(expiry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(go_duration("15s").unwrap(), Duration::from_secs(15));
        assert_eq!(go_duration("1m30.5s").unwrap(), Duration::from_millis(90_500));
        assert_eq!(go_duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in ["", "15", "s", "1x", "-1s"] {
            assert!(go_duration(bad).is_err(), "{bad}");
        }
    }
}
