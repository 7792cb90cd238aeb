//! What was asked of the API server, by whom, and with what success.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;
use serde::Deserialize;

use crate::{ControlPlane, Error};

const LOG: &str = "audit.jsonl";

/// Everything but the control plane's own reading.
const POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived", "ResponseStarted"],
  "rules": [
    {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager"], "verbs": ["get", "list", "watch"]},
    {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/openapi*"]},
    {"level": "Metadata"}
  ]
}
"#;

/// A request that the API server has answered. Watches are here once they have ended.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Who asked, or as whom; a ServiceAccount is `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, as roles name them.
    pub verb: String,
    /// Group of the resource; empty for the core group and for what is no resource.
    pub group: String,
    /// Plural; empty for what is no resource.
    pub resource: String,
    /// Such as `scale`, or empty.
    pub subresource: String,
    /// Empty for what is in none.
    pub namespace: String,
    /// Empty for lists, and where the server makes the name.
    pub name: String,
    /// Path and query.
    pub uri: String,
    /// The program that asked, as it says.
    pub agent: String,
    /// HTTP status of the answer; 0 when there was none.
    pub status: u16,
    /// When the request came.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
}

impl Audited {
    /// Whether this is a change that was made.
    pub fn is_write(&self) -> bool {
        let reads = matches!(self.verb.as_str(), "get" | "list" | "watch");
        !reads && !self.resource.is_empty() && (200..300).contains(&self.status)
    }

    /// Whether the user lacks a right.
    pub fn is_forbidden(&self) -> bool {
        self.status == 403
    }
}

/// A record that is read on from where the last look ended.
#[derive(Debug)]
pub struct AuditTail {
    path: PathBuf,
    /// Bytes that have been read.
    read: u64,
}

impl AuditTail {
    /// The requests that have been answered since the last look; at first all.
    ///
    /// # Errors
    /// When no record is kept, or it cannot be read.
    pub fn news(&mut self) -> Result<Vec<Audited>, Error> {
        let mut file = fs::File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // What follows the last line break is still being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        self.read += whole.len() as u64;
        whole.lines().map(|line| Ok(entry(line).map_err(io::Error::other)?)).collect()
    }
}

impl ControlPlane {
    /// The record from its beginning, to be read again and again. Needs `Options::audit`.
    pub fn follow_audit(&self) -> AuditTail {
        AuditTail { path: self.directory().join(LOG), read: 0 }
    }

    /// All requests so far, in the order of their answers, but for the reading of the control plane itself. Needs
    /// `Options::audit`.
    ///
    /// # Errors
    /// When no record is kept, or it cannot be read.
    pub fn audit(&self) -> Result<Vec<Audited>, Error> {
        self.follow_audit().news()
    }
}

/// Arguments of an API server that keeps a record in the folder.
pub(crate) fn arguments(folder: &Path) -> io::Result<[String; 2]> {
    let policy = folder.join("audit-policy.json");
    fs::write(&policy, POLICY)?;
    Ok([
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", folder.join(LOG).display()),
    ])
}

fn entry(line: &str) -> Result<Audited, serde_json::Error> {
    let event: Event = serde_json::from_str(line)?;
    let object = event.object_ref.unwrap_or_default();
    let user = event.impersonated_user.unwrap_or(event.user);
    Ok(Audited {
        user: user.username,
        verb: event.verb,
        group: object.api_group,
        resource: object.resource,
        subresource: object.subresource,
        namespace: object.namespace,
        name: object.name,
        uri: event.request_uri,
        agent: event.user_agent,
        status: event.response_status.unwrap_or_default().code,
        received: event.request_received_timestamp,
        answered: event.stage_timestamp,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<Object>,
    response_status: Option<Answer>,
    #[serde(rename = "requestURI")]
    request_uri: String,
    #[serde(default)]
    user_agent: String,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    code: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impersonated_request_is_the_impersonated_users() {
        let line = r#"{"kind":"Event","level":"Metadata","stage":"ResponseComplete","verb":"update",
            "requestURI":"/apis/apps/v1/namespaces/a/deployments/web/scale","user":{"username":"admin"},
            "impersonatedUser":{"username":"system:serviceaccount:keda:keda-operator"},
            "objectRef":{"resource":"deployments","namespace":"a","name":"web","apiGroup":"apps","subresource":"scale"},
            "responseStatus":{"metadata":{},"code":403},"requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z",
            "stageTimestamp":"2026-01-01T00:00:00.000002Z"}"#;
        let entry = entry(line).unwrap();
        assert_eq!(entry.user, "system:serviceaccount:keda:keda-operator");
        assert_eq!((&*entry.group, &*entry.resource, &*entry.subresource), ("apps", "deployments", "scale"));
        assert!(entry.is_forbidden() && !entry.is_write());
    }
}
