//! Where and as whom to connect by AMQP: the URI with its defaults and options.

use std::time::Duration;

use tidemark_trigger::Secret;

use super::url::{HostUrl, UrlError, decode};

/// Upper bound of a connection attempt: name resolution, TCP, TLS and AMQP handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The heartbeat that is asked for, in seconds; the broker may ask for a shorter one.
const HEARTBEAT: u16 = 10;

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    AmqPlain,
    /// The broker takes the user from the client's TLS certificate.
    External,
}

/// An AMQP broker, its virtual host and the login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Scheme `amqps`.
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub vhost: String,
    pub user: Secret,
    pub password: Secret,
    /// The URI itself has a password part, if only an empty one.
    pub password_in_uri: bool,
    pub options: Options,
}

/// Options from the query part of an AMQP URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Seconds; 0 turns heartbeats off.
    pub heartbeat: u16,
    /// 0 leaves the number to the broker.
    pub channel_max: u16,
    pub connection_timeout: Duration,
    pub mechanism: Option<Mechanism>,
    /// PEM files on the machine that runs the operator.
    pub ca_file: Option<String>,
    pub cert_file: Option<String>,
    pub key_file: Option<String>,
    /// The name that the broker's certificate must carry, instead of the host.
    pub server_name: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: HEARTBEAT,
            channel_max: 0,
            connection_timeout: CONNECT_TIMEOUT,
            mechanism: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: None,
        }
    }
}

impl Address {
    /// Reads an AMQP URI. Missing parts are `localhost`, 5672 (5671 with TLS), `guest`, `guest` and `/`.
    pub fn parse(uri: &str) -> Result<Self, UrlError> {
        if uri.contains(' ') {
            return Err(UrlError::Blank);
        }
        let url = HostUrl::parse(uri)?;
        let (tls, port) = match url.scheme.as_str() {
            "amqp" => (false, 5672),
            "amqps" => (true, 5671),
            _ => return Err(UrlError::NotAmqp),
        };
        // `//` is the virtual host `/`; a bare `/` names none.
        let vhost = match url.path.strip_prefix('/') {
            Some("") | None => "/".to_owned(),
            Some(vhost) => decode(vhost)?,
        };
        Ok(Self {
            tls,
            host: if url.host.is_empty() { "localhost".to_owned() } else { url.host },
            port: url.port.unwrap_or(port),
            vhost,
            user: url.user.unwrap_or_else(|| "guest".into()),
            password_in_uri: url.password.is_some(),
            password: url.password.unwrap_or_else(|| "guest".into()),
            options: url.query.map_or(Ok(Options::default()), |query| Options::parse(query.expose()))?,
        })
    }

    /// Puts a virtual host and a login in place of the URI's. As soon as there is either, all options of the URI but
    /// the TLS files and the server name fall back to their defaults.
    pub fn with(mut self, vhost: Option<&str>, login: Option<(&Secret, &Secret)>) -> Self {
        if vhost.is_none() && login.is_none() {
            return self;
        }
        if let Some(vhost) = vhost {
            self.vhost = vhost.to_owned();
        }
        if let Some((user, password)) = login {
            self.user = user.clone();
            self.password = password.clone();
        }
        let Options { ca_file, cert_file, key_file, server_name, .. } = self.options;
        self.options = Options { ca_file, cert_file, key_file, server_name, ..Options::default() };
        self
    }

