//! One HTTP request through the door: deadline, user info, redirects, coalescing.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::FutureExt;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderValue, LOCATION,
    PROXY_AUTHORIZATION, TRANSFER_ENCODING,
};
use http::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use url::Url;

use super::{Door, HttpProfile, Network, client, coalesce, requests};
use crate::{ErrorKind, SourceError};

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// Sends a request, sharing the reply of an equal GET in flight.
pub async fn send(
    door: &Door,
    profile: &HttpProfile,
    request: Request<Bytes>,
    timeout: Option<Duration>,
) -> Result<Response<Bytes>, SourceError> {
    let timeout = timeout.unwrap_or(door.inner.settings.http_timeout);
    let start = |request: Request<Bytes>| {
        let (door, profile) = (door.clone(), profile.clone());
        async move { within(&door, &profile, request, timeout).await }.boxed()
    };
    if request.method() != Method::GET || !request.body().is_empty() {
        return start(request).await;
    }
    let key = coalesce::Key::of(profile, &request, timeout);
    door.inner.in_flight.join(key, || start(request)).await
}

async fn within(
    door: &Door,
    profile: &HttpProfile,
    request: Request<Bytes>,
    timeout: Duration,
) -> Result<Response<Bytes>, SourceError> {
    let url = Url::parse(&request.uri().to_string()).map_err(|e| {
        SourceError::new(
            ErrorKind::Configuration,
            format!("{} request: the URL is not absolute: {e}", request.method()),
        )
    })?;
    let what = format!("{} {}", request.method(), shown(&url));
    match tokio::time::timeout(timeout, follow(door, profile, request, url)).await {
        Ok(outcome) => outcome.map_err(|e| SourceError::new(e.kind, format!("{what}: {}", e.message))),
        Err(_) => {
            let message = format!("{what}: no reply within {timeout:?}");
            Err(SourceError::new(ErrorKind::TimedOut, message))
        }
    }
}

/// A URL as messages show it: without user info, query and fragment.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

async fn follow(
    door: &Door,
    profile: &HttpProfile,
    request: Request<Bytes>,
    mut url: Url,
) -> Result<Response<Bytes>, SourceError> {
    let (parts, mut body) = request.into_parts();
    let (mut method, mut headers) = (parts.method, parts.headers);
    for _ in 0..=MAX_REDIRECTS {
        user_info(&mut url, &mut headers);
        let response = hop(door, profile, &method, &url, &headers, &body).await?;
        let Some(target) = redirect(&response, &url)? else {
            return Ok(response);
        };
        let trusted = keeps_credentials(&url, &target);
        if !trusted {
            strip_credentials(&mut headers);
        }
        if changes_to_get(response.status(), &method) {
            method = Method::GET;
            body = Bytes::new();
            for name in [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING, TRANSFER_ENCODING] {
                headers.remove(name);
            }
        }
        if !trusted && !body.is_empty() {
            // It may hold a client's secret, as the request for an OAuth2 token does.
            let message = "a redirect would take the request's body to another host, or out of TLS";
            return Err(SourceError::new(ErrorKind::Refused, message));
        }
        headers.remove(HOST);
        url = target;
    }
    Err(SourceError::new(ErrorKind::Refused, format!("more than {MAX_REDIRECTS} redirects")))
}

/// Turns user info of the URL into Basic authentication, unless the request has its own.
fn user_info(url: &mut Url, headers: &mut HeaderMap) {
    if url.username().is_empty() && url.password().is_none() {
        return;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    // Neither can fail: the scheme has a host, or else there would be no user info.
    let _ = (url.set_username(""), url.set_password(None));
    if headers.contains_key(AUTHORIZATION) {
        return;
    }
    if let Ok(mut value) = HeaderValue::try_from(format!("Basic {}", BASE64.encode(&pair))) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
}

async fn hop(
    door: &Door,
    profile: &HttpProfile,
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response<Bytes>, SourceError> {
    if !matches!(url.scheme(), "http" | "https") {
        let message = format!("the scheme {} is not http or https", url.scheme());
        return Err(SourceError::new(ErrorKind::Configuration, message));
    }
    let mut request = Request::builder()
        .method(method)
        .uri(url.as_str())
        .body(body.clone())
        .map_err(|e| SourceError::new(ErrorKind::Configuration, format!("the URL cannot be used: {e}")))?;
    *request.headers_mut() = headers.clone();
    let mut noted = requests::Noted::begin(door.requests.as_ref(), method, url);
    match &door.inner.network {
        Network::Real(clients) => {
            let reply = clients.send(&door.inner.settings, profile, request).await?;
            noted.answered(reply.status());
            client::read(reply, door.inner.settings.body_limit).await
        }
        Network::InProcess(handler) => {
            let reply = handler(request).await?;
            noted.answered(reply.status());
            Ok(reply)
        }
    }
}

/// Where a reply sends on to.
fn redirect(response: &Response<Bytes>, url: &Url) -> Result<Option<Url>, SourceError> {
    let sends_on = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let Some(location) = response.headers().get(LOCATION).filter(|_| sends_on) else {
        return Ok(None);
    };
    let target = location.to_str().ok().and_then(|location| url.join(location).ok());
    target.map(Some).ok_or_else(|| SourceError::new(ErrorKind::BadReply, "a redirect leads to no valid URL"))
}

/// Whether credentials may go along: to the same host or a subdomain of it, and not out of TLS.
fn keeps_credentials(from: &Url, to: &Url) -> bool {
    let downgrade = from.scheme() == "https" && to.scheme() != "https";
    let (Some(from_host), Some(to_host)) = (from.host_str(), to.host_str()) else { return false };
    let subdomain = || from.domain().is_some() && to_host.strip_suffix(from_host).is_some_and(|sub| sub.ends_with('.'));
    !downgrade && (from_host == to_host || subdomain())
}

fn strip_credentials(headers: &mut HeaderMap) {
    let sensitive: Vec<_> =
        headers.iter().filter(|(_, value)| value.is_sensitive()).map(|(name, _)| name.clone()).collect();
    for name in sensitive.into_iter().chain([AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION]) {
        headers.remove(name);
    }
}

fn changes_to_get(status: StatusCode, method: &Method) -> bool {
    match status {
        StatusCode::SEE_OTHER => method != Method::HEAD,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => method != Method::GET && method != Method::HEAD,
        _ => false,
    }
}
