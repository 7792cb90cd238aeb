//! `tidemark up` and the other commands that need nothing but this machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use http::{Request, StatusCode};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client};
use xtask::network::free_ports;

use crate::desk::{CRON, Desk, Up, config, workload};

#[tokio::test]
async fn the_quickstart_scales_real_workers_from_0_to_10_and_back_and_ctrl_c_ends_everything() {
    let desk = Desk::new();
    let [port] = free_ports().unwrap();
    // Jobs of half the length: the wave is over sooner.
    desk.copy_example("quickstart", &[("7070", &port.to_string()), (r#"--work, "2000""#, r#"--work, "1000""#)]);
    let up = Up::start(&desk, &["quickstart"], &[]).await;
    assert_eq!(std::fs::metadata(&up.kubeconfig).unwrap().permissions().mode() & 0o777, 0o600);

    up.until_event("worker", "KEDAScaleTargetActivated", "from 0 to 1").await;
    up.until_replicas(60, "worker", 10..=10).await;
    assert_eq!(desk.processes("demo worker").len(), 10);
    up.until_replicas(60, "worker", 0..=0).await;
    up.until_event("worker", "KEDAScaleTargetDeactivated", "to 0").await;
    desk.until(10, "no worker runs", async || match desk.processes("demo worker") {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
    assert_eq!((desk.processes("demo queue").len(), desk.processes("demo load").len()), (1, 1));

    assert_eq!(up.interrupt().await.code(), Some(0), "{}", up.log());
    desk.until_no_process_is_left().await;
    assert!(!up.kubeconfig.exists());
}

#[tokio::test]
async fn ctrl_c_ends_workers_in_the_middle_of_their_work() {
    let desk = Desk::new();
    // Deaf to the polite signal, and with a child of its own.
    let command = r#"[sh, -c, "trap '' TERM; sleep 600 & sleep 600"]"#;
    desk.write("pods.yaml", &stubborn(command));
    let up = Up::start(&desk, &["pods.yaml"], &[]).await;
    up.until_replicas(30, "stubborn", 2..=2).await;
    desk.until(10, "each of 2 pods has 2 sleepers", async || {
        let all = desk.processes("");
        let sleepers = all.iter().filter(|(_, line)| line.starts_with("sleep 600")).count();
        if sleepers == 4 { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    assert_eq!(up.interrupt().await.code(), Some(0), "{}", up.log());
    desk.until_no_process_is_left().await;
}

#[tokio::test]
async fn a_second_ctrl_c_waits_for_no_pod_and_still_leaves_nothing() {
    let desk = Desk::new();
    desk.write("pods.yaml", &stubborn(r#"[sh, -c, "trap '' TERM; sleep 600 & sleep 600"]"#));
    let up = Up::start(&desk, &["pods.yaml"], &[]).await;
    up.until_replicas(30, "stubborn", 2..=2).await;
    assert_eq!(up.interrupt_again_and_again().await.code(), Some(1), "{}", up.log());
    assert!(up.log().contains("tidemark: stopped at once by a second signal"), "{}", up.log());
    desk.until_no_process_is_left().await;
    assert!(!up.kubeconfig.exists());
}

#[tokio::test]
async fn when_nobody_reads_its_output_any_more_up_ends_and_cleans_up() {
    let desk = Desk::new();
    desk.write("m/shop.yaml", &workload("shop", "", CRON));
    let tidemark = env!("CARGO_BIN_EXE_tidemark");
    let script = format!("{{ {tidemark} up m --port 0 2>&1; echo $? >code; }} | head -n 1");
    let mut command = desk.command("sh");
    command.args(["-c", &script]);
    let output = desk.finish(command).await;
    assert!(output.stdout.starts_with(b"Kubernetes API: https://127.0.0.1:"), "{output:?}");
    assert_eq!(std::fs::read_to_string(desk.folder().join("code")).unwrap(), "1\n");
    desk.until_no_process_is_left().await;
    let state = std::fs::read_dir(desk.folder().join("state/tidemark")).unwrap().next().unwrap().unwrap().path();
    assert!(!state.join("kubeconfig").exists());
    assert_eq!(std::fs::metadata(state.join("logs")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn what_others_need_is_applied_first_wherever_it_stands() {
    let desk = Desk::new();
    let object = "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: x, namespace: late}\n";
    desk.write(
        "m/a.yaml",
        &format!(
            "{object}---\n{}",
            workload("shop", "", CRON).replace("metadata: {name: shop}", "metadata: {name: shop, namespace: late}")
        ),
    );
    desk.write("m/b.yaml", WIDGETS);
    desk.write("m/c.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: late}\n");
    let definitions = desk.tidemark(&["crds"], &[]).await.stdout;
    desk.write("m/d.yaml", &String::from_utf8(definitions).unwrap());
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;
    let deployments: Api<Deployment> = Api::namespaced(up.client.clone(), "late");
    desk.until(20, "the workload of the late namespace is scaled", async || {
        let deployment = deployments.get("shop").await.map_err(|error| error.to_string())?;
        match deployment.spec.replicas {
            Some(1) => Ok(()),
            other => Err(format!("{other:?} replicas")),
        }
    })
    .await;
    assert!(!up.log().contains("ERROR"), "{}", up.log());
}

const WIDGETS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.dev}
spec:
  group: example.dev
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";

#[tokio::test]
async fn an_operator_without_a_cluster_says_so_once_and_without_colours() {
    let desk = Desk::new();
    let output = desk.tidemark(&["operator", "--kubeconfig", "absent"], &[]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("tidemark: cannot use the kubeconfig absent: "), "{error}");
    assert_eq!(error.matches("No such file").count(), 1, "{error}");

    let [port] = free_ports().unwrap();
    desk.write(
        "config",
        &format!(
            "apiVersion: v1
kind: Config
current-context: a
contexts: [{{name: a, context: {{cluster: a, user: a}}}}]
clusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]
users: [{{name: a, user: {{}}}}]
"
        ),
    );
    let nowhere = ["--health-probe-bind-address=0", "--metrics-bind-address=0", "--metrics-service-bind-address=0"];
    desk.spawn("operator", &[&["operator", "--kubeconfig", "config"], &nowhere[..]].concat(), &[]);
    let waits =
        async || Ok(desk.log("operator")).and_then(|log| if log.contains("waiting") { Ok(log) } else { Err(log) });
    desk.until(30, "the operator waits for the API server", waits).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let log = desk.log("operator");
    assert!(log.contains("waiting for the API server: "), "{log}");
    assert_eq!(log.to_lowercase().matches("connection refused").count(), 1, "{log}");
    assert!(!log.contains('\x1b'), "{log:?}");
}

fn stubborn(command: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: stubborn}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: stubborn}}}}
  template:
    metadata: {{labels: {{app: stubborn}}}}
    spec: {{containers: [{{name: main, image: worker, command: {command}}}]}}
"
    )
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_way_out() {
    let desk = Desk::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = desk.tidemark(&["up", "--port", &port], &[]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen on port {port} of 127.0.0.1")), "{error}");
    assert!(error.contains("--port 0"), "{error}");
    assert!(!desk.folder().join("state").exists(), "a run that never was leaves nothing");
}

#[tokio::test]
async fn a_kubeconfig_of_another_cluster_is_neither_replaced_nor_removed() {
    let desk = Desk::new();
    let other = "apiVersion: v1\nkind: Config\nclusters: [{name: production, cluster: {server: https://10.0.0.1}}]\n";
    desk.write("config", other);
    let output = desk.tidemark(&["up", "--port", "0", "--kubeconfig", "config"], &[]).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("config: it is there already, and no earlier `tidemark up` wrote it"), "{error}");
    assert_eq!(std::fs::read_to_string(desk.folder().join("config")).unwrap(), other);
}

#[tokio::test]
async fn the_api_answers_only_who_has_the_token_and_comes_from_this_machine() {
    let desk = Desk::new();
    let up = Up::start(&desk, &["--simulate-pods"], &[]).await;
    let config = config(&up.kubeconfig).await;
    let mut anonymous = config.clone();
    anonymous.auth_info = Default::default();
    let mut impostor = config.clone();
    impostor.auth_info.token = Some("guessed".to_owned().into());

    let own = Client::try_from(config.clone()).unwrap();
    assert_eq!(status(&own, &[]).await, StatusCode::OK);
    assert_eq!(status(&Client::try_from(anonymous).unwrap(), &[]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&Client::try_from(impostor).unwrap(), &[]).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&own, &[("host", "evil.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&own, &[("origin", "https://evil.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(status(&own, &[("origin", "null")]).await, StatusCode::FORBIDDEN);
    // A process that listens on all addresses would answer at every address of this block.
    #[cfg(target_os = "linux")]
    assert!(!listens(&config, Ipv4Addr::new(127, 0, 0, 2)));
    assert!(listens(&config, Ipv4Addr::LOCALHOST));
}

async fn status(client: &Client, headers: &[(&str, &str)]) -> StatusCode {
    let mut request = Request::get("/api/v1/namespaces/default/secrets");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(kube::client::Body::empty()).unwrap());
    tokio::time::timeout(Duration::from_secs(10), answer).await.expect("an answer within 10 s").unwrap().status()
}

fn listens(config: &kube::Config, address: Ipv4Addr) -> bool {
    let port = config.cluster_url.port_u16().unwrap();
    TcpStream::connect_timeout(&SocketAddr::from((address, port)), Duration::from_secs(5)).is_ok()
}

#[tokio::test]
async fn the_definitions_are_printed_as_yaml_that_a_cluster_takes() {
    let output = Desk::new().tidemark(&["crds"], &[]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let crds: Vec<CustomResourceDefinition> =
        text.split("---\n").skip(1).map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    assert_eq!(
        crds.iter().map(|crd| crd.spec.names.kind.as_str()).collect::<Vec<_>>(),
        [
            "ScaledObject",
            "ScaledJob",
            "TriggerAuthentication",
            "ClusterTriggerAuthentication",
            "CloudEventSource",
            "ClusterCloudEventSource"
        ]
    );
    assert_eq!(crds, tidemark_api::crds());
}
