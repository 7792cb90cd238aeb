//! The operator's own port for the reasons, with the rights that the chart gives it for that and no others.

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::config::AuthInfo;
use serde_json::{Value, json};
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::{Instant, sleep};
use xtask::network::free_ports;

use super::release::{ACCOUNTS, CHART, Helm, NAMESPACE, OPERATOR, Ports, Processes, Rest};

const PATIENCE: Duration = Duration::from_secs(60);
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";
/// The namespace that is watched; the operator has rights there and in its own.
const SHOP: &str = "shop";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_port_of_its_own_the_operator_tells_the_reasons_to_whoever_may_view_and_to_nobody_else() {
    let options = Options { audit: true, ..Options::default() };
    let Some(plane) = ControlPlane::start_or_skip(options).await else { return };
    let Some(helm) = Helm::find(&plane) else { return };
    let rest = Rest(tidemark_operator::client::build(plane.config().await.unwrap()).unwrap());
    rest.create("/api/v1/namespaces", "test", &json!({"metadata": {"name": SHOP}})).await;
    let [link, api, hooks, port] = free_ports().unwrap();
    let mut settings = Ports { link, api, hooks }.settings();
    settings.extend([
        "reasonsApi.operator.enabled=true".to_owned(),
        format!("reasonsApi.operator.port={port}"),
        format!("watchNamespace={SHOP}"),
    ]);
    let mut install = vec!["install", "keda", CHART, "--create-namespace"];
    settings.iter().for_each(|setting| install.extend(["--set", setting]));
    helm.run(&install);
    scaled_object(&rest).await;

    let processes = Processes::new(rest.0.clone());
    processes.start(&plane, &helm.rendered(&settings), OPERATOR, Ports { link, api, hooks }).await;
    let viewer = plane.service_account(SHOP, "viewer").await.unwrap();
    let stranger = plane.service_account(SHOP, "stranger").await.unwrap();
    // Kubernetes' own role, to which the chart adds the reasons.
    let binding = json!({
        "metadata": {"name": "viewer"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "viewer", "namespace": SHOP}],
    });
    rest.create(&format!("{ROLES}/namespaces/{SHOP}/rolebindings"), "test", &binding).await;

    let path = format!("/apis/reasons.tidemark.dev/v1alpha1/namespaces/{SHOP}/scaledobjects");
    let ca = processes.certificates().join("ca.crt");
    let told = until_told(&processes, &viewer, &ca, (port, &path)).await;
    assert_eq!(told["metadata"]["name"], "web", "{told}");
    assert_eq!(code(&ask(Some(&stranger), &ca, port, &path).await), 403);
    assert_eq!(code(&ask(None, &ca, port, &path).await), 401);
    let elsewhere = "/apis/reasons.tidemark.dev/v1alpha1/scaledobjects";
    assert_eq!(code(&ask(Some(&viewer), &ca, port, elsewhere).await), 403, "a role in one namespace is one there");

    assert!(processes.stop(OPERATOR).await.success(), "{}", processes.log(OPERATOR));
    sleep(Duration::from_secs(1)).await;
    let user = format!("system:serviceaccount:{NAMESPACE}:{}", ACCOUNTS[0].1);
    let all = plane.audit().unwrap();
    let own: Vec<_> = all.iter().filter(|entry| entry.user == user).collect();
    let forbidden: Vec<_> = own.iter().filter(|entry| entry.is_forbidden()).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
    for resource in ["tokenreviews", "subjectaccessreviews"] {
        assert!(own.iter().any(|entry| entry.resource == resource), "no {resource}");
    }
}

/// Something to tell of: nothing is active, and nothing is there to scale.
async fn scaled_object(rest: &Rest) {
    let object = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"name": "web"}, "triggers": [{"type": "cron", "metadata": {
            "timezone": "UTC", "start": "0 0 1 1 *", "end": "1 0 1 1 *", "desiredReplicas": "1",
        }}]},
    });
    rest.create(&format!("/apis/keda.sh/v1alpha1/namespaces/{SHOP}/scaledobjects"), "test", &object).await;
}

/// Asks the port, with somebody's token or none.
async fn ask(kubeconfig: Option<&Path>, ca: &Path, port: u16, path: &str) -> kube::Result<Value> {
    let token = kubeconfig.map(|path| {
        let config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
    });
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.root_cert_file = Some(ca.to_owned());
    config.tls_server_name = Some(format!("{OPERATOR}.{NAMESPACE}.svc"));
    config.auth_info = AuthInfo { token: token.map(Into::into), ..AuthInfo::default() };
    Rest(Client::try_from(config)?).try_get(path).await
}

fn code(answer: &kube::Result<Value>) -> u16 {
    match answer {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    }
}

/// Asks until there is an object to be told of.
async fn until_told(processes: &Processes, viewer: &Path, ca: &Path, (port, path): (u16, &str)) -> Value {
    let began = Instant::now();
    loop {
        // There is no certificate at first.
        let answer = if ca.exists() { ask(Some(viewer), ca, port, path).await } else { Ok(Value::Null) };
        if let Some(first) = answer.as_ref().ok().and_then(|list| list["items"].get(0)) {
            return first.clone();
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}: {}", processes.log(OPERATOR));
        sleep(Duration::from_millis(200)).await;
    }
}
