//! The certificates of an installation: one CA, and one certificate for all its services; when they are renewed, and
//! in which steps.
//!
//! A new CA is told to everybody for [`SPREAD`] before anything is signed by it, and the old one stays trusted for as
//! long afterwards: at any moment a process whose files are that old can speak with all others.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pkcs8::der::pem::{LineEnding, encode_string};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::certificates::{Error, Pair};
use crate::identity::Identity;
use crate::tls;

/// What expires sooner than this is renewed.
const LEAD: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long it may take until every process has files that were written.
pub const SPREAD: SignedDuration = SignedDuration::from_hours(24);
/// Clocks may differ by so much.
const SKEW: SignedDuration = SignedDuration::from_hours(1);
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A CA as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// PEM, one certificate.
    pub certificate: String,
    /// PEM; PKCS#1, as KEDA has it.
    pub key: String,
}

/// What is stored of an installation's certificates, all PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// The CA that signs.
    pub authority: Authority,
    /// The CA that will sign next: it is trusted already.
    pub next: Option<Authority>,
    /// CAs that have signed before and are trusted still.
    pub former: Vec<String>,
    /// The certificate of all services, and its key.
    pub pair: Pair,
}

/// The names of an installation's services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The certificate's common name.
    pub common: String,
    pub dns: Vec<String>,
}

impl Material {
    /// The CAs to trust, the one that signs first.
    pub fn bundle(&self) -> String {
        let next = self.next.iter().map(|next| next.certificate.as_str());
        let all = [self.authority.certificate.as_str()].into_iter().chain(next);
        all.chain(self.former.iter().map(String::as_str)).map(|pem| format!("{}\n", pem.trim_end())).collect()
    }

    /// What a process needs of it.
    pub fn identity(&self) -> Identity {
        Identity { pair: self.pair.clone(), ca: self.bundle() }
    }
}

/// The material that is due at a time, from what is stored; nothing where that is good as it is.
///
/// # Errors
/// A key cannot be made.
pub fn renew(stored: Option<&Material>, names: &Names, now: Timestamp) -> Result<Option<Material>, Error> {
    let Some(stored) = stored else { return fresh(Vec::new(), names, now).map(Some) };
    let Some(authority) = Held::of(&stored.authority).filter(|held| held.holds_at(now)) else {
        // Whoever has certificates of other CAs is trusted on.
        let others = stored.former.iter().cloned().chain(stored.next.iter().map(|next| next.certificate.clone()));
        let own = [stored.authority.certificate.clone()];
        let valid = own.into_iter().chain(others).filter(|pem| validity(pem).is_some_and(|(_, end)| end > now));
        return fresh(valid.collect(), names, now).map(Some);
    };
    let mut due = stored.clone();
    advance(&mut due, &authority, now)?;
    let signer = Held::of(&due.authority).ok_or(Error::Unusable("the CA that was just made"))?;
    if !signer.has_signed(&due.pair, names, now) {
        due.pair = signer.sign(names, now)?;
    }
    let signed = validity(&due.pair.certificate).map_or(now, |(start, _)| start + SKEW);
    let spread = now.duration_since(signed) >= SPREAD;
    due.former.retain(|pem| !spread && validity(pem).is_some_and(|(_, end)| end > now));
    Ok((due != *stored).then_some(due))
}

/// Takes the steps towards a new CA that are due.
fn advance(due: &mut Material, authority: &Held, now: Timestamp) -> Result<(), Error> {
    let left = authority.end.duration_since(now);
    if left > LEAD {
        due.next = None;
        return Ok(());
    }
    let next = due.next.take().filter(|next| Held::of(next).is_some_and(|held| held.holds_at(now)));
    let next = next.map_or_else(|| make_authority(now), Ok)?;
    let told = validity(&next.certificate).map_or(now, |(start, _)| start + SKEW);
    // Where the CA has nearly expired there is no time to tell of the next one.
    if now.duration_since(told) >= SPREAD || left <= SPREAD {
        let former = std::mem::replace(&mut due.authority, next);
        due.former.insert(0, former.certificate);
    } else {
        due.next = Some(next);
    }
    Ok(())
}

fn fresh(former: Vec<String>, names: &Names, now: Timestamp) -> Result<Material, Error> {
    let authority = make_authority(now)?;
    let held = Held::of(&authority).ok_or(Error::Unusable("the CA that was just made"))?;
    let pair = held.sign(names, now)?;
    Ok(Material { authority, next: None, former, pair })
}

