//! `tidemark manifests`: that it is what the chart makes of its default values, and that a real API server takes it in the
//! order in which it is printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use clap::Parser;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};
use tidemark_cli::args;
use tidemark_cli::install::manifests::objects;
use tidemark_cli::manifests::{self, Contents};
use tidemark_testkit::{ControlPlane, Options};

use crate::install::helm;

const CHART: &str = "../../charts/tidemark";

/// What the command says to arguments.
fn described(arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let all = ["tidemark", "manifests"].iter().chain(arguments);
    match args::Cli::try_parse_from(all)?.command {
        args::Command::Manifests(args) => objects(&args),
        other => panic!("{other:?}"),
    }
}

/// What is printed, as a user's kubectl reads it.
fn printed(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_tidemark")).arg("manifests").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parsed(&String::from_utf8(output.stdout).unwrap())
}

fn parsed(text: &str) -> Vec<Value> {
    let mut contents = Contents::default();
    manifests::parse(Path::new("installation.yaml"), text, &mut contents);
    assert!(contents.errors.is_empty(), "{:?}", contents.errors);
    contents.manifests.into_iter().map(|manifest| manifest.object).collect()
}

/// What the chart makes of settings.
fn of_chart(helm: &Path, release: &str, settings: &[&str]) -> Vec<Value> {
    let mut command = Command::new(helm);
    // The hooks are what Helm does when it uninstalls.
    command.args(["template", release, CHART, "--no-hooks", "--namespace", release, "--kube-version", "1.36.0"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{settings:?}: {}", String::from_utf8_lossy(&output.stderr));
    parsed(&String::from_utf8(output.stdout).unwrap())
}

/// Objects by kind, namespace and name, without what only Helm needs: its own labels and annotations.
fn without_helm(objects: Vec<Value>) -> BTreeMap<String, Value> {
    let mut by_name = BTreeMap::new();
    for mut object in objects {
        for metadata in ["/metadata", "/spec/template/metadata"] {
            object.pointer_mut(metadata).into_iter().for_each(strip);
        }
        let text = |key: &str| object["metadata"][key].as_str().unwrap_or("-").to_owned();
        let key = format!("{} {} {}", object["kind"].as_str().unwrap(), text("namespace"), text("name"));
        assert!(by_name.insert(key.clone(), object).is_none(), "{key} is there twice");
    }
    by_name
}

fn strip(metadata: &mut Value) {
    for (group, keys) in [
        ("labels", &["helm.sh/chart", "app.kubernetes.io/managed-by"][..]),
        ("annotations", &["helm.sh/resource-policy"]),
    ] {
        let Some(entries) = metadata.get_mut(group).and_then(Value::as_object_mut) else { continue };
        keys.iter().for_each(|key| drop(entries.remove(*key)));
        if entries.is_empty() {
            metadata.as_object_mut().unwrap().remove(group);
        }
    }
}

fn same(manifests: Vec<Value>, chart: Vec<Value>, what: &str) {
    let mut own = without_helm(manifests);
    // With a chart, it is the user who makes the namespace, or Helm.
    own.retain(|key, _| !key.starts_with("Namespace "));
    let chart = without_helm(chart);
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&own), names(&chart), "{what}: other objects than the chart's");
    for (key, object) in own {
        let pretty = |object: &Value| serde_saphyr::to_string(&sorted(object)).unwrap();
        let (own, chart) = (pretty(&object), pretty(&chart[&key]));
        let other: Vec<_> = own.lines().zip(chart.lines()).filter(|(own, chart)| own != chart).take(3).collect();
        assert!(own == chart, "{what}: {key} differs from the chart's, first here (own, chart): {other:#?}");
    }
}

/// The same with all keys in order and whole numbers written as such, for comparing as text.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let ordered: BTreeMap<_, _> = entries.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 => Value::from(whole as i64),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

#[test]
fn the_manifests_are_what_the_chart_makes_of_its_values() {
    let Some(helm) = helm() else { return };
    for (arguments, release, settings) in [
        (&[][..], "tidemark", &[][..]),
        (&["--keda-names"], "keda", &["kedaNames=true"]),
        (&["--no-webhooks"], "tidemark", &["webhooks.enabled=false"]),
        (&["--watch-namespaces=a,b"], "tidemark", &["watchNamespace=a\\,b"]),
        (&["--reasons-port=8443"], "tidemark", &["reasonsApi.operator.enabled=true", "reasonsApi.operator.port=8443"]),
        (
            &["--image=example.com/tools/tidemark:v1", "--replicas=2"],
            "tidemark",
            &[
                "global.image.registry=example.com",
                "image.keda.repository=tools/tidemark",
                "image.keda.tag=v1",
                "image.metricsApiServer.repository=tools/tidemark",
                "image.metricsApiServer.tag=v1",
                "image.webhooks.repository=tools/tidemark",
                "image.webhooks.tag=v1",
                "operator.replicaCount=2",
                "metricsServer.replicaCount=2",
                "webhooks.replicaCount=2",
            ],
        ),
    ] {
        same(described(arguments).unwrap(), of_chart(&helm, release, settings), &format!("{arguments:?}"));
    }
}

