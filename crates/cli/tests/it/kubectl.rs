//! kubectl against `tidemark up`, and what it says of a real control plane.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tidemark_testkit::{ControlPlane, Kubelet, Options};
use tokio_util::sync::CancellationToken;

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
    kubeconfig: PathBuf,
    /// Below which it keeps what it has learnt of the server.
    home: PathBuf,
}

impl Kubectl<'_> {
    async fn output(&self, line: &str) -> Output {
        let mut command = self.desk.command(&self.program);
        let home = self.home.as_os_str();
        // What `edit` starts makes one change by itself.
        let editor = "sed -i s/nginx:1/nginx:4/";
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", home).env("KUBE_EDITOR", editor).args(line.split(' '));
        self.desk.finish(command).await
    }

    /// Runs a command that succeeds without a warning, and gives what it prints.
    async fn run(&self, line: &str) -> String {
        let output = self.output(line).await;
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success() && error.is_empty(), "kubectl {line}\n{out}\n{error}");
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
    let home = desk.folder().to_owned();
    let kubectl = Kubectl { program, desk: &desk, kubeconfig: up.kubeconfig.clone(), home };
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
        ("auth can-i get pods", "selfsubjectaccessreviews"),
        ("create token default", "serviceaccounts/token"),
        ("exec deploy/shop -- true", "pods/exec"),
    ] {
        let refusal = kubectl.refusal(line).await;
        assert!(
            refusal.contains("not implemented by the sandbox") && refusal.contains(what),
            "kubectl {line}: {refusal}"
        );
    }
    let refusal = kubectl.refusal("get nodes").await;
    assert!(refusal.contains("the server doesn't have a resource type \"nodes\""), "{refusal}");
}

const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: none
    command: [sh, -c, "echo one; echo two >&2; while [ ! -e go ]; do sleep 0.1; done; echo three"]
    workingDir: FOLDER
"#;

#[tokio::test]
async fn kubectl_reads_and_follows_the_log_of_a_pod() {
    let Some(program) = find() else { return };
    let desk = Desk::new();
    desk.write("talker.yaml", &TALKER.replace("FOLDER", desk.folder().to_str().unwrap()));
    let up = Up::start(&desk, &["talker.yaml", "--kubeconfig", "kube/config"], &[]).await;
    let home = desk.folder().to_owned();
    let kubectl = Kubectl { program, desk: &desk, kubeconfig: up.kubeconfig.clone(), home };
    kubectl.run("wait --for=jsonpath={.status.phase}=Running pod/talker --timeout=30s").await;
    desk.until(20, "the first lines are in the log", async || {
        let log = kubectl.output("logs talker").await;
        let text = String::from_utf8(log.stdout).unwrap();
        if text == "one\ntwo\n" { Ok(()) } else { Err(text) }
    })
    .await;
    assert_eq!(kubectl.run("logs talker -c main --tail=1").await, "two\n");
    let stamped = kubectl.run("logs talker --timestamps --limit-bytes=40").await;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.len() == 30 && time.ends_with('Z') && text.starts_with("one\n"), "{stamped}");
    assert!(kubectl.refusal("logs talker -c other").await.contains("container other is not valid for pod talker"));
    assert!(kubectl.refusal("logs talker --previous").await.contains("previous terminated container \"main\""));
    let follow = async { kubectl.run("logs talker -f").await };
    let go = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        desk.write("go", "");
    };
    let (followed, ()) = tokio::join!(follow, go);
    assert_eq!(followed, "one\ntwo\nthree\n", "until the container has ended");
    kubectl.run("wait --for=jsonpath={.status.phase}=Succeeded pod/talker --timeout=30s").await;
    assert_eq!(kubectl.run("logs talker --since=1h").await, "one\ntwo\nthree\n");
}

const APP: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: web}}
data: {a: "1", b: "2"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: main
        image: "nginx:1"
        ports: [{containerPort: 80}]
        env: [{name: A, value: b}, {name: C, valueFrom: {configMapKeyRef: {name: settings, key: a}}}]
        resources: {limits: {cpu: 500m, memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 80}]}
"#;

const WORK: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  suspend: true
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: i, command: [sh, -c, "echo hi"]}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 0
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: i}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: keys, finalizers: [example.com/hold]}
stringData: {a: b}
"#;

const WRONG: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: wrong}
spec:
  replicas: -1
  selector: {matchLabels: {app: a}}
  template: {metadata: {labels: {app: b}}, spec: {containers: [{name: c}]}}
"#;

