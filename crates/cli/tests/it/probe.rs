//! `tidemark probe`: what each trigger of a manifest says at this moment.

use serde_json::Value;
use xtask::network::free_ports;

use crate::desk::{CRON, Desk, Up, workload};

#[tokio::test]
async fn each_trigger_is_read_once_and_says_what_came_of_it_without_a_secret() {
    let desk = Desk::new();
    let [queue_port, closed_port] = free_ports().unwrap();
    let queue = format!("http://127.0.0.1:{queue_port}");
    desk.spawn("queue", &["demo", "queue", "--listen", &format!("127.0.0.1:{queue_port}")], &[]);
    desk.until(20, "the queue takes jobs", async || {
        let jobs = desk.tidemark(&["demo", "load", "--once", "--jobs", "12", "--queue", &queue], &[]).await;
        if jobs.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&jobs.stderr).into_owned()) }
    })
    .await;
    let open =
        format!("{{type: metrics-api, metadata: {{url: '{queue}/stats', valueLocation: open, targetValue: '5'}}}}");
    desk.write("m/jobs.yaml", &workload("jobs", "maxReplicaCount: 10", &open));
    let cpu = "{type: cpu, metricType: Utilization, metadata: {value: '60'}}";
    desk.write("m/mixed.yaml", &workload("mixed", "", &format!("{CRON}\n    - {cpu}\n    - {}", broker())));
    desk.write("m/login.yaml", &login(closed_port));
    desk.write(
        "m/later.yaml",
        &format!(
            "apiVersion: keda.sh/v1alpha1
kind: ScaledJob
metadata: {{name: batch}}
spec:
  jobTargetRef: {{template: {{spec: {{containers: [{{name: main, image: worker}}]}}}}}}
  maxReplicaCount: 2
  triggers: [{open}]
"
        ),
    );

    let output = desk.tidemark(&["probe", "-f", "m", "-o", "json"], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let jobs = &found["documents"][0];
    assert_eq!((&jobs["name"], &jobs["active"], &jobs["replicas"]), (&"jobs".into(), &true.into(), &3.into()));
    let read = &jobs["triggers"][0];
    assert_eq!((&read["metrics"][0]["value"], &read["metrics"][0]["target"]), (&"12".into(), &"5".into()));
    assert!(read["latencyMilliseconds"].is_number() && read["error"].is_null(), "{read}");
    let batch = &found["documents"][1];
    assert_eq!((&batch["name"], &batch["active"], &batch["jobs"]), (&"batch".into(), &true.into(), &2.into()));
    let mixed = &found["documents"][2];
    assert_eq!((&mixed["active"], &mixed["replicas"]), (&true.into(), &Value::Null), "cpu and a failure are unknown");
    let [cron, cpu, broker] = [0, 1, 2].map(|index| &mixed["triggers"][index]);
    assert_eq!(cron["metrics"][0]["active"], true);
    assert_eq!((&cpu["readByHpa"], &cpu["metrics"][0]["name"]), (&true.into(), &"cpu".into()));
    assert_eq!(broker["error"]["kind"], "unreachable");
    assert!(broker["error"]["message"].as_str().unwrap().contains(&format!("127.0.0.1:{closed_port}")), "{broker}");

    let text = desk.tidemark(&["probe", "-f", "m"], &[]).await;
    let said = String::from_utf8(text.stdout).unwrap();
    for line in [
        "trigger 0 (metrics-api): 12, target 5 per replica",
        "the HPA would come to 3",
        "2 would be started if none ran",
        "error (unreachable",
    ] {
        assert!(said.contains(line), "{line:?} in:\n{said}");
    }
    let all = said + &String::from_utf8(output.stdout).unwrap() + &String::from_utf8(text.stderr).unwrap();
    assert!(!all.contains("sesame"), "{all}");
}

#[tokio::test]
async fn what_cannot_be_probed_is_said_with_its_place() {
    let desk = Desk::new();
    desk.write("broken.yaml", "kind: [\n");
    desk.write("none.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n");
    desk.write("typo.yaml", &workload("typo", "", &CRON.replace("type: cron", "type: crom")));
    let invalid = workload("invalid", "pollingInterval: often", CRON).replace("  pollingInterval: 1\n", "");
    desk.write("invalid.yaml", &invalid);
    for (file, code, said) in [
        ("absent.yaml", 2, "absent.yaml: No such file"),
        ("broken.yaml", 2, "broken.yaml:1:"),
        ("none.yaml", 0, "no ScaledObject or ScaledJob found"),
        ("typo.yaml", 1, "no scaler found for type: crom, did you mean cron?"),
        ("invalid.yaml", 2, "pollingInterval"),
    ] {
        let output = desk.tidemark(&["probe", "-f", file], &[]).await;
        let all = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{file}: {all}");
        assert!(all.contains(said), "{file}: {all}");
    }
}

#[tokio::test]
async fn what_the_files_lack_comes_from_the_cluster_that_is_named() {
    let desk = Desk::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let [closed_port] = free_ports().unwrap();
    desk.write("cluster.yaml", &(login(closed_port) + "---\n" + &workload("shop", "", CRON)));
    let pods = "{type: kubernetes-workload, metadata: {podSelector: 'app=shop', value: '1'}}";
    let object = |name: &str, trigger: &str| workload(name, "", trigger).split_once("---\n").unwrap().1.to_owned();
    let quiet = format!(
        "{{type: metrics-api, metadata: {{url: 'http://{}/', valueLocation: a, targetValue: '5'}}}}",
        silent.local_addr().unwrap()
    );
    desk.write("m/shop.yaml", &object("shop", &format!("{pods}\n    - {}\n    - {quiet}", broker())));
    let up = Up::start(&desk, &["cluster.yaml", "--simulate-pods"], &[]).await;
    up.until_replicas(30, "shop", 1..=1).await;

    let alone = desk.tidemark(&["probe", "-f", "m", "-o", "json", "--timeout", "1"], &[]).await;
    let found: Value = serde_json::from_slice(&alone.stdout).unwrap();
    let errors = [0, 1, 2].map(|index| found["documents"][0]["triggers"][index]["error"].clone());
    assert_eq!(errors.each_ref().map(|error| &error["kind"]), ["configuration", "configuration", "timed out"]);
    assert!(errors[1]["message"].as_str().unwrap().contains("TriggerAuthentication default/broker does not exist"));
    for error in &errors[..2] {
        assert!(error["remedy"].as_str().unwrap().contains("--context or --kubeconfig"), "{error}");
    }

    let kubeconfig = up.kubeconfig.to_str().unwrap();
    let arguments = ["probe", "-f", "m", "-o", "json", "--timeout", "2", "--kubeconfig", kubeconfig];
    let output = desk.tidemark(&arguments, &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let object = &found["documents"][0];
    assert_eq!((&object["presentReplicas"], &object["active"]), (&1.into(), &true.into()), "{found}");
    assert_eq!(object["triggers"][0]["metrics"][0]["value"], "1");
    assert_eq!(object["triggers"][1]["error"]["kind"], "unreachable", "the login is found, the broker is not there");
    assert!(!String::from_utf8(output.stdout).unwrap().contains("sesame"));
}

fn broker() -> &'static str {
    "{type: rabbitmq, authenticationRef: {name: broker}, metadata: {mode: QueueLength, value: '5', queueName: orders}}"
}

/// A login for a broker that is not there.
fn login(port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: broker}}
stringData: {{host: 'amqp://guest:open-sesame@127.0.0.1:{port}/'}}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {{name: broker}}
spec: {{secretTargetRef: [{{parameter: host, name: broker, key: host}}]}}
"
    )
}
