//! What a connection string says: keyword and value pairs, or a URL. No message shows any part of the string.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tidemark_trigger::Secret;

/// The port when none is given.
const DEFAULT_PORT: u16 = 5432;
/// Time for one connection attempt, TLS and login included, without `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest `connect_timeout` that is kept.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(300);
/// More hosts than any cluster has.
const MAX_HOSTS: usize = 32;

/// Keys that only concern sockets or the files of a C library, and do not change what is read.
const WITHOUT_EFFECT: &[&str] = &[
    "client_encoding",
    "default_query_exec_mode",
    "description_cache_capacity",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "statement_cache_capacity",
    "tcp_user_timeout",
];

/// Keys that must not be passed over in silence.
const UNSUPPORTED: &[&str] = &[
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "krbspn",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "service",
    "servicefile",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// Why a connection string cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Invalid(String);

fn invalid<T>(message: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(message.into()))
}

/// One server of the connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    /// A name, an address, or the folder of a Unix socket.
    pub name: String,
    /// Where to connect instead of looking the name up.
    pub address: Option<IpAddr>,
    pub port: u16,
}

impl Host {
    /// The folder of a Unix socket.
    pub fn folder(&self) -> Option<&str> {
        (self.address.is_none() && self.name.starts_with('/')).then_some(self.name.as_str())
    }

    /// As messages name it.
    pub fn endpoint(&self) -> String {
        match (&self.address, self.folder()) {
            (_, Some(folder)) => format!("{folder}/.s.PGSQL.{}", self.port),
            (Some(address), _) if self.name.is_empty() => std::net::SocketAddr::new(*address, self.port).to_string(),
            _ if self.name.contains(':') => format!("[{}]:{}", self.name, self.port),
            _ => format!("{}:{}", self.name, self.port),
        }
    }
}

/// `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "allow" => Self::Allow,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

/// TLS towards all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub mode: SslMode,
    /// File with the only certificates to trust.
    pub root: Option<String>,
    /// Files with the client's certificate and its key.
    pub client: Option<(String, String)>,
    /// TLS from the first byte on, as PostgreSQL 17 and newer allow.
    pub direct: bool,
}

/// What `target_session_attrs` asks of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
}

/// A connection string, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// In the order in which they are tried. Never empty.
    pub hosts: Vec<Host>,
    pub user: Secret,
    pub password: Secret,
    pub database: String,
    pub tls: Tls,
    /// For each attempt.
    pub connect_timeout: Duration,
    /// All hosts are tried for the first, then for the next.
    pub roles: Vec<Role>,
    /// Further parameters of the session, such as `application_name` and `search_path`.
    pub parameters: BTreeMap<String, String>,
}

