//! Deployments and Services.

use serde_json::{Value, json};

use super::manifests::Installation;
use super::names::CERTIFICATES;

/// Where the certificates are mounted.
const MOUNT: &str = "/certs";
const LOG: [&str; 3] = ["--zap-log-level=info", "--zap-encoder=console", "--zap-time-encoding=rfc3339"];

/// One process, as its Deployment and Service depend on it.
struct Process<'a> {
    name: &'a str,
    component: &'static str,
    account: &'a str,
    arguments: Vec<String>,
    environment: Vec<Value>,
    /// Ports of its container, by name.
    ports: Vec<(&'static str, u16)>,
    /// Where it is probed, by which scheme, and from how many seconds after its start on.
    probe: (u16, Option<&'static str>, u32),
    /// Whether it starts without certificates.
    makes_certificates: bool,
    /// Of each port of its Service name, port, and port of the container.
    service: Vec<(&'static str, u16, u16)>,
}

/// All of them.
pub fn objects(installation: &Installation) -> Vec<Value> {
    let mut processes = vec![operator(installation), metrics_server(installation)];
    processes.extend(installation.webhooks.then(|| webhooks(installation)));
    let services = processes.iter().map(|process| service(installation, process));
    services.chain(processes.iter().map(|process| deployment(installation, process))).collect()
}

fn operator(installation: &Installation) -> Process<'_> {
    let names = &installation.names;
    let mut arguments = words(&["operator", "--leader-elect", "--disable-compression=true"]);
    arguments.extend(words(&LOG));
    arguments.extend([
        format!("--cert-dir={MOUNT}"),
        "--enable-cert-rotation=true".to_owned(),
        format!("--cert-secret-name={CERTIFICATES}"),
        format!("--operator-service-name={}", names.operator),
        format!("--metrics-server-service-name={}", names.metrics_server),
        format!("--webhooks-service-name={}", names.webhooks),
        format!("--validating-webhook-name={}", names.webhook_configuration),
        format!("--enable-webhook-patching={}", installation.webhooks),
        "--enable-apiservice-patching=true".to_owned(),
        "--metrics-service-bind-address=:9666".to_owned(),
        "--k8s-cluster-name=kubernetes-default".to_owned(),
        "--k8s-cluster-domain=cluster.local".to_owned(),
        "--http-max-idle-conns=0".to_owned(),
        "--http-max-idle-conns-per-host=1000".to_owned(),
        "--http-idle-conn-timeout=90s".to_owned(),
    ]);
    let (mut ports, mut service) =
        (vec![("http", 8080), ("metricsservice", 9666), ("health", 8081)], vec![("metricsservice", 9666, 9666)]);
    if let Some(port) = installation.reasons_port {
        arguments.push(format!("--reasons-bind-address=:{port}"));
        ports.push(("reasons", port));
        service.push(("reasons", port, port));
    }
    let mut environment = environment();
    let watched = installation.watched.join(",");
    environment.extend([
        json!({"name": "WATCH_NAMESPACE", "value": watched}),
        json!({"name": "WATCH_LABEL_SELECTOR", "value": ""}),
        json!({"name": "WATCH_LABEL_SELECTOR_FOR_TRIGGERAUTH", "value": ""}),
        json!({"name": "KEDA_HTTP_DEFAULT_TIMEOUT", "value": "3000"}),
        json!({"name": "KEDA_HTTP_MIN_TLS_VERSION", "value": "TLS12"}),
    ]);
    Process {
        name: names.operator,
        component: "operator",
        account: names.operator_account,
        arguments,
        environment,
        ports,
        probe: (8081, None, 25),
        makes_certificates: true,
        service,
    }
}

fn metrics_server(installation: &Installation) -> Process<'_> {
    let names = &installation.names;
    let mut arguments = words(&["metrics-server", "--port=8080", "--secure-port=6443", "--disable-compression=true"]);
    arguments.extend([
        format!("--metrics-service-address={}.{}.svc.cluster.local:9666", names.operator, installation.namespace),
        format!("--tls-cert-file={MOUNT}/tls.crt"),
        format!("--tls-private-key-file={MOUNT}/tls.key"),
        format!("--cert-dir={MOUNT}"),
    ]);
    arguments.extend(words(&LOG));
    Process {
        name: names.metrics_server,
        component: "metrics-server",
        account: names.metrics_server_account,
        arguments,
        environment: environment(),
        ports: vec![("https", 6443), ("metrics", 8080)],
        probe: (6443, Some("HTTPS"), 5),
        makes_certificates: false,
        service: vec![("https", 443, 6443)],
    }
}

