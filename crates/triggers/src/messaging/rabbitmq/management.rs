//! Reading queues through the management HTTP API.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidemark_trigger::{Choice as _, Door, ErrorKind, HttpProfile, Secret, SourceError};

use crate::http::escape::{encode_path, encode_segment};
use crate::http::oauth2::{Credentials, Tokens};

use super::address::Options;
use super::figures::{Figures, Operation};
use super::tls::Tls;
use super::url::{HostUrl, UrlError};

/// The most characters of a reply that a message shows.
const SHOWN: usize = 200;

/// What to read, and how to be let in.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// A URL, as the user gave it.
    pub host: Secret,
    /// Instead of the virtual host in the URL's path.
    pub vhost: Option<String>,
    /// Name of the queue, or a regular expression with `page_size`.
    pub queue: String,
    /// The most queues that may match; `None` for one queue by name.
    pub page_size: Option<i64>,
    /// As the user gave it.
    pub operation: String,
    pub exclude_unacknowledged: bool,
    /// Deadline of one request; `None` for the global one.
    pub timeout: Option<Duration>,
    pub login: Option<(Secret, Secret)>,
    pub oauth2: Option<Credentials>,
    pub workload_identity: bool,
    pub tls: Tls,
}

impl Target {
    /// What is wrong with the URL, if anything.
    pub fn check(&self) -> Result<(), UrlError> {
        self.url().map(drop)
    }

    fn url(&self) -> Result<HostUrl, UrlError> {
        let url = HostUrl::parse(self.host.expose())?;
        match url.scheme.as_str() {
            "http" | "https" if url.host.is_empty() => Err(UrlError::Host),
            "http" | "https" => Ok(url),
            _ => Err(UrlError::NotHttp),
        }
    }

    /// The address of the request, without user info.
    fn uri(&self, url: &HostUrl) -> String {
        let (prefix, vhost) = url.path.rsplit_once('/').unwrap_or_default();
        let vhost = match &self.vhost {
            Some(name) => encode_segment(name),
            None if vhost.is_empty() => "%2F".to_owned(),
            None => encode_path(vhost),
        };
        let base = format!("{}://{}{}/api/queues/{vhost}", url.scheme, url.authority(), encode_path(prefix));
        let queue = encode_segment(&self.queue);
        let own_query = url.query.as_ref().map(Secret::expose).filter(|query| !query.is_empty());
        match (self.page_size, own_query) {
            (None, None) => format!("{base}/{queue}"),
            (None, Some(query)) => format!("{base}/{queue}?{query}"),
            (Some(size), query) => {
                let page = format!("page=1&use_regex=true&pagination=false&name={queue}&page_size={size}");
                let separator = if query.is_some() { "&" } else { "" };
                format!("{base}?{page}{separator}{}", query.unwrap_or_default())
            }
        }
    }
}

enum Authorization {
    None,
    Basic(HeaderValue),
    OAuth2(Box<Tokens>),
}

/// A target, checked and ready to be asked.
pub(super) struct Client {
    target: Target,
    uri: Uri,
    profile: HttpProfile,
    authorization: Authorization,
}

impl Client {
    /// Makes everything ready; nothing is contacted.
    ///
    /// # Errors
    /// Of kind configuration.
    pub async fn new(target: Target) -> Result<Self, SourceError> {
        let configuration = |message: String| SourceError::new(ErrorKind::Configuration, message);
        if target.workload_identity {
            return Err(configuration("Azure workload identity is not supported yet by the rabbitmq trigger".into()));
        }
        let url = target.url().map_err(|error| configuration(format!("host: {error}")))?;
        let uri = target.uri(&url).parse().map_err(|_| configuration("host is not a usable URL".into()))?;
        let profile = target.tls.profile(&Options::default()).await?;
        let authorization = match (&target.oauth2, &target.login, &url.user) {
            (Some(credentials), ..) => {
                Authorization::OAuth2(Box::new(Tokens::new(credentials.clone(), profile.clone())))
            }
            (None, Some((user, password)), _) => Authorization::Basic(basic(user, password)?),
            (None, None, Some(user)) => Authorization::Basic(basic(user, &url.password.clone().unwrap_or_default())?),
            (None, None, None) => Authorization::None,
        };
        Ok(Self { target, uri, profile, authorization })
    }