impl Settings {
    /// Understands a connection string.
    ///
    /// # Errors
    /// What is wrong with it, without any part of it but the names of known keys.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('\0') {
            return invalid("the connection string holds a NUL");
        }
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let mut pairs = match rest {
            Some(rest) => url(rest)?,
            None => keywords(text)?,
        };
        if pairs.iter().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
            return invalid("the connection string holds a NUL");
        }
        pairs.retain(|(_, value)| !value.is_empty());
        Self::from_pairs(pairs.into_iter().collect())
    }

    fn from_pairs(mut pairs: BTreeMap<String, String>) -> Result<Self, Invalid> {
        if let Some(key) = UNSUPPORTED.iter().find(|key| pairs.contains_key(**key)) {
            return invalid(format!("`{key}` is not supported in a connection string"));
        }
        for key in WITHOUT_EFFECT {
            pairs.remove(*key);
        }
        let hosts = hosts(pairs.remove("host"), pairs.remove("hostaddr"), pairs.remove("port"))?;
        let Some(user) = pairs.remove("user") else { return invalid("the connection string names no user") };
        let database = pairs.remove("dbname").or_else(|| pairs.remove("database"));
        pairs.remove("database");
        let tls = tls(&mut pairs)?;
        let connect_timeout = match pairs.remove("connect_timeout").map(|text| text.parse::<u32>()) {
            None | Some(Ok(0)) => CONNECT_TIMEOUT,
            Some(Ok(seconds)) => Duration::from_secs(seconds.into()).min(MAX_CONNECT_TIMEOUT),
            Some(Err(_)) => return invalid("`connect_timeout` is not a number of seconds"),
        };
        let roles = roles(pairs.remove("target_session_attrs").as_deref())?;
        pairs.entry("application_name".to_owned()).or_insert_with(|| "tidemark".to_owned());
        Ok(Self {
            hosts,
            database: database.unwrap_or_else(|| user.clone()),
            user: user.into(),
            password: pairs.remove("password").unwrap_or_default().into(),
            tls,
            connect_timeout,
            roles,
            parameters: pairs,
        })
    }

    /// The same for settings that can share connections, and for no others.
    pub fn fingerprint(&self) -> String {
        let Self { hosts, user, password, database, tls, connect_timeout, roles, parameters } = self;
        let mut digest = Sha256::new();
        let mut part = |text: &str| {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        };
        part(&format!("{hosts:?} {tls:?} {connect_timeout:?} {roles:?} {parameters:?}"));
        for text in [database, user.expose(), password.expose()] {
            part(text);
        }
        digest.finalize().iter().fold("postgresql:".to_owned(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn hosts(names: Option<String>, addresses: Option<String>, ports: Option<String>) -> Result<Vec<Host>, Invalid> {
    let list = |text: Option<String>| -> Vec<String> {
        text.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default()
    };
    let (mut names, addresses, ports) = (list(names), list(addresses), list(ports));
    if names.is_empty() {
        names = match addresses.len() {
            0 => vec!["localhost".to_owned()],
            count => vec![String::new(); count],
        };
    }
    if names.len() > MAX_HOSTS {
        return invalid(format!("there are more than {MAX_HOSTS} hosts"));
    }
    if !addresses.is_empty() && addresses.len() != names.len() {
        return invalid("there are not as many `hostaddr` as `host`");
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return invalid("there are not as many `port` as `host`");
    }
    let host = |(index, name): (usize, String)| {
        let address = match addresses.get(index).filter(|address| !address.is_empty()).map(|text| text.parse()) {
            None => None,
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => return invalid("`hostaddr` is not an IP address"),
        };
        let port = match ports.get(index).or(ports.first()).filter(|port| !port.is_empty()).map(|text| text.parse()) {
            None => DEFAULT_PORT,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return invalid("`port` is not a number from 1 to 65535"),
        };
        let name = if name.is_empty() && address.is_none() { "localhost".to_owned() } else { name };
        Ok(Host { name, address, port })
    };
    names.into_iter().enumerate().map(host).collect()
}

fn tls(pairs: &mut BTreeMap<String, String>) -> Result<Tls, Invalid> {
    let mode = match pairs.remove("sslmode") {
        None => SslMode::default(),
        Some(text) => match SslMode::from_text(&text) {
            Some(mode) => mode,
            None => {
                return invalid("`sslmode` is none of disable, allow, prefer, require, verify-ca and verify-full");
            }
        },
    };
    let direct = match pairs.remove("sslnegotiation").as_deref() {
        None | Some("postgres") => false,
        Some("direct") if matches!(mode, SslMode::Disable | SslMode::Allow | SslMode::Prefer) => {
            return invalid("`sslnegotiation` direct needs `sslmode` require, verify-ca or verify-full");
        }
        Some("direct") => true,
        Some(_) => return invalid("`sslnegotiation` is neither postgres nor direct"),
    };
    if pairs.remove("channel_binding").is_some_and(|text| text == "require") {
        return invalid("`channel_binding` require is not supported");
    }
    // The name is always sent.
    if pairs.remove("sslsni").is_some_and(|text| text != "1") {
        return invalid("`sslsni` 0 is not supported");
    }
    let root = pairs.remove("sslrootcert");
    if root.as_deref() == Some("system") && mode != SslMode::VerifyFull {
        return invalid("`sslrootcert` system needs `sslmode` verify-full");
    }
    let client = match (pairs.remove("sslcert"), pairs.remove("sslkey")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((cert, key)),
        _ => return invalid("`sslcert` and `sslkey` must be given together"),
    };
    Ok(Tls { mode, root: root.filter(|root| root != "system"), client, direct })
}

fn roles(text: Option<&str>) -> Result<Vec<Role>, Invalid> {
    Ok(match text {
        None | Some("any") => vec![Role::Any],
        Some("read-write") => vec![Role::ReadWrite],
        Some("read-only") => vec![Role::ReadOnly],
        Some("primary") => vec![Role::Primary],
        Some("standby") => vec![Role::Standby],
        Some("prefer-standby") => vec![Role::Standby, Role::Any],
        Some(_) => {
            return invalid(
                "`target_session_attrs` is none of any, read-write, read-only, primary, standby and prefer-standby",
            );
        }
    })
}

/// The pairs of `key=value key='other value'`.
fn keywords(text: &str) -> Result<Vec<(String, String)>, Invalid> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return invalid("the connection string is neither a postgresql:// URL nor made of key=value pairs");
        };
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return invalid("the connection string has a key without `=`, or a value with spaces that is not quoted");
        }
        let (value, after) = value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value, quoted or not, and what comes after it.
fn value(text: &str) -> Result<(String, &str), Invalid> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            character if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            '\\' => match characters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => return invalid("the connection string ends within an escape"),
            },
            character => value.push(character),
        }
    }
    if quoted { invalid("the connection string ends within quotes") } else { Ok((value, "")) }
}

