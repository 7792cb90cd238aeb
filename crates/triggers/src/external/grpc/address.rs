//! Targets as gRPC writes them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use http::uri::Authority;

/// The port of a target that names none.
const DEFAULT_PORT: u16 = 443;

/// Where a server listens, and by what name requests call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub place: Place,
    /// What requests carry as `:authority`.
    pub authority: Authority,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or an IP address (without brackets), and a port.
    Host(String, u16),
    /// The path of a Unix socket.
    Path(PathBuf),
    /// The name of a Unix socket outside the file system, as Linux has them.
    Abstract(String),
}

impl Address {
    /// Reads a target: `host:port`, `host`, `dns:host:port`, `dns:///host:port`, `passthrough:///host:port`,
    /// `unix:path`, `unix:///path` or `unix-abstract:name`. Without a port it is 443, without a host this machine.
    ///
    /// # Errors
    /// What is wrong, in words that do not repeat the target: it may hold anything.
    pub fn parse(target: &str) -> Result<Self, String> {
        let target = target.trim();
        if target.is_empty() {
            return Err("it is empty".to_owned());
        }
        let local = |place| Ok(Self { place, authority: Authority::from_static("localhost") });
        match target.split_once(':') {
            Some(("unix", path)) => match endpoint(path)? {
                "" => Err("it names no socket".to_owned()),
                path => local(Place::Path(path.into())),
            },
            Some(("unix-abstract", name)) => match endpoint(name)?.trim_start_matches('/') {
                "" => Err("it names no socket".to_owned()),
                name => local(Place::Abstract(name.to_owned())),
            },
            Some(("dns" | "passthrough", rest)) if rest.parse::<u16>().is_err() => {
                Self::of_host(endpoint(rest)?.trim_start_matches('/'))
            }
            Some((scheme, rest)) if rest.starts_with("//") => {
                let known = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
                let scheme = if known { format!(" {scheme}") } else { String::new() };
                Err(format!("the scheme{scheme} is not known here: give host:port, dns:///host:port or unix:///path"))
            }
            _ => Self::of_host(target),
        }
    }

    fn of_host(text: &str) -> Result<Self, String> {
        let (host, port) = host_and_port(text)?;
        let host = if host.is_empty() { "localhost" } else { host };
        let address = host.parse::<IpAddr>();
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        if address.is_err() && !host.chars().all(plain) {
            return Err("the host is no name and no IP address".to_owned());
        }
        let host_text = match address {
            Ok(IpAddr::V6(_)) => format!("[{host}]"),
            _ => host.to_owned(),
        };
        let authority = match port {
            Some(port) => format!("{host_text}:{port}"),
            None => host_text,
        };
        let authority = authority.try_into().map_err(|_| "the host is no name and no IP address".to_owned())?;
        Ok(Self { place: Place::Host(host.to_owned(), port.unwrap_or(DEFAULT_PORT)), authority })
    }

    /// The name that a certificate of the server must bear.
    pub fn server_name(&self) -> &str {
        match &self.place {
            Place::Host(host, _) => host,
            Place::Path(_) | Place::Abstract(_) => "localhost",
        }
    }
}

/// What stands behind `scheme:`, the authority of `scheme://authority/` left out where it is empty.
fn endpoint(rest: &str) -> Result<&str, String> {
    match rest.strip_prefix("//") {
        None => Ok(rest),
        Some(path) if path.starts_with('/') => Ok(path),
        Some(_) => Err("the scheme must be followed by one or three slashes: a server to ask for the address is not \
                        supported"
            .to_owned()),
    }
}

fn host_and_port(text: &str) -> Result<(&str, Option<u16>), String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            host.parse::<Ipv6Addr>().map_err(|_| "the brackets hold no IPv6 address".to_owned())?;
            match rest {
                "" => return Ok((host, None)),
                rest => (host, rest.strip_prefix(':').ok_or("after the brackets stands no :port")?),
            }
        }
        None => match text.split_once(':') {
            None => return Ok((text, None)),
            Some((_, port)) if port.contains(':') => return Err("it has too many colons for host:port".to_owned()),
            Some(pair) => pair,
        },
    };
    match port.parse() {
        Ok(0) | Err(_) => Err("the port is no number from 1 to 65535".to_owned()),
        Ok(port) => Ok((host, Some(port))),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Host(host, port) => write!(f, "{host}:{port}"),
            Place::Path(path) => write!(f, "unix:{}", path.display()),
            Place::Abstract(name) => write!(f, "unix-abstract:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_grpc_does() {
        for (target, shown, authority) in [
            ("scaler.shop:8080", "scaler.shop:8080", "scaler.shop:8080"),
            ("myservice", "myservice:443", "myservice"),
            (" scaler:1 ", "scaler:1", "scaler:1"),
            (":8080", "localhost:8080", "localhost:8080"),
            ("10.0.0.1:9", "10.0.0.1:9", "10.0.0.1:9"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9", "[2001:db8::1]:9"),
            ("2001:db8::1", "[2001:db8::1]:443", "[2001:db8::1]"),
            ("dns:scaler:8080", "scaler:8080", "scaler:8080"),
            ("dns:///scaler.shop.svc:8080", "scaler.shop.svc:8080", "scaler.shop.svc:8080"),
            ("passthrough:///scaler:8080", "scaler:8080", "scaler:8080"),
            // A host that is called like a scheme.
            ("dns:53", "dns:53", "dns:53"),
            ("unix:/run/scaler.sock", "unix:/run/scaler.sock", "localhost"),
            ("unix:///run/scaler.sock", "unix:/run/scaler.sock", "localhost"),
            ("unix:scaler.sock", "unix:scaler.sock", "localhost"),
            ("unix-abstract:scaler", "unix-abstract:scaler", "localhost"),
        ] {
            let address = Address::parse(target).unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!((address.to_string().as_str(), address.authority.as_str()), (shown, authority), "{target}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused_and_not_repeated() {
        for target in [
            "",
            "http://hunter2:80",
            "hunter2:80:80",
            "hunter2:",
            "hunter2:0",
            "hunter2:70000",
            "hunter2:https",
            "user@hunter2:80",
            "hunter2/path:80",
            "[hunter2]:80",
            "[::1]80",
            "dns://8.8.8.8/hunter2:80",
            "unix:",
            "unix://run/hunter2.sock",
        ] {
            let error = Address::parse(target).expect_err(target);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
