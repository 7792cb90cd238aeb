//! Requests to an external metrics API, and how two answers differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::Value;
use tidemark_engine::quantity;
use tokio::time::timeout;

pub const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";
const ANSWER_WITHIN: Duration = Duration::from_secs(70);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// May do anything.
    Reader,
    /// May do what all do who have an account.
    Stranger,
    /// Shows a token that is nobody's.
    Liar,
    Nobody,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: &'static str,
    /// With its query.
    pub path: String,
    pub accept: &'static str,
    pub who: Who,
}

impl Asked {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), accept: "", who: Who::Reader }
    }

    pub fn by(self, who: Who) -> Self {
        Self { who, ..self }
    }

    pub fn with(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    /// What it is called in lists: short, and one of its kind.
    pub fn name(&self) -> String {
        let path = self.path.replace(BASE, "BASE").replace("scaledobject.keda.sh%2Fname", "NAME");
        let mut name = format!("{} {path}", self.method);
        if !self.accept.is_empty() {
            name += &format!(" as {}", self.accept);
        }
        if self.who != Who::Reader {
            name += &format!(" by {:?}", self.who);
        }
        name
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub kind: String,
    /// As JSON, where it is; times and the ways to write a quantity aside.
    pub body: Value,
}

impl Answer {
    /// In what this differs from another one.
    pub fn differences(&self, other: &Self) -> BTreeSet<&'static str> {
        let mut differences = BTreeSet::new();
        let mut note = |differs: bool, what: &'static str| {
            if differs {
                differences.insert(what);
            }
        };
        if self.status != other.status {
            return BTreeSet::from(["status"]);
        }
        note(self.kind != other.kind, "type");
        let failures = [self, other].iter().all(|answer| answer.body["kind"] == "Status");
        if failures {
            note(self.body["message"] != other.body["message"], "message");
            let rest = |answer: &Self| {
                let mut body = answer.body.clone();
                body["message"].take();
                body
            };
            note(rest(self) != rest(other), "body");
        } else {
            note(self.body != other.body, "body");
        }
        differences
    }
}

/// The ways to a server, by who asks.
pub struct Server {
    pub name: &'static str,
    clients: BTreeMap<Who, Client>,
}

impl Server {
    /// A server at an address, which shows a certificate for `host` of the CA. Accounts are by their kubeconfigs.
    pub fn at(name: &'static str, address: SocketAddr, host: &str, ca: &Path, accounts: [(Who, &Path); 2]) -> Self {
        let client = |token: Option<String>| {
            let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
            config.root_cert_file = Some(ca.to_owned());
            config.tls_server_name = Some(host.to_owned());
            config.auth_info.token = token.map(Into::into);
            Client::try_from(config).unwrap()
        };
        let mut clients =
            BTreeMap::from([(Who::Nobody, client(None)), (Who::Liar, client(Some("nonsense".to_owned())))]);
        clients.extend(accounts.map(|(who, kubeconfig)| (who, client(Some(token(kubeconfig))))));
        Self { name, clients }
    }

    /// The API server, which asks whoever is registered.
    pub fn behind(name: &'static str, client: Client) -> Self {
        Self { name, clients: BTreeMap::from([(Who::Reader, client)]) }
    }

    pub async fn ask(&self, asked: &Asked) -> Answer {
        let mut request = Request::builder().method(asked.method).uri(&asked.path);
        if !asked.accept.is_empty() {
            request = request.header(ACCEPT, asked.accept);
        }
        let request = request.body(kube::client::Body::empty()).unwrap();
        let answer = timeout(ANSWER_WITHIN, async {
            let response = self.clients[&asked.who].send(request).await.unwrap();
            let (head, body) = response.into_parts();
            (head, body.collect().await.unwrap().to_bytes())
        });
        let (head, body) = answer.await.unwrap_or_else(|_| panic!("{} does not answer {}", self.name, asked.name()));
        let kind = head.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
        plain(&mut body);
        Answer { status: head.status.as_u16(), kind, body }
    }
}

fn token(kubeconfig: &Path) -> String {
    let config: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
    config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

/// Makes times and quantities comparable.
fn plain(body: &mut Value) {
    for item in body.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(time) = item["timestamp"].as_str() {
            assert!(time.len() == 20 && time.ends_with('Z'), "{time} is not in whole seconds of UTC");
            item["timestamp"] = "now".into();
        }
        if let Some(value) = item["value"].as_str() {
            let milli = quantity::parse_milli(value).unwrap_or_else(|| panic!("{value:?} is no quantity"));
            item["value"] = quantity::format_milli(milli).into();
        }
    }
}

/// A difference that is meant: which requests, in what they differ, why. A request begins with `*` where all that end so
/// are meant, but for those that are listed before.
pub type Known = (&'static str, &'static [&'static str], &'static str);

/// What is wrong with answers, given what is known to differ: each difference that is not listed, and each listed one
/// that is none any more.
pub fn judge<'a>(
    what: &str,
    pairs: impl Iterator<Item = (&'a str, &'a Answer, &'a Answer)>,
    known: &[Known],
) -> Vec<String> {
    let (mut wrong, mut met) = (Vec::new(), BTreeSet::new());
    for (name, first, second) in pairs {
        let found = first.differences(second);
        let listed = known.iter().find(|(pattern, ..)| match pattern.strip_prefix('*') {
            Some(end) => name.ends_with(end),
            None => name == *pattern,
        });
        let wanted = listed.map(|(_, parts, _)| parts.iter().copied().collect()).unwrap_or_default();
        if found == wanted {
            met.extend(listed.map(|(pattern, ..)| *pattern));
        } else {
            let shown = |answer: &Answer| format!("{answer:?}").chars().take(400).collect::<String>();
            let (first, second) = (shown(first), shown(second));
            wrong.push(format!("{what}: {name}\n  differ in {found:?}, known {wanted:?}\n  {first}\n  {second}"));
        }
    }
    let gone = known.iter().filter(|(pattern, ..)| !met.contains(pattern));
    wrong.extend(gone.map(|known| format!("{what}: this no longer differs: {known:?}")));
    wrong
}
