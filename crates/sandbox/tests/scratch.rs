use std::time::Duration;
use http_body_util::BodyExt;
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tower::ServiceExt;

#[tokio::test]
async fn serve() {
    let sandbox = Sandbox::new(Clock::system(), Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let token = tokio_util::sync::CancellationToken::new();
    let s2 = sandbox.clone();
    let t2 = token.clone();
    tokio::spawn(async move { s2.run(t2).await });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:18099").await.unwrap();
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = sandbox.service();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap_or(0) == 0 { return; }
                let mut parts = line.split_whitespace();
                let (method, path) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
                let mut request = http::Request::builder().method(&*method).uri(&*path);
                let mut length = 0usize;
                loop {
                    let mut header = String::new();
                    stream.read_line(&mut header).await.unwrap();
                    let header = header.trim();
                    if header.is_empty() { break; }
                    let (k, v) = header.split_once(':').unwrap();
                    if k.eq_ignore_ascii_case("content-length") { length = v.trim().parse().unwrap(); }
                    request = request.header(k, v.trim());
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap();
                let sent = String::from_utf8_lossy(&body).chars().take(300).collect::<String>();
                let request = request.body(http_body_util::Full::new(bytes::Bytes::from(body))).unwrap();
                let accept = request.headers().get("accept").map(|v| v.to_str().unwrap().to_owned());
                let ct = request.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
                let response = service.clone().oneshot(request).await.unwrap();
                eprintln!("{method} {path} {accept:?} {ct:?} -> {} {sent}", response.status());
                let mut head = format!("HTTP/1.1 {}\r\nTransfer-Encoding: chunked\r\n", response.status());
                for (k, v) in response.headers() { head.push_str(&format!("{k}: {}\r\n", v.to_str().unwrap())); }
                head.push_str("\r\n");
                if stream.write_all(head.as_bytes()).await.is_err() { return; }
                let mut body = response.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    let data = frame.into_data().unwrap();
                    if stream.write_all(format!("{:x}\r\n", data.len()).as_bytes()).await.is_err() { return; }
                    if stream.write_all(&data).await.is_err() { return; }
                    if stream.write_all(b"\r\n").await.is_err() { return; }
                    let _ = stream.flush().await;
                }
                if stream.write_all(b"0\r\n\r\n").await.is_err() { return; }
                }
            });
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(240), serve).await;
}
