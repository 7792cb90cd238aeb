//! kubectl against `tidemark up`.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::desk::{CRON, Desk, Up, skip, workload};

/// kubectl from the control plane's folder, else the one on the path; a visible skip where there is none.
fn find() -> Option<PathBuf> {
    let folder = xtask::control_plane::find().unwrap_or_else(|error| panic!("{error:#}"));
    let built = folder.map(|folder| folder.join("kubectl")).filter(|file| file.is_file());
    let installed = || Command::new("kubectl").arg("version").arg("--client").output().is_ok();
    let found = built.or_else(|| installed().then(|| "kubectl".into()));
    if found.is_none() {
        skip("TIDEMARK_REQUIRE_CONTROL_PLANE", "there is no kubectl (`cargo xtask control-plane` builds one)");
    }
    found
}

struct Kubectl<'a> {
    program: PathBuf,
    desk: &'a Desk,
    up: &'a Up<'a>,
}

impl Kubectl<'_> {
    async fn output(&self, line: &str) -> Output {
        let mut command = self.desk.command(&self.program);
        // Its cache of what the server has goes below the home directory.
        command.env("KUBECONFIG", &self.up.kubeconfig).env("HOME", self.desk.folder()).args(line.split(' '));
        self.desk.finish(command).await
    }

    /// Runs a command that succeeds without a warning, and gives what it prints.
    async fn run(&self, line: &str) -> String {
        let output = self.output(line).await;
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && error.is_empty(), "kubectl {line}\n{out}\n{error}\n{}", self.up.log());
        out
    }

    /// Runs a command that fails, and gives what it says.
    async fn refusal(&self, line: &str) -> String {
        let output = self.output(line).await;
        assert_eq!(output.status.code(), Some(1), "kubectl {line}\n{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// The rows of a table, each as its cells. An empty cell leaves none.
    async fn table(&self, line: &str) -> Vec<Vec<String>> {
        let text = self.run(line).await;
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }
}

#[tokio::test]
async fn kubectl_reads_and_changes_what_up_runs() {
    let Some(program) = find() else { return };
    let desk = Desk::new();
    desk.write("shop.yaml", &workload("shop", "maxReplicaCount: 3", CRON));
    let up = Up::start(&desk, &["shop.yaml", "--simulate-pods", "--kubeconfig", "kube/config"], &[]).await;
    let kubectl = Kubectl { program, desk: &desk, up: &up };
    assert_eq!(up.kubeconfig, desk.folder().join("kube/config"));
    up.until_replicas(20, "shop", 1..=1).await;

    shows_tables_and_yaml(&kubectl).await;
    applies_scales_and_deletes(&kubectl, &up).await;
    watches_end(&kubectl).await;
    says_what_is_not_served(&kubectl).await;
    assert_eq!(up.interrupt().await.code(), Some(0), "{}", up.log());
    assert!(!up.kubeconfig.exists());
}

async fn shows_tables_and_yaml(kubectl: &Kubectl<'_>) {
    let objects = kubectl.table("get so").await;
    assert_eq!(objects[0][..6], ["NAME", "SCALETARGETKIND", "SCALETARGETNAME", "MIN", "MAX", "READY"]);
    // `MIN` is not set in the manifest.
    assert_eq!(objects[1][..6], ["shop", "apps/v1.Deployment", "shop", "3", "True", "True"]);
    let hpas = kubectl.table("get hpa").await;
    assert_eq!(hpas[0], ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]);
    assert_eq!(hpas[1][..2], ["keda-hpa-shop", "Deployment/shop"]);
    let deployments = kubectl.table("get deploy").await;
    assert_eq!(deployments[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert_eq!(deployments[1][..4], ["shop", "1/1", "1", "1"]);
    let pods = kubectl.table("get pods").await;
    assert_eq!(pods[0], ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!((pods.len(), &pods[1][1..4]), (2, &["1/1", "Running", "0"].map(str::to_owned)[..]));
    let all = kubectl.run("get so,hpa,deploy,pods").await;
    for title in ["scaledobject.keda.sh/shop", "keda-hpa-shop", "deployment.apps/shop", "pod/shop-"] {
        assert!(all.contains(title), "{all}");
    }

    let yaml: Value = serde_saphyr::from_str(&kubectl.run("get so shop -o yaml").await).unwrap();
    assert_eq!(yaml["kind"], "ScaledObject");
    assert_eq!(yaml["spec"]["triggers"][0]["metadata"]["desiredReplicas"], "1");
    assert_eq!(yaml["status"]["hpaName"], "keda-hpa-shop");
    let described = kubectl.run("describe so shop").await;
    assert!(described.contains("KEDAScaleTargetActivated"), "{described}");

    let kinds = kubectl.run("api-resources").await;
    for kind in ["scaledobjects", "triggerauthentications", "deployments", "horizontalpodautoscalers", "pods"] {
        assert!(kinds.lines().any(|line| line.starts_with(kind)), "{kinds}");
    }
}

async fn applies_scales_and_deletes(kubectl: &Kubectl<'_>, up: &Up<'_>) {
    let (manifest, name) = (workload("late", "maxReplicaCount: 3", CRON), "late.yaml");
    kubectl.desk.write(name, &manifest);
    let applied = kubectl.run("apply -f late.yaml").await;
    assert_eq!(applied, "deployment.apps/late created\nscaledobject.keda.sh/late created\n");
    up.until_replicas(20, "late", 1..=1).await;
    kubectl.desk.write(
        name,
        &manifest.replace("replicas: 0", "replicas: 1").replace("maxReplicaCount: 3", "maxReplicaCount: 4"),
    );
    let applied = kubectl.run("apply -f late.yaml").await;
    assert_eq!(applied, "deployment.apps/late configured\nscaledobject.keda.sh/late configured\n");
    let applied = kubectl.run("apply -f late.yaml").await;
    assert_eq!(applied, "deployment.apps/late unchanged\nscaledobject.keda.sh/late unchanged\n");

    kubectl.run("annotate so late autoscaling.keda.sh/paused-replicas=3").await;
    up.until_replicas(20, "late", 3..=3).await;
    kubectl.run("annotate so late autoscaling.keda.sh/paused-replicas-").await;
    kubectl
        .run("wait --for=jsonpath={.status.conditions[?(@.type==\"Paused\")].status}=False so/late --timeout=20s")
        .await;

    kubectl.run("delete so late").await;
    assert!(kubectl.refusal("get hpa keda-hpa-late").await.contains("not found"));
    // The deleted object left the replicas as they were, and nobody else sets them now.
    kubectl.run("scale deploy late --replicas=2").await;
    kubectl.run("rollout status deploy/late --timeout=20s").await;
    up.until_replicas(20, "late", 2..=2).await;
    assert_eq!(kubectl.run("delete deploy late").await.lines().count(), 1);
    kubectl.run("wait --for=delete pods -l app=late --timeout=20s").await;
}

async fn watches_end(kubectl: &Kubectl<'_>) {
    let watched = kubectl.run("get pods -w --request-timeout=2s").await;
    assert!(watched.contains("shop-"), "{watched}");
}

async fn says_what_is_not_served(kubectl: &Kubectl<'_>) {
    for (line, what) in [
        ("apply --server-side -f shop.yaml", "server-side apply"),
        ("logs deploy/shop", "pods/log"),
        ("auth can-i get pods", "selfsubjectaccessreviews"),
    ] {
        let refusal = kubectl.refusal(line).await;
        let said = refusal.lines().any(|line| line.contains("(NotImplemented)") && line.contains(what));
        assert!(said, "kubectl {line}: {refusal}");
    }
    let refusal = kubectl.refusal("get nodes").await;
    assert!(refusal.contains("the server doesn't have a resource type \"nodes\""), "{refusal}");
}
