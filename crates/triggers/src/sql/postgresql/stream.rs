//! The byte stream under a session, with the bounds that the driver does not set.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that are read in answer to what was sent. One row of one number needs a hundredth of a percent of it.
const MAX_REPLY: usize = 1 << 20;
/// A message's type and length.
const HEADER: usize = 5;
/// The types of message with which a server may begin: a step of the login, a refusal, a notice, another version.
const FIRST: &[u8] = b"RENv";
/// The status with which an answer ends when no transaction is open.
const IDLE: u8 = b'I';

/// A connection, encrypted or not.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// The last byte that a server sent.
#[derive(Clone, Debug, Default)]
pub(super) struct LastByte(Arc<AtomicU8>);

impl LastByte {
    /// Whether a complete answer left no transaction open, which the driver does not tell. What a server may send of its
    /// own accord after an answer ends with another byte.
    pub fn is_idle(&self) -> bool {
        self.0.load(Ordering::Acquire) == IDLE
    }
}

/// A connection of which no more is read than an answer can have, and only of what may be a PostgreSQL server: the driver
/// would wait for all that the first bytes of anything else announce.
pub(super) struct Bounded {
    inner: Box<dyn Transport>,
    /// Bytes read since the last were written.
    read: usize,
    /// The first bytes.
    header: Vec<u8>,
    last: LastByte,
}

impl Bounded {
    pub fn new(inner: Box<dyn Transport>) -> Self {
        Self { inner, read: 0, header: Vec::with_capacity(HEADER), last: LastByte::default() }
    }

    /// What tells of the last byte.
    pub fn last(&self) -> LastByte {
        self.last.clone()
    }

    /// # Errors
    /// `FileTooLarge` for an answer that is too large, `InvalidData` for what is not of the protocol.
    fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(last) = bytes.last() else { return Ok(()) };
        self.last.0.store(*last, Ordering::Release);
        if self.header.len() < HEADER {
            self.header.extend(bytes.iter().take(HEADER - self.header.len()));
            let length = self.header[1..].try_into().map_or(HEADER, |length| u32::from_be_bytes(length) as usize);
            if !FIRST.contains(&self.header[0]) || length > MAX_REPLY {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        self.read += bytes.len();
        if self.read > MAX_REPLY { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let checked = self.check(&buf.filled()[before..]);
        if checked.is_err() {
            buf.set_filled(before);
        }
        Poll::Ready(checked)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.read = 0;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        let (inner, mut server) = tokio::io::duplex(MAX_REPLY * 2);
        server.write_all(bytes).await.unwrap();
        drop(server);
        Bounded::new(Box::new(inner)).read_to_end(&mut read).await.map(|_| read)
    }

    #[tokio::test]
    async fn what_does_not_begin_like_a_server_is_not_read() {
        for bytes in [&b"HTTP/1.1 400 Bad Request"[..], b"ERR unknown command", b"\x16\x03\x01", b"R\xff\xff\xff\xff"] {
            assert_eq!(read(bytes).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        assert_eq!(read(b"R\x00\x00\x00\x08\x00\x00\x00\x00").await.unwrap().len(), 9);
    }

    #[tokio::test]
    async fn each_answer_may_have_a_mebibyte() {
        let (inner, mut server) = tokio::io::duplex(MAX_REPLY * 3);
        let mut stream = Bounded::new(Box::new(inner));
        let mut answer = vec![0; MAX_REPLY];
        answer[0] = b'R';
        for _ in 0..2 {
            stream.write_all(b"q").await.unwrap();
            server.write_all(&answer).await.unwrap();
            stream.read_exact(&mut vec![0; MAX_REPLY]).await.unwrap();
        }
        server.write_all(b"Z").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[tokio::test]
    async fn an_open_transaction_shows_in_the_last_byte() {
        let (inner, mut server) = tokio::io::duplex(64);
        let mut stream = Bounded::new(Box::new(inner));
        for (bytes, idle) in [(b"R\0\0\0\x05I", true), (b"Z\0\0\0\x05T", false), (b"Z\0\0\0\x05E", false)] {
            server.write_all(bytes).await.unwrap();
            stream.read_exact(&mut [0; 6]).await.unwrap();
            assert_eq!(stream.last().is_idle(), idle, "{bytes:?}");
        }
    }
}
