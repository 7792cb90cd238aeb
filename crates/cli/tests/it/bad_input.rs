//! What is wrong is said where it is wrong, in words that help, and disturbs nothing else.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use xtask::network::free_ports;

use crate::desk::{CRON, Desk, Up, workload};

#[tokio::test]
async fn each_bad_object_says_what_is_wrong_and_the_healthy_one_keeps_scaling() {
    let desk = Desk::new();
    let [queue_port, closed_port] = free_ports().unwrap();
    let queue = format!("http://127.0.0.1:{queue_port}");
    desk.spawn("queue", &["demo", "queue", "--listen", &format!("127.0.0.1:{queue_port}")], &[]);
    let mut tasks = JoinSet::new();
    let guarded = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let guarded_port = guarded.local_addr().unwrap().port();
    tasks.spawn(refuse(guarded));

    let metrics_api =
        |url: &str| format!("{{type: metrics-api, metadata: {{url: '{url}', valueLocation: open, targetValue: '5'}}}}");
    let amqp = |more: &str| format!("{{type: rabbitmq, {more}, mode: QueueLength, value: '5', queueName: orders}}}}");
    let healthy = workload("healthy", "maxReplicaCount: 3", &metrics_api(&format!("{queue}/stats")));
    desk.write("m/healthy.yaml", &healthy);
    desk.write("m/refused.yaml", &refused(guarded_port));
    let broker = format!("metadata: {{host: 'amqp://guest:guest@127.0.0.1:{closed_port}/'");
    desk.write("m/no-broker.yaml", &workload("no-broker", "", &amqp(&broker)));
    let nobody = format!("http://127.0.0.1:{closed_port}/stats");
    desk.write("m/no-server.yaml", &workload("no-server", "", &metrics_api(&nobody)));
    let lost = amqp("authenticationRef: {name: lost}, metadata: {protocol: amqp");
    desk.write("m/no-authentication.yaml", &workload("no-authentication", "", &lost));
    desk.write("m/no-secret.yaml", &(workload("no-secret", "", &lost.replace("lost", "keyless")) + KEYLESS));
    desk.write("m/unknown-type.yaml", &workload("unknown-type", "", "{type: rabitmq, metadata: {queueName: orders}}"));
    desk.write("m/no-parameter.yaml", &workload("no-parameter", "", &CRON.replace(", desiredReplicas: '1'", "")));
    desk.write("m/no-target.yaml", workload("no-target", "", CRON).split_once("---\n").unwrap().1);
    desk.write("m/reversed.yaml", &workload("reversed", "minReplicaCount: 5\n  maxReplicaCount: 2", CRON));
    let misnamed = "advanced: {horizontalPodAutoscalerConfig: {name: Bad_Name}}";
    desk.write("m/misnamed.yaml", &format!("%YAML 1.2\n---\n{}...\n", workload("misnamed", misnamed, CRON)));
    desk.write("m/broken.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: [broken\n");
    desk.write("m/half-broken.yaml", &format!("{}---\nkind: [\n", workload("half-broken", "", CRON)));
    desk.write("m/unknown-kind.yaml", "apiVersion: v1\nkind: Gadget\nmetadata: {name: x}\n");
    let up = Up::start(&desk, &["m", "--simulate-pods"], &[]).await;

    let log = up.log();
    for (place, message) in [
        ("m/broken.yaml:4:9: ", "not valid YAML"),
        ("m/half-broken.yaml:21:", "not valid YAML"),
        ("m/unknown-kind.yaml:1: Gadget x: ", "no kind Gadget in v1"),
        ("m/reversed.yaml:11: ScaledObject reversed: ", "minReplicaCount must not be greater than maxReplicaCount"),
    ] {
        let said = log.lines().any(|line| line.contains(" ERROR ") && line.contains(place) && line.contains(message));
        assert!(said, "no line with {place:?} and {message:?} in:\n{log}");
    }

    let no_broker = format!("cannot connect to 127.0.0.1:{closed_port}: connection refused");
    let guarded = format!("http://127.0.0.1:{guarded_port}/: api returned 401 Unauthorized");
    for (name, texts) in [
        ("refused", &[guarded.as_str(), "(authentication)"][..]),
        ("no-broker", &[&no_broker, "(unreachable)"]),
        ("no-server", &[&nobody, "onnection refused", "(unreachable)"]),
        ("no-authentication", &["trigger 0 (rabbitmq)", "TriggerAuthentication default/lost does not exist"]),
        ("no-secret", &["trigger 0 (rabbitmq)", "\"host\"", "Secret default/broker-login does not exist"]),
        ("unknown-type", &["trigger 0 (rabitmq)", "no scaler found for type: rabitmq", "did you mean rabbitmq?"]),
        ("no-parameter", &["trigger 0 (cron)", "missing required parameter \"desiredReplicas\""]),
        ("misnamed", &["\"Bad_Name\" is invalid: metadata.name", "lower case alphanumeric characters"]),
        ("no-target", &["deployments.apps \"no-target\" not found"]),
    ] {
        up.until_ready_is(name, "False", texts).await;
    }
    up.until_event("refused", "KEDAScalerFailed", &guarded).await;
    assert!(up.scaled_object("reversed").await.is_err_and(|error| error.contains("not found")));

    up.until_ready_is("healthy", "True", &[]).await;
    up.until_ready_is("half-broken", "True", &[]).await;
    let jobs = desk.tidemark(&["demo", "load", "--once", "--jobs", "40", "--queue", &queue], &[]).await;
    assert_eq!(jobs.status.code(), Some(0), "{}", String::from_utf8_lossy(&jobs.stderr));
    up.until_replicas(45, "healthy", 3..=3).await;
    up.until_replicas(30, "half-broken", 1..=1).await;

    let objects = serde_json::to_string(&up.events().await).unwrap() + &up.log();
    assert!(!objects.contains("sesame"), "{objects}");
}

