//! Addresses to listen at, as Go programs write them.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::Context;
use tokio::net::TcpListener;

/// Where to listen: `:8080` is every address of the machine, `0` or nothing is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind(Option<SocketAddr>);

impl Bind {
    /// The address; none where nothing is to listen.
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }

    /// Listens there; none where nothing is to.
    ///
    /// # Errors
    /// The address is taken, or is none of this machine.
    pub async fn listen(self) -> anyhow::Result<Option<TcpListener>> {
        let Some(address) = self.0 else { return Ok(None) };
        let listener = match TcpListener::bind(address).await {
            // A machine without IPv6 has no `[::]`.
            Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => TcpListener::bind(("0.0.0.0", address.port())).await,
            listener => listener,
        };
        listener.map(Some).with_context(|| format!("cannot listen at {address}: is it in use?"))
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "" | "0") {
            return Ok(Self(None));
        }
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
            return Ok(Self(Some((Ipv6Addr::UNSPECIFIED, port).into())));
        }
        let text = text.replace("localhost:", "127.0.0.1:");
        text.parse().map(|address| Self(Some(address))).map_err(|_| "give :PORT, IP:PORT, or 0 for nowhere".to_owned())
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(address) if address.ip() == Ipv6Addr::UNSPECIFIED => write!(f, ":{}", address.port()),
            Some(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_go_programs_write_them() {
        let port = |text: &str| text.parse::<Bind>().unwrap().address().map(|address| address.port());
        assert_eq!((port(":8080"), port("127.0.0.1:9"), port("[::1]:7")), (Some(8080), Some(9), Some(7)));
        assert_eq!((port("0"), port("")), (None, None));
        assert!("8080".parse::<Bind>().is_err() && ":x".parse::<Bind>().is_err());
        assert_eq!(":8080".parse::<Bind>().unwrap().to_string(), ":8080");
    }

    #[tokio::test]
    async fn every_address_of_the_machine_includes_those_of_ipv4() {
        let listener = ":0".parse::<Bind>().unwrap().listen().await.unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