/// What is said the same by both servers, in this order. Words are parted by single spaces.
const SCRIPT: &[&str] = &[
    "create ns script",
    "config set-context --current --namespace=script",
    "apply -f app.yaml",
    "apply -f app.yaml",
    "rollout status deploy/web --timeout=20s",
    "diff -f changed.yaml",
    "diff --server-side --force-conflicts -f changed.yaml",
    "apply --dry-run=server -f changed.yaml",
    "apply --dry-run=server -f app.yaml",
    "apply --server-side --field-manager=other -f changed.yaml",
    "apply --server-side -f app.yaml",
    "apply --server-side --dry-run=server -f changed.yaml",
    "apply --server-side -f changed.yaml",
    "apply --server-side --field-manager=other -f app.yaml",
    "apply --server-side --force-conflicts --field-manager=other -f app.yaml",
    "apply --server-side -f changed.yaml",
    "apply --server-side --force-conflicts -f app.yaml",
    "apply -f unknown.yaml",
    "apply --server-side -f unknown.yaml",
    "apply --validate=warn -f unknown.yaml",
    "create -f wrong.yaml",
    "create -f mistyped.yaml",
    "get cm,deploy,svc",
    "get deploy -o wide",
    "get svc -o wide",
    "get cm settings -o jsonpath={.data}",
    "get deploy web -o jsonpath={.spec.template.spec.containers[0]}",
    "get svc web -o jsonpath={.spec.ports}{.spec.type}{.status}",
    "label deploy web x=y",
    "label deploy web x=z",
    "label deploy web x=z --overwrite",
    "label deploy web x-",
    "annotate cm settings n=m",
    "patch cm settings -p {\"data\":{\"p\":\"q\"}}",
    "patch cm settings -p {\"data\":{\"p\":\"q\"}}",
    "patch cm settings --type=json -p [{\"op\":\"remove\",\"path\":\"/data/p\"}]",
    "patch cm settings --type=json -p [{\"op\":\"remove\",\"path\":\"/data/zz\"}]",
    "patch cm settings --type=merge -p {\"data\":{\"b\":null}}",
    "patch deploy web -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"main\",\"image\":\"nginx:1\"}]}}}}",
    "edit deploy web",
    "get deploy web -o jsonpath={.spec.template.spec.containers[0].image}",
    "set image deploy/web main=nginx:5",
    "set env deploy/web X=1",
    "rollout status deploy/web --timeout=20s",
    "rollout history deploy/web",
    "rollout undo deploy/web --to-revision=1",
    "rollout pause deploy/web",
    "rollout resume deploy/web",
    "scale deploy web --replicas=0",
    "scale deploy web --replicas=-1",
    "autoscale deploy web --min=1 --max=3 --cpu=50%",
    "get hpa web -o jsonpath={.spec}",
    "expose deploy web --port=90 --name=other",
    "create -f work.yaml",
    "create -f work.yaml",
    "get job",
    "describe job work",
    "get job work -o jsonpath={.spec.parallelism}{.spec.completions}{.spec.backoffLimit}{.spec.manualSelector}",
    "get sts -o wide",
    "describe sts db",
    "rollout status sts/db --timeout=20s",
    "describe cm settings",
    "describe secret keys",
    "delete secret keys --wait=false",
    "get secret keys -o jsonpath={.metadata.finalizers}",
    "patch secret keys --type=merge -p {\"metadata\":{\"finalizers\":null}}",
    "wait --for=delete secret/keys --timeout=20s",
    "wait --for=jsonpath={.spec.suspend}=true job/work --timeout=20s",
    "wait --for=condition=Complete job/work --timeout=1s",
    "create job one --image=x --dry-run=server -o name",
    "create job two --image=x --dry-run=server -o jsonpath={.spec.template.spec.containers} -- sh -c true",
    "create secret generic s --from-literal=a=b --dry-run=server -o jsonpath={.data}{.type}",
    "create configmap c --from-literal=a=b -o jsonpath={.data} --dry-run=server",
    "create deployment d --image=x --replicas=0 --port=80 -o jsonpath={.spec} --dry-run=server",
    "create service clusterip s --tcp=80:8080 -o jsonpath={.spec.ports} --dry-run=server",
    "run p --image=x --dry-run=server -o jsonpath={.spec.containers}{.spec.restartPolicy}{.status}",
    "create serviceaccount builder",
    "create ns script",
    "replace -f work.yaml",
    "get pod nope",
    "get nope",
    "delete cm nope",
    "get cm -l a=b",
    "get cm --field-selector metadata.name=settings -o name",
    "get cm --field-selector data.x=y",
    "get pods --field-selector data.x=y",
    "get pods -l a==,b",
    "explain deploy",
    "explain deploy.spec.strategy",
    "explain pods.spec.containers.resources --recursive",
    "explain hpa.spec.metrics",
    "explain job.spec.nope",
    "explain nope",
    "patch sts db --subresource=nope --type=merge -p {}",
    "get sts db --subresource=status",
    "get sts db --subresource=scale",
    "delete -f work.yaml --ignore-not-found",
    "delete cm,svc --all",
    "get cm,svc",
    "delete hpa web",
    "delete deploy web",
    "wait --for=delete rs -l app=web --timeout=20s",
    "config set-context --current --namespace=default",
    "delete ns script --timeout=30s",
    "get ns script",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_says_the_same_of_both_servers() {
    let Some(program) = find() else { return };
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let shutdown = CancellationToken::new();
    let kubelet = tokio::spawn(Kubelet::run(plane.client().await.unwrap(), shutdown.clone()));
    let desk = Desk::new();
    desk.write("app.yaml", APP);
    desk.write("changed.yaml", &APP.replace("nginx:1", "nginx:2").replace("a: \"1\"", "a: \"9\""));
    desk.write("unknown.yaml", &APP.replace("  replicas: 0", "  replicas: 0\n  bogus: 1"));
    desk.write("work.yaml", WORK);
    desk.write("wrong.yaml", WRONG);
    desk.write("mistyped.yaml", &WRONG.replace("-1", "many"));
    let up = Up::start(&desk, &["--simulate-pods", "--kubeconfig", "kube/config"], &[]).await;
    // A copy, since the script changes it.
    let copied = desk.folder().join("plane-config");
    std::fs::copy(plane.kubeconfig(), &copied).unwrap();
    let side = |name: &'static str, kubeconfig: PathBuf| {
        let home = desk.folder().join(name);
        std::fs::create_dir_all(&home).unwrap();
        Side { kubectl: Kubectl { program: program.clone(), desk: &desk, kubeconfig, home }, name }
    };
    let (ours, theirs) = (side("sandbox", up.kubeconfig.clone()), side("plane", copied));
    let mut differences = String::new();
    for line in SCRIPT {
        let (mine, real) = tokio::join!(ours.say(line), theirs.say(line));
        if mine != real && !line.starts_with("config ") {
            differences.push_str(&format!("kubectl {line}\n--- {}\n{mine}--- {}\n{real}\n", ours.name, theirs.name));
        }
    }
    shutdown.cancel();
    kubelet.await.unwrap().unwrap();
    assert!(differences.is_empty(), "{differences}");
}