    /// Asks once.
    pub async fn figures(&self, door: &Door) -> Result<Figures, SourceError> {
        let mut request = Request::get(self.uri.clone()).header(ACCEPT, "application/json");
        match &self.authorization {
            Authorization::None => {}
            Authorization::Basic(value) => request = request.header(AUTHORIZATION, value.clone()),
            Authorization::OAuth2(tokens) => {
                request = request.header(AUTHORIZATION, tokens.authorization(door).await?);
            }
        }
        let request = request
            .body(Bytes::new())
            .map_err(|_| SourceError::new(ErrorKind::Configuration, "host is not a usable URL"))?;
        let reply = door.http(&self.profile, request, self.target.timeout).await?;
        if reply.status() != StatusCode::OK {
            return Err(self.refusal(&reply));
        }
        match self.target.page_size {
            None => Ok(self.decode::<Queue>(&reply)?.figures(self.target.exclude_unacknowledged)),
            Some(_) => self.combined(&self.decode::<Page>(&reply)?),
        }
    }

    fn combined(&self, page: &Page) -> Result<Figures, SourceError> {
        if page.page_count > 1 {
            let message = "regex matches more queues than can be recovered at once; raise pageSize";
            return Err(SourceError::new(ErrorKind::Configuration, message));
        }
        if page.items.is_empty() {
            return Ok(Figures::default());
        }
        let operation = Operation::from_text(&self.target.operation).ok_or_else(|| {
            let message = format!("operation mode {} must be one of sum, avg, max", self.target.operation);
            SourceError::new(ErrorKind::Configuration, message)
        })?;
        let exclude = self.target.exclude_unacknowledged;
        let all: Vec<_> = page.items.iter().map(|queue| queue.figures(exclude)).collect();
        Ok(Figures::combine(&all, operation))
    }

    fn decode<T: DeserializeOwned>(&self, reply: &Response<Bytes>) -> Result<T, SourceError> {
        serde_json::from_slice(reply.body()).map_err(|error| {
            // The error's own words quote the reply, which may be the login sent back.
            let cause = format!("it differs at line {}, column {}", error.line(), error.column());
            let message = format!("the reply from {} is not that of the management API: {cause}", self.shown());
            SourceError::new(ErrorKind::BadReply, message)
        })
    }

    fn refusal(&self, reply: &Response<Bytes>) -> SourceError {
        let status = reply.status();
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Authentication,
            StatusCode::NOT_FOUND => ErrorKind::MissingResource,
            _ => ErrorKind::Refused,
        };
        let response = match kind {
            // Such a body may name the user.
            ErrorKind::Authentication => String::new(),
            _ => said(reply.body()).map_or_else(String::new, |said| format!(", response: {said}")),
        };
        let message = format!("error requesting RabbitMQ API status: {status}{response}, from: {}", self.shown());
        SourceError::new(kind, message)
    }

    /// The address without its query.
    fn shown(&self) -> String {
        let text = self.uri.to_string();
        text.split_once('?').map_or_else(|| text.clone(), |(before, _)| before.to_owned())
    }
}

/// What the management API says of an error. Any other body is not shown: a proxy may send back what it was sent, the
/// login included.
fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        error: String,
        reason: Option<String>,
    }
    let Said { error, reason } = serde_json::from_slice(body).ok()?;
    Some(excerpt(&reason.map_or_else(|| error.clone(), |reason| format!("{error}: {reason}"))))
}

