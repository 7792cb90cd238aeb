//! An API server that fails, reproducibly: a layer between one client and the API.
//!
//! What goes wrong follows from the seed alone: the n-th request of a method to a path meets the same fault in every run,
//! in whatever order requests to other paths come. Under the paused clock on one thread two runs are the same byte for
//! byte. Other clients of the same cluster notice nothing but what the faulty one does.

mod body;
mod draw;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use serde_json::json;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};

use crate::ResponseBody;
use draw::Draw;

/// Most answers to one request that a stale read can fall back on.
const REMEMBERED: usize = 4;
/// Most requests whose answers are remembered.
const REQUESTS: usize = 10_000;

/// What goes wrong with requests, and how often.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Two layers of equal rules and equal seed do the same.
    pub seed: u64,
    /// Of the rules that fit a request the first that strikes counts; for a running watch all that strike.
    pub rules: Vec<FaultRule>,
}

/// One thing that goes wrong.
#[derive(Clone, Debug)]
pub struct FaultRule {
    /// What.
    pub fault: Fault,
    /// How often, from 0 to 1: the share of requests it could strike that it does strike.
    pub share: f64,
    /// Not before this time after the layer was made.
    pub from: Duration,
    /// Not after this time after the layer was made.
    pub until: Duration,
    /// Only requests of this method; `None` for all.
    pub method: Option<Method>,
    /// Only requests with this text in path and query; empty for all.
    pub part: String,
}

impl FaultRule {
    /// The fault in so great a share of all requests, at any time.
    pub fn new(fault: Fault, share: f64) -> Self {
        Self { fault, share, from: Duration::ZERO, until: Duration::MAX, method: None, part: String::new() }
    }

    /// The fault within a span of time only.
    #[must_use]
    pub fn between(self, from: Duration, until: Duration) -> Self {
        Self { from, until, ..self }
    }

    /// The fault in requests of one method only, with this text in their path and query.
    #[must_use]
    pub fn of(self, method: Method, part: impl Into<String>) -> Self {
        Self { method: Some(method), part: part.into(), ..self }
    }
}

/// What goes wrong with a request or a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A PUT or PATCH loses against another writer: 409, not done.
    Conflict,
    /// 429 with `Retry-After`, in whole seconds; not done.
    Throttled {
        /// When to come again.
        retry_after: Duration,
    },
    /// Answered with this status, such as 500, 503 or 403; not done.
    Failed {
        /// The status.
        status: u16,
    },
    /// A write is done, but answered with 504.
    AnswerLost,
    /// Done at once, and answered late.
    Delayed {
        /// The longest delay.
        longest: Duration,
    },
    /// Never answered and not done.
    Unanswered,
    /// A GET is answered as it was answered before. It strikes only what this client has asked already, and no request
    /// for a state that is not older than a given one.
    Stale,
    /// A watch ends by itself. The share counts watches.
    WatchCut {
        /// The longest time that it lasts, counted from its start or that of the rule's time.
        longest: Duration,
    },
    /// What a watch tells comes late. The share counts pieces of what it tells; their order stays.
    WatchDelayed {
        /// The longest delay of one piece.
        longest: Duration,
    },
    /// A watch is told that its version is too old: 410.
    WatchExpired,
}

impl Fault {
    fn word(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Throttled { .. } => "throttled",
            Self::Failed { .. } => "failed",
            Self::AnswerLost => "answer lost",
            Self::Delayed { .. } => "delayed",
            Self::Unanswered => "unanswered",
            Self::Stale => "stale",
            Self::WatchCut { .. } => "watch cut",
            Self::WatchDelayed { .. } => "watch delayed",
            Self::WatchExpired => "watch expired",
        }
    }

    /// Whether it can strike such a request at all.
    fn fits(self, call: &Call) -> bool {
        match self {
            Self::Conflict => matches!(call.method, Method::PUT | Method::PATCH),
            Self::AnswerLost => call.method != Method::GET,
            Self::Stale => call.method == Method::GET && !call.watch && !call.at_least,
            Self::WatchCut { .. } | Self::WatchDelayed { .. } | Self::WatchExpired => call.watch,
            Self::Throttled { .. } | Self::Failed { .. } | Self::Delayed { .. } | Self::Unanswered => true,
        }
    }
}

