//! `tidemark lint`: files in, findings out. `TIDEMARK_UPDATE=1` writes what is found beside the files.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tidemark_cli::lint::{Input, Linter, Report, Rules};

use crate::desk::Desk;

const FOLDER: &str = "tests/it/lint";
const SEPARATOR: &str = "\n---\n";
const CONFORMANCE: &str = "../../../shared/conformance/triggers";

fn rules() -> Rules {
    Rules { strict: false, cluster_object_namespace: "keda".to_owned() }
}

async fn lint(texts: &[(&str, &str)], rules: &Rules) -> Report {
    lint_by(&Linter::new().unwrap(), texts, rules).await
}

async fn lint_by(linter: &Linter, texts: &[(&str, &str)], rules: &Rules) -> Report {
    let mut input = Input::default();
    for (file, text) in texts {
        input.text(file, text);
    }
    assert_eq!(input.unreadable, []);
    linter.check(&input, rules).await
}

fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted =
        |file: &PathBuf| extensions.iter().any(|wanted| file.extension().is_some_and(|found| found == *wanted));
    let mut files: Vec<_> = files.filter(wanted).collect();
    files.sort();
    files
}

/// Compares with what is written beside the files, or writes it.
fn expect(file: &Path, found: &str) -> Option<String> {
    if std::env::var("TIDEMARK_UPDATE").as_deref() == Ok("1") {
        fs::write(file, found).unwrap();
        return None;
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    (found != expected).then(|| format!("{}:\n{found}\ninstead of\n{expected}", file.display()))
}

#[tokio::test]
async fn what_is_found_is_what_is_written_beside_the_files() {
    let mut different = Vec::new();
    for file in files(Path::new(FOLDER), &["yaml", "json"]) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".out.json") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let report = lint(&[(name, &text)], &rules()).await;
        let json = report.json().unwrap();
        assert!(!(report.text() + &json).contains("hunter2"), "{name} tells a secret");
        different.extend(expect(&file.with_extension("txt"), &report.text()));
        different.extend(expect(&file.with_extension("out.json"), &json));
    }
    assert!(different.is_empty(), "TIDEMARK_UPDATE=1 accepts this:\n{}", different.join("\n"));
}

#[tokio::test]
async fn the_json_has_the_members_of_its_contract() {
    let text = fs::read_to_string(format!("{FOLDER}/unresolved.yaml")).unwrap();
    let report = lint(&[("unresolved.yaml", &text)], &rules()).await;
    let json: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&json), ["documents"]);
    let document = &json["documents"][0];
    assert_eq!(
        members(document),
        ["kind", "namespace", "name", "valid", "errors", "warnings", "unresolved", "triggers"]
    );
    assert_eq!(members(&document["unresolved"][0]), ["path", "reference"]);
    let triggers = &document["triggers"];
    assert_eq!(members(&triggers[0]), ["index", "type", "valid", "errors", "warnings", "metrics"]);
    assert_eq!(members(&triggers[1]["errors"][0]), ["path", "message", "line", "column"]);
    assert_eq!(triggers[3]["metrics"], json!([{"name": "cpu", "target": "60", "metricType": "Utilization"}]));
}

#[tokio::test]
async fn strictness_makes_unresolved_references_invalid() {
    let text = "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec:\n  scaleTargetRef: {name: a}\n  \
                triggers: [{type: cron, metadata: {timezone: UTC, start: 0 8 * * *, end: 0 9 * * *, desiredReplicas: '1'}}]\n";
    let lax = lint(&[("a", text)], &rules()).await;
    let strict = lint(&[("a", text)], &Rules { strict: true, ..rules() }).await;
    assert!(lax.valid() && !strict.valid());
    assert_eq!(strict.documents[0].unresolved[0].reference, "Deployment default/a");
    assert!(strict.text().contains("a:5:3: error: spec.scaleTargetRef: Deployment default/a is not among the files"));
}

