//! Paths in, JSON out.

use std::fmt::Write;
use std::sync::Arc;

use futures::future::BoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_operator::{Handle, ObjectKey, Snapshot};

use crate::explain::{self, Workload};
use crate::gather;
use crate::report::{GROUP, LIST_KIND, PLURAL, Page, PageMetadata, VERSION};
use crate::ring::Ring;

/// Objects of a page, where no fewer are asked for.
const PAGE: usize = 500;

/// An answer as HTTP has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status of HTTP.
    pub status: u16,
    /// A [`Report`](crate::Report), a [`Page`], or a `Status` of failure as the Kubernetes API has it.
    pub json: String,
}

/// Answers for an operator of the same process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reasons {
    handle: Handle,
    ring: Ring,
    clock: Clock,
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    List { namespace: Option<String> },
    One(ObjectKey),
}

impl Reasons {
    /// Answers from an operator and the ring that it feeds.
    pub fn new(handle: Handle, ring: Ring, clock: Clock) -> Self {
        Self { handle, ring, clock }
    }

    /// Answers a GET of `path` with that query: `/apis/reasons.tidemark.dev/v1alpha1/scaledobjects`,
    /// `.../namespaces/NAMESPACE/scaledobjects` and `.../namespaces/NAMESPACE/scaledobjects/NAME`. Lists take `limit` and
    /// `continue`. It takes as long as the object's own task, a few seconds at the most.
    pub fn answer<'a>(&'a self, path: &'a str, query: &'a str) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match asked(path) {
                Some(Asked::One(key)) => self.one(&key).await,
                Some(Asked::List { namespace }) => self.list(namespace.as_deref(), query),
                None => failure(404, "NotFound", "the server could not find the requested resource", None),
            }
        })
    }

    async fn one(&self, key: &ObjectKey) -> Answer {
        let Some(known) = self.handle.detail(key).await else {
            let message = format!("{PLURAL}.{GROUP} \"{}\" not found", key.name);
            return failure(404, "NotFound", &message, Some(&key.name));
        };
        let past = self.ring.past(key).filter(|past| *past.uid == *known.snapshot.uid);
        let trace = |uid: &str, evaluation| self.ring.trace(uid, evaluation);
        let mut report = gather::report(&known, past.as_ref(), self.clock.now(), &trace);
        report.explanation = Some(explain::explain(&report, &Workload::default()));
        success(serde_json::to_string(&report))
    }

    fn list(&self, namespace: Option<&str>, query: &str) -> Answer {
        let limit = parameter(query, "limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        let after = parameter(query, "continue").filter(|after| !after.is_empty());
        let after = after.as_deref().and_then(|after| after.split_once('/')).map(|(n, name)| ObjectKey::new(n, name));
        let limit = limit.unwrap_or(PAGE).min(PAGE);
        // One more than is shown tells whether there are more.
        let mut objects = self.handle.page(namespace, after.as_ref(), limit + 1);
        let more = objects.len() > limit;
        objects.truncate(limit);
        let now = self.clock.now();
        let report = |snapshot: &Arc<Snapshot>| {
            let past = self.ring.past(&snapshot.key).filter(|past| *past.uid == *snapshot.uid);
            gather::summary(snapshot, past.as_ref(), now)
        };
        let items: Vec<_> = objects.iter().map(report).collect();
        let next =
            items.last().filter(|_| more).map(|last| format!("{}/{}", last.metadata.namespace, last.metadata.name));
        let page = Page {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: LIST_KIND.to_owned(),
            metadata: PageMetadata { next: next.unwrap_or_default() },
            items,
        };
        success(serde_json::to_string(&page))
    }
}

/// The path of an object's report.
pub fn object_path(namespace: &str, name: &str) -> String {
    format!("{}/{}", path_of_list(Some(namespace)), encoded(name))
}

/// The path of the reports of a namespace, or of all.
pub fn path_of_list(namespace: Option<&str>) -> String {
    let mut path = format!("/apis/{GROUP}/{VERSION}/");
    if let Some(namespace) = namespace {
        let _ = write!(path, "namespaces/{}/", encoded(namespace));
    }
    path + PLURAL
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

fn asked(path: &str) -> Option<Asked> {
    let rest = path.trim_end_matches('/').strip_prefix("/apis/")?.strip_prefix(GROUP)?.strip_prefix('/')?;
    let rest = rest.strip_prefix(VERSION)?.strip_prefix('/')?;
    let pieces = rest.split('/').map(decoded).collect::<Option<Vec<_>>>()?;
    match &*pieces.iter().map(String::as_str).collect::<Vec<_>>() {
        [PLURAL] => Some(Asked::List { namespace: None }),
        ["namespaces", namespace, PLURAL] => Some(Asked::List { namespace: Some((*namespace).to_owned()) }),
        ["namespaces", namespace, PLURAL, name] => Some(Asked::One(ObjectKey::new(*namespace, *name))),
        _ => None,
    }
}

/// A piece of a path without its escapes; none where it would be several, or none.
fn decoded(piece: &str) -> Option<String> {
    let piece = percent_decode_str(piece).decode_utf8().ok()?;
    (!piece.is_empty() && !piece.contains('/')).then(|| piece.into_owned())
}

/// A parameter of a query.
fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    Some(percent_decode_str(&value.replace('+', " ")).decode_utf8().ok()?.into_owned())
}

fn success(json: serde_json::Result<String>) -> Answer {
    match json {
        Ok(json) => Answer { status: 200, json },
        Err(error) => failure(500, "InternalError", &format!("the report cannot be written: {error}"), None),
    }
}

fn failure(status: u16, reason: &str, message: &str, name: Option<&str>) -> Answer {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": message, "code": status,
    });
    // By its details an object that is not there differs from an API that is not there.
    body["details"] = name.map_or(Value::Null, |name| json!({"group": GROUP, "kind": PLURAL, "name": name}));
    Answer { status, json: body.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_one_object_those_of_a_namespace_or_all() {
        let one = |namespace: &str, name: &str| Some(Asked::One(ObjectKey::new(namespace, name)));
        assert_eq!(asked(&object_path("shop", "a.b")), one("shop", "a.b"));
        assert_eq!(asked(&(path_of_list(Some("shop")) + "/")), Some(Asked::List { namespace: Some("shop".into()) }));
        assert_eq!(asked(&path_of_list(None)), Some(Asked::List { namespace: None }));
        for path in ["", "/", "/pods", "/namespaces//scaledobjects", "/namespaces/a/scaledobjects/b/c"] {
            assert_eq!(asked(&format!("/apis/{GROUP}/{VERSION}{path}")), None, "{path}");
        }
        assert_eq!(asked(&format!("/apis/{GROUP}/{VERSION}/namespaces/a%2Fb/scaledobjects")), None);
        assert_eq!(asked("/apis/reasons.tidemark.dev/v2/scaledobjects"), None);
    }

    #[test]
    fn parameters_of_queries_are_read_with_their_escapes() {
        assert_eq!(parameter("limit=5&continue=a%2Fb", "continue").as_deref(), Some("a/b"));
        assert_eq!(parameter("limit=5", "continue"), None);
    }
}
