//! An HTTP service that measures the requests it answers, as OpenTelemetry's conventions say, and pushes what it has
//! measured over OTLP.
//!
//! `GET /` and every path below it answer after a little work. Several of these programs may listen at one address of
//! one machine: they share the port, and the system hands each new connection to one of them.

mod duration;
mod otlp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::any;
use tidemark_clock::Clock;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::output::say;
use duration::{Durations, Request as Answered};
use otlp::Push;

/// How long open requests may take when the service is told to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// Connections that wait until they are accepted.
const BACKLOG: u32 = 1024;

/// Arguments of the service.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen; several of these programs may share the address
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Work for a request, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    work: u64,
    #[command(flatten)]
    export: otlp::Export,
}

pub(crate) async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = listen(args.listen).with_context(|| format!("cannot listen at {}", args.listen))?;
    say(format_args!("{} answers at http://{}", args.export.service(), listener.local_addr()?));
    let durations = Arc::new(Durations::default());
    let push = Push::new(args.export, durations.clone(), Clock::system())?;
    let pushed = CancellationToken::new();
    let (served, ()) = tokio::join!(
        async {
            let served = serve(listener, Duration::from_millis(args.work), durations, stop).await;
            // The last export tells of the last requests.
            pushed.cancel();
            served
        },
        push.run(pushed.clone())
    );
    served
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of the last run that are still closing must not keep the next one away.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn serve(
    listener: TcpListener,
    work: Duration,
    durations: Arc<Durations>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .fallback(any(move || async move {
            tokio::time::sleep(work).await;
            (StatusCode::OK, "done\n")
        }))
        .layer(middleware::from_fn_with_state(durations, measure));
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        biased;
        outcome = server.into_future() => outcome.context("the service stopped"),
        () = async { stop.cancelled().await; tokio::time::sleep(LAST_REQUESTS).await } => Ok(()),
    }
}

async fn measure(State(durations): State<Arc<Durations>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let response = next.run(request).await;
    durations.add(Answered { method: known(&method), status: response.status().as_u16() }, begun.elapsed());
    response
}

/// A method by its name. What clients make up must not make new series: the conventions call it `_OTHER`.
fn known(method: &axum::http::Method) -> &'static str {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;
    use tokio::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The count of the only series, and the name it is under.
    fn told(body: &[u8]) -> Option<(String, u64)> {
        let request = ExportMetricsServiceRequest::decode(body).unwrap();
        let metric = request.resource_metrics.first()?.scope_metrics.first()?.metrics.first()?.clone();
        let Some(Data::Histogram(histogram)) = metric.data else { panic!("{:?}", metric.data) };
        Some((metric.name, histogram.data_points.first()?.count))
    }

    #[tokio::test]
    async fn requests_are_counted_under_the_conventions_name_and_the_last_ones_are_told_at_the_end() {
        let (sender, mut exports) = mpsc::unbounded_channel();
        let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let receive = move |body: axum::body::Bytes| {
            let _ = sender.send(body);
            async {}
        };
        let receiver = axum::serve(collector, Router::new().route("/v1/metrics", post(receive))).into_future();
        let receiver = tokio::spawn(receiver);

        let durations = Arc::new(Durations::default());
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}/orders", listener.local_addr().unwrap());
        let push = Push::new(otlp::Export::to(&endpoint), durations.clone(), Clock::system()).unwrap();
        let stop = CancellationToken::new();
        let work = async {
            for _ in 0..3 {
                assert_eq!(reqwest::get(&url).await.unwrap().text().await.unwrap(), "done\n");
            }
            stop.cancel();
        };
        let served = serve(listener, Duration::ZERO, durations, stop.clone());
        let (served, (), ()) =
            tokio::time::timeout(PATIENCE, async { tokio::join!(served, work, push.run(stop.clone())) })
                .await
                .expect("all end");
        served.unwrap();
        let mut last = None;
        while let Ok(body) = exports.try_recv() {
            last = told(&body).or(last);
        }
        assert_eq!(last, Some(("http.server.duration".to_owned(), 3)));
        receiver.abort();
    }

    #[tokio::test]
    async fn several_share_one_address() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        listen(first.local_addr().unwrap()).unwrap();
    }
}
