//! What is wrong with certificates that can be read: who brings their own is told before the others are turned away.

use jiff::Timestamp;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Identity;
use crate::tls;

impl Identity {
    /// What is wrong at a time, in words for the log: dates, and CAs that have not signed the certificate.
    pub fn flaws(&self, now: Timestamp) -> Vec<String> {
        let chain = tls::certificates(&self.pair.certificate, "the certificate").unwrap_or_default();
        let authorities = tls::certificates(&self.ca, "the CA certificates").unwrap_or_default();
        let mut flaws: Vec<String> = chain.first().and_then(|leaf| of_dates(leaf, now)).into_iter().collect();
        if authorities.is_empty() {
            return flaws;
        }
        if authorities.iter().all(|authority| dates(authority).is_some_and(|(_, end)| end <= now)) {
            flaws.push("all CAs of ca.crt have expired".to_owned());
        }
        if !authorities.iter().any(|authority| chain.iter().any(|signed| has_signed(authority, signed))) {
            flaws.push("no CA of ca.crt has signed it".to_owned());
        }
        flaws
    }

    /// When the certificate ends; none where it is none.
    pub fn expires(&self) -> Option<Timestamp> {
        let chain = tls::certificates(&self.pair.certificate, "the certificate").ok()?;
        dates(chain.first()?).map(|(_, end)| end)
    }

    /// Those of the DNS names that the certificate is not for.
    pub fn lacks<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let chain = tls::certificates(&self.pair.certificate, "the certificate").unwrap_or_default();
        let leaf = chain.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        let is_for = |name: &str| {
            let name = ServerName::try_from(name).ok();
            leaf.as_ref().zip(name).is_some_and(|(leaf, name)| verify_server_name(leaf, &name).is_ok())
        };
        names.into_iter().filter(|name| !is_for(name)).map(str::to_owned).collect()
    }
}

fn of_dates(leaf: &CertificateDer<'_>, now: Timestamp) -> Option<String> {
    let (start, end) = dates(leaf)?;
    let (left, life) = (end.duration_since(now), end.duration_since(start));
    if now < start {
        Some(format!("it is not valid before {start}"))
    } else if end <= now {
        Some(format!("it has expired at {end}"))
    } else if left.as_secs().saturating_mul(10) < life.as_secs() {
        // Whoever renews certificates does so earlier.
        Some(format!("it expires at {end}, and nothing has renewed it yet"))
    } else {
        None
    }
}

fn dates(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let time = |seconds| Timestamp::from_second(seconds).ok();
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

fn has_signed(authority: &CertificateDer<'_>, signed: &CertificateDer<'_>) -> bool {
    let (Ok((_, authority)), Ok((_, signed))) =
        (X509Certificate::from_der(authority), X509Certificate::from_der(signed))
    else {
        return false;
    };
    signed.verify_signature(Some(authority.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::Authority;

    #[test]
    fn certificates_that_others_will_not_trust_are_told() {
        let time = |text: &str| -> Timestamp { text.parse().unwrap() };
        let made = time("2026-01-15T00:00:00Z");
        let [authority, stranger] = ["a", "b"].map(|name| Authority::new(name, made).unwrap());
        let pair = authority.server(&["*.keda.svc", "keda-operator"]).unwrap();
        let good = Identity { pair, ca: authority.certificate() };
        assert_eq!(good.flaws(made), Vec::<String>::new());
        assert_eq!(good.flaws(time("2026-01-13T00:00:00Z")), ["it is not valid before 2026-01-14T00:00:00Z"]);
        let soon = good.flaws(time("2035-06-01T00:00:00Z"));
        assert_eq!(soon, ["it expires at 2036-01-14T00:00:00Z, and nothing has renewed it yet"]);
        let late = good.flaws(time("2036-01-14T00:00:00Z"));
        assert_eq!(late, ["it has expired at 2036-01-14T00:00:00Z", "all CAs of ca.crt have expired"]);
        let foreign = Identity { ca: stranger.certificate(), ..good.clone() };
        assert_eq!(foreign.flaws(made), ["no CA of ca.crt has signed it"]);
        let several = Identity { ca: stranger.certificate() + &authority.certificate(), ..good.clone() };
        assert_eq!(several.flaws(made), Vec::<String>::new());
        assert_eq!(good.lacks(["keda-operator.keda.svc", "keda-operator", "other"]), ["other"]);
    }
}
