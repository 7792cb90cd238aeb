//! A gateway that lets nobody through without a bearer token, as hosted Prometheus services have one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::output::say;

/// Deadline of a request to the service behind.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Size of a request's body, in bytes: queries may be sent as forms.
const BODY: usize = 1 << 20;

/// Arguments of the gateway.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9091")]
    listen: SocketAddr,
    /// Base URL of the service behind
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    to: String,
    /// The file with the token that opens; it is read for each request, so that the token can change
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

#[derive(Clone)]
struct Gateway {
    http: reqwest::Client,
    to: String,
    token_file: Arc<Path>,
}

pub(crate) async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen at {}", args.listen))?;
    say(format_args!("http://{} leads to {} for those who show the token", listener.local_addr()?, args.to));
    serve(listener, args, stop).await
}

async fn serve(listener: TcpListener, args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build().context("no HTTP client")?;
    let gateway = Gateway { http, to: args.to.trim_end_matches('/').to_owned(), token_file: args.token_file.into() };
    let router = Router::new().fallback(pass).layer(DefaultBodyLimit::max(BODY)).with_state(gateway);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.context("the gateway stopped")
}

async fn pass(
    State(gateway): State<Gateway>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    let token = tokio::fs::read_to_string(&gateway.token_file).await;
    let unreadable = |_| (StatusCode::INTERNAL_SERVER_ERROR, "the file of the token cannot be read\n").into_response();
    let token = token.map_err(unreadable)?;
    if !same(shown, format!("Bearer {}", token.trim()).as_bytes()) {
        let refusal = (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], "a valid bearer token is wanted\n");
        return Err(refusal.into_response());
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = gateway.http.request(method, format!("{}{path}", gateway.to)).body(body);
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        request = request.header(CONTENT_TYPE, kind);
    }
    let unreachable = |_| (StatusCode::BAD_GATEWAY, "the service behind does not answer\n").into_response();
    let answer = request.send().await.map_err(unreachable)?;
    let (status, kind) = (answer.status(), answer.headers().get(CONTENT_TYPE).cloned());
    let mut response = Response::new(Body::from(answer.bytes().await.map_err(unreachable)?));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    Ok(response)
}

/// Compares all bytes, so that the time it takes does not tell how many are right.
fn same(shown: &[u8], expected: &[u8]) -> bool {
    shown.len() == expected.len() && shown.iter().zip(expected).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    #[tokio::test]
    async fn only_the_right_token_opens_and_the_question_arrives_unchanged() {
        let (behind, to) = listener().await;
        let echo = |uri: Uri| async move { (StatusCode::ACCEPTED, uri.to_string()) };
        let server = axum::serve(behind, Router::new().route("/api/v1/query", get(echo))).into_future();
        let server = tokio::spawn(server);
        let (front, url) = listener().await;
        let listen = front.local_addr().unwrap();
        let stop = CancellationToken::new();
        let token_file = std::env::temp_dir().join(format!("tidemark-gateway-{}", std::process::id()));
        std::fs::write(&token_file, "open\n").unwrap();
        let gateway = serve(front, Args { listen, to, token_file: token_file.clone() }, stop.clone());
        let path = "/api/v1/query?query=sum%28rate%28a%5B1m%5D%29%29";
        let asked = async {
            let ask = |token: Option<&'static str>| {
                let request = reqwest::Client::new().get(format!("{url}{path}"));
                token.into_iter().fold(request, |request, token| request.bearer_auth(token)).send()
            };
            for token in [None, Some("shut"), Some("op"), Some("opened")] {
                assert_eq!(ask(token).await.unwrap().status(), 401, "{token:?}");
            }
            let answer = ask(Some("open")).await.unwrap();
            assert_eq!(answer.status(), 202);
            assert_eq!(answer.text().await.unwrap(), path);
            std::fs::write(&token_file, "shut").unwrap();
            assert_eq!(ask(Some("open")).await.unwrap().status(), 401);
            assert_eq!(ask(Some("shut")).await.unwrap().status(), 202);
            std::fs::remove_file(&token_file).unwrap();
            assert_eq!(ask(Some("shut")).await.unwrap().status(), 500);
            std::fs::write(&token_file, "open").unwrap();
            server.abort();
            let _ = server.await;
            assert_eq!(ask(Some("open")).await.unwrap().status(), 502);
            std::fs::remove_file(&token_file).unwrap();
            stop.cancel();
        };
        let (served, ()) = tokio::join!(gateway, asked);
        served.unwrap();
    }
}