/// The beginning of a text from the network, fit for a line of a message.
fn excerpt(text: &str) -> String {
    text.trim().chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn basic(user: &Secret, password: &Secret) -> Result<HeaderValue, SourceError> {
    let pair = BASE64.encode(format!("{}:{}", user.expose(), password.expose()));
    let mut value = HeaderValue::try_from(format!("Basic {pair}"))
        .map_err(|_| SourceError::new(ErrorKind::Configuration, "user name or password is too long"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Queue>,
    #[serde(default)]
    page_count: i64,
}

/// What the broker says of one queue. It leaves out figures that it has not gathered yet.
#[derive(Deserialize)]
struct Queue {
    messages: Option<i64>,
    messages_ready: Option<i64>,
    message_stats: Option<MessageStats>,
}

#[derive(Deserialize)]
struct MessageStats {
    publish_details: Option<Rate>,
    deliver_get_details: Option<Rate>,
}

#[derive(Deserialize)]
struct Rate {
    #[serde(default)]
    rate: f64,
}

impl Queue {
    fn figures(&self, exclude_unacknowledged: bool) -> Figures {
        let messages = if exclude_unacknowledged { self.messages_ready } else { self.messages };
        let rate = |pick: fn(&MessageStats) -> &Option<Rate>| {
            self.message_stats.as_ref().and_then(|stats| pick(stats).as_ref()).map_or(0.0, |rate| rate.rate)
        };
        Figures {
            messages: messages.unwrap_or_default(),
            publish_rate: rate(|stats| &stats.publish_details),
            deliver_get_rate: rate(|stats| &stats.deliver_get_details),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::FutureExt as _;

    use super::*;
    use crate::tests;

    fn target(host: &str, queue: &str) -> Target {
        Target {
            host: host.into(),
            vhost: None,
            queue: queue.to_owned(),
            page_size: None,
            operation: "sum".to_owned(),
            exclude_unacknowledged: false,
            timeout: None,
            login: None,
            oauth2: None,
            workload_identity: false,
            tls: Tls::default(),
        }
    }

    fn uri(target: &Target) -> String {
        target.uri(&target.url().unwrap())
    }

    /// The address and `Authorization` of each request.
    type Seen = Arc<Mutex<Vec<(String, String)>>>;

    /// A broker with one reply.
    fn broker(status: u16, body: &'static str) -> (Door, Seen) {
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        let door = tests::door(move |request| {
            let header = request.headers().get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
            log.lock().unwrap().push((request.uri().to_string(), header.to_owned()));
            async move { Ok(Response::builder().status(status).body(Bytes::from(body)).unwrap()) }.boxed()
        });
        (door, seen)
    }

    async fn figures(target: Target, status: u16, body: &'static str) -> Result<Figures, SourceError> {
        let (door, _) = broker(status, body);
        Client::new(target).await?.figures(&door).await
    }

    #[test]
    fn the_last_part_of_the_path_is_the_vhost_and_the_rest_a_prefix() {
        assert_eq!(uri(&target("http://h:1", "q")), "http://h:1/api/queues/%2F/q");
        assert_eq!(uri(&target("http://h:1/", "q")), "http://h:1/api/queues/%2F/q");
        assert_eq!(uri(&target("https://u:p@h/v", "q")), "https://h/api/queues/v/q");
        assert_eq!(uri(&target("https://h/%2f", "q")), "https://h/api/queues/%2f/q");
        assert_eq!(uri(&target("https://h/sub/path/v", "q")), "https://h/sub/path/api/queues/v/q");
        assert_eq!(uri(&target("https://h/sub/", "q")), "https://h/sub/api/queues/%2F/q");
        let named = Target { vhost: Some("my vhost/".to_owned()), ..target("https://h/sub/old", "q") };
        assert_eq!(uri(&named), "https://h/sub/api/queues/my%20vhost%2F/q");
    }

    #[test]
    fn names_are_one_segment_and_the_urls_own_query_goes_to_the_end() {
        assert_eq!(uri(&target("http://h/v?x=1", "a b/c")), "http://h/api/queues/v/a%20b%2Fc?x=1");
        let regex = Target { page_size: Some(50), ..target("http://h/v?x=1", "^a.*$") };
        assert_eq!(
            uri(&regex),
            "http://h/api/queues/v?page=1&use_regex=true&pagination=false&name=%5Ea.%2A%24&page_size=50&x=1"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_those_of_the_parameters_or_else_of_the_url() {
        let (door, seen) = broker(200, "{}");
        let from_url = target("http://us%40er:p%3Ass@h/v", "q");
        let given = Target { login: Some(("john".into(), "pw".into())), ..from_url.clone() };
        for target in [from_url, given, target("http://h/v", "q")] {
            Client::new(target).await.unwrap().figures(&door).await.unwrap();
        }
        let headers: Vec<_> = seen.lock().unwrap().iter().map(|(_, header)| header.clone()).collect();
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair));
        assert_eq!(headers, [basic("us@er:p:ss"), basic("john:pw"), String::new()]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_oauth2_a_token_is_asked_for_once_and_sent_instead_of_a_login() {
        let seen = Seen::default();
        let log = Arc::clone(&seen);
        let door = tests::door(move |request| {
            let header = request.headers().get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
            log.lock().unwrap().push((request.uri().to_string(), header.to_owned()));
            let token = request.uri().host() == Some("login.test");
            let body = if token { r#"{"access_token":"abc","expires_in":3600}"# } else { r#"{"messages":7}"# };
            async move { Ok(Response::new(Bytes::from(body))) }.boxed()
        });
        let credentials = Credentials {
            token_url: "https://login.test/token".into(),
            client_id: "id".into(),
            client_secret: "secret".into(),
            scopes: Vec::new(),
            endpoint_params: Vec::new(),
        };
        let target = Target { oauth2: Some(credentials), ..target("http://john:hunter2@h/v", "q") };
        let client = Client::new(target).await.unwrap();
        for _ in 0..2 {
            assert_eq!(client.figures(&door).await.unwrap().messages, 7);
        }
        let pair = |url: &str, header: String| (url.to_owned(), header);
        let read = || pair("http://h/api/queues/v/q", "Bearer abc".to_owned());
        let asked = pair("https://login.test/token", format!("Basic {}", BASE64.encode("id:secret")));
        assert_eq!(*seen.lock().unwrap(), [asked, read(), read()]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_queues_figures_are_read_and_missing_ones_are_zero() {
        let body = r#"{"messages":7,"messages_ready":4,"message_stats":{"publish_details":{"rate":1.5},
                       "deliver_get_details":{"rate":0.5}},"name":"q"}"#;
        let expect = |messages| Figures { messages, publish_rate: 1.5, deliver_get_rate: 0.5 };
        assert_eq!(figures(target("http://h/v", "q"), 200, body).await, Ok(expect(7)));
        let ready = Target { exclude_unacknowledged: true, ..target("http://h/v", "q") };
        assert_eq!(figures(ready, 200, body).await, Ok(expect(4)));
        assert_eq!(figures(target("http://h/v", "q"), 200, r#"{"name":"q"}"#).await, Ok(Figures::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn queues_that_match_are_combined() {
        let body = r#"{"items":[{"messages":7},{"messages":4}],"page_count":1}"#;
        let regex = |operation: &str| Target {
            page_size: Some(100),
            operation: operation.to_owned(),
            ..target("http://h/v", ".*")
        };
        assert_eq!(figures(regex("avg"), 200, body).await.unwrap().messages, 5);
        assert_eq!(figures(regex("max"), 200, body).await.unwrap().messages, 7);
        let error = figures(regex("median"), 200, body).await.unwrap_err();
        assert_eq!(error.message, "operation mode median must be one of sum, avg, max");
        let none = r#"{"items":[],"page_count":1}"#;
        assert_eq!(figures(regex("median"), 200, none).await, Ok(Figures::default()));
        let more = r#"{"items":[{"messages":7}],"page_count":2}"#;
        assert_eq!(figures(regex("sum"), 200, more).await.unwrap_err().kind, ErrorKind::Configuration);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_has_its_kind_and_shows_neither_user_info_nor_query() {
        for (status, kind) in [
            (401, ErrorKind::Authentication),
            (403, ErrorKind::Authentication),
            (404, ErrorKind::MissingResource),
            (500, ErrorKind::Refused),
            (204, ErrorKind::Refused),
        ] {
            let error = figures(target("http://john:hunter2@h/v?key=hunter3", "q"), status, "no").await.unwrap_err();
            assert_eq!(error.kind, kind);
            assert!(error.message.contains("http://h/api/queues/v/q"), "{error}");
            assert!(!error.message.contains("john") && !error.message.contains("hunter"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_brokers_own_words_are_shown_and_those_of_others_are_not() {
        let own = r#"{"error":"Object Not Found","reason":"Not Found"}"#;
        let error = figures(target("http://john:hunter2@h/v", "q"), 404, own).await.unwrap_err();
        assert!(error.message.contains("404 Not Found, response: Object Not Found: Not Found, from: "), "{error}");
        for foreign in ["GET / authorization: Basic am9objpodW50ZXIy", r#"{"headers": ["am9objpodW50ZXIy"]}"#] {
            let error = figures(target("http://john:hunter2@h/v", "q"), 500, foreign).await.unwrap_err();
            assert!(!error.message.contains("am9objpodW50ZXIy"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_that_is_not_the_management_apis_is_a_bad_reply_and_never_zero() {
        for body in ["", "<html>", "[]", r#"{"messages":1.5}"#, r#"{"messages":"7"}"#] {
            let error = figures(target("http://h/v", "q"), 200, body).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::BadReply, "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_quotes_little_of_a_reply_and_no_control_characters() {
        let long: &'static str = format!("{{\"messages\":\"{}\"}}", "x".repeat(100_000)).leak();
        for (status, body) in [(200, long), (500, long), (500, "\u{1b}[2Jgone\nERROR forged")] {
            let error = figures(target("http://h/v", "q"), status, body).await.unwrap_err();
            assert!(error.message.len() < 400, "{}", error.message.len());
            assert!(!error.message.contains(|c: char| c.is_control()), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_work_is_a_configuration_error() {
        for host in ["myhost", "amqp://h/v", "https://"] {
            let error = figures(target(host, "q"), 200, "{}").await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Configuration, "{host}");
        }
        let azure = Target { workload_identity: true, ..target("http://h/v", "q") };
        assert_eq!(figures(azure, 200, "{}").await.unwrap_err().kind, ErrorKind::Configuration);
    }
}
