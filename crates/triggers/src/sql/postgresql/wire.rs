//! Messages of PostgreSQL's protocol, version 3.0.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The largest message that is read. One row of one number needs a hundredth of it.
const MAX_MESSAGE: usize = 1 << 20;
/// Version 3.0.
const PROTOCOL: i32 = 196_608;
/// The request for TLS: a message of 8 bytes with a number in place of a version.
pub(super) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// What stands in place of a version in the request to cancel a query.
const CANCEL: i32 = 80_877_102;
/// A polite end.
pub(super) const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

/// One message of the server.
#[derive(Debug)]
pub(super) struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// What an `ErrorResponse` says.
#[derive(Debug)]
pub(super) struct ServerError {
    /// The SQLSTATE: five letters and digits.
    pub code: String,
    pub message: String,
}

/// What was read is not of the protocol.
#[derive(Debug)]
pub(super) struct Garbage;

/// Reads one message, unless it is too large or none at all.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Message, Oversize>> {
    let tag = stream.read_u8().await?;
    let length = stream.read_u32().await? as usize;
    if length < 4 || !tag.is_ascii_alphanumeric() || length > MAX_MESSAGE {
        return Ok(Err(Oversize { plausible: tag == b'D' || tag == b'T' }));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(Ok(Message { tag, body }))
}

/// A message that is not read.
#[derive(Debug)]
pub(super) struct Oversize {
    /// It may well be a row that is too large; otherwise another protocol is spoken.
    pub plausible: bool,
}

/// A message with a tag. Its length is that of the user's own configuration, far below 2 GiB.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(((body.len() + 4) as u32).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The first message of a session.
pub(super) fn startup<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for (name, value) in parameters {
        push_text(&mut body, name);
        push_text(&mut body, value);
    }
    body.push(0);
    let mut bytes = ((body.len() + 4) as u32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// The request to cancel a query, with the key that the server gave for it.
pub(super) fn cancel(key: &[u8]) -> Vec<u8> {
    let mut bytes = ((key.len() + 8) as u32).to_be_bytes().to_vec();
    bytes.extend(CANCEL.to_be_bytes());
    bytes.extend(key);
    bytes
}

/// A password, or a SASL message after the first.
pub(super) fn password(text: &str) -> Vec<u8> {
    message(b'p', &zero_terminated(text))
}

/// The first SASL message.
pub(super) fn sasl_first(mechanism: &str, text: &str) -> Vec<u8> {
    let mut body = zero_terminated(mechanism);
    body.extend((text.len() as u32).to_be_bytes());
    body.extend(text.as_bytes());
    message(b'p', &body)
}

/// A query without parameters, of one statement, of which one row is wanted with its values as text: `Parse`, `Bind`,
/// `Describe`, `Execute` and `Sync` at once. Unnamed all through, so that a pooler in between has nothing to remember.
pub(super) fn query(text: &str) -> Vec<u8> {
    let mut parse = vec![0];
    push_text(&mut parse, text);
    parse.extend([0, 0]);
    let mut bytes = message(b'P', &parse);
    bytes.extend(message(b'B', &[0; 8]));
    bytes.extend(message(b'D', b"P\0"));
    bytes.extend(message(b'E', &[0, 0, 0, 0, 1]));
    bytes.extend(message(b'S', b""));
    bytes
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}

fn zero_terminated(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 1);
    push_text(&mut body, text);
    body
}

/// The values of a `DataRow`; `None` for NULL.
pub(super) fn row(body: &[u8]) -> Result<Vec<Option<String>>, Garbage> {
    let mut rest = body;
    let count = u16::from_be_bytes(take(&mut rest)?);
    let mut values = Vec::new();
    for _ in 0..count {
        let length = i32::from_be_bytes(take(&mut rest)?);
        values.push(match usize::try_from(length) {
            Err(_) => None,
            Ok(length) => {
                let (value, after) = rest.split_at_checked(length).ok_or(Garbage)?;
                rest = after;
                Some(String::from_utf8_lossy(value).into_owned())
            }
        });
    }
    Ok(values)
}

/// The kind of an authentication request, and what comes with it.
pub(super) fn authentication(body: &[u8]) -> Result<(u32, &[u8]), Garbage> {
    let mut rest = body;
    let kind = u32::from_be_bytes(take(&mut rest)?);
    Ok((kind, rest))
}

/// Texts that each end with a zero, up to an empty one.
pub(super) fn texts(body: &[u8]) -> Vec<String> {
    let texts = body.split(|byte| *byte == 0).take_while(|text| !text.is_empty());
    texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// The fields of an `ErrorResponse`.
pub(super) fn server_error(body: &[u8]) -> ServerError {
    let mut error = ServerError { code: String::new(), message: String::new() };
    for text in texts(body) {
        if let Some(code) = text.strip_prefix('C') {
            // Nothing else can stand there that could be shown.
            error.code = code.chars().filter(char::is_ascii_alphanumeric).take(5).collect();
        } else if let Some(message) = text.strip_prefix('M') {
            error.message = message.to_owned();
        }
    }
    error
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Garbage> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(Garbage)?;
    *rest = after;
    Ok(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_texts_and_nulls() {
        let body = [&[0, 2, 0, 0, 0, 1][..], b"7", &[0xff; 4]].concat();
        assert_eq!(row(&body).unwrap(), [Some("7".to_owned()), None]);
        assert!(row(&body[..8]).is_err());
        assert!(row(&[0, 1, 0, 0, 0, 9, 1]).is_err());
        assert!(row(&[]).is_err());
    }

    #[test]
    fn an_error_has_a_code_and_a_message() {
        let error = server_error(b"SFATAL\0C28P01\0Mno\0\0");
        assert_eq!((&*error.code, &*error.message), ("28P01", "no"));
        assert_eq!(server_error(b"").code, "");
    }

    #[tokio::test]
    async fn a_message_larger_than_a_mebibyte_is_not_read() {
        let mut bytes: &[u8] = b"D\x00\x10\x00\x01";
        assert!(read(&mut bytes).await.unwrap().is_err_and(|oversize| oversize.plausible));
        let mut bytes: &[u8] = b"HTTP/1.1 400 Bad Request";
        assert!(read(&mut bytes).await.unwrap().is_err_and(|oversize| !oversize.plausible));
        let mut bytes: &[u8] = b"Z\x00\x00\x00\x05I";
        let message = read(&mut bytes).await.unwrap().ok().unwrap();
        assert_eq!((message.tag, &*message.body), (b'Z', &b"I"[..]));
    }
}