    /// `host:port`, for messages.
    pub fn endpoint(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl Options {
    fn parse(query: &str) -> Result<Self, UrlError> {
        let mut options = Self::default();
        let mut seen = std::collections::BTreeSet::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            // The first of several wins, also among mechanisms.
            if value.is_empty() || !seen.insert(key.clone()) {
                continue;
            }
            match key.as_ref() {
                "heartbeat" => options.heartbeat = number("heartbeat", &value, u16::MAX.into())?,
                "channel_max" => options.channel_max = number("channel_max", &value, u16::MAX.into())?,
                "connection_timeout" => {
                    let milliseconds: u32 = number("connection_timeout", &value, u32::MAX.into())?;
                    // 0 is "no limit" to the broker's clients; here nothing waits for ever.
                    if milliseconds > 0 {
                        let asked = Duration::from_millis(milliseconds.into());
                        options.connection_timeout = asked.min(CONNECT_TIMEOUT);
                    }
                }
                "auth_mechanism" => {
                    options.mechanism = Some(match value.to_ascii_lowercase().as_str() {
                        "plain" => Mechanism::Plain,
                        "amqplain" => Mechanism::AmqPlain,
                        "external" => Mechanism::External,
                        _ => return Err(UrlError::Mechanism),
                    });
                }
                "cacertfile" => options.ca_file = Some(value.into_owned()),
                "certfile" => options.cert_file = Some(value.into_owned()),
                "keyfile" => options.key_file = Some(value.into_owned()),
                "server_name_indication" => options.server_name = Some(value.into_owned()),
                _ => {}
            }
        }
        Ok(options)
    }
}

fn number<T: TryFrom<u64>>(name: &'static str, value: &str, max: u64) -> Result<T, UrlError> {
    let number = value.parse::<u64>().ok().filter(|number| *number <= max);
    number.and_then(|number| T::try_from(number).ok()).ok_or(UrlError::Number(name, 0, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str) -> (bool, String, u16, String, String, String) {
        let address = Address::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error}"));
        let login = (address.user.expose().to_owned(), address.password.expose().to_owned());
        (address.tls, address.host, address.port, address.vhost, login.0, login.1)
    }

    #[test]
    fn missing_parts_have_the_defaults_of_amqp() {
        let expect = |tls, host: &str, port, vhost: &str, user: &str, password: &str| {
            (tls, host.to_owned(), port, vhost.to_owned(), user.to_owned(), password.to_owned())
        };
        assert_eq!(parts("amqp://"), expect(false, "localhost", 5672, "/", "guest", "guest"));
        assert_eq!(parts("amqps://"), expect(true, "localhost", 5671, "/", "guest", "guest"));
        assert_eq!(parts("amqp://host"), expect(false, "host", 5672, "/", "guest", "guest"));
        assert_eq!(parts("amqp://host/"), expect(false, "host", 5672, "/", "guest", "guest"));
        assert_eq!(parts("amqp://host//"), expect(false, "host", 5672, "/", "guest", "guest"));
        assert_eq!(parts("amqp://host/%2f"), expect(false, "host", 5672, "/", "guest", "guest"));
        assert_eq!(parts("amqp://u@host/v"), expect(false, "host", 5672, "v", "u", "guest"));
        assert_eq!(parts("amqp://u:@host/v"), expect(false, "host", 5672, "v", "u", ""));
        assert_eq!(parts("amqp://:5673/"), expect(false, "localhost", 5673, "/", "guest", "guest"));
        assert_eq!(parts("AMQPS://[::1]:1/a%2Fb%20c"), expect(true, "::1", 1, "a/b c", "guest", "guest"));
        assert_eq!(parts("amqp://a%40b:%2F%3A@host/v"), expect(false, "host", 5672, "v", "a@b", "/:"));
    }

    #[test]
    fn options_of_the_uri_are_honoured() {
        let options = Address::parse(
            "amqps://h/?heartbeat=30&connection_timeout=2500&channel_max=8&auth_mechanism=EXTERNAL&auth_mechanism=plain\
             &cacertfile=/ca.pem&certfile=/c.pem&keyfile=%2Fk.pem&server_name_indication=broker&unknown=1",
        )
        .unwrap()
        .options;
        assert_eq!(options.heartbeat, 30);
        assert_eq!(options.connection_timeout, Duration::from_millis(2500));
        assert_eq!(options.channel_max, 8);
        assert_eq!(options.mechanism, Some(Mechanism::External));
        assert_eq!(options.ca_file.as_deref(), Some("/ca.pem"));
        assert_eq!(options.cert_file.as_deref(), Some("/c.pem"));
        assert_eq!(options.key_file.as_deref(), Some("/k.pem"));
        assert_eq!(options.server_name.as_deref(), Some("broker"));
    }

    #[test]
    fn a_connection_never_waits_longer_than_30_seconds() {
        let timeout = |uri| Address::parse(uri).unwrap().options.connection_timeout;
        assert_eq!(timeout("amqp://h/?connection_timeout=0"), CONNECT_TIMEOUT);
        assert_eq!(timeout("amqp://h/?connection_timeout=600000"), CONNECT_TIMEOUT);
    }

    #[test]
    fn wrong_uris_are_refused() {
        assert_eq!(Address::parse("amqp://host/my vhost"), Err(UrlError::Blank));
        assert_eq!(Address::parse("http://host"), Err(UrlError::NotAmqp));
        assert_eq!(Address::parse("amqp://h/?heartbeat=x"), Err(UrlError::Number("heartbeat", 0, 65535)));
        assert_eq!(Address::parse("amqp://h/?channel_max=65536"), Err(UrlError::Number("channel_max", 0, 65535)));
        assert_eq!(Address::parse("amqp://h/?auth_mechanism=magic"), Err(UrlError::Mechanism));
    }

    #[test]
    fn a_vhost_or_login_from_parameters_replaces_the_uris_and_resets_its_options() {
        let uri =
            "amqps://u:p@h/v?heartbeat=30&cacertfile=/ca.pem&server_name_indication=broker&auth_mechanism=external";
        let address = Address::parse(uri).unwrap();
        assert_eq!(address.clone().with(None, None), address);

        let replaced = address.clone().with(Some("/"), None);
        assert_eq!(replaced.vhost, "/");
        assert_eq!((replaced.user.expose(), replaced.password.expose()), ("u", "p"));
        assert_eq!((replaced.options.heartbeat, replaced.options.mechanism), (HEARTBEAT, None));
        assert_eq!(replaced.options.ca_file.as_deref(), Some("/ca.pem"));
        assert_eq!(replaced.options.server_name.as_deref(), Some("broker"));

        let (user, password) = (Secret::from("other"), Secret::from("secret"));
        let replaced = address.with(None, Some((&user, &password)));
        assert_eq!((replaced.user, replaced.password, replaced.vhost.as_str()), (user, password, "v"));
    }

    #[test]
    fn the_endpoint_names_host_and_port_only() {
        assert_eq!(Address::parse("amqp://john:hunter2@broker/v").unwrap().endpoint(), "broker:5672");
        assert_eq!(Address::parse("amqps://[::1]/v").unwrap().endpoint(), "[::1]:5671");
    }
}
