//! The broker's address: the `host` parameter taken apart, for both protocols.

use tidemark_trigger::Secret;

/// What is wrong with a broker's URL. No variant repeats any part of the URL: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UrlError {
    #[error("the URL contains a blank; write it as %20")]
    Blank,
    #[error("the URL contains a control character")]
    ControlCharacter,
    #[error("the URL has no scheme, such as amqp:// or https://")]
    NoScheme,
    #[error("the scheme of the URL must be followed by //")]
    NoAuthority,
    #[error("the URL has an incomplete percent-encoding, or one that is not UTF-8")]
    PercentEncoding,
    #[error("the user name or password in the URL has a character that must be percent-encoded")]
    UserInfo,
    #[error("the URL has an invalid host name")]
    Host,
    #[error("the URL has an invalid port; a `/`, `?` or `#` in the password must be percent-encoded")]
    Port,
    #[error("with protocol http the URL must begin with http:// or https://")]
    NotHttp,
    #[error("the AMQP URL must begin with amqp:// or amqps://")]
    NotAmqp,
    #[error("the option {0} of the URL must be a whole number from {1} to {2}")]
    Number(&'static str, u64, u64),
    #[error("the option auth_mechanism of the URL must be plain, amqplain or external")]
    Mechanism,
}

/// A URL in its parts: what RFC 3986 says, as far as a broker's address needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostUrl {
    /// In lower case.
    pub scheme: String,
    pub user: Option<Secret>,
    pub password: Option<Secret>,
    /// Decoded, IPv6 addresses without brackets. May be empty.
    pub host: String,
    pub port: Option<u16>,
    /// As written, percent-encodings and all; empty, or with a `/` in front.
    pub path: String,
    pub query: Option<Secret>,
}

/// The scheme of a URL in lower case.
pub(super) fn scheme(text: &str) -> Result<String, UrlError> {
    let (scheme, _) = text.split_once(':').ok_or(UrlError::NoScheme)?;
    let mut characters = scheme.chars();
    let valid = characters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    if valid { Ok(scheme.to_ascii_lowercase()) } else { Err(UrlError::NoScheme) }
}

impl HostUrl {
    /// Takes a URL apart. A fragment is dropped.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(UrlError::ControlCharacter);
        }
        let scheme = scheme(text)?;
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        // No `#` can stand before the scheme's colon, so the rest begins after it.
        let rest = &text[scheme.len() + 1..];
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(Secret::from(query))),
            None => (rest, None),
        };
        let rest = rest.strip_prefix("//").ok_or(UrlError::NoAuthority)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user_info, address) = match authority.rsplit_once('@') {
            Some((user_info, address)) => (Some(user_info), address),
            None => (None, authority),
        };
        let (user, password) = user_info.map_or(Ok((None, None)), user_and_password)?;
        let (host, port) = host_and_port(address)?;
        decode(path)?;
        Ok(Self { scheme, user, password, host, port, path: path.to_owned(), query })
    }

    /// Host and port as they stand in a URL, IPv6 addresses in brackets, without user info.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        }
    }
}

fn user_and_password(user_info: &str) -> Result<(Option<Secret>, Option<Secret>), UrlError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !user_info.chars().all(allowed) {
        return Err(UrlError::UserInfo);
    }
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (user_info, None),
    };
    Ok((Some(decode(user)?.into()), password.map(decode).transpose()?.map(Secret::from)))
}

fn host_and_port(address: &str) -> Result<(String, Option<u16>), UrlError> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
        if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '%' | '-')) {
            return Err(UrlError::Host);
        }
        (host.to_owned(), port)
    } else {
        let (host, port) = address.split_at(address.find(':').unwrap_or(address.len()));
        let host = decode(host)?;
        if host.chars().any(|c| c.is_whitespace() || c.is_control() || r#"/?#@[]\^`{|}<>"%"#.contains(c)) {
            return Err(UrlError::Host);
        }
        (host, port)
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some("") => Ok((host, None)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Ok((host, Some(digits.parse().map_err(|_| UrlError::Port)?)))
        }
        _ => Err(UrlError::Port),
    }
}

/// Decodes percent-encodings; `+` stays.
pub(super) fn decode(text: &str) -> Result<String, UrlError> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digit = |offset: usize| bytes.get(at + offset).and_then(|b| char::from(*b).to_digit(16));
            let (Some(high), Some(low)) = (digit(1), digit(2)) else {
                return Err(UrlError::PercentEncoding);
            };
            decoded.extend(u8::try_from(high * 16 + low));
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(decoded).map_err(|_| UrlError::PercentEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_user_info_and_host_are_decoded() {
        let url = HostUrl::parse("AMQP://us%40er:p%2Fa%3Ass:x@[::1]:5673/v%2fh?heartbeat=7#fragment").unwrap();
        assert_eq!(url.scheme, "amqp");
        assert_eq!(url.user, Some(Secret::from("us@er")));
        assert_eq!(url.password, Some(Secret::from("p/a:ss:x")));
        assert_eq!((url.host.as_str(), url.port), ("::1", Some(5673)));
        assert_eq!(url.path, "/v%2fh");
        assert_eq!(url.query, Some(Secret::from("heartbeat=7")));
        assert_eq!(url.authority(), "[::1]:5673");
    }

    #[test]
    fn parts_may_be_missing() {
        let url = HostUrl::parse("https://").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("", None, ""));
        let url = HostUrl::parse("amqp://user@host:/").unwrap();
        assert_eq!((url.user, url.password, url.port), (Some(Secret::from("user")), None, None));
        let url = HostUrl::parse("amqp://:@/v").unwrap();
        assert_eq!((url.user, url.password), (Some(Secret::from("")), Some(Secret::from(""))));
    }

    #[test]
    fn a_broken_url_says_what_is_wrong_without_repeating_it() {
        for (text, error) in [
            ("myhost", UrlError::NoScheme),
            ("://host", UrlError::NoScheme),
            ("1a://host", UrlError::NoScheme),
            ("amqp:host", UrlError::NoAuthority),
            ("amqp://user:pa ss@host", UrlError::UserInfo),
            ("amqp://user:pa/ss@host/v", UrlError::Port),
            ("amqp://user:pa#ss@host/v", UrlError::Port),
            ("amqp://user:pa%ss@host/v", UrlError::PercentEncoding),
            ("amqp://host:port/v", UrlError::Port),
            ("amqp://host:99999/v", UrlError::Port),
            ("amqp://ho st/v", UrlError::Host),
            ("amqp://[::1/v", UrlError::Host),
            ("amqp://host/%ff", UrlError::PercentEncoding),
            ("amqp://host/\n", UrlError::ControlCharacter),
        ] {
            assert_eq!(HostUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn debug_output_hides_credentials_and_query() {
        let shown = format!("{:?}", HostUrl::parse("amqp://john:hunter2@host/v?key=hunter3").unwrap());
        assert!(!shown.contains("john") && !shown.contains("hunter"), "{shown}");
    }
}
