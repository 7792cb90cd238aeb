//! Targets as gRPC writes them.

use std::fmt;
use std::net::Ipv6Addr;
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
    /// The path of a Unix socket. A name outside the file system, as Linux has them, begins with a zero byte.
    Path(PathBuf),
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
                name => local(Place::Path(format!("\0{name}").into())),
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
        const NO_HOST: &str = "the host is no name and no IP address";
        let text = match text.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{text}]"),
            Err(_) if text.is_empty() || text.starts_with(':') => format!("localhost{text}"),
            Err(_) => text.to_owned(),
        };
        let authority: Authority = text.parse().map_err(|_| "it is not of the form host:port")?;
        let port = match text.strip_prefix(authority.host()) {
            Some("") => DEFAULT_PORT,
            // Not a number, too large or nothing at all.
            Some(_) => authority.port_u16().filter(|port| *port > 0).ok_or("the port is no number from 1 to 65535")?,
            None => return Err(NO_HOST.to_owned()),
        };
        let host = match authority.host().strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(host) => host.parse::<Ipv6Addr>().is_ok().then_some(host),
            None => {
                Some(authority.host()).filter(|host| host.chars().all(|c| c.is_alphanumeric() || ".-_".contains(c)))
            }
        };
        let place = Place::Host(host.ok_or(NO_HOST)?.to_owned(), port);
        Ok(Self { place, authority })
    }

    /// The name that a certificate of the server must bear.
    pub fn server_name(&self) -> &str {
        match &self.place {
            Place::Host(host, _) => host,
            Place::Path(_) => "localhost",
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

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Host(host, port) => write!(f, "{host}:{port}"),
            Place::Path(path) => match path.to_string_lossy().strip_prefix('\0') {
                Some(name) => write!(f, "unix-abstract:{name}"),
                None => write!(f, "unix:{}", path.display()),
            },
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
