//! `tidemark explain` and `tidemark status`: with `up`, and through a real API server's aggregation layer.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::config::AuthInfo;
use serde_json::{Value, json};
use tidemark_reasons::{Author, Page, Report};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::desk::{CRON, Desk, Up, workload};
use crate::metrics_server::{Installation, Process, free_address, material, operator_arguments, scale_by_pods};

/// The longest time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const BASE: &str = "/apis/reasons.tidemark.dev/v1alpha1";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command has printed, and that it ended well.
fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What a command has complained of, and that it ended with 1.
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

#[tokio::test]
async fn with_up_an_object_is_explained_by_its_name_or_its_workloads_and_all_are_shown() {
    let desk = Desk::new();
    let renamed = workload("shop", "", CRON).replacen(
        "kind: ScaledObject\nmetadata: {name: shop}",
        "kind: ScaledObject\nmetadata: {name: opening-hours}",
        1,
    );
    desk.write("m/shop.yaml", &renamed);
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;
    up.until_replicas(30, "shop", 1..=1).await;
    let kubeconfig = up.kubeconfig.display().to_string();
    let run =
        async |arguments: &[&str]| desk.tidemark(&[arguments, &["--kubeconfig", &kubeconfig]].concat(), &[]).await;

    for name in ["opening-hours", "default/opening-hours", "shop"] {
        let told = printed(&run(&["explain", name]).await);
        for part in [
            "default/opening-hours: Deployment shop has 1 replica (minimum 0, maximum 100); active\n",
            "\nProblems\n  - None that Tidemark knows of\n",
            "(trigger 0, cron) reads 1 (",
            "from 0 to 1 replica, written by Tidemark's operator\n",
            "is active at 1\n",
            ": the triggers are read again, as every 1 s\n",
        ] {
            assert!(told.contains(part), "{part:?} in:\n{told}");
        }
    }
    let report: Report = serde_json::from_str(&printed(&run(&["explain", "shop", "-o", "json"]).await)).unwrap();
    let changes = report.detail.unwrap().changes;
    assert_eq!((changes[0].from, changes[0].to, changes[0].by), (Some(0), 1, Author::Operator));

    let table = printed(&run(&["status"]).await);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..5], ["NAMESPACE", "NAME", "READY", "ACTIVE", "REPLICAS"], "{table}");
    assert_eq!(
        lines[1][..8],
        ["default", "opening-hours", "True", "True", "1", "1", "0-100", "Deployment/shop"],
        "{table}"
    );
    assert_eq!(printed(&run(&["status", "-n", "elsewhere"]).await), "no ScaledObjects\n");
    let page: Page = serde_json::from_str(&printed(&run(&["status", "-A", "-o", "json"]).await)).unwrap();
    assert_eq!(page.items.len(), 1);

    let error = complaint(&run(&["explain", "nothing"]).await);
    assert!(error.starts_with("tidemark: there is no ScaledObject nothing in namespace default"), "{error}");
    assert!(up.interrupt().await.success());
    let kept = "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {}}]\n";
    desk.write("away", kept);
    let error = complaint(&desk.tidemark(&["explain", "shop", "--kubeconfig", "away"], &[]).await);
    assert!(error.contains("the API server of the kubeconfig cannot be reached"), "{error}");
}

#[tokio::test]
async fn a_watch_tells_anew_when_something_changes() {
    let desk = Desk::new();
    desk.write("m/shop.yaml", &workload("shop", "", CRON));
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;
    up.until_replicas(30, "shop", 1..=1).await;
    let kubeconfig = up.kubeconfig.display().to_string();
    desk.spawn("watch", &["explain", "shop", "-o", "json", "--watch", "--kubeconfig", &kubeconfig], &[]);
    let reports =
        || -> Vec<Report> { desk.log("watch").lines().filter_map(|line| serde_json::from_str(line).ok()).collect() };
    desk.until(20, "a first report", async || if reports().is_empty() { Err(desk.log("watch")) } else { Ok(()) }).await;
    let deployments: Api<Deployment> = Api::default_namespaced(up.client.clone());
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let parameters = PatchParams { field_manager: Some("by-hand".to_owned()), ..PatchParams::default() };
    deployments.patch("shop", &parameters, &patch).await.unwrap();
    desk.until(20, "a report of the change", async || {
        let told = reports().pop().and_then(|report| report.explanation).map(|told| told.last_change.join("\n"));
        match told {
            Some(told) if told.contains("by-hand") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(reports().len() < 12, "only what is new is told");
    // Ctrl-C would reach it, too, and which of both ends first is anybody's guess.
    desk.kill("watch");
    assert!(up.interrupt().await.success());
}

async fn tidemark(arguments: &[&str], kubeconfig: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(arguments).arg("--kubeconfig").arg(kubeconfig).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap()
}

async fn get(client: &Client, path: &str) -> Result<Value, u16> {
    let request = Request::get(path).body(Vec::new()).unwrap();
    match timeout(PATIENCE, client.request::<Value>(request)).await.unwrap() {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) => Err(status.code),
        Err(error) => panic!("{error}"),
    }
}

/// Registers the API of reasons with the Service that the metrics server has already.
async fn register(installation: &Installation, ca: &str) {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    installation
        .apply(json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": "v1alpha1.reasons.tidemark.dev"},
            "spec": {
                "group": "reasons.tidemark.dev", "version": "v1alpha1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "caBundle": ca,
                "service": {
                    "name": "tidemark-external-metrics", "namespace": "kube-system", "port": installation.api.port(),
                },
            },
        }))
        .await;
    let start = Instant::now();
    while get(&installation.client, BASE).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "{}", installation.metrics_server.said());
        sleep(Duration::from_millis(200)).await;
    }
}

