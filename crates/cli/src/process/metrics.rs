//! What a process counts, and where Prometheus gets it.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tidemark_clock::Clock;
use tidemark_serving::identity::Identity;
use tidemark_serving::metrics_service::{Counter, Method, Turn};
use tidemark_serving::plain;
use tidemark_telemetry::catalogue::Metric;
use tidemark_telemetry::catalogue::process::{CERTIFICATE_EXPIRY, REST_CLIENT_REQUESTS};
use tidemark_telemetry::catalogue::services::Calls;
use tidemark_telemetry::prometheus;
use tidemark_telemetry::series::{Build, Series};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::bind::Bind;
use crate::version;

/// Counts of nothing yet.
pub fn series(clock: Clock) -> Series {
    let build = Build { version: version::VERSION, commit: version::COMMIT, toolchain: version::TOOLCHAIN };
    Series::new(build, clock.now())
}

/// Serves these metrics at `/metrics` over HTTP until `shutdown`.
///
/// # Errors
/// The address is taken.
pub fn serve(
    bind: Bind,
    metrics: &'static [&'static Metric],
    series: Series,
    shutdown: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(async move {
        let Some(listener) = bind.listen().await? else {
            shutdown.cancelled().await;
            return Ok(());
        };
        let service = tower::service_fn(move |request: Request<plain::Incoming>| {
            std::future::ready(Ok::<_, Infallible>(answer(request.uri().path(), request.headers(), metrics, &series)))
        });
        plain::serve(listener, service, shutdown).await;
        Ok(())
    })
}