/// One of the two servers, and the folder from which kubectl works against it.
struct Side<'a> {
    kubectl: Kubectl<'a>,
    name: &'static str,
}

/// What a command did.
#[derive(PartialEq, Eq)]
struct Said {
    code: Option<i32>,
    out: String,
    error: String,
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n{}{}", self.code, self.out, self.error)
    }
}

impl Side<'_> {
    async fn say(&self, line: &str) -> Said {
        let output = self.kubectl.output(line).await;
        let text = |bytes: &[u8]| masked(&String::from_utf8_lossy(bytes));
        Said { code: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) }
    }
}

/// A text without what is different each time: identities, addresses, times and what follows from them.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        // `diff` names temporary files.
        if line.starts_with("diff ") || line.starts_with("--- ") || line.starts_with("+++ ") {
            continue;
        }
        let words: Vec<String> = line.split(' ').map(mask).collect();
        let mut line = words.join(" ");
        // Columns are as wide as what is in them.
        while line.contains("  ") && !line.starts_with(' ') {
            line = line.replace("  ", " ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn mask(word: &str) -> String {
    let unmarked = |word: &str| -> Option<usize> {
        let dashes = [8, 13, 18, 23];
        let is_uid = |text: &[u8]| {
            text.iter().enumerate().all(
                |(at, byte)| {
                    if dashes.contains(&at) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
                },
            )
        };
        word.as_bytes().windows(36).position(is_uid)
    };
    if let Some(at) = unmarked(word) {
        return format!("{}UID{}", &word[..at], mask(&word[at + 36..]));
    }
    let core = word.trim_matches(|c: char| matches!(c, '"' | '\'' | ',' | '(' | ')' | ':' | ';'));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let time = core.len() >= 20 && core.as_bytes()[4] == b'-' && core.contains('T') && core.ends_with('Z');
    let clock = core.len() == 8 && core.split(':').count() == 3 && core.split(':').all(digits);
    let address = core.split('.').count() == 4 && core.split('.').all(digits);
    let age = core.len() > 1
        && core.ends_with(['s', 'm'])
        && core.chars().all(|c| c.is_ascii_digit() || matches!(c, 's' | 'm' | 'h'));
    if core.is_empty() {
        return word.to_owned();
    }
    let mark = match () {
        () if time || clock => "TIME",
        () if address => "ADDRESS",
        () if age => "AGE",
        () => return word.to_owned(),
    };
    word.replace(core, mark)
}