/// A user who may read reasons, and what is explained, in the namespace `default`.
async fn viewer(installation: &Installation) -> std::path::PathBuf {
    let kubeconfig = installation.plane.service_account("default", "viewer").await.unwrap();
    let group = "rbac.authorization.k8s.io";
    let rules = json!([
        {"apiGroups": ["reasons.tidemark.dev", "keda.sh"], "resources": ["scaledobjects"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
    ]);
    installation
        .apply(json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "viewer"}, "rules": rules,
        }))
        .await;
    installation
        .apply(json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "viewer"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "viewer"},
            "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": "default"}],
        }))
        .await;
    kubeconfig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_real_api_server_who_may_view_is_told_and_others_are_told_why_not() {
    let own = material();
    let Some(mut installation) = Installation::start(&own, &own.bundle()).await else { return };
    let admin = installation.plane.kubeconfig().to_owned();
    let error = complaint(&tidemark(&["status"], &admin).await);
    assert!(error.contains("it has no APIService v1alpha1.reasons.tidemark.dev"), "{error}");

    scale_by_pods(&installation).await;
    assert_eq!(installation.settled("scaled").await, "3");
    register(&installation, &own.bundle()).await;
    let viewer = viewer(&installation).await;
    the_viewer_is_told(&viewer).await;
    the_api_is_described(&installation).await;

    let error = complaint(&tidemark(&["status", "-A"], &viewer).await);
    assert!(
        error.contains("cannot list resource \"scaledobjects\"") && error.contains("at the cluster scope"),
        "{error}"
    );
    let stranger = installation.plane.service_account("default", "stranger").await.unwrap();
    let error = complaint(&tidemark(&["explain", "scaled"], &stranger).await);
    assert!(error.contains("you may not read this") && error.contains("scaledobjects.reasons.tidemark.dev"), "{error}");
    let error = complaint(&tidemark(&["explain", "nothing"], &viewer).await);
    assert!(error.contains("there is no ScaledObject nothing"), "{error}");

    an_operator_is_asked_itself(&mut installation).await;
    installation.operator.child.kill().await.unwrap();
    let error = complaint(&tidemark(&["explain", "scaled"], &viewer).await);
    assert!(error.contains("the metrics server has no connection to the operator"), "{error}");
    assert!(error.contains("The object's status, as it was last written:\n  Ready True"), "{error}");
    installation.metrics_server.child.kill().await.unwrap();
    let error = complaint(&tidemark(&["status"], &viewer).await);
    assert!(error.contains("nobody answers for reasons.tidemark.dev"), "{error}");
}

async fn the_viewer_is_told(viewer: &Path) {
    let start = Instant::now();
    loop {
        let told = printed(&tidemark(&["explain", "scaled"], viewer).await);
        // Without the breaks of lines.
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts = [
            "default/scaled: Deployment scaled has 2 replicas (minimum 0, maximum 100); active As of",
            "s0-workload-default (trigger 0 \"pods\", kubernetes-workload) reads 3 (",
            "for a target of 2 per replica that asks for 2 replicas",
            "The HPA wants 2 replicas: it last read s0-workload-default as ",
            "from 1 to 2 replicas, written by the HPA controller for keda-hpa-scaled - Because s0-workload-default was",
            // There is no kubelet here.
            "Only 0 of 2 pods are ready.",
        ];
        let missing = parts.iter().find(|part| !told.contains(**part));
        let Some(missing) = missing else { break };
        assert!(start.elapsed() < PATIENCE, "{missing:?} in:\n{told}");
        sleep(Duration::from_millis(500)).await;
    }
    let table = printed(&tidemark(&["status"], viewer).await);
    assert!(table.contains("s0-workload-default 3/2"), "{table}");
}

