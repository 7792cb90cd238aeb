//! Answers in the shapes of the Kubernetes API.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Yaml,
}

impl Form {
    /// The first of the forms that a client names; JSON where it names none, which every client of Kubernetes takes.
    pub(crate) fn asked(headers: &HeaderMap) -> Self {
        let plain = |media_type: &str| media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let form = |media_type: &str| match plain(media_type).as_str() {
            "application/yaml" => Some(Self::Yaml),
            "application/json" | "application/*" | "*/*" => Some(Self::Json),
            _ => None,
        };
        media_types(headers).find_map(form).unwrap_or(Self::Json)
    }
}

/// Whether a client names a media type of which `which` is true.
pub(crate) fn accepts(headers: &HeaderMap, which: impl Fn(&str) -> bool) -> bool {
    media_types(headers).any(which)
}

fn media_types(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// An answer with a JSON body.
pub(crate) fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with a JSON body in another form. What cannot be put into it stays as it is.
pub(crate) fn in_form(response: Response<Bytes>, form: Form) -> Response<Bytes> {
    if form == Form::Json {
        return response;
    }
    let value = serde_json::from_slice::<Value>(response.body()).ok();
    let Some(text) = value.and_then(|value| serde_saphyr::to_string(&value).ok()) else { return response };
    let mut response = response.map(|_| Bytes::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    response
}

/// A `Status` of failure, as the API server writes it.
pub(crate) fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Bytes> {
    failure_with(status, reason, message, Value::Null)
}

/// The same with details of what was asked for, which the API server gives with some reasons, be they empty.
pub(crate) fn failure_with(status: StatusCode, reason: &str, message: &str, details: Value) -> Response<Bytes> {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "code": status.as_u16(),
    });
    if !reason.is_empty() {
        body["reason"] = reason.into();
    }
    if !details.is_null() {
        body["details"] = details;
    }
    json(status, &body)
}
