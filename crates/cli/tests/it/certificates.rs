//! `tidemark operator` keeps the certificates of an installation on a real API server: the Secret, who is told of the CA,
//! and that it serves with them without a restart.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_serving::certificates::Pair;
use tidemark_serving::identity::Identity;
use tidemark_serving::rotation::material::{Names, renew};
use tidemark_serving::tls::Policy;
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::{Instant, sleep};

use crate::metrics_server::free_address;

/// The longest time for anything that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "kedaorg-certs";
const SERVED: &str = "v1beta1.external.metrics.k8s.io";
const WEBHOOKS: &str = "keda-admission";
const OPERATOR: &str = "keda-operator.keda.svc";

/// A running operator that makes certificates.
struct Operator {
    child: Child,
    log: PathBuf,
    link: SocketAddr,
}

impl Operator {
    fn start(plane: &ControlPlane) -> Self {
        Self::with(plane, |link| link.to_string())
    }

    /// `bind` says where it serves the metrics server, given a free address.
    fn with(plane: &ControlPlane, bind: impl Fn(SocketAddr) -> String) -> Self {
        let link = free_address();
        let log = plane.directory().join("operator.log");
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        // What KEDA's chart passes; the kubeconfig and the addresses aside.
        command.args(["operator", "--zap-log-level=info", "--zap-encoder=console", "--enable-cert-rotation=true"]);
        command.args(["--cert-dir=/certs", "--k8s-cluster-domain=cluster.local", "--enable-webhook-patching=true"]);
        command.args(["--operator-service-name=keda-operator", "--webhooks-service-name=keda-admission-webhooks"]);
        command.arg("--metrics-server-service-name=keda-operator-metrics-apiserver");
        command.arg(format!("--kubeconfig={}", plane.kubeconfig().display()));
        command.arg(format!("--metrics-service-bind-address={}", bind(link)));
        command.args(["--metrics-bind-address=0", "--health-probe-bind-address=0"]);
        command.env("POD_NAMESPACE", "keda").env("WATCH_NAMESPACE", "");
        command.stdin(Stdio::null()).stderr(file.try_clone().unwrap()).stdout(file);
        Self { child: command.spawn().unwrap(), log, link }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The certificate that it shows to a client with these files, or why the two do not speak.
    async fn shows(&self, files: &Identity) -> Result<Vec<u8>, String> {
        let (config, address) = (files.client(&Policy::default()).unwrap(), self.link);
        tokio::task::spawn_blocking(move || shake_hands(Arc::new(config), address)).await.unwrap()
    }

    async fn comes_to_show(&self, files: &Identity) {
        let expected = CertificateDer::from_pem_slice(files.pair.certificate.as_bytes()).unwrap().to_vec();
        eventually(|| async {
            let shown = self.shows(files).await;
            if shown.as_ref() == Ok(&expected) { Ok(()) } else { Err(format!("{:?}\n{}", shown.err(), self.said())) }
        })
        .await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shake_hands(config: Arc<rustls::ClientConfig>, address: SocketAddr) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut socket = TcpStream::connect(address).map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    let mut connection = rustls::ClientConnection::new(config, ServerName::try_from(OPERATOR).unwrap()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(failed)?;
    }
    let shown = connection.peer_certificates().unwrap()[0].to_vec();
    // The server judges the client's certificate after the client is done: it answers HTTP/2's greeting if it is content.
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").map_err(failed)?;
    stream.read_exact(&mut [0; 1]).map_err(failed)?;
    Ok(shown)
}

async fn eventually<F: Future<Output = Result<(), String>>>(check: impl Fn() -> F) {
    let start = Instant::now();
    loop {
        match check().await {
            Ok(()) => return,
            Err(why) => assert!(start.elapsed() < PATIENCE, "{why}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The objects of an installation.
struct Cluster {
    secrets: Api<Secret>,
    api_services: Api<APIService>,
    webhooks: Api<ValidatingWebhookConfiguration>,
}

impl Cluster {
    async fn new(client: Client) -> Self {
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "keda" } })).unwrap();
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let secrets = Api::namespaced(client.clone(), "keda");
        Self { secrets, api_services: Api::all(client.clone()), webhooks: Api::all(client) }
    }

    /// The files of a process that mounts the Secret now.
    async fn files(&self) -> Option<Identity> {
        let data = self.secrets.get_opt(SECRET).await.unwrap()?.data?;
        let text = |key: &str| Some(String::from_utf8(data.get(key)?.0.clone()).unwrap());
        Some(Identity { pair: Pair { certificate: text("tls.crt")?, key: text("tls.key")? }, ca: text("ca.crt")? })
    }

    async fn comes_to_have(&self, is_right: impl Fn(&Identity) -> bool) -> Identity {
        eventually(|| async {
            let files = self.files().await;
            if files.is_some_and(|files| is_right(&files)) { Ok(()) } else { Err("the Secret stays".to_owned()) }
        })
        .await;
        self.files().await.unwrap()
    }

    async fn register_metrics(&self) {
        let object = json!({
            "metadata": { "name": SERVED },
            "spec": {
                "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                "versionPriority": 100, "service": { "name": "keda-operator-metrics-apiserver", "namespace": "keda" },
            },
        });
        let object: APIService = serde_json::from_value(object).unwrap();
        self.api_services.create(&PostParams::default(), &object).await.unwrap();
    }

    async fn register_webhooks(&self) {
        let hook = |name: &str, path: &str| {
            json!({
                "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": {
                    "service": { "name": "keda-admission-webhooks", "namespace": "keda", "path": path },
                },
                "rules": [{
                    "apiGroups": ["keda.sh"], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                    "resources": ["scaledobjects"],
                }],
            })
        };
        let object = json!({ "metadata": { "name": WEBHOOKS }, "webhooks": [
            hook("vscaledobject.kb.io", "/validate-keda-sh-v1alpha1-scaledobject"),
            hook("vscaledjob.kb.io", "/validate-keda-sh-v1alpha1-scaledjob"),
        ] });
        let object: ValidatingWebhookConfiguration = serde_json::from_value(object).unwrap();
        self.webhooks.create(&PostParams::default(), &object).await.unwrap();
    }

    /// The CAs that the API server trusts for metrics, and for each webhook.
    async fn told(&self) -> Vec<Option<String>> {
        let text = |bundle: Option<ByteString>| bundle.map(|bundle| String::from_utf8(bundle.0).unwrap());
        let metrics = self.api_services.get(SERVED).await.unwrap().spec.unwrap().ca_bundle;
        let hooks = self.webhooks.get(WEBHOOKS).await.unwrap().webhooks.unwrap_or_default();
        [metrics].into_iter().chain(hooks.into_iter().map(|hook| hook.client_config.ca_bundle)).map(text).collect()
    }

    async fn comes_to_be_told(&self, authorities: &str) {
        eventually(|| async {
            let told = self.told().await;
            let right = told.iter().all(|told| told.as_deref() == Some(authorities));
            if right { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }
}

/// A Secret whose certificate ends in two months, made by somebody else, and whose CA is good for years.
fn an_old_secret() -> Secret {
    let services = ["keda-operator", "keda-operator-metrics-apiserver", "keda-admission-webhooks"];
    let of = |service: &str| {
        let full = format!("{service}.keda.svc");
        [service.to_owned(), format!("{service}.keda"), full.clone(), format!("{full}.cluster.local")]
    };
    let names = Names { common: "keda-operator".to_owned(), dns: services.into_iter().flat_map(of).collect() };
    let then = Clock::system().now() - SignedDuration::from_hours(300 * 24);
    let old = renew(None, &names, then).unwrap().unwrap();
    let data = BTreeMap::from([
        ("ca.crt", old.bundle()),
        ("ca.key", old.authority.key.clone()),
        ("tls.crt", old.pair.certificate.clone()),
        ("tls.key", old.pair.key.clone()),
        ("note", "mine".to_owned()),
    ]);
    let data = data.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect();
    let mut secret = Secret { data: Some(data), ..Secret::default() };
    secret.metadata.name = Some(SECRET.to_owned());
    secret
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_keeps_the_certificates_of_its_installation_and_never_restarts_for_it() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    crate::on_control_plane::install_crds(&client).await;
    let cluster = Cluster::new(client).await;
    cluster.register_metrics().await;
    let old = cluster.secrets.create(&PostParams::default(), &an_old_secret()).await.unwrap().data.unwrap();
    let mut operator = Operator::start(&plane);

    // The leaf is due, the CA is not; the webhooks come later.
    let renewed = cluster.comes_to_have(|files| files.pair.certificate.as_bytes() != old["tls.crt"].0).await;
    assert_eq!(renewed.ca.as_bytes(), old["ca.crt"].0);
    operator.comes_to_show(&renewed).await;
    let text = |key: &str| String::from_utf8(old[key].0.clone()).unwrap();
    let before = Identity { pair: Pair { certificate: text("tls.crt"), key: text("tls.key") }, ca: text("ca.crt") };
    operator.shows(&before).await.expect("whoever has the files of before speaks with it");
    cluster.register_webhooks().await;
    cluster.comes_to_be_told(&renewed.ca).await;
    everything_that_is_taken_away_comes_back(&cluster, &renewed).await;

    // All is lost: a new CA, in use at once, and the old one is forgotten.
    cluster.secrets.delete(SECRET, &DeleteParams::default()).await.unwrap();
    let anew = cluster.comes_to_have(|files| files.ca != renewed.ca).await;
    operator.comes_to_show(&anew).await;
    cluster.comes_to_be_told(&anew.ca).await;
    let refused = operator.shows(&renewed).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer") || refused.contains("BadSignature"), "{refused}");
    let secret = cluster.secrets.get(SECRET).await.unwrap();
    assert_eq!(secret.metadata.labels.unwrap()["app.kubernetes.io/part-of"], "keda");

    assert!(operator.child.try_wait().unwrap().is_none(), "it has run all the time: {}", operator.said());
    let said = operator.said();
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    assert_eq!(said.matches("it is told of the CA when it comes").count(), 1, "{said}");

    // One that serves no metrics server keeps them good all the same, for the webhooks.
    drop(operator);
    let operator = Operator::with(&plane, |_| "0".to_owned());
    cluster.secrets.delete(SECRET, &DeleteParams::default()).await.unwrap();
    let last = cluster.comes_to_have(|files| files.ca != anew.ca).await;
    cluster.comes_to_be_told(&last.ca).await;
    assert!(operator.shows(&last).await.is_err(), "nothing is served");
}

async fn everything_that_is_taken_away_comes_back(cluster: &Cluster, files: &Identity) {
    let params = PatchParams::default();
    let patch = |value: Value| Patch::Merge(value);
    cluster.api_services.patch(SERVED, &params, &patch(json!({ "spec": { "caBundle": null } }))).await.unwrap();
    cluster.comes_to_be_told(&files.ca).await;
    let mut hooks = cluster.webhooks.get(WEBHOOKS).await.unwrap();
    hooks.webhooks.as_mut().unwrap()[1].client_config.ca_bundle = None;
    cluster.webhooks.replace(WEBHOOKS, &PostParams::default(), &hooks).await.unwrap();
    cluster.comes_to_be_told(&files.ca).await;

    let garbage = BASE64_STANDARD.encode("garbage");
    cluster.secrets.patch(SECRET, &params, &patch(json!({ "data": { "tls.key": garbage } }))).await.unwrap();
    let repaired = cluster.comes_to_have(|now| now.pair.key != "garbage").await;
    assert!(repaired.pair != files.pair && repaired.ca == files.ca);
    let data = cluster.secrets.get(SECRET).await.unwrap().data.unwrap();
    assert_eq!(data["note"].0, b"mine", "what others keep in the Secret stays");
}