impl Faults {
    /// No faults yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, rules: Vec::new() }
    }

    /// With one more rule.
    #[must_use]
    pub fn with(mut self, rule: FaultRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// A bad time that the seed makes up: of every kind of fault but [`Fault::Unanswered`] a share of up to a third,
    /// within a span of its own, and none after `lasting`.
    pub fn bad_time(seed: u64, lasting: Duration) -> Self {
        let second = Duration::from_secs(1);
        let kinds = [
            Fault::Conflict,
            Fault::Throttled { retry_after: second },
            Fault::Failed { status: 500 },
            Fault::Failed { status: 503 },
            Fault::AnswerLost,
            Fault::Delayed { longest: 3 * second },
            Fault::Stale,
            Fault::WatchCut { longest: 30 * second },
            Fault::WatchDelayed { longest: 5 * second },
            Fault::WatchExpired,
        ];
        let mut faults = Self::new(seed);
        for (number, fault) in (0_u64..).zip(kinds) {
            let mut draw = Draw::new(seed, &[number]);
            let ends = [draw.within(lasting), draw.within(lasting)];
            let (from, until) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
            faults = faults.with(FaultRule::new(fault, draw.share() / 3.0).between(from, until));
        }
        faults
    }

    /// The layer; its time begins now. Must be called inside a tokio runtime.
    pub fn layer(self) -> FaultLayer {
        let remembers = self.rules.iter().any(|rule| rule.fault == Fault::Stale);
        FaultLayer(Arc::new(Shared { faults: self, remembers, start: Instant::now(), state: Mutex::default() }))
    }
}

/// Makes a service faulty. Clones share one history.
#[derive(Clone)]
pub struct FaultLayer(Arc<Shared>);

struct Shared {
    faults: Faults,
    /// Whether answers are kept for stale reads.
    remembers: bool,
    start: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many requests of a method to a path there were.
    counts: BTreeMap<String, u64>,
    answers: BTreeMap<String, VecDeque<(StatusCode, Bytes)>>,
    log: Vec<String>,
}

impl FaultLayer {
    /// What has gone wrong so far, one line each: seconds since the start, fault, method, path.
    pub fn log(&self) -> Vec<String> {
        self.0.state().log.clone()
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Faulty { inner, shared: self.0.clone() }
    }
}

/// A service some of whose answers are wrong.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    shared: Arc<Shared>,
}

/// What is known of a request.
struct Call {
    method: Method,
    path: String,
    target: String,
    watch: bool,
    /// Whether it wants a state not older than a given one.
    at_least: bool,
    /// How many of its method and path there were before.
    number: u64,
}

impl Shared {
    /// Every change is complete when the lock is given back, so a panic elsewhere leaves the state sound.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, request: &Request<Body>) -> Call {
        let uri = request.uri();
        let (mut watch, mut at_least) = (false, false);
        for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*key {
                "watch" => watch = matches!(&*value, "true" | "1"),
                "resourceVersion" => at_least = !matches!(&*value, "" | "0"),
                _ => {}
            }
        }
        let (method, path) = (request.method().clone(), uri.path().to_owned());
        let number = {
            let mut state = self.state();
            let count = state.counts.entry(format!("{method} {path}")).or_default();
            *count += 1;
            *count - 1
        };
        let target = uri.path_and_query().map_or_else(|| path.clone(), ToString::to_string);
        Call { method, path, target, watch, at_least, number }
    }

    /// The rules that may strike a call at some time, with the lots of each.
    fn rules<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = (&'a FaultRule, Draw)> {
        (0_u64..).zip(&self.faults.rules).filter_map(move |(number, rule)| {
            let method = rule.method.as_ref().is_none_or(|method| *method == call.method);
            let fits = method && call.target.contains(&rule.part) && rule.fault.fits(call);
            let name = draw::hash(&[call.method.as_str(), &call.path]);
            fits.then(|| (rule, Draw::new(self.faults.seed, &[number, name, call.number])))
        })
    }

    /// The fault that meets a call before it is answered, and what else is to be drawn for it.
    fn strike(&self, call: &Call) -> Option<(Fault, Draw)> {
        let elapsed = self.start.elapsed();
        let opening = |rule: &FaultRule| {
            let later = matches!(rule.fault, Fault::WatchCut { .. } | Fault::WatchDelayed { .. });
            !later && rule.from <= elapsed && elapsed <= rule.until
        };
        let struck = self.rules(call).filter(|(rule, _)| opening(rule)).find_map(|(rule, mut draw)| {
            let possible = rule.fault != Fault::Stale || self.state().answers.contains_key(&call.target);
            (draw.share() < rule.share && possible).then_some((rule.fault, draw))
        });
        if let Some((fault, _)) = &struck {
            self.note(*fault, call);
        }
        struck
    }

    fn note(&self, fault: Fault, call: &Call) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.state().log.push(format!("{seconds:.3} {} {} {}", fault.word(), call.method, call.path));
    }

    fn remember(&self, call: &Call, status: StatusCode, body: &Bytes) {
        let mut state = self.state();
        if state.answers.len() >= REQUESTS && !state.answers.contains_key(&call.target) {
            return;
        }
        let answers = state.answers.entry(call.target.clone()).or_default();
        if answers.back().is_none_or(|(_, last)| last != body) {
            answers.push_back((status, body.clone()));
        }
        if answers.len() > REMEMBERED {
            answers.pop_front();
        }
    }

    /// An earlier answer to the same request.
    fn recall(&self, call: &Call, mut draw: Draw) -> Option<Response<ResponseBody>> {
        let state = self.state();
        let answers = state.answers.get(&call.target)?;
        let (status, body) = answers.get(draw.index(answers.len()))?;
        Some(json_of(*status, body.clone()))
    }

    /// The answer to a call that goes through, with what is to be remembered of it.
    async fn pass(self: Arc<Self>, call: Call, response: Response<ResponseBody>) -> Response<ResponseBody> {
        if call.watch {
            return self.watch(&call, response);
        }
        let kept = response.status().is_success() || response.status() == StatusCode::NOT_FOUND;
        if !self.remembers || call.method != Method::GET || !kept {
            return response;
        }
        let (parts, body) = response.into_parts();
        match body.collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                self.remember(&call, parts.status, &body);
                Response::from_parts(parts, whole(body))
            }
            Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &error.to_string()),
        }
    }

    fn watch(&self, call: &Call, response: Response<ResponseBody>) -> Response<ResponseBody> {
        if !response.status().is_success() {
            return response;
        }
        let mut trouble = body::Trouble::default();
        let elapsed = self.start.elapsed();
        for (rule, mut draw) in self.rules(call) {
            match rule.fault {
                Fault::WatchCut { longest } if draw.share() < rule.share => {
                    let end = elapsed.max(rule.from) + draw.within(longest);
                    if end <= rule.until {
                        self.note(rule.fault, call);
                        let end = self.start + end;
                        trouble.end = Some(trouble.end.map_or(end, |known: Instant| known.min(end)));
                    }
                }
                Fault::WatchDelayed { longest } => {
                    let span = rule.from..=rule.until;
                    trouble.delays.push(body::Delays { share: rule.share, longest, start: self.start, span, draw });
                }
                _ => {}
            }
        }
        response.map(|body| trouble.of(body))
    }
}

