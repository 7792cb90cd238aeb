//! What the triggers read: numbers over HTTP, and an external scaler over gRPC, at one port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use http::{HeaderMap, HeaderValue};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// The value of the objects with an even number; that of the others is 0.
const VALUE: u32 = 7;

/// Serves until it is dropped.
pub struct Source {
    pub port: u16,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    reads: AtomicU64,
    /// By the object's name: who waits to be told that it is active.
    waiting: Mutex<BTreeMap<String, UnboundedSender<Frame<Bytes>>>>,
}

impl Source {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let routes = Router::new()
            .route("/values/{number}", get(value))
            .route("/externalscaler.ExternalScaler/{method}", post(external_scaler))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { port, shared, _task: AbortOnDropHandle::new(task) }
    }

    /// How often a number was read.
    pub fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::Relaxed)
    }

    /// How many objects wait to be told that they are active.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.lock().unwrap().len()
    }

    /// Says that the object is active, to whoever waits for it.
    pub fn push(&self, object: &str) {
        let waiting = self.shared.waiting.lock().unwrap();
        waiting[object].unbounded_send(message(&Active { result: true })).unwrap();
    }
}

async fn value(State(shared): State<Arc<Shared>>, Path(number): Path<usize>) -> String {
    shared.reads.fetch_add(1, Ordering::Relaxed);
    let value = if number.is_multiple_of(2) { VALUE } else { 0 };
    format!("{{\"depth\": {value}}}")
}

async fn external_scaler(State(shared): State<Arc<Shared>>, Path(method): Path<String>, body: Bytes) -> Response {
    // A message follows 5 bytes that tell its length; only of GetMetrics it is not the object itself.
    let message = match &*method {
        "IsActive" => message(&Active { result: false }),
        "GetMetricSpec" => message(&Specs { specs: vec![Spec { metric_name: "events".to_owned(), target_size: 10 }] }),
        "GetMetrics" => message(&Values { values: vec![Value { metric_name: "events".to_owned(), metric_value: 1 }] }),
        "StreamIsActive" => {
            let object = Object::decode(&body[5..]).unwrap().name;
            let (sender, frames) = unbounded();
            shared.waiting.lock().unwrap().insert(object, sender);
            return answer(Body::new(StreamBody::new(frames.map(Ok::<_, Infallible>))));
        }
        _ => return answer(Body::new(StreamBody::new(futures::stream::iter([Ok::<_, Infallible>(status(12))])))),
    };
    let frames = [Ok::<_, Infallible>(message), Ok(status(0))];
    answer(Body::new(StreamBody::new(futures::stream::iter(frames))))
}

fn answer(body: Body) -> Response {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn message(message: &impl prost::Message) -> Frame<Bytes> {
    let content = message.encode_to_vec();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    Frame::data([&[0][..], &length, &content].concat().into())
}

fn status(code: u16) -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(code))]))
}

#[derive(Clone, PartialEq, prost::Message)]
struct Object {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Active {
    #[prost(bool, tag = "1")]
    result: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Specs {
    #[prost(message, repeated, tag = "1")]
    specs: Vec<Spec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Spec {
    #[prost(string, tag = "1")]
    metric_name: String,
    #[prost(int64, tag = "2")]
    target_size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Values {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    metric_name: String,
    #[prost(int64, tag = "2")]
    metric_value: i64,
}