#[test]
fn what_is_printed_is_read_back_as_it_was_meant() {
    let arguments = ["--namespace=other", "--watch-namespaces=a"];
    let objects = printed(&arguments);
    assert_eq!(objects, described(&arguments).unwrap());
    assert_eq!(objects[0]["kind"], "Namespace");
    assert_eq!(objects[0]["metadata"]["name"], "other");
    for object in &objects {
        let namespace = &object["metadata"]["namespace"];
        let expected = ["other", "a", "kube-system"].iter().any(|name| namespace == name);
        assert!(namespace.is_null() || expected, "{object}");
    }
}

#[test]
fn what_is_for_deleting_holds_neither_definitions_nor_the_namespace() {
    let objects = described(&["--no-crds", "--no-namespace"]).unwrap();
    let lost = ["CustomResourceDefinition", "Namespace"];
    assert!(objects.iter().all(|object| lost.iter().all(|kind| object["kind"] != *kind)));
    assert!(objects.iter().any(|object| object["kind"] == "Deployment"));
}

#[test]
fn the_processes_take_the_arguments_that_they_are_given() {
    for arguments in [&[][..], &["--keda-names"], &["--no-webhooks"], &["--watch-namespaces=a,b"]] {
        let objects = described(arguments).unwrap();
        let deployments: Vec<_> = objects.iter().filter(|object| object["kind"] == "Deployment").collect();
        assert_eq!(deployments.len(), if arguments == ["--no-webhooks"] { 2 } else { 3 });
        for deployment in deployments {
            let given = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap().clone();
            let given = given.iter().map(|argument| argument.as_str().unwrap());
            let parsed = args::Cli::try_parse_from(std::iter::once("tidemark").chain(given));
            assert!(parsed.is_ok(), "{arguments:?}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn an_image_of_kedas_and_a_name_that_is_none_are_refused() {
    let error = described(&["--image=ghcr.io/kedacore/keda:2.20.2"]).unwrap_err();
    assert!(error.to_string().contains("is KEDA's"), "{error}");
    for name in ["", "Up", "a_b", "-a", "a\nb"] {
        let error = described(&[&format!("--namespace={name}")]).unwrap_err();
        assert!(error.to_string().contains("cannot be the name of a namespace"), "{name:?}: {error}");
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_all_objects_one_after_another_and_again() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let mut params = PatchParams::apply("kubectl");
    params.field_validation = Some(ValidationDirective::Strict);
    let objects = printed(&[]);
    let mut versions = BTreeMap::new();
    for _ in 0..2 {
        for object in &objects {
            let name = object["metadata"]["name"].as_str().unwrap();
            let applied = api(&client, object).patch(name, &params, &Patch::Apply(object)).await;
            let applied = applied.unwrap_or_else(|error| panic!("{} {name}: {error}", object["kind"]));
            // The status of these is written all the time.
            if !matches!(object["kind"].as_str().unwrap(), "Deployment" | "CustomResourceDefinition" | "APIService") {
                let key = format!("{} {name}", object["kind"]);
                let version = applied.metadata.resource_version.clone().unwrap();
                let before = versions.insert(key.clone(), version.clone());
                assert!(before.is_none_or(|before| before == version), "{key}: the second time changes it");
            }
        }
    }
    let pods = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "tidemark"}});
    assert_eq!(api(&client, &pods).list(&ListParams::default()).await.unwrap().items.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pods_keep_to_the_strictest_standard_for_pods() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }});
    let apply = PatchParams::apply("test");
    api(&client, &namespace).patch("strict", &apply, &Patch::Apply(&namespace)).await.unwrap();
    for name in ["tidemark-operator", "tidemark-metrics-server", "tidemark-webhooks"] {
        let metadata = json!({"name": name, "namespace": "strict"});
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        api(&client, &account).patch(name, &apply, &Patch::Apply(&account)).await.unwrap();
    }
    for deployment in described(&[]).unwrap().iter().filter(|object| object["kind"] == "Deployment") {
        let name = deployment["metadata"]["name"].clone();
        let spec = deployment["spec"]["template"]["spec"].clone();
        let metadata = json!({"name": name, "namespace": "strict"});
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        let pods = api(&client, &pod);
        let create = async |pod: &Value| {
            let pod: DynamicObject = serde_json::from_value(pod.clone()).unwrap();
            pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await
        };
        let made = create(&pod).await;
        assert!(made.is_ok(), "{name}: {:?}", made.unwrap_err());
        // The API server does look.
        pod["spec"]["containers"][0]["securityContext"]["capabilities"] = json!({});
        let refused = create(&pod).await.unwrap_err().to_string();
        assert!(refused.contains("violates PodSecurity"), "{refused}");
    }
}

#[test]
fn each_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(env!("CARGO_BIN_EXE_tidemark")).args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        for word in ["manifests", "operator", "leader-election-id"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tidemark")).args(["completions", "tcsh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
