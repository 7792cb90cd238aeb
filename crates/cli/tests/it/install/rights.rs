//! The roles of the chart: the list's, enough, and no more than enough.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tidemark_api::ScaledObject;
use tidemark_cli::install::rbac::{self, Named, Process, Scope, Setting, When};
use tidemark_testkit::{ControlPlane, Options};
use tokio::time::{Instant, sleep};

use super::{CHART, PATIENCE, api, check, helm, install, named, of_kind, operator, rendered};

#[test]
fn the_chart_holds_the_present_rights_definitions_and_alerts() {
    check("rbac.yaml", &serde_saphyr::to_string(&rbac::data()).unwrap());
    for crd in tidemark_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        check(&format!("crds/{name}.yaml"), &serde_saphyr::to_string(&crd).unwrap());
    }
    check("alerts.yaml", &std::fs::read_to_string("../../observability/alerts.yaml").unwrap());
    let files = std::fs::read_dir(Path::new(CHART).join("files/crds")).unwrap().count();
    assert_eq!(files, tidemark_api::crds().len());
}

#[test]
fn the_roles_are_the_lists_under_either_names() {
    let Some(helm) = helm() else { return };
    for (settings, operator, configuration) in
        [(&[][..], "tidemark-operator", "tidemark-admission"), (&["kedaNames=true"], "keda-operator", "keda-admission")]
    {
        let objects = rendered(&helm, "1.36.0", settings);
        let setting = Setting { certificates: "kedaorg-certs", webhook_configuration: configuration };
        for (process, scope, kind, name) in [
            (Process::Operator, Scope::Watched, "ClusterRole", operator.to_owned()),
            (Process::Operator, Scope::Cluster, "ClusterRole", format!("{operator}-minimal-cluster-role")),
            (Process::Operator, Scope::Installation, "Role", format!("{operator}-certs")),
            (Process::Webhooks, Scope::Cluster, "ClusterRole", format!("{operator}-webhook")),
            (Process::Release, Scope::Watched, "ClusterRole", format!("{operator}-release")),
            (Process::Release, Scope::Cluster, "ClusterRole", format!("{operator}-release-cluster")),
            (Process::Release, Scope::Installation, "Role", format!("{operator}-release-lease")),
        ] {
            let rules = &named(&objects, kind, &name)["rules"];
            assert_eq!(*rules, Value::from(rbac::rules(process, scope, setting)), "{name}");
        }
        let own: BTreeSet<_> =
            of_kind(&objects, "ServiceAccount").iter().map(|account| account["metadata"]["name"].as_str()).collect();
        let bindings = objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Binding"));
        let bound = bindings.filter(|binding| own.contains(&binding["subjects"][0]["name"].as_str()));
        assert_eq!(bound.count(), 4 + 3 + 2, "the processes and the Job have no other role");
        for (binding, role) in [
            (format!("{operator}-system-auth-delegator"), rbac::METRICS_SERVER_CLUSTER_ROLE),
            (format!("{operator}-auth-reader"), rbac::METRICS_SERVER_ROLE),
        ] {
            let found = objects.iter().find(|object| object["metadata"]["name"] == *binding).unwrap();
            assert_eq!(found["roleRef"]["name"], role);
        }
        assert!(rbac::rules(Process::MetricsServer, Scope::Watched, setting).is_empty());
    }
}