/// Answers every request with 401, and with what it was sent: a reply, too, may hold a secret.
async fn refuse(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let echo = &request[..length];
            let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&[head.as_bytes(), echo].concat()).await;
        });
    }
}

/// An object that shows a wrong password to an HTTP server.
fn refused(port: u16) -> String {
    let trigger = format!(
        "{{type: metrics-api, authenticationRef: {{name: refused}}, metadata: {{url: 'http://127.0.0.1:{port}/', \
         valueLocation: open, targetValue: '5', authMode: bearer}}}}"
    );
    workload("refused", "", &trigger)
        + "---
apiVersion: v1
kind: Secret
metadata: {name: refused}
stringData: {token: open-sesame}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: refused}
spec: {secretTargetRef: [{parameter: token, name: refused, key: token}]}
"
}

/// An authentication that refers to a Secret that is not there.
const KEYLESS: &str = "---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: keyless}
spec: {secretTargetRef: [{parameter: host, name: broker-login, key: host}]}
";

#[tokio::test]
async fn where_nothing_can_run_up_says_so_and_fails() {
    let desk = Desk::new();
    desk.write("broken.yaml", "kind: [\n");
    desk.write(
        "reversed.yaml",
        workload("r", "minReplicaCount: 5\n  maxReplicaCount: 2", CRON).split_once("---\n").unwrap().1,
    );
    std::fs::create_dir(desk.folder().join("empty")).unwrap();
    desk.write("comments.yaml", "# nothing\n---\n# at all\n");
    std::fs::write(desk.folder().join("latin.yaml"), b"kind: \xff\n").unwrap();
    desk.write("label.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {a: 1}}\n");
    for (file, said, summary) in [
        ("absent.yaml", "absent.yaml: No such file", "nothing to run: no manifest could be read"),
        ("empty", "empty: no manifest in it", "nothing to run: no manifest could be read"),
        ("broken.yaml", "broken.yaml:1:7: not valid YAML", "nothing to run: no manifest could be read"),
        ("comments.yaml", "", "nothing to run: the files hold no manifest"),
        ("latin.yaml", "latin.yaml: it is not UTF-8 text", "nothing to run: no manifest could be read"),
        ("label.yaml", "label.yaml:1: ConfigMap a: ", "nothing to run: no manifest was accepted"),
        ("reversed.yaml", "reversed.yaml:1: ScaledObject r:", "nothing to run: no manifest was accepted"),
    ] {
        let output = desk.tidemark(&["up", file, "--port", "0", "--simulate-pods"], &[]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(said), "{error}");
        assert_eq!(error.lines().last(), Some(format!("tidemark: {summary}").as_str()));
    }
    desk.until_no_process_is_left().await;
}
