//! What the definitions and the objects live through when releases come and go, and an operator that starts where no
//! Deployment tells of KEDA.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tidemark_testkit::{ControlPlane, Kubelet, Options};
use tokio_util::sync::CancellationToken;
use xtask::network::free_ports;

use super::kedas_chart;
use super::left::seasonal;
use super::release::{CHART, Helm, NAMESPACE, OPERATOR, Ports, Processes, Rest};
use crate::with_keda::processes::{Keda, Part, established};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_and_objects_outlive_releases_that_keep_them() {
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let Some(helm) = Helm::find(&plane) else { return };
    let [link, api, hooks] = free_ports().unwrap();
    let Some(mut keda) = Keda::prepare(&plane, Ports { link, api, hooks }, kedas_chart::flags).await else { return };
    let rest = Rest(plane.client().await.unwrap());
    let stop = CancellationToken::new();
    let kubelet = tokio::spawn(Kubelet::run(rest.0.clone(), stop.clone()));
    let settings = vec!["kedaNames=true".to_owned()];
    let chart = kedas_chart::write(plane.directory(), helm.rendered(&settings), true);
    helm.run(&["install", "keda", chart.to_str().unwrap(), "--create-namespace"]);
    established(&rest).await;
    keda.make_certificates().await;
    keda.run(Part::Operator);
    let object = seasonal("harvest", "default", "keda-hpa-harvest");
    object.create(&rest, 1).await;
    keda.until("KEDA works", async || object.is_worked_on(&rest).await).await;
    refuses_beside_a_lease_of_keda(&plane, &rest).await;
    assert!(keda.stop(Part::Operator).await.success());
    let (before, hpa) = (rest.get(&object.path()).await, rest.get(&object.hpa_path()).await);

    // Another release takes the objects that the first one has left, if it is told to.
    helm.run(&["uninstall", "keda", "--wait"]);
    assert_eq!(rest.get(&object.path()).await, before);
    // The Job of the last uninstall finishes at once here.
    let finishes = "--set-string=uninstallJob.annotations.testkit\\.tidemark\\.dev/finish-after-seconds=0";
    let install = ["install", "tidemark", CHART, "--set=kedaNames=true", finishes];
    let refused = helm.try_run(&install).unwrap_err();
    assert!(refused.contains("invalid ownership metadata"), "{refused}");
    helm.run(&[&install[..], &["--take-ownership"]].concat());
    assert_eq!(rest.get(&object.path()).await["spec"], before["spec"]);

    // A release without them leaves those that are marked.
    helm.run(&["upgrade", "tidemark", CHART, "--reuse-values", "--set=crds.install=false"]);
    helm.run(&["uninstall", "tidemark", "--wait"]);
    assert_eq!(rest.get(&object.path()).await["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(rest.get(&object.hpa_path()).await["metadata"]["uid"], hpa["metadata"]["uid"]);
    stop.cancel();
    kubelet.await.unwrap().unwrap();
}

/// Where no Deployment tells of KEDA, its Lease does.
async fn refuses_beside_a_lease_of_keda(plane: &ControlPlane, rest: &Rest) {
    let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{OPERATOR}");
    rest.merge(&deployment, "test", &json!({"spec": {"replicas": 0}})).await;
    let processes = Processes::without_certificates();
    let is_down = async || match rest.get(&deployment).await["status"]["readyReplicas"].as_i64() {
        None | Some(0) => Ok(()),
        ready => Err(format!("{ready:?}")),
    };
    processes.until("KEDA's Deployment is down", PATIENCE, is_down).await;
    let arguments = ["operator", "--metrics-bind-address=0", "--health-probe-bind-address=0"];
    processes.spawn("rash", &arguments.map(str::to_owned), plane.kubeconfig(), BTreeMap::new());
    assert_eq!(processes.ended("rash").await.code(), Some(1));
    let said = processes.log("rash");
    assert!(said.contains("holds the Lease keda/operator.keda.sh"), "{said}");
}