/// Whether the API server lets an account do something.
async fn may(client: &Client, account: &str, attributes: &Value) -> bool {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:tidemark", "system:authenticated"];
    let review: SubjectAccessReview = serde_json::from_value(json!({"spec": {
        "user": format!("system:serviceaccount:tidemark:{account}"), "groups": groups,
        "resourceAttributes": attributes,
    }}))
    .unwrap();
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

async fn comes_to(client: &Client, account: &str, attributes: &Value, allowed: bool) {
    let start = Instant::now();
    while may(client, account, attributes).await != allowed {
        assert!(start.elapsed() < PATIENCE, "{account} {attributes}: allowed should be {allowed}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_takes_the_objects_and_refuses_each_right_that_is_taken_away() {
    let Some(helm) = helm() else { return };
    let Some(plane) = ControlPlane::start_or_skip(Options::default()).await else { return };
    let client = plane.client().await.unwrap();
    // Without what reaches everything, so that no right hides behind another.
    let settings = [
        "rbac.enabledCustomScaledRefKinds=false",
        "permissions.operator.restrict.secret=true",
        "reasonsApi.operator.enabled=true",
    ];
    let objects = rendered(&helm, "1.36.0", &settings);
    install(&client, &objects).await;
    let setting = Setting { certificates: "kedaorg-certs", webhook_configuration: "tidemark-admission" };
    for (process, account, scope, kind, role) in [
        (Process::Operator, "tidemark-operator", Scope::Watched, "ClusterRole", "tidemark-operator"),
        (
            Process::Operator,
            "tidemark-operator",
            Scope::Cluster,
            "ClusterRole",
            "tidemark-operator-minimal-cluster-role",
        ),
        (Process::Operator, "tidemark-operator", Scope::Installation, "Role", "tidemark-operator-certs"),
        (Process::Webhooks, "tidemark-webhooks", Scope::Cluster, "ClusterRole", "tidemark-operator-webhook"),
    ] {
        let role = named(&objects, kind, role);
        for grant in process.grants().iter().filter(|grant| grant.scope == scope) {
            if matches!(grant.when, When::AnyTarget | When::SecretsEverywhere) {
                continue;
            }
            let name = match grant.named {
                Named::All => Value::Null,
                _ => rbac::rule(grant, setting)["resourceNames"][0].clone(),
            };
            let of = role["rules"].as_array().unwrap();
            let index = of.iter().position(|rule| *rule == rbac::rule(grant, setting)).unwrap();
            for verb in grant.verbs {
                for resource in grant.resources {
                    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                    // In the installation's own namespace, its own Lease's right would allow it.
                    let namespace = if grant.named == Named::KedasLease { "keda" } else { "tidemark" };
                    let mut attributes = json!({
                        "verb": verb, "group": grant.group, "resource": resource, "subresource": subresource,
                        "namespace": namespace,
                    });
                    if !name.is_null() {
                        attributes["name"] = name.clone();
                    }
                    comes_to(&client, account, &attributes, true).await;
                    let mut less = of.clone();
                    less[index]["verbs"].as_array_mut().unwrap().retain(|present| present != verb);
                    if less[index]["verbs"].as_array().unwrap().is_empty() {
                        less.remove(index);
                    }
                    put(&client, role, &less).await;
                    comes_to(&client, account, &attributes, false).await;
                    put(&client, role, of).await;
                }
            }
        }
    }
}

async fn put(client: &Client, role: &Value, rules: &[Value]) {
    let name = role["metadata"]["name"].as_str().unwrap();
    let patch = Patch::Merge(json!({"rules": rules}));
    api(client, role).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_does_its_work_with_the_charts_rights_and_is_forbidden_nothing() {
    let Some(helm) = helm() else { return };
    let options = Options { audit: true, ..Options::default() };
    let Some(plane) = ControlPlane::start_or_skip(options).await else { return };
    let client = plane.client().await.unwrap();
    // The webhooks do not run here.
    let objects = rendered(&helm, "1.36.0", &["webhooks.enabled=false"]);
    install(&client, &objects).await;
    let kubeconfig = plane.service_account("tidemark", "tidemark-operator").await.unwrap();
    let log = plane.directory().join("operator.log");
    let mut child = operator(&objects, &kubeconfig, &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();

    let labels = json!({"app": "web"});
    let pods = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}});
    let web = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pods},
    });
    let counted = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "default", "labels": {"app": "counted"}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    });
    let scaled = json!({
        "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"scaleTargetRef": {"name": "web"}, "pollingInterval": 1, "triggers": [{
            "type": "kubernetes-workload", "metadata": {"podSelector": "app=counted", "value": "1"},
        }]},
    });
    for object in [&web, &counted, &scaled] {
        let name = object["metadata"]["name"].as_str().unwrap();
        api(&client, object).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
    }
    let start = Instant::now();
    while api(&client, &web).get("web").await.unwrap().data["spec"]["replicas"] == 0 {
        assert!(start.elapsed() < PATIENCE, "nothing is scaled: {}", said());
        sleep(Duration::from_millis(100)).await;
    }
    let scaled: Api<ScaledObject> = Api::namespaced(client.clone(), "default");
    scaled.delete("web", &DeleteParams::default()).await.unwrap();
    while scaled.get_opt("web").await.unwrap().is_some() {
        assert!(start.elapsed() < PATIENCE, "it keeps its finalizer: {}", said());
        sleep(Duration::from_millis(100)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let account = "system:serviceaccount:tidemark:tidemark-operator";
    let all = plane.audit().unwrap();
    let own: Vec<_> = all.iter().filter(|entry| entry.user == account).collect();
    assert!(own.iter().any(|entry| entry.subresource == "scale" && entry.is_write()), "{}", said());
    assert!(own.iter().any(|entry| entry.resource == "apiservices" && entry.is_write()), "{}", said());
    let forbidden: Vec<_> = own.iter().filter(|entry| entry.is_forbidden()).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}
