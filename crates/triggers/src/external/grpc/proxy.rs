//! The way through an HTTP proxy, as the environment of the process says: `HTTPS_PROXY` and `NO_PROXY`, as gRPC does with
//! TLS and without.

use std::net::IpAddr;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tidemark_trigger::{ErrorKind, SourceError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::address::{Address, Place};
use crate::connect_failure;

/// The longest reply of a proxy that is read.
const REPLY_LIMIT: usize = 8 * 1024;

/// A proxy that opens a way to any server.
#[derive(Clone, Debug, PartialEq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// For the header `Proxy-Authorization`.
    login: Option<HeaderValue>,
}

impl Proxy {
    /// The proxy to an address; none where the environment names none or exempts the address. Unix sockets and this
    /// machine never have one.
    ///
    /// # Errors
    /// Of kind configuration: a proxy that does not speak plain HTTP.
    pub fn from_environment(address: &Address) -> Result<Option<Self>, SourceError> {
        let set = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        let proxies = Matcher::builder().https(set(["HTTPS_PROXY", "https_proxy"]));
        Self::of(&proxies.no(set(["NO_PROXY", "no_proxy"])).build(), address)
    }

    fn of(proxies: &Matcher, address: &Address) -> Result<Option<Self>, SourceError> {
        let Place::Host(host, _) = &address.place else { return Ok(None) };
        if is_loopback(host) {
            return Ok(None);
        }
        let target = Uri::builder().scheme("https").authority(address.authority.clone()).path_and_query("/").build();
        let Some(proxy) = target.ok().and_then(|target| proxies.intercept(&target)) else { return Ok(None) };
        let (uri, unusable) = (proxy.uri(), "HTTPS_PROXY names no proxy of the form http://host:port");
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => Ok(Some(Self {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: uri.port_u16().unwrap_or(80),
                login: proxy.basic_auth().cloned(),
            })),
            _ => Err(SourceError::new(ErrorKind::Configuration, unusable)),
        }
    }

    /// Opens a way to an address. (The tunnel of `hyper-util` loses what a server says right after the proxy's reply: a
    /// server of HTTP/2 without TLS may well speak first.)
    ///
    /// # Errors
    /// The proxy cannot be reached, or does not open the way.
    pub async fn connect(&self, to: &Address) -> Result<TcpStream, SourceError> {
        let Self { host, port, .. } = self;
        let shown = format!("the proxy {host}:{port}");
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let mut stream = stream.map_err(|error| connect_failure::of_tcp(&error, &shown))?;
        let broken = |_| SourceError::new(ErrorKind::Unreachable, format!("{shown} broke off the connection"));
        stream.write_all(&self.request(to)).await.map_err(broken)?;
        let mut reply = Vec::new();
        // Byte for byte: what comes after the reply is the server's.
        while !reply.ends_with(b"\r\n\r\n") {
            if reply.len() == REPLY_LIMIT {
                return Err(SourceError::new(ErrorKind::BadReply, format!("{shown} sent a reply that is too long")));
            }
            reply.push(stream.read_u8().await.map_err(broken)?);
        }
        match status(&reply) {
            Some(200..=299) => Ok(stream),
            Some(407) => Err(SourceError::new(ErrorKind::Authentication, format!("{shown} wants another login"))),
            Some(status) => {
                let message = format!("{shown} does not lead to {to}: status {status}");
                Err(SourceError::new(ErrorKind::Unreachable, message))
            }
            None => Err(SourceError::new(ErrorKind::BadReply, format!("{shown} does not speak HTTP"))),
        }
    }

    fn request(&self, to: &Address) -> Vec<u8> {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
        if let Some(login) = &self.login {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(login.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }
}

/// The status of an HTTP/1 reply.
fn status(reply: &[u8]) -> Option<u16> {
    let line = reply.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Whether a host is this machine: proxies are left out for it, as Go does.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn proxy(proxies: &str, exempt: &str, target: &str) -> Result<Option<Proxy>, SourceError> {
        Proxy::of(&Matcher::builder().https(proxies).no(exempt).build(), &Address::parse(target).unwrap())
    }

    #[test]
    fn the_environment_says_where_a_proxy_is_used() {
        let used = |exempt, target| proxy("http://p.test:3128", exempt, target).unwrap().is_some();
        assert!(used("", "scaler.shop:80") && used("other", "scaler.shop:80"));
        assert!(!used("shop", "scaler.shop:80") && !used("*", "scaler.shop:80"));
        assert!(!used("", "localhost:80") && !used("", "127.0.0.1:80") && !used("", "unix:/run/s"));
        assert_eq!(proxy("", "", "scaler.shop:80"), Ok(None));
        let error = proxy("socks5://user:hunter2@p.test", "", "scaler.shop:80").unwrap_err();
        assert!(error.kind == ErrorKind::Configuration && !error.message.contains("hunter2"), "{error}");
    }

    /// A proxy with one answer; gives what it was asked.
    async fn answering(answer: &'static [u8]) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (port, task)
    }

    #[tokio::test]
    async fn the_way_is_opened_with_the_login_and_nothing_of_the_servers_bytes_is_lost() {
        let (port, asked) = answering(b"HTTP/1.1 200 Connection established\r\nVia: p\r\n\r\nhello").await;
        let target = Address::parse("scaler.shop:8080").unwrap();
        let way = proxy(&format!("http://user:hunter2@127.0.0.1:{port}"), "", "scaler.shop:8080").unwrap().unwrap();
        let mut stream = way.connect(&target).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("CONNECT scaler.shop:8080 HTTP/1.1\r\nHost: scaler.shop:8080\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic dXNlcjpodW50ZXIy\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_open_the_way_is_named() {
        let target = Address::parse("scaler.shop:8080").unwrap();
        for (answer, kind) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], ErrorKind::Authentication),
            (b"HTTP/1.1 503 no\r\n\r\n", ErrorKind::Unreachable),
            (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", ErrorKind::BadReply),
            (b"HTTP/1.1 200", ErrorKind::Unreachable),
        ] {
            let (port, _) = answering(answer).await;
            let way = proxy(&format!("http://user:hunter2@127.0.0.1:{port}"), "", "scaler.shop:8080").unwrap().unwrap();
            let error = way.connect(&target).await.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.starts_with("the proxy 127.0.0.1:") && !error.message.contains("hunter2"), "{error}");
        }
    }
}