fn webhooks(installation: &Installation) -> Process<'_> {
    let names = &installation.names;
    let mut arguments = words(&["webhooks", "--port=9443", "--health-probe-bind-address=:8081"]);
    arguments.push(format!("--cert-dir={MOUNT}"));
    arguments.extend(words(&LOG));
    Process {
        name: names.webhooks,
        component: "webhooks",
        account: names.webhooks_account,
        arguments,
        environment: environment(),
        ports: vec![("https", 9443), ("health", 8081), ("metrics", 8080)],
        probe: (8081, None, 25),
        makes_certificates: false,
        service: vec![("https", 443, 9443)],
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The variables that all processes have.
fn environment() -> Vec<Value> {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    vec![
        json!({"name": "KEDA_SERVICE_MIN_TLS_VERSION", "value": "TLS13"}),
        json!({"name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace")}),
        json!({"name": "POD_NAME", "valueFrom": field("metadata.name")}),
    ]
}

fn service(installation: &Installation, process: &Process<'_>) -> Value {
    let ports = process
        .service
        .iter()
        .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"}));
    let mut spec = json!({
        "ports": ports.collect::<Vec<_>>(),
        "selector": {"app": process.name},
    });
    if process.component == "metrics-server" {
        spec["type"] = "ClusterIP".into();
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": installation.names.metadata(process.name, Some(&installation.namespace), process.name),
        "spec": spec,
    })
}

fn deployment(installation: &Installation, process: &Process<'_>) -> Value {
    let name = process.name;
    let own = [("app", name), ("name", name), ("tidemark.dev/component", process.component)];
    let mut labels = installation.names.labels(name);
    labels.extend(own.map(|(key, value)| (key.to_owned(), Value::from(value))));
    let pod = json!({
        "serviceAccountName": process.account, "automountServiceAccountToken": true, "enableServiceLinks": true,
        "securityContext": {"runAsNonRoot": true}, "hostNetwork": false, "dnsPolicy": "ClusterFirst",
        "containers": [container(installation, process)],
        "volumes": [{"name": "certificates", "secret": {
            "secretName": CERTIFICATES, "defaultMode": 420, "optional": process.makes_certificates,
        }}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
    });
    let mut metadata = installation.names.metadata(name, Some(&installation.namespace), name);
    metadata["labels"] = labels.clone().into();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": installation.replicas, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

fn container(installation: &Installation, process: &Process<'_>) -> Value {
    let (port, scheme, delay) = process.probe;
    let probe = |path: &str, delay: u32, period: u32| {
        let mut get = json!({"path": path, "port": port});
        if let Some(scheme) = scheme {
            get["scheme"] = scheme.into();
        }
        json!({
            "httpGet": get, "initialDelaySeconds": delay, "periodSeconds": period, "timeoutSeconds": 1,
            "failureThreshold": 3, "successThreshold": 1,
        })
    };
    let ports = process.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port}));
    json!({
        "name": process.name, "image": installation.image, "imagePullPolicy": "IfNotPresent",
        "args": process.arguments, "env": process.environment, "ports": ports.collect::<Vec<_>>(),
        "livenessProbe": probe("/healthz", delay, 10),
        "readinessProbe": probe("/readyz", 5, 3),
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}, "limits": {"cpu": 1, "memory": "1000Mi"}},
        "volumeMounts": [{"name": "certificates", "mountPath": MOUNT, "readOnly": true}],
    })
}
