//! KEDA as a successor meets it: its release, the objects as its operator leaves them, its Lease, and its metrics. What
//! it writes, and under which names, is that of KEDA 2.20; it decides nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tidemark_clock::Clock;
use tidemark_serving::certificates::Pair;
use tidemark_serving::front_proxy::{Access, Delegated, FrontProxy};
use tidemark_serving::tls::{Clients, Policy, server_config};
use tidemark_serving::{ExternalMetric, ExternalMetrics, MetricsSource, Values, https};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::release::{NAMESPACE, OPERATOR, Rest, SECRET};

/// Who its writes are by: the name of its program.
pub const MANAGER: &str = "keda";
pub const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/keda/leases/operator.keda.sh";
pub const VERSION: &str = "2.20.2";
/// A ConfigMap that only KEDA's release has.
pub const ONLY_KEDAS: &str = "only-kedas";
const RETRY: Duration = Duration::from_secs(2);

/// Writes a chart that installs what KEDA's does: ours under KEDA's names, with KEDA's images and flags, without what
/// tells ours from KEDA's, and with what only KEDA has.
pub fn write_chart(folder: &Path, mut objects: Vec<Value>, keeps_definitions: bool) -> PathBuf {
    objects.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"].is_null());
    for object in &mut objects {
        object["metadata"]["labels"]["helm.sh/chart"] = format!("keda-{VERSION}").into();
        match object["kind"].as_str().unwrap() {
            "Deployment" => as_kedas(object),
            "CustomResourceDefinition" if !keeps_definitions => {
                object["metadata"]["annotations"].as_object_mut().unwrap().remove("helm.sh/resource-policy");
            }
            _ => {}
        }
    }
    objects.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ONLY_KEDAS, "namespace": NAMESPACE},
    }));
    let chart = folder.join("keda-chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    let about = json!({"apiVersion": "v2", "name": "keda", "version": VERSION, "appVersion": VERSION});
    std::fs::write(chart.join("Chart.yaml"), about.to_string()).unwrap();
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    std::fs::write(chart.join("all.yaml"), documents.join("\n---\n")).unwrap();
    // What stands in braces in a description is no template.
    std::fs::write(chart.join("templates/all.yaml"), "{{ .Files.Get \"all.yaml\" }}\n").unwrap();
    chart
}

fn as_kedas(deployment: &mut Value) {
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        let labels = deployment.pointer_mut(labels).unwrap().as_object_mut().unwrap();
        labels.remove("tidemark.dev/component");
        labels.insert("app.kubernetes.io/version".to_owned(), VERSION.into());
    }
    let is_operator = deployment["metadata"]["name"] == OPERATOR;
    let container = &mut deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"] = format!("ghcr.io/kedacore/keda:{VERSION}").into();
    let mut arguments = vec!["--zap-log-level=info", "--zap-encoder=console", "--cert-dir=/certs"];
    if is_operator {
        arguments.extend(["--leader-elect", "--enable-cert-rotation=true", "--cert-secret-name=kedaorg-certs"]);
    }
    container["args"] = arguments.into();
}

/// KEDA's processes, as far as others see them.
pub struct Keda {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Keda {
    /// Its operator stands by or leads, and its metrics server serves these values on a port.
    pub async fn start(client: Client, name: &'static str, port: u16, values: Arc<Told>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let rest = Rest(client.clone());
        let secret = rest.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}")).await;
        let text = |key: &str| {
            let value = BASE64_STANDARD.decode(secret["data"][key].as_str().unwrap()).unwrap();
            String::from_utf8(value).unwrap()
        };
        let pair = Pair { certificate: text("tls.crt"), key: text("tls.key") };
        let front_proxy = FrontProxy::read(&client).await.unwrap();
        let tls = server_config(&pair, Clients::Optional(&front_proxy.client_ca), &Policy::default()).unwrap();
        let api = ExternalMetrics::new(values, Access::Delegated(Arc::new(Delegated::new(client, front_proxy))));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let tls = tokio::sync::watch::Sender::new(Arc::new(tls)).subscribe();
        tasks.spawn(https::serve(listener, tls, api, stop.clone()));
        let ended = stop.clone();
        tasks.spawn(async move { ended.run_until_cancelled(lead(rest, name)).await.unwrap_or_default() });
        Self { stop, tasks }
    }

    /// Its processes end. As always with KEDA, the Lease is not given back.
    pub async fn end(mut self) {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
    }
}

/// Takes the Lease when it is free, and keeps it, by the rules of Kubernetes' own controllers.
async fn lead(rest: Rest, name: &str) {
    let identity = format!("{name}_0b9f7c1e-5d1c-4b8e-9f1a-1f6f5f7f8a01");
    let mut seen = (Value::Null, Instant::now());
    loop {
        let found = rest.try_get(LEASE).await;
        if let Ok(lease) = &found
            && seen.0 != lease["spec"]
        {
            seen = (lease["spec"].clone(), Instant::now());
        }
        let held = |acquired: &Value, transitions: i64| {
            let now = Clock::system().now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            let acquired = if acquired.is_null() { json!(now) } else { acquired.clone() };
            json!({
                "holderIdentity": identity, "leaseDurationSeconds": 15, "acquireTime": acquired, "renewTime": now,
                "leaseTransitions": transitions,
            })
        };
        // A conflict means that somebody else was faster: the next look tells who.
        let _ = match found {
            Err(_) => {
                let body = json!({"metadata": {"name": "operator.keda.sh"}, "spec": held(&Value::Null, 0)});
                let path = LEASE.trim_end_matches("/operator.keda.sh");
                rest.request(http::Method::POST, path, MANAGER, "application/json", &body).await
            }
            Ok(mut lease) => {
                let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
                let duration = Duration::from_secs(lease["spec"]["leaseDurationSeconds"].as_u64().unwrap_or(15));
                let own = holder == identity;
                if !own && !holder.is_empty() && seen.1.elapsed() < duration {
                    sleep(RETRY).await;
                    continue;
                }
                let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0) + i64::from(!own);
                let acquired = if own { lease["spec"]["acquireTime"].clone() } else { Value::Null };
                lease["spec"] = held(&acquired, transitions);
                rest.request(http::Method::PUT, LEASE, MANAGER, "application/json", &lease).await
            }
        };
        sleep(RETRY).await;
    }
}

/// The values of metrics, by their names.
#[derive(Default)]
pub struct Told(pub Mutex<BTreeMap<String, f64>>);

impl MetricsSource for Told {
    fn values<'a>(&'a self, _namespace: &'a str, _object: &'a str, metric: &'a str) -> Values<'a> {
        let value = self.0.lock().unwrap().get(metric).copied();
        Box::pin(async move {
            let value = value.ok_or_else(|| format!("no matching metrics found for {metric}"))?.to_string();
            Ok(vec![ExternalMetric { name: metric.to_owned(), value, timestamp: Timestamp::UNIX_EPOCH }])
        })
    }
}

/// Whether KEDA finds in an object what it wants: what it leaves open may be anything, maps may have more keys, and lists
/// more elements.
pub fn is_contained(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Null, _) => true,
        (Value::Object(wanted), found) => wanted.iter().all(|(key, wanted)| is_contained(wanted, &found[key])),
        (Value::Array(wanted), found) => {
            wanted.iter().enumerate().all(|(index, wanted)| is_contained(wanted, &found[index]))
        }
        (wanted, found) => wanted == found,
    }
}
