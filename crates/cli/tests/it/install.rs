//! The chart: what helm makes of it, whether a real API server takes that, and whether the rights in it are the list's,
//! enough, and no more than enough.

mod applied;
mod definitions;
mod rights;
mod schema;
mod shapes;
mod uninstall;
mod values;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tidemark_cli::manifests::{self, Contents};

use crate::desk::skip;

const CHART: &str = "../../charts/tidemark";
const PATIENCE: Duration = Duration::from_secs(60);
/// The oldest and the newest Kubernetes that the chart is for.
const KUBERNETES: [&str; 2] = ["1.30.0", "1.37.0"];
/// Every key of KEDA's chart, away from its default.
const KEDA_VALUES: &str = include_str!("install/keda-values.yaml");

/// Helm; none where the machine has none, which is said.
pub fn helm() -> Option<PathBuf> {
    let found = xtask::helm::find().unwrap();
    if found.is_none() {
        skip("TIDEMARK_REQUIRE_HELM", "there is no helm; `cargo xtask test` provides it");
    }
    found
}

fn run(helm: &Path, arguments: &[&str]) -> Result<String, String> {
    run_with(helm, arguments, "")
}

/// Runs helm with a text on its standard input.
fn run_with(helm: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(helm);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A helm that has refused its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// What helm makes of values, in the namespace `tidemark`; the release has the same name.
fn template(helm: &Path, kubernetes: &str, values: &Value) -> Result<String, String> {
    let arguments =
        ["template", "tidemark", CHART, "--namespace=tidemark", "--kube-version", kubernetes, "--values", "-"];
    run_with(helm, &arguments, &values.to_string())
}

/// The objects of a release with some settings, `key=value`.
fn rendered(helm: &Path, kubernetes: &str, settings: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["template", "tidemark", CHART, "--namespace=tidemark", "--kube-version", kubernetes];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    objects(&run(helm, &arguments).unwrap_or_else(|error| panic!("{settings:?}: {error}")))
}

/// The objects of a release with values.
fn rendered_with(helm: &Path, values: &Value) -> Vec<Value> {
    objects(&template(helm, "1.36.0", values).unwrap_or_else(|error| panic!("{values}: {error}")))
}

fn objects(text: &str) -> Vec<Value> {
    let mut contents = Contents::default();
    manifests::parse(Path::new("chart.yaml"), text, &mut contents);
    assert!(contents.errors.is_empty(), "{:?}", contents.errors);
    contents.manifests.into_iter().map(|manifest| manifest.object).collect()
}

fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Whether an object is one that helm makes at an uninstall only.
fn is_hook(object: &Value) -> bool {
    !object["metadata"]["annotations"]["helm.sh/hook"].is_null()
}

/// Compares a file of the chart with what it must hold; with `TIDEMARK_UPDATE=1` it is written.
fn check(file: &str, expected: &str) {
    let path = Path::new(CHART).join("files").join(file);
    if std::env::var("TIDEMARK_UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == expected, "{} is not current: run this test with TIDEMARK_UPDATE=1", path.display());
}

fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |key: &str| object[key].as_str().unwrap();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn create_namespace(client: &Client, name: &str) {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

/// Applies objects on the server's side, which refuses fields that it does not know.
async fn apply(client: &Client, objects: &[Value]) {
    let mut params = PatchParams::apply("helm").force();
    params.field_validation = Some(kube::api::ValidationDirective::Strict);
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap();
        let applied = api(client, object).patch(name, &params, &Patch::Apply(object)).await;
        assert!(applied.is_ok(), "{} {name}: {:?}", object["kind"], applied.unwrap_err());
    }
}

/// Installs objects into the namespace `tidemark`, which is made.
async fn install(client: &Client, objects: &[Value]) {
    create_namespace(client, "tidemark").await;
    apply(client, objects).await;
}

/// Brings the operator's own arguments from the chart to this machine's ports and files.
fn operator(objects: &[Value], kubeconfig: &Path, log: &Path) -> std::process::Child {
    let container = &named(objects, "Deployment", "tidemark-operator")["spec"]["template"]["spec"]["containers"][0];
    let given = container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
    let given = given.filter(|argument| !argument.starts_with("--cert-dir"));
    let own =
        ["--health-probe-bind-address=0", "--metrics-bind-address=0", "--metrics-service-bind-address=127.0.0.1:0"];
    let log = std::fs::File::create(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(given).args(own).arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.env("POD_NAMESPACE", "tidemark").env("WATCH_NAMESPACE", "").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}
