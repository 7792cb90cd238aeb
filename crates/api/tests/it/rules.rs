//! What the definitions accept and refuse, as a table that any API server can be asked.

use http::Request;
use kube::Client;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One base object, and what becomes of changes to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    kinds: Vec<String>,
    spec: Value,
    cases: Vec<Case>,
}

/// A change, and either the field that is refused or what is stored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// Values by place, such as `spec.triggers[0].type`. What is not there on the way is made.
    #[serde(default)]
    set: Map<String, Value>,
    /// Places that are taken away.
    #[serde(default)]
    unset: Vec<String>,
    /// The field in the answer's first cause.
    refused: Option<String>,
    /// Values of the stored object by place; null is an absent field. Empty: it is only accepted.
    accepted: Option<Map<String, Value>>,
}

/// An answer that the table does not expect.
#[derive(Debug, PartialEq)]
pub struct Deviation {
    /// Kind and change.
    pub case: String,
    pub what: String,
}

/// The committed table.
pub fn tables() -> Vec<Table> {
    serde_saphyr::from_str(include_str!("rules.yaml")).unwrap()
}

/// Sends every case of the table as a rehearsed creation; what is answered otherwise comes back, and the number of cases.
pub async fn ask(client: &Client) -> (Vec<Deviation>, usize) {
    let (mut deviations, mut count) = (Vec::new(), 0);
    for table in tables() {
        for kind in &table.kinds {
            let path = path(kind, client.default_namespace());
            let base = base(kind, &table.spec);
            assert_eq!(send(client, "POST", &format!("{path}?dryRun=All"), &base).await.err(), None, "{kind}");
            for case in &table.cases {
                count += 1;
                let answer = send(client, "POST", &format!("{path}?dryRun=All"), &case.applied(&base)).await;
                if let Err(what) = case.judge(answer) {
                    deviations.push(Deviation { case: format!("{kind} {}", case.title()), what });
                }
            }
        }
    }
    (deviations, count)
}

fn base(kind: &str, spec: &Value) -> Value {
    let crd = crd(kind);
    let version = format!("{}/{}", crd.spec.group, crd.spec.versions[0].name);
    serde_json::json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec})
}

fn crd(kind: &str) -> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
    tidemark_api::crds().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap()
}

/// Where objects of a kind are created.
pub fn path(kind: &str, namespace: &str) -> String {
    let spec = crd(kind).spec;
    let scope = if spec.scope == "Namespaced" { format!("namespaces/{namespace}/") } else { String::new() };
    format!("/apis/{}/{}/{scope}{}", spec.group, spec.versions[0].name, spec.names.plural)
}

/// The answer to a request with a JSON body. A refusal comes back as its Status.
pub async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
    let request = Request::builder().method(method).uri(path);
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = request.header("Content-Type", kind).body(body.to_string().into_bytes()).unwrap();
    match client.request::<Value>(request).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err(serde_json::to_value(*status).unwrap()),
        Err(error) => panic!("{method} {path}: {error}"),
    }
}

impl Case {
    fn title(&self) -> String {
        let set = self.set.iter().map(|(place, value)| format!("{place}: {value}"));
        set.chain(self.unset.iter().map(|place| format!("no {place}"))).collect::<Vec<_>>().join(", ")
    }

    fn applied(&self, base: &Value) -> Value {
        let mut object = base.clone();
        for place in &self.unset {
            let pointer = pointer(place);
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap().as_object_mut().unwrap().shift_remove(name).unwrap();
        }
        for (place, value) in &self.set {
            let steps = pointer(place);
            let slot = steps.split('/').skip(1).fold(&mut object, |at, step| match step.parse::<usize>() {
                Ok(index) => {
                    if at.is_null() {
                        *at = Value::Array(Vec::new());
                    }
                    let items = at.as_array_mut().unwrap();
                    if items.len() == index {
                        items.push(Value::Null);
                    }
                    &mut items[index]
                }
                Err(_) => &mut at[step],
            });
            *slot = value.clone();
        }
        object
    }

    fn judge(&self, answer: Result<Value, Value>) -> Result<(), String> {
        match (answer, &self.refused, &self.accepted) {
            (Err(status), Some(field), None) => {
                let cause = &status["details"]["causes"][0]["field"];
                let told = status["code"] == 422 && (cause == field);
                told.then_some(()).ok_or_else(|| format!("refused otherwise: {status}"))
            }
            (Ok(stored), None, Some(values)) => {
                let differs = values
                    .iter()
                    .find(|(place, value)| stored.pointer(&pointer(place)).unwrap_or(&Value::Null) != *value);
                differs.map_or(Ok(()), |(place, _)| Err(format!("{place} is otherwise: {stored}")))
            }
            (Err(status), None, Some(_)) => Err(format!("refused: {}", status["message"])),
            (Ok(_), Some(field), None) => Err(format!("accepted, in spite of {field}")),
            (_, _, _) => panic!("{}: either refused or accepted", self.title()),
        }
    }
}

/// `a.b[0].c` as `/a/b/0/c`.
fn pointer(place: &str) -> String {
    format!("/{}", place.replace('[', ".").replace(']', "").replace('.', "/"))
}