/// The pairs of a URL, of which `rest` comes after the scheme. Several hosts may be named, separated by commas.
fn url(rest: &str) -> Result<Vec<(String, String)>, Invalid> {
    let rest = rest.split('#').next().unwrap_or_default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut pairs = Vec::new();
    let mut add = |key: &str, value: &str| {
        pairs.push((key.to_owned(), decoded(value)?));
        Ok(())
    };
    let hosts = match authority.rsplit_once('@') {
        None => authority,
        Some((login, hosts)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            add("user", user)?;
            add("password", password)?;
            hosts
        }
    };
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((name, "")) => (name, ""),
            Some((name, port)) => match port.strip_prefix(':') {
                Some(port) => (name, port),
                None => return invalid("the URL of the connection has something between `]` and the port"),
            },
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(name);
        ports.push(port);
    }
    if !hosts.is_empty() {
        add("host", &names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }
    add("dbname", path)?;
    pairs.extend(url::form_urlencoded::parse(query.as_bytes()).into_owned());
    Ok(pairs)
}

fn decoded(text: &str) -> Result<String, Invalid> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => invalid("the URL of the connection is not UTF-8 after percent-decoding"),
    }
}

/// A connection string from its parts, each escaped where needed.
pub(super) fn keyword_value(parts: [(&str, &str); 6]) -> String {
    let pairs: Vec<_> = parts.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
    pairs.join(" ")
}