fn make_authority(now: Timestamp) -> Result<Authority, Error> {
    let mut params = CertificateParams::new(vec!["KEDA".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "KEDA");
    params.distinguished_name.push(DnType::OrganizationName, "KEDAORG");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    valid(&mut params, now, YEAR * 10)?;
    let key = make_key()?;
    let certificate = params.self_signed(&key)?;
    Ok(Authority { certificate: certificate.pem(), key: pkcs1(&key)? })
}

fn make_key() -> Result<KeyPair, Error> {
    Ok(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?)
}

/// A key as PKCS#1, the only form that KEDA reads.
fn pkcs1(key: &KeyPair) -> Result<String, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Pem { what: "a new key", message: error.to_string() };
    let info = pkcs8::PrivateKeyInfo::try_from(key.serialized_der()).map_err(|error| failed(&error))?;
    encode_string("RSA PRIVATE KEY", LineEnding::LF, info.private_key).map_err(|error| failed(&error))
}

fn valid(params: &mut CertificateParams, now: Timestamp, lasting: SignedDuration) -> Result<(), Error> {
    let seconds = |time: Timestamp| u64::try_from(time.as_second()).map_err(|_| Error::Unusable("a time before 1970"));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(seconds(now - SKEW)?);
    params.not_after = epoch + Duration::from_secs(seconds(now + lasting)?);
    Ok(())
}

/// Begin and end of a certificate.
fn validity(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let der = first(pem)?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    times(&certificate)
}

fn times(certificate: &X509Certificate<'_>) -> Option<(Timestamp, Timestamp)> {
    let validity = certificate.validity();
    let time = |seconds| Timestamp::from_second(seconds).ok();
    Some((time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?))
}

fn first(pem: &str) -> Option<CertificateDer<'static>> {
    tls::certificates(pem, "a certificate").ok()?.into_iter().next()
}

/// A CA with its key at hand.
struct Held {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    start: Timestamp,
    end: Timestamp,
}

impl Held {
    /// None where certificate or key cannot be read, or do not fit each other.
    fn of(authority: &Authority) -> Option<Self> {
        let certificate = first(&authority.certificate)?;
        let key = KeyPair::from_pem(&authority.key).ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        let (start, end) = times(&parsed)?;
        // One of somebody else's may be of a form that cannot sign here.
        let signs = Issuer::from_ca_cert_der(&certificate, &key).is_ok();
        let fits = parsed.is_ca() && parsed.public_key().raw == key.subject_public_key_info();
        (signs && fits).then_some(())?;
        Some(Self { certificate: certificate.clone(), key, start, end })
    }

    fn holds_at(&self, now: Timestamp) -> bool {
        self.start <= now && now < self.end
    }