fn answer(
    path: &str,
    headers: &HeaderMap,
    metrics: &'static [&'static Metric],
    series: &Series,
) -> Response<plain::Body> {
    if path.trim_end_matches('/') != "/metrics" {
        let mut response = Response::new(plain::whole("not found: /metrics is served here\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let pieces = prometheus::pieces(metrics, series.snapshot().with_usage());
    let mut response = match takes_gzip(headers) {
        true => Response::new(plain::pieces(prometheus::gzip(pieces))),
        false => Response::new(plain::pieces(pieces)),
    };
    if takes_gzip(headers) {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus::CONTENT_TYPE));
    response
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = parameters.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// Counts the calls of one end of the link between operator and metrics server.
pub fn calls(series: Series, of: &'static Calls) -> Counter {
    Arc::new(move |method: Method, turn| {
        let labels = [method.kind(), method.service, method.name];
        match turn {
            Turn::Started => series.count(&of.started, &labels),
            Turn::Received => series.count(&of.received, &labels),
            Turn::Sent => series.count(&of.sent, &labels),
            Turn::Ended { code, took } => {
                series.count(&of.handled, &[labels[0], labels[1], labels[2], code]);
                series.add(&of.handling, &labels, took.as_secs_f64());
            }
        }
    })
}

/// Tells when the certificate in use ends, until `shutdown`.
pub fn expiry(
    series: Series,
    mut identity: watch::Receiver<Arc<Identity>>,
    shutdown: CancellationToken,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        loop {
            if let Some(end) = identity.borrow_and_update().expires() {
                series.set(&CERTIFICATE_EXPIRY, &[], end.as_second() as f64);
            }
            if shutdown.run_until_cancelled(identity.changed()).await.is_none_or(|changed| changed.is_err()) {
                break;
            }
        }
        shutdown.cancelled().await;
    })
}

/// The same client, and every request to the API server at `host` is counted.
pub fn counted(client: Client, host: &str, series: Series) -> Client {
    let (namespace, host): (_, Arc<str>) = (client.default_namespace().to_owned(), host.into());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, series, host) = (client.clone(), series.clone(), host.clone());
        async move {
            let method = request.method().clone();
            let outcome = client.send(request).await;
            let code = outcome.as_ref().map_or("<error>".to_owned(), |response| response.status().as_str().to_owned());
            series.count(&REST_CLIENT_REQUESTS, &[&code, method.as_str(), &host]);
            outcome
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use tidemark_serving::certificates::Authority;
    use tidemark_telemetry::catalogue::OPERATOR;
    use tidemark_telemetry::catalogue::services::SERVER;

    use super::*;

    fn text(series: &Series) -> String {
        let pieces = prometheus::pieces(OPERATOR, series.snapshot());
        String::from_utf8(pieces.flatten().collect()).unwrap()
    }

    #[tokio::test]
    async fn requests_to_the_api_server_count_by_their_end() {
        let series = series(Clock::system());
        let answers = tower::service_fn(|request: Request<Body>| async move {
            match request.uri().path() {
                "/down" => Err(std::io::Error::other("connection refused")),
                _ => Ok(Response::builder().status(404).body(Body::empty()).expect("a status makes a response")),
            }
        });
        let client = counted(Client::new(answers, "default"), "10.0.0.1:443", series.clone());
        for path in ["/here", "/here", "/down"] {
            let _ = client.send(Request::get(path).body(Body::empty()).unwrap()).await;
        }
        let text = text(&series);
        let line = |code: &str, count| {
            format!("rest_client_requests_total{{code=\"{code}\",method=\"GET\",host=\"10.0.0.1:443\"}} {count}\n")
        };
        assert!(text.contains(&line("404", 2)) && text.contains(&line("<error>", 1)), "{text}");
    }

    #[test]
    fn a_call_counts_under_the_names_of_its_end() {
        let series = series(Clock::system());
        let count = calls(series.clone(), &SERVER);
        let method = Method { service: "api.MetricsService", name: "GetMetrics", streams: false };
        for turn in [Turn::Started, Turn::Received, Turn::Ended { code: "Unknown", took: Default::default() }] {
            count(method, turn);
        }
        let text = text(&series);
        let labels = r#"grpc_type="unary",grpc_service="api.MetricsService",grpc_method="GetMetrics""#;
        for (name, labels) in [
            ("started_total", labels.to_owned()),
            ("msg_received_total", labels.to_owned()),
            ("handled_total", format!("{labels},grpc_code=\"Unknown\"")),
            ("handling_seconds_count", labels.to_owned()),
        ] {
            let line = format!("keda_internal_metricsservice_grpc_server_{name}{{{labels}}} 1\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(!text.contains("msg_sent"));
    }

    #[tokio::test]
    async fn the_end_of_the_certificate_is_told_and_that_of_the_next_one_too() {
        let series = series(Clock::system());
        let identity = |start: &str| {
            let authority = Authority::new("t", start.parse().unwrap()).unwrap();
            Arc::new(Identity { pair: authority.server(&["localhost"]).unwrap(), ca: String::new() })
        };
        let (first, second) = (identity("2026-01-01T00:00:00Z"), identity("2027-01-01T00:00:00Z"));
        let (sender, seen) = watch::channel(first.clone());
        let shutdown = CancellationToken::new();
        let telling = tokio::spawn(expiry(series.clone(), seen, shutdown.clone()));
        for used in [first, second] {
            sender.send_replace(used.clone());
            let line =
                format!("tidemark_certificate_expiry_timestamp_seconds {}\n", used.expires().unwrap().as_second());
            while !text(&series).contains(&line) {
                tokio::task::yield_now().await;
            }
        }
        shutdown.cancel();
        telling.await.unwrap();
    }

    #[test]
    fn the_text_is_compressed_for_whoever_takes_that() {
        let asked = |path: &str, accepts: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(accepts).unwrap())]);
            answer(path, &headers, OPERATOR, &series(Clock::system()))
        };
        assert_eq!(asked("/", "").status(), StatusCode::NOT_FOUND);
        for (accepts, compressed) in
            [("gzip", true), ("br, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)]
        {
            let answer = asked("/metrics/", accepts);
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers().contains_key(CONTENT_ENCODING), compressed, "{accepts}");
        }
    }
}
