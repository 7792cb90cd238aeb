//! Where a Redis server listens.

use std::fmt;

/// Host and port of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, an IPv6 one without brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Parses `host:port`; an IPv6 host stands in brackets, an empty one means this machine.
    ///
    /// # Errors
    /// The text is no such thing; a URL is none.
    pub fn parse(text: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').ok_or(NotAnAddress)?,
            None if host.contains([':', '/', '@', ' ']) => return Err(NotAnAddress),
            None => host,
        };
        let host = if host.is_empty() { "localhost" } else { host };
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| NotAnAddress)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.host, &self.port.to_string()))
    }
}

/// A text that is no address. The text itself is not shown: what is no address may be a URL with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not host:port")]
pub struct NotAnAddress;

/// `host:port`, brackets around an IPv6 host.
pub fn join(host: &str, port: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_a_port() {
        let shown = |text: &str| Address::parse(text).map(|address| address.to_string()).ok();
        for (text, expected) in [
            ("redis:6379", "redis:6379"),
            (":7001", "localhost:7001"),
            ("[::1]:6379", "[::1]:6379"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["redis", "", "redis:", "redis:x", "redis:65536", "::1", "redis://:hunter2@redis:6379", "u:p@redis:6379"]
        {
            assert_eq!(shown(text), None, "{text}");
        }
        assert_eq!(join("::1", "6379"), "[::1]:6379");
    }
}