impl<S> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<ResponseBody>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, shared) = (self.inner.clone(), self.shared.clone());
        Box::pin(async move {
            let call = shared.enter(&request);
            let done = |shared: Arc<Shared>, call: Call| async move {
                let Ok(response) = inner.oneshot(request).await;
                shared.pass(call, response).await
            };
            let Some((fault, mut draw)) = shared.strike(&call) else { return Ok(done(shared, call).await) };
            Ok(match fault {
                Fault::Conflict => refused(
                    StatusCode::CONFLICT,
                    "Conflict",
                    "Operation cannot be fulfilled: the object has been modified; please apply your changes to the \
                     latest version and try again",
                ),
                Fault::Throttled { retry_after } => throttled(retry_after),
                Fault::Failed { status } => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    refused(status, reason(status), "a fault was ordered")
                }
                Fault::AnswerLost => {
                    done(shared, call).await;
                    refused(StatusCode::GATEWAY_TIMEOUT, "Timeout", "the answer was lost")
                }
                Fault::Delayed { longest } => {
                    let response = done(shared, call).await;
                    tokio::time::sleep(draw.within(longest)).await;
                    response
                }
                Fault::Unanswered => std::future::pending().await,
                Fault::Stale => match shared.recall(&call, draw) {
                    Some(answer) => answer,
                    None => done(shared, call).await,
                },
                Fault::WatchExpired => expired(),
                // These come while a watch runs.
                Fault::WatchCut { .. } | Fault::WatchDelayed { .. } => done(shared, call).await,
            })
        })
    }
}

fn whole(body: Bytes) -> ResponseBody {
    UnsyncBoxBody::new(Full::new(body).map_err(|never| match never {}))
}

fn json_of(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(whole(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status_object(status: StatusCode, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16(),
    })
}

fn refused(status: StatusCode, reason: &str, message: &str) -> Response<ResponseBody> {
    json_of(status, status_object(status, reason, message).to_string())
}

fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}

fn throttled(retry_after: Duration) -> Response<ResponseBody> {
    let seconds = retry_after.as_secs().max(1);
    let mut object = status_object(
        StatusCode::TOO_MANY_REQUESTS,
        "TooManyRequests",
        "the server has received too many requests and has asked us to try again later",
    );
    object["details"] = json!({ "retryAfterSeconds": seconds });
    let mut response = json_of(StatusCode::TOO_MANY_REQUESTS, object.to_string());
    response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// A watch that begins and ends with the news that its version is too old.
fn expired() -> Response<ResponseBody> {
    let object = status_object(StatusCode::GONE, "Expired", "too old resource version");
    let event = json!({ "type": "ERROR", "object": object });
    json_of(StatusCode::OK, format!("{event}\n"))
}