fn escaped(value: &str) -> String {
    if value.contains(|character: char| character.is_whitespace() || matches!(character, '\'' | '\\')) {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Settings {
        Settings::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn endpoints(text: &str) -> Vec<String> {
        parsed(text).hosts.iter().map(Host::endpoint).collect()
    }

    #[test]
    fn both_forms_of_a_connection_string_say_the_same() {
        let one = parsed("host=db.example port=6432 user=ann password='a b\\'c' dbname=shop sslmode=verify-ca");
        let two = parsed("postgres://ann:a%20b%27c@db.example:6432/shop?sslmode=verify-ca");
        assert_eq!(one, two);
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!((one.user.expose(), one.password.expose(), &*one.database), ("ann", "a b'c", "shop"));
        assert_eq!(one.tls.mode, SslMode::VerifyCa);
        let other = parsed("host=db.example port=6432 user=ann password=other dbname=shop sslmode=verify-ca");
        assert_ne!(one.fingerprint(), other.fingerprint());
    }

    #[test]
    fn what_is_left_out_has_the_defaults() {
        let settings = parsed("postgresql://ann@");
        assert_eq!((settings.hosts[0].endpoint().as_str(), &*settings.database), ("localhost:5432", "ann"));
        assert_eq!((settings.tls.mode, settings.connect_timeout), (SslMode::Prefer, CONNECT_TIMEOUT));
        assert_eq!(settings.roles, [Role::Any]);
        assert_eq!(settings.parameters["application_name"], "tidemark");
    }

    #[test]
    fn several_hosts_have_their_own_ports_or_one_for_all() {
        assert_eq!(endpoints("host=a,b port=1,2 user=u"), ["a:1", "b:2"]);
        assert_eq!(endpoints("host=a,b port=7 user=u"), ["a:7", "b:7"]);
        assert_eq!(endpoints("postgres://u@a:1,b,[::1]:3/db"), ["a:1", "b:5432", "[::1]:3"]);
        assert_eq!(endpoints("postgres://u@%2Fvar%2Frun/db"), ["/var/run/.s.PGSQL.5432"]);
        assert_eq!(endpoints("hostaddr=10.0.0.1 user=u"), ["10.0.0.1:5432"]);
        assert!(Settings::parse("host=a,b,c port=1,2 user=u").is_err());
    }

    #[test]
    fn parameters_of_the_session_are_kept() {
        let settings = parsed("postgres://u@h/d?search_path=a,b&connect_timeout=3&target_session_attrs=prefer-standby");
        assert_eq!(settings.parameters["search_path"], "a,b");
        assert_eq!(settings.connect_timeout, Duration::from_secs(3));
        assert_eq!(settings.roles, [Role::Standby, Role::Any]);
    }

    #[test]
    fn parts_are_escaped_so_that_none_can_add_another() {
        let parts = [
            ("host", "db.example"),
            ("port", "5432"),
            ("user", "user\tsslmode=disable"),
            ("dbname", "a'b\\c"),
            ("sslmode", "require"),
            ("password", "secret\nhost=attacker"),
        ];
        let text = keyword_value(parts);
        assert_eq!(
            text,
            "host=db.example port=5432 user='user\tsslmode=disable' dbname='a\\'b\\\\c' sslmode=require \
             password='secret\nhost=attacker'"
        );
        let settings = parsed(&text);
        assert_eq!(settings.hosts[0].name, "db.example");
        assert_eq!(settings.user.expose(), "user\tsslmode=disable");
        assert_eq!(settings.password.expose(), "secret\nhost=attacker");
        assert_eq!((settings.tls.mode, &*settings.database), (SslMode::Require, "a'b\\c"));
        let plain = keyword_value([
            ("host", "h"),
            ("port", "1"),
            ("user", "u"),
            ("dbname", "d"),
            ("sslmode", "disable"),
            ("password", ""),
        ]);
        assert_eq!(plain, "host=h port=1 user=u dbname=d sslmode=disable password=");
        assert_eq!(parsed(&plain).password.expose(), "");
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_showing_it() {
        for text in [
            "hunter2",
            "host=h",
            "host=h user=u password=hunter2 hunter3",
            "user=u port=hunter2",
            "user=u sslmode=hunter2",
            "user=u password='hunter2",
            "user=u password=hunter2\\",
            "user=u service=hunter2",
            "user=u channel_binding=require",
            "user=u hostaddr=hunter2",
            "user=u sslcert=hunter2",
            "user=u sslnegotiation=direct",
            "user=u connect_timeout=hunter2",
            "user=u target_session_attrs=hunter2",
            "user=u sslrootcert=system",
            "postgres://u:%ff@h/d",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:a%00b@h/d",
        ] {
            let error = Settings::parse(text).expect_err(text).to_string();
            assert!(!error.contains("hunter"), "{error}");
        }
    }
}