    fn sign(&self, names: &Names, now: Timestamp) -> Result<Pair, Error> {
        let mut params = CertificateParams::new(names.dns.clone())?;
        params.distinguished_name.push(DnType::CommonName, names.common.clone());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        // No longer than the CA itself.
        valid(&mut params, now, YEAR.min(self.end.duration_since(now)))?;
        let key = make_key()?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: pkcs1(&key)? })
    }

    /// Whether the pair is good: signed by this CA, for these names, and far from its end.
    fn has_signed(&self, pair: &Pair, names: &Names, now: Timestamp) -> bool {
        let check = || {
            let der = first(&pair.certificate)?;
            let (_, certificate) = X509Certificate::from_der(&der).ok()?;
            let (_, authority) = X509Certificate::from_der(&self.certificate).ok()?;
            certificate.verify_signature(Some(authority.public_key())).ok()?;
            let key = KeyPair::from_pem(&pair.key).ok()?;
            let fits = certificate.public_key().raw == key.subject_public_key_info();
            let (start, end) = times(&certificate)?;
            // The last one before the CA's own end cannot last longer than that.
            let lasts = end.duration_since(now) > LEAD || (end == self.end && end > now);
            let alternatives = certificate.subject_alternative_name().ok()??;
            let named = |name: &String| alternatives.value.general_names.contains(&GeneralName::DNSName(name));
            Some(fits && start <= now && lasts && names.dns.iter().all(named))
        };
        check().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;

    use super::super::trust::speak;
    use super::*;
    use crate::tls::Policy;

    const NAME: &str = "keda-operator.keda.svc";

    fn names() -> Names {
        Names { common: "keda-operator".to_owned(), dns: vec![NAME.to_owned()] }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn whole(pem: &str) -> (Timestamp, Timestamp) {
        validity(pem).unwrap()
    }

    #[tokio::test]
    async fn new_certificates_work_with_each_other_and_have_the_form_that_keda_reads() {
        // rustls looks at the machine's clock.
        let now = tidemark_clock::Clock::system().now();
        let made = renew(None, &names(), now).unwrap().unwrap();
        assert!(made.authority.key.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        assert!(made.pair.key.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
        assert!(renew(Some(&made), &names(), now).unwrap().is_none(), "it is good");
        let identity = made.identity();
        let server = Arc::new(identity.server(true, &Policy::default()).unwrap());
        let client = Arc::new(identity.client(&Policy::default()).unwrap());
        let name = ServerName::try_from(NAME).unwrap();
        let mut client = rustls::ClientConnection::new(client, name).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*std::mem::take(&mut wire)).unwrap();
            server.process_new_packets().unwrap();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*std::mem::take(&mut wire)).unwrap();
            client.process_new_packets().unwrap();
        }
        assert_eq!(server.peer_certificates().unwrap().len(), 1);
    }

    #[test]
    fn for_eleven_years_files_of_yesterday_work_with_those_of_today_and_nothing_expires() {
        let mut now = time("2026-01-01T00:00:00Z");
        let mut material = renew(None, &names(), now).unwrap().unwrap();
        let (first_authority, mut leaves) = (material.authority.certificate.clone(), 1);
        let mut yesterday = vec![material.identity(); 2];
        while now < time("2037-01-01T00:00:00Z") {
            // Where nothing has changed for a day it is enough to look once a week.
            let settled = yesterday.iter().all(|old| *old == material.identity());
            now += SignedDuration::from_hours(if settled { 7 * 24 } else { 12 });
            if let Some(due) = renew(Some(&material), &names(), now).unwrap() {
                leaves += u32::from(due.pair != material.pair);
                material = due;
            }
            let today = material.identity();
            assert!(
                whole(&today.pair.certificate).1.duration_since(now) > SignedDuration::from_hours(60 * 24),
                "{now}"
            );
            for old in &yesterday {
                speak(old, &today, NAME, now).unwrap();
                speak(&today, old, NAME, now).unwrap();
            }
            yesterday.remove(0);
            yesterday.push(today);
        }
        assert!(material.authority.certificate != first_authority);
        assert!((12..20).contains(&leaves), "{leaves}");
        assert_eq!(tls::certificates(&material.bundle(), "test").unwrap().len(), 1, "the old CA is forgotten");
    }

    #[test]
    fn what_is_broken_is_made_anew_and_whoever_has_the_old_ca_is_trusted() {
        let now = time("2026-01-01T00:00:00Z");
        let good = renew(None, &names(), now).unwrap().unwrap();
        let broken = |change: fn(&mut Material)| {
            let mut material = good.clone();
            change(&mut material);
            renew(Some(&material), &names(), now).unwrap().unwrap()
        };
        let repaired = broken(|material| material.pair.key = "garbage".to_owned());
        assert!(repaired.authority == good.authority && repaired.pair != good.pair);
        let repaired = broken(|material| material.authority.key = "garbage".to_owned());
        assert!(repaired.authority != good.authority && repaired.bundle().contains(good.authority.certificate.trim()));
        let repaired = broken(|material| material.authority.certificate = "garbage".to_owned());
        assert_eq!(tls::certificates(&repaired.bundle(), "test").unwrap().len(), 1);
        let more = Names { dns: vec![NAME.to_owned(), "new".to_owned()], ..names() };
        assert!(renew(Some(&good), &more, now).unwrap().unwrap().pair != good.pair, "a service has come");
    }

    #[test]
    fn an_operator_that_was_away_for_long_finds_its_way() {
        let start = time("2026-01-01T00:00:00Z");
        let old = renew(None, &names(), start).unwrap().unwrap();
        let late = start + YEAR * 10 - SignedDuration::from_hours(5);
        let due = renew(Some(&old), &names(), late).unwrap().unwrap();
        assert!(due.authority != old.authority && due.next.is_none());
        assert_eq!(due.former.len(), 1, "the old CA is trusted still");
        let after = renew(Some(&old), &names(), start + YEAR * 11).unwrap().unwrap();
        assert_eq!(after.former.len(), 0);
    }
}