#[tokio::test]
async fn the_examples_are_sound() {
    let root = PathBuf::from("../../examples");
    for example in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let files = files(&example, &["yaml"]);
        let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        let named: Vec<_> =
            files.iter().map(|file| file.to_str().unwrap()).zip(texts.iter().map(String::as_str)).collect();
        let text = lint(&named, &rules()).await.text();
        assert!(text.ends_with("checked: all valid\n"), "{text}");
    }
}

/// A case of the conformance data as manifests: the authentication in a Secret, the environment in a Deployment.
fn wrapped(trigger_type: &str, case: &Value) -> [String; 4] {
    let texts = |field: &str| case[field].as_object().cloned().unwrap_or_default();
    let (auth, env) = (texts("auth"), texts("env"));
    let mut trigger = json!({"type": trigger_type, "metadata": case["metadata"]});
    if let Some(metric_type) = case["metricType"].as_str().filter(|text| !text.is_empty()) {
        trigger["metricType"] = metric_type.into();
    }
    let identity = case["podIdentity"].as_str().filter(|identity| !identity.is_empty());
    if !auth.is_empty() || identity.is_some() {
        trigger["authenticationRef"] = json!({"name": "auth"});
    }
    let references: Vec<_> = auth
        .keys()
        .enumerate()
        .map(|(key, parameter)| {
            json!({
                "parameter": parameter, "name": "auth", "key": format!("k{key}"),
            })
        })
        .collect();
    let data: serde_json::Map<_, _> =
        auth.values().enumerate().map(|(key, value)| (format!("k{key}"), value.clone())).collect();
    // `$(NAME)` is expanded by Kubernetes, so that `$` itself is written twice.
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value.as_str().unwrap().replace('$', "$$")}))
        .collect();
    let mut spec = json!({"secretTargetRef": references});
    if let Some(identity) = identity {
        spec["podIdentity"] = json!({"provider": identity});
    }
    // Scaling to zero and requests are the webhook's concern, not the parser's.
    let pod = json!({"containers": [{
        "name": "main", "image": "x", "env": env, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    }]});
    let mut scaled = json!({"scaleTargetRef": {"name": "web"}, "minReplicaCount": 1, "triggers": [trigger]});
    if case["asMetricSource"] == true {
        scaled["triggers"][0]["name"] = "source".into();
        scaled["advanced"] = json!({"scalingModifiers": {"formula": "source", "target": "1"}});
    }
    let object = |version: &str, kind: &str, name: &str, field: &str, value: Value| {
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, field: value}).to_string()
    };
    [
        object("v1", "Secret", "auth", "stringData", Value::Object(data)),
        object("keda.sh/v1alpha1", "TriggerAuthentication", "auth", "spec", spec),
        object("apps/v1", "Deployment", "web", "spec", json!({"template": {"spec": pod}})),
        object("keda.sh/v1alpha1", "ScaledObject", "so", "spec", scaled),
    ]
}

/// All cases, with the trigger type of each. An authentication with what no TriggerAuthentication can give, or a request
/// while parsing, is none of lint's.
fn cases() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for known in tidemark_triggers::CATALOGUE {
        let path = format!("{CONFORMANCE}/{}.json", known.name);
        let Ok(text) = fs::read_to_string(&path) else {
            assert_ne!(std::env::var("TIDEMARK_REQUIRE_CONFORMANCE").as_deref(), Ok("1"), "{path} not found");
            println!("SKIPPED: {path} not found");
            continue;
        };
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
        let plain = |case: &Value| ["server", "podIdentitySpec"].iter().all(|field| case.get(*field).is_none());
        all.extend(cases.into_iter().filter(plain).map(|case| (known.name, case)));
    }
    all
}

