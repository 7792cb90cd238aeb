//! ServiceAccounts, and what they may do.

use serde_json::{Value, json};

use super::manifests::Installation;
use super::names::{CERTIFICATES, KEDAS};
use super::rbac::{
    Grant, METRICS_SERVER_CLUSTER_ROLE, METRICS_SERVER_ROLE, Named, Process, Scope, Setting, When, rule,
};

const RBAC: &str = "rbac.authorization.k8s.io";

/// All of them.
pub fn objects(installation: &Installation) -> Vec<Value> {
    let mut objects = accounts(installation);
    objects.extend(of_operator(installation));
    objects.extend(of_servers(installation));
    objects.push(of_readers(installation));
    if installation.names == KEDAS {
        objects.extend(of_hpa_controller(installation));
    }
    objects
}

fn accounts(installation: &Installation) -> Vec<Value> {
    let names = &installation.names;
    let mut accounts = vec![names.operator_account, names.metrics_server_account];
    accounts.extend(installation.webhooks.then_some(names.webhooks_account));
    let account = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": names.metadata(name, Some(&installation.namespace), name),
            "automountServiceAccountToken": true,
        })
    };
    accounts.into_iter().map(account).collect()
}

fn of_operator(installation: &Installation) -> Vec<Value> {
    let (names, namespace) = (&installation.names, installation.namespace.as_str());
    let operator = Holder { app: names.operator, account: names.operator_account };
    let cluster = format!("{}-minimal-cluster-role", names.operator);
    let own = format!("{}-certs", names.operator);
    let mut objects = vec![
        role(installation, operator, names.operator, None, Process::Operator, Scope::Watched),
        role(installation, operator, &cluster, None, Process::Operator, Scope::Cluster),
        role(installation, operator, &own, Some(namespace), Process::Operator, Scope::Installation),
        binding(installation, operator, &format!("{}-minimal", names.operator), None, ("ClusterRole", &cluster)),
        binding(installation, operator, &own, Some(namespace), ("Role", &own)),
    ];
    if installation.reasons_port.is_some() {
        let reader = format!("{}-reasons-auth-reader", names.operator);
        objects.push(binding(installation, operator, &reader, Some("kube-system"), ("Role", METRICS_SERVER_ROLE)));
    }
    let watched = ("ClusterRole", names.operator);
    if installation.watched.is_empty() {
        objects.push(binding(installation, operator, names.operator, None, watched));
        return objects;
    }
    let others = installation.watched.iter().map(String::as_str).filter(|name| *name != namespace);
    let mut places: Vec<&str> = Vec::new();
    for place in std::iter::once(namespace).chain(others) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    objects.extend(places.iter().map(|place| binding(installation, operator, names.operator, Some(place), watched)));
    objects
}

fn of_servers(installation: &Installation) -> Vec<Value> {
    let names = &installation.names;
    let metrics = Holder { app: names.metrics_server, account: names.metrics_server_account };
    let delegator = format!("{}-system-auth-delegator", names.operator);
    let reader = format!("{}-auth-reader", names.operator);
    let mut objects = vec![
        binding(installation, metrics, &delegator, None, ("ClusterRole", METRICS_SERVER_CLUSTER_ROLE)),
        binding(installation, metrics, &reader, Some("kube-system"), ("Role", METRICS_SERVER_ROLE)),
    ];
    if installation.webhooks {
        let webhooks = Holder { app: names.webhooks, account: names.webhooks_account };
        let name = format!("{}-webhook", names.operator);
        objects.push(role(installation, webhooks, &name, None, Process::Webhooks, Scope::Cluster));
        objects.push(binding(installation, webhooks, &name, None, ("ClusterRole", &name)));
    }
    objects
}

/// Whoever may view a namespace may ask why its workloads have the replicas that they have.
fn of_readers(installation: &Installation) -> Value {
    let names = &installation.names;
    let mut metadata = names.metadata(&format!("{}-reasons-reader", names.operator), None, names.operator);
    metadata["labels"][format!("{RBAC}/aggregate-to-view")] = "true".into();
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": metadata,
        "rules": [{"apiGroups": ["reasons.tidemark.dev"], "resources": ["scaledobjects"], "verbs": ["get", "list"]}],
    })
}

/// What KEDA's chart gives the HPA controller, for whoever looks for it under these names. The controller's own role says
/// the same.
fn of_hpa_controller(installation: &Installation) -> [Value; 2] {
    let names = &installation.names;
    let role = format!("{}-external-metrics-reader", names.operator);
    let binding = format!("{}-hpa-controller-external-metrics", names.operator);
    let version = format!("{RBAC}/v1");
    [
        json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": names.metadata(&role, None, names.operator),
            "rules": [{
                "apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list", "watch"],
            }],
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding",
            "metadata": names.metadata(&binding, None, names.operator),
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{
                "kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system",
            }],
        }),
    ]
}

/// Whose rights they are.
#[derive(Clone, Copy)]
struct Holder<'a> {
    app: &'a str,
    account: &'a str,
}

/// A role with what the list gives a process in a scope; of the cluster, or of a namespace.
fn role(
    installation: &Installation,
    holder: Holder<'_>,
    name: &str,
    namespace: Option<&str>,
    process: Process,
    scope: Scope,
) -> Value {
    let names = &installation.names;
    let setting = Setting { certificates: CERTIFICATES, webhook_configuration: names.webhook_configuration };
    let needed = |grant: &Grant| match (grant.when, grant.named) {
        (When::ReasonsPort, _) => installation.reasons_port.is_some(),
        (_, Named::WebhookConfiguration) => installation.webhooks,
        _ => true,
    };
    let rules = process.grants().iter().filter(|grant| grant.scope == scope && needed(grant));
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": if namespace.is_some() { "Role" } else { "ClusterRole" },
        "metadata": names.metadata(name, namespace, holder.app),
        "rules": rules.map(|grant| rule(grant, setting)).collect::<Vec<_>>(),
    })
}

/// Gives the holder a role (its kind and name) in the cluster, or in a namespace.
fn binding(
    installation: &Installation,
    holder: Holder<'_>,
    name: &str,
    namespace: Option<&str>,
    role: (&str, &str),
) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"),
        "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
        "metadata": installation.names.metadata(name, namespace, holder.app),
        "roleRef": {"apiGroup": RBAC, "kind": role.0, "name": role.1},
        "subjects": [{"kind": "ServiceAccount", "name": holder.account, "namespace": installation.namespace}],
    })
}
