//! HTTP clients of the real network, one per profile.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use tokio::time::Instant;

use super::{DoorSettings, HttpProfile, tls};
use crate::{ErrorKind, SourceError, causes};

/// The clients in use.
#[derive(Default)]
pub struct Clients(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// By profile, and by whether proxies are left out.
    clients: BTreeMap<(HttpProfile, bool), Client>,
    /// When idle clients were last looked for.
    swept: Option<Instant>,
}

struct Client {
    client: reqwest::Client,
    used: Instant,
}

impl Clients {
    /// Sends one request and waits for the head of the reply; redirects are not followed.
    pub async fn send(
        &self,
        settings: &DoorSettings,
        profile: &HttpProfile,
        request: Request<Bytes>,
    ) -> Result<reqwest::Response, SourceError> {
        let client = self.client(settings, profile, request.uri().host().is_some_and(is_loopback))?;
        let request = request.map(reqwest::Body::from).try_into().map_err(|e| failure(&e))?;
        client.execute(request).await.map_err(|e| failure(&e))
    }

    fn client(
        &self,
        settings: &DoorSettings,
        profile: &HttpProfile,
        direct: bool,
    ) -> Result<reqwest::Client, SourceError> {
        let now = Instant::now();
        let idle = |since: Instant| now.duration_since(since) >= settings.client_idle;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.swept.is_none_or(idle) {
            kept.clients.retain(|_, client| !idle(client.used));
            kept.swept = Some(now);
        }
        let key = (profile.clone(), direct);
        if let Some(client) = kept.clients.get_mut(&key) {
            client.used = now;
            return Ok(client.client.clone());
        }
        let client = build(settings, profile, direct)?;
        kept.clients.insert(key, Client { client: client.clone(), used: now });
        Ok(client)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().clients.len()
    }
}

/// Whether a host is this machine: proxies are left out for it, as Go does.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn build(settings: &DoorSettings, profile: &HttpProfile, direct: bool) -> Result<reqwest::Client, SourceError> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(profile, settings)?)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_idle_timeout(settings.connection_idle)
        .pool_max_idle_per_host(if settings.keep_alive { 4 } else { 0 })
        .user_agent(concat!("tidemark/", env!("CARGO_PKG_VERSION")));
    let builder = if direct { builder.no_proxy() } else { builder };
    builder
        .build()
        .map_err(|e| SourceError::new(ErrorKind::Configuration, format!("HTTP client: {}", inner_causes(&e))))
}

/// Reads the body of a reply, unless it is larger than `limit`.
pub async fn read(mut reply: reqwest::Response, limit: usize) -> Result<Response<Bytes>, SourceError> {
    let too_large =
        || SourceError::new(ErrorKind::BadReply, format!("the reply is larger than {} MiB", limit / (1024 * 1024)));
    if reply.content_length().is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut response = Response::new(());
    *response.status_mut() = reply.status();
    *response.version_mut() = reply.version();
    *response.headers_mut() = std::mem::take(reply.headers_mut());
    let mut body = BytesMut::new();
    while let Some(chunk) = reply.chunk().await.map_err(|e| failure(&e))? {
        if body.len() + chunk.len() > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(response.map(|()| body.freeze()))
}

/// The kind and causes of a failure, without the URL.
fn failure(error: &reqwest::Error) -> SourceError {
    let kind = if error.is_timeout() {
        ErrorKind::TimedOut
    } else if error.is_builder() {
        ErrorKind::Configuration
    } else if error.is_body() || error.is_decode() {
        ErrorKind::BadReply
    } else {
        ErrorKind::Unreachable
    };
    SourceError::new(kind, inner_causes(error))
}

/// The causes of an error: the outermost text of reqwest holds the URL with its query, so it is left out.
fn inner_causes(error: &reqwest::Error) -> String {
    error.source().map_or_else(|| "the request failed".to_owned(), causes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn equal_profiles_share_a_client_and_idle_ones_go() {
        let (clients, settings) = (Clients::default(), DoorSettings::default());
        let used = HttpProfile { unsafe_ssl: true, ..Default::default() };
        let client = |profile: &HttpProfile| clients.client(&settings, profile, false).unwrap();
        client(&used);
        client(&used);
        assert_eq!(clients.len(), 1);
        client(&HttpProfile::default());
        assert_eq!(clients.len(), 2);
        for _ in 0..4 {
            tokio::time::advance(settings.client_idle / 2 + Duration::from_secs(1)).await;
            client(&used);
        }
        assert_eq!(clients.len(), 1);
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "[2001:db8::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