#[tokio::test]
async fn a_trigger_is_valid_for_lint_when_it_is_for_the_parser() {
    let (linter, mut wrong) = (Linter::new().unwrap(), Vec::new());
    let cases = cases();
    for (trigger_type, case) in &cases {
        let report = lint_by(&linter, &[("case", &wrapped(trigger_type, case).join(SEPARATOR))], &rules()).await;
        let trigger = &report.documents.last().unwrap().triggers[0];
        let parsed = parsed(trigger_type, case);
        if trigger.valid != parsed.is_ok() {
            wrong.push(format!("{}: lint says {trigger:?}, the parser {parsed:?}", case["id"]));
        }
    }
    println!("{} cases", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_is_not_among_the_files_makes_no_sound_trigger_invalid() {
    let (linter, mut wrong) = (Linter::new().unwrap(), Vec::new());
    for (trigger_type, case) in cases().iter().filter(|(trigger_type, case)| parsed(trigger_type, case).is_ok()) {
        let whole = wrapped(trigger_type, case);
        for missing in [&["Secret"][..], &["TriggerAuthentication"], &["Deployment"], &["Secret", "Deployment"]] {
            let is_missing = |object: &&String| {
                missing.iter().any(|kind| object.contains(&format!("\"kind\":\"{kind}\",\"metadata\"")))
            };
            let rest: Vec<_> = whole.iter().filter(|object| !is_missing(object)).map(String::as_str).collect();
            let report = lint_by(&linter, &[("case", &rest.join(SEPARATOR))], &rules()).await;
            let trigger = &report.documents.last().unwrap().triggers[0];
            if !trigger.valid {
                wrong.push(format!("{} without {missing:?}: {trigger:?}", case["id"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the parser says of the same inputs.
fn parsed(trigger_type: &str, case: &Value) -> Result<(), String> {
    let texts = |field: &str| {
        let entries = case[field].as_object().cloned().unwrap_or_default();
        entries.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned())).collect::<Vec<_>>()
    };
    let text = |field: &str| case[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let input = tidemark_trigger::TriggerInput {
        index: 0,
        trigger_type: trigger_type.to_owned(),
        name: None,
        metadata: texts("metadata").into_iter().collect(),
        auth: texts("auth").into_iter().map(|(key, value)| (key, value.into())).collect(),
        env: texts("env").into_iter().map(|(key, value)| (key, value.into())).collect(),
        pod_identity: text("podIdentity").filter(|provider| provider != "none"),
        metric_type: text("metricType"),
        as_metric_source: case["asMetricSource"] == true,
        namespace: "default".to_owned(),
        object: "so".to_owned(),
    };
    tidemark_triggers::parse(&input).map(drop).map_err(|errors| errors.to_string())
}

#[test]
fn the_exit_code_tells_valid_invalid_and_unreadable_apart() {
    let desk = Desk::new();
    let healthy = fs::read_to_string(format!("{FOLDER}/healthy.yaml")).unwrap();
    desk.write("m/healthy.yaml", &healthy);
    desk.write("n/refused.yaml", &fs::read_to_string(format!("{FOLDER}/refused.yaml")).unwrap());
    desk.write("broken.yaml", "kind: [\n");
    let run = |arguments: &[&str]| {
        let output = desk.command(env!("CARGO_BIN_EXE_tidemark")).arg("lint").args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, error) = run(&["-f", "m"]);
    assert_eq!((code, out.as_str(), error.as_str()), (Some(0), "3 objects checked: all valid\n", ""));
    let (code, out, _) = run(&["-f", "m", "n"]);
    assert_eq!(code, Some(1), "{out}");
    let (code, out, error) = run(&["-f", "broken.yaml", "-f", "m", "--output", "json"]);
    assert_eq!(code, Some(2));
    assert!(error.starts_with("broken.yaml:1:") || error.starts_with("broken.yaml:2:"), "{error}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["documents"].as_array().unwrap().len(), 3);
    let (code, _, error) = run(&["-f", "nowhere.yaml"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("nowhere.yaml"), "{error}");
}