/// The API server has taken over what the API says of itself.
async fn the_api_is_described(installation: &Installation) {
    let start = Instant::now();
    let path = "/openapi/v3/apis/reasons.tidemark.dev/v1alpha1";
    let document = loop {
        if let Ok(document) = get(&installation.client, path).await {
            break document;
        }
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(500)).await;
    };
    let schema = &document["components"]["schemas"]["dev.tidemark.reasons.v1alpha1.ScaledObjectReasons"];
    assert!(schema["properties"]["reasons"].is_object(), "{document}");
    let kubectl = |arguments: &[&str]| printed(&installation.plane.kubectl().args(arguments).output().unwrap());
    let kinds = kubectl(&["api-resources", "--api-group=reasons.tidemark.dev"]);
    assert!(kinds.contains("ScaledObjectReasons"), "{kinds}");
    assert_eq!(
        kubectl(&["get", "scaledobjects.reasons.tidemark.dev", "-o", "name"]).trim(),
        "scaledobjectreasons.reasons.tidemark.dev/scaled"
    );
    assert_eq!(
        kubectl(&["get", "scaledobjects", "-o", "name"]).trim(),
        "scaledobject.keda.sh/scaled",
        "KEDA's kind keeps its name"
    );
    let table = kubectl(&["get", "scaledobjects.reasons.tidemark.dev"]);
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0][..5], ["NAME", "READY", "ACTIVE", "REPLICAS", "DESIRED"], "{table}");
    assert_eq!(words[1][..5], ["scaled", "True", "True", "2", "2"], "{table}");
    let explained = kubectl(&["explain", "scaledobjects", "--api-version=reasons.tidemark.dev/v1alpha1"]);
    assert!(explained.contains("The argument of the last decision"), "{explained}");
}

/// On loopback without more, at another address by token.
async fn an_operator_is_asked_itself(installation: &mut Installation) {
    let (near, far) = (free_address(), free_address());
    let certs = installation.folder.join("certs");
    for bind in [near.to_string(), format!("0.0.0.0:{}", far.port())] {
        let _ = installation.operator.child.kill().await;
        let mut arguments = operator_arguments(installation.plane.kubeconfig(), &certs, installation.link);
        arguments.push(format!("--reasons-bind-address={bind}"));
        installation.operator = Process::start(&installation.folder, "operator", &arguments);
        let port = if bind == near.to_string() { near.port() } else { far.port() };
        let start = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "{}", installation.operator.said());
            sleep(Duration::from_millis(100)).await;
        }
        match bind == near.to_string() {
            true => {
                let address = format!("http://{near}");
                let nobody = Path::new(env!("CARGO_BIN_EXE_tidemark"));
                let mut command = Command::new(nobody);
                command.args(["explain", "scaled", "--address", &address]).kill_on_drop(true);
                let start = Instant::now();
                loop {
                    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
                    if text(&output.stdout).contains("default/scaled: Deployment scaled has 2 replicas") {
                        break;
                    }
                    assert!(start.elapsed() < PATIENCE, "{}{}", text(&output.stdout), text(&output.stderr));
                    sleep(Duration::from_millis(500)).await;
                }
            }
            false => tokens_are_judged(installation, far.port()).await,
        }
    }
}

async fn tokens_are_judged(installation: &Installation, port: u16) {
    let direct = |token: Option<String>| {
        let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
        config.root_cert_file = Some(installation.folder.join("certs/ca.crt"));
        config.tls_server_name = Some("keda-operator.keda.svc".to_owned());
        config.auth_info = AuthInfo { token: token.map(Into::into), ..AuthInfo::default() };
        Client::try_from(config).unwrap()
    };
    let token = |kubeconfig: &Path| {
        let config: Value = serde_json::from_slice(&std::fs::read(kubeconfig).unwrap()).unwrap();
        config["users"][0]["user"]["token"].as_str().map(str::to_owned)
    };
    let of = async |name: &str| token(&installation.plane.service_account("default", name).await.unwrap());
    let path = format!("{BASE}/namespaces/default/scaledobjects");
    assert_eq!(get(&direct(None), &path).await, Err(401));
    assert_eq!(get(&direct(of("stranger").await), &path).await, Err(403));
    let list = get(&direct(of("viewer").await), &path).await.unwrap();
    assert_eq!(list["kind"], "ScaledObjectReasonsList");
}
