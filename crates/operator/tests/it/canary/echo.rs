//! Servers that let nobody in and say why with all that they were told, passwords included. Below `/read` they answer
//! with that in the place of what is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where the servers listen, as `host:port`, and what they were told.
pub struct Servers {
    pub http: String,
    pub redis: String,
    pub postgresql: String,
    pub amqp: String,
    pub told: Arc<Told>,
}

/// How often a server was told the secret, by protocol.
#[derive(Default)]
pub struct Told {
    pub http: AtomicU32,
    pub grpc: AtomicU32,
    pub redis: AtomicU32,
    pub postgresql: AtomicU32,
    pub amqp: AtomicU32,
}

/// Starts the servers on the runtime that runs. `knows` tells whether a text holds the secret in any form.
pub async fn start(knows: fn(&str) -> bool) -> Servers {
    let told = Arc::new(Told::default());
    let note = |count: fn(&Told) -> &AtomicU32| {
        let told = told.clone();
        Note(Arc::new(move |text: &str| {
            if knows(text) {
                count(&told).fetch_add(1, Ordering::Relaxed);
            }
        }))
    };
    let (web, grpc) = (note(|told| &told.http), note(|told| &told.grpc));
    Servers {
        http: listen(move |stream| http(stream, web.clone(), grpc.clone())).await,
        redis: listen({
            let note = note(|told| &told.redis);
            move |stream| redis(stream, note.clone())
        })
        .await,
        postgresql: listen({
            let note = note(|told| &told.postgresql);
            move |stream| postgresql(stream, note.clone())
        })
        .await,
        amqp: listen({
            let note = note(|told| &told.amqp);
            move |stream| amqp(stream, note.clone())
        })
        .await,
        told,
    }
}

/// Takes note of what a server was told.
#[derive(Clone)]
struct Note(Arc<dyn Fn(&str) + Send + Sync>);

async fn listen<F, R>(serve: F) -> String
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = Option<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// What was sent, with blanks in place of what cannot be read.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|letter| if letter.is_control() || letter == '\u{fffd}' { ' ' } else { letter }).collect()
}

async fn http(stream: TcpStream, web: Note, grpc: Note) -> Option<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (web, grpc) = (web.clone(), grpc.clone());
        async move {
            let (parts, body) = request.into_parts();
            let is_grpc =
                parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            let body = body.collect().await?.to_bytes();
            // The debug form of a sensitive header hides its value; a server does not.
            let headers: Vec<String> =
                parts.headers.iter().map(|(name, value)| format!("{name}: {}", readable(value.as_bytes()))).collect();
            let text = format!("denied: {} {} {} {}", parts.method, parts.uri, headers.join(" "), readable(&body));
            let said = Response::builder();
            if is_grpc {
                (grpc.0)(&text);
                let said = said.header("content-type", "application/grpc").header("grpc-status", "16");
                let text: String = text.chars().filter(|letter| letter.is_ascii_graphic() || *letter == ' ').collect();
                return Ok::<_, hyper::Error>(said.header("grpc-message", text).body(Full::default()).unwrap());
            }
            (web.0)(&text);
            if parts.uri.path().contains("/read") {
                let body = serde_json::json!({
                    "value": text, "messages": text, "status": text, "data": {"resultType": text, "result": text},
                });
                return Ok(said.body(Full::new(Bytes::from(body.to_string()))).unwrap());
            }
            Ok(said.status(500).body(Full::new(Bytes::from(text))).unwrap())
        }
    });
    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await.ok()
}

async fn redis(mut stream: TcpStream, note: Note) -> Option<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
        let text = readable(&buffer[..length]);
        (note.0)(&text);
        // Commands come several at a time.
        let commands = buffer[..length].windows(2).filter(|pair| pair[0] == b'*' && pair[1].is_ascii_digit()).count();
        for _ in 0..commands.max(1) {
            stream.write_all(format!("-WRONGPASS denied: {text}\r\n").as_bytes()).await.ok()?;
        }
    }
}

async fn postgresql(mut stream: TcpStream, note: Note) -> Option<()> {
    const TLS_REQUEST: &[u8] = &80_877_103_u32.to_be_bytes();
    let mut told = String::new();
    loop {
        let start = counted(&mut stream).await?;
        if start == TLS_REQUEST {
            stream.write_all(b"N").await.ok()?;
            continue;
        }
        told += &readable(&start);
        break;
    }
    // A password in clear text, please.
    stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await.ok()?;
    stream.read_u8().await.ok()?;
    told += &readable(&counted(&mut stream).await?);
    (note.0)(&told);
    let fields = format!("SFATAL\0VFATAL\0C28P01\0Mdenied: {told}\0Dand again: {told}\0Hhint: {told}\0\0");
    let mut message = vec![b'E'];
    message.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    message.extend(fields.as_bytes());
    stream.write_all(&message).await.ok()
}

/// The rest of a message that begins with its length.
async fn counted(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?.checked_sub(4).filter(|length| *length < 100_000)?;
    let mut rest = vec![0; length as usize];
    stream.read_exact(&mut rest).await.ok()?;
    Some(rest)
}

async fn amqp(mut stream: TcpStream, note: Note) -> Option<()> {
    stream.read_exact(&mut [0; 8]).await.ok()?;
    let long = |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    // connection.start: version 0-9, no properties, mechanisms, locales.
    let start = [&[0, 10, 0, 10, 0, 9, 0, 0, 0, 0][..], &long("PLAIN AMQPLAIN"), &long("en_US")].concat();
    stream.write_all(&frame(&start)).await.ok()?;
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]).min(100_000);
    let mut start_ok = vec![0; length as usize + 1];
    stream.read_exact(&mut start_ok).await.ok()?;
    let text = readable(&start_ok);
    (note.0)(&text);
    // connection.close: ACCESS_REFUSED and as much of the end of it as a short text holds.
    let letters: Vec<char> = text.chars().filter(char::is_ascii_graphic).collect();
    let said: String = letters[letters.len().saturating_sub(200)..].iter().collect();
    let close =
        [&[0, 10, 0, 50][..], &403_u16.to_be_bytes(), &[u8::try_from(said.len()).unwrap()], said.as_bytes(), &[0; 4]];
    stream.write_all(&frame(&close.concat())).await.ok()?;
    // The client says that it has understood.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok().map(drop)
}

/// A frame of a method on channel 0.
fn frame(payload: &[u8]) -> Vec<u8> {
    [&[1, 0, 0][..], &u32::try_from(payload.len()).unwrap().to_be_bytes(), payload, &[0xce]].concat()
}

impl Told {
    /// The protocols over which nobody was told the secret.
    pub fn missed(&self) -> Vec<&'static str> {
        let all = [
            ("http", &self.http),
            ("grpc", &self.grpc),
            ("redis", &self.redis),
            ("postgresql", &self.postgresql),
            ("amqp", &self.amqp),
        ];
        all.iter().filter(|(_, count)| count.load(Ordering::Relaxed) == 0).map(|(name, _)| *name).collect()
    }
}
