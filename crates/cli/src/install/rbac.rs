//! What each process may do: one list, from which the roles of `tidemark manifests` and of the chart come, and their tests.
//!
//! A right is here because a request of the program needs it; `why` says which.

use serde_json::{Value, json};

/// A process, or a task, with an account of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    Operator,
    MetricsServer,
    Webhooks,
    /// What runs once, after an uninstall.
    Release,
}

impl Process {
    pub const ALL: [Self; 4] = [Self::Operator, Self::MetricsServer, Self::Webhooks, Self::Release];

    /// The key of its grants in the chart's data.
    pub fn key(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::MetricsServer => "metricsServer",
            Self::Webhooks => "webhooks",
            Self::Release => "release",
        }
    }

    /// What it may do.
    pub fn grants(self) -> &'static [Grant] {
        match self {
            Self::Operator => OPERATOR,
            Self::MetricsServer => &[],
            Self::Webhooks => WEBHOOKS,
            Self::Release => RELEASE,
        }
    }
}

/// Where a right holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the namespaces that are watched: all, unless some are named.
    Watched,
    /// In the whole cluster.
    Cluster,
    /// In the namespace of the installation.
    Installation,
}

impl Scope {
    fn key(self) -> &'static str {
        match self {
            Self::Watched => "watched",
            Self::Cluster => "cluster",
            Self::Installation => "installation",
        }
    }
}

/// What makes a right needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    /// Secrets are read wherever they are.
    SecretsEverywhere,
    /// Any kind that can be scaled may be a target.
    AnyTarget,
    /// The operator makes the certificates.
    Rotation,
    /// The operator serves the reasons to others than those on its machine.
    ReasonsPort,
}

impl When {
    fn key(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::SecretsEverywhere => "secretsEverywhere",
            Self::AnyTarget => "anyTarget",
            Self::Rotation => "rotation",
            Self::ReasonsPort => "reasonsPort",
        }
    }

    /// Whether it is so in an installation that sets nothing.
    pub fn by_default(self) -> bool {
        self != Self::ReasonsPort
    }
}

/// The only objects that a right is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    All,
    /// The Secret of the certificates.
    Certificates,
    /// The registrations of the APIs that the metrics server serves.
    ApiService,
    /// The registration of the webhooks.
    WebhookConfiguration,
    /// KEDA's Lease, wherever KEDA is.
    KedasLease,
}

impl Named {
    fn key(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Certificates => Some("certificates"),
            Self::ApiService => Some("apiService"),
            Self::WebhookConfiguration => Some("webhookConfiguration"),
            Self::KedasLease => Some("kedasLease"),
        }
    }
}

/// A right.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    pub scope: Scope,
    pub when: When,
    pub group: &'static str,
    pub resources: &'static [&'static str],
    pub named: Named,
    pub verbs: &'static [&'static str],
    pub why: &'static str,
}

const fn grant(
    scope: Scope,
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
) -> Grant {
    Grant { scope, when: When::Always, group, resources, named: Named::All, verbs, why }
}

impl Grant {
    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    const fn only(self, named: Named) -> Self {
        Self { named, ..self }
    }
}

const SCALING: &str = "keda.sh";
const EVENTING: &str = "eventing.keda.sh";

const OPERATOR: &[Grant] = &[
    grant(
        Scope::Watched,
        SCALING,
        &["scaledobjects"],
        &["get", "list", "watch", "patch"],
        "they are watched, read again before each check, and get label and finalizer",
    ),
    grant(Scope::Watched, SCALING, &["scaledobjects/status"], &["patch"], "their status"),
    grant(
        Scope::Watched,
        SCALING,
        &["scaledobjects/finalizers"],
        &["update"],
        "an HPA that blocks its owner's deletion, where the API server checks who may do that",
    ),
    grant(
        Scope::Watched,
        SCALING,
        &["triggerauthentications"],
        &["get", "list", "watch", "patch"],
        "they are watched, read for triggers, and lose KEDA's finalizer when they are deleted",
    ),
    grant(Scope::Watched, SCALING, &["triggerauthentications/status"], &["patch"], "who uses them"),
    grant(
        Scope::Watched,
        SCALING,
        &["scaledjobs"],
        &["list", "watch"],
        "how many there are, and triggers of which types, for the metrics",
    ),
    grant(Scope::Watched, EVENTING, &["cloudeventsources"], &["list", "watch"], "how many there are, for the metrics"),
    grant(
        Scope::Watched,
        "apps",
        &["deployments", "statefulsets"],
        &["get", "list", "watch"],
        "targets: their metadata is watched, their pod template read; and KEDA's Deployment is looked for",
    ),
    grant(
        Scope::Watched,
        "apps",
        &["deployments/scale", "statefulsets/scale"],
        &["get", "update"],
        "the replicas of targets",
    ),
    grant(Scope::Watched, "*", &["*/scale"], &["get", "update"], "the replicas of targets of any other kind")
        .when(When::AnyTarget),
    grant(Scope::Watched, "*", &["*"], &["get"], "targets of any other kind").when(When::AnyTarget),
    grant(
        Scope::Watched,
        "autoscaling",
        &["horizontalpodautoscalers"],
        &["get", "list", "watch", "create", "update", "delete"],
        "what scales above one",
    ),
    grant(Scope::Watched, "", &["secrets"], &["get"], "parameters of triggers").when(When::SecretsEverywhere),
    grant(Scope::Watched, "", &["configmaps"], &["get"], "parameters of triggers"),
    grant(Scope::Watched, "", &["pods"], &["list"], "kubernetes-workload, and the ready pods of a target"),
    grant(Scope::Watched, "discovery.k8s.io", &["endpointslices"], &["list"], "metrics-api that asks every pod"),
    grant(Scope::Watched, "events.k8s.io", &["events"], &["create", "patch"], "events, and their count"),
    grant(
        Scope::Cluster,
        SCALING,
        &["clustertriggerauthentications"],
        &["get", "list", "watch", "patch"],
        "as TriggerAuthentications",
    ),
    grant(Scope::Cluster, SCALING, &["clustertriggerauthentications/status"], &["patch"], "who uses them"),
    grant(
        Scope::Cluster,
        EVENTING,
        &["clustercloudeventsources"],
        &["list", "watch"],
        "how many there are, for the metrics",
    ),
    grant(Scope::Cluster, "coordination.k8s.io", &["leases"], &["get"], "whether KEDA leads in a namespace of its own")
        .only(Named::KedasLease),
    grant(
        Scope::Cluster,
        "apiregistration.k8s.io",
        &["apiservices"],
        &["get", "list", "watch", "patch"],
        "they are told of the CA",
    )
    .only(Named::ApiService)
    .when(When::Rotation),
    grant(
        Scope::Cluster,
        "admissionregistration.k8s.io",
        &["validatingwebhookconfigurations"],
        &["get", "list", "watch", "patch"],
        "it is told of the CA",
    )
    .only(Named::WebhookConfiguration)
    .when(When::Rotation),
    grant(Scope::Cluster, "authentication.k8s.io", &["tokenreviews"], &["create"], "who asks for the reasons")
        .when(When::ReasonsPort),
    grant(
        Scope::Cluster,
        "authorization.k8s.io",
        &["subjectaccessreviews"],
        &["create"],
        "whether who asks for the reasons may read them",
    )
    .when(When::ReasonsPort),
    grant(Scope::Installation, "coordination.k8s.io", &["leases"], &["get", "create", "update"], "leader election"),
    grant(
        Scope::Installation,
        "",
        &["secrets"],
        &["get"],
        "the Secret of the certificates, and those of ClusterTriggerAuthentications where others are out of reach",
    ),
    grant(Scope::Installation, "", &["secrets"], &["create"], "the Secret of the certificates").when(When::Rotation),
    grant(Scope::Installation, "", &["secrets"], &["list", "watch", "update"], "the Secret of the certificates")
        .only(Named::Certificates)
        .when(When::Rotation),
];

const WEBHOOKS: &[Grant] = &[
    grant(Scope::Cluster, SCALING, &["scaledobjects"], &["list", "watch"], "the index of neighbours"),
    grant(Scope::Cluster, "autoscaling", &["horizontalpodautoscalers"], &["list", "watch"], "the index of neighbours"),
    grant(Scope::Cluster, "apps", &["deployments", "statefulsets"], &["get"], "the requests of a target's containers"),
    grant(Scope::Cluster, "", &["limitranges"], &["list"], "the requests that containers get by default"),
    grant(Scope::Cluster, "events.k8s.io", &["events"], &["create", "patch"], "warnings, and their count"),
];

const RELEASE: &[Grant] = &[
    grant(
        Scope::Watched,
        SCALING,
        &["scaledobjects", "scaledjobs", "triggerauthentications"],
        &["get", "list", "patch"],
        "they lose the finalizer",
    ),
    grant(Scope::Watched, EVENTING, &["cloudeventsources"], &["get", "list", "patch"], "they lose the finalizer"),
    grant(
        Scope::Cluster,
        SCALING,
        &["clustertriggerauthentications"],
        &["get", "list", "patch"],
        "they lose the finalizer",
    ),
    grant(
        Scope::Cluster,
        EVENTING,
        &["clustercloudeventsources"],
        &["get", "list", "patch"],
        "they lose the finalizer",
    ),
    grant(
        Scope::Installation,
        "coordination.k8s.io",
        &["leases"],
        &["get", "create", "update"],
        "no operator may lead meanwhile: it would put the finalizer back",
    ),
];

/// Built-in roles of Kubernetes that the metrics server needs: it asks who a caller is and what it may do, and reads the
/// settings of the API server's front proxy.
pub const METRICS_SERVER_CLUSTER_ROLE: &str = "system:auth-delegator";
/// In `kube-system`. The operator needs it, too, where it serves the reasons: whose certificates are users' stands there.
pub const METRICS_SERVER_ROLE: &str = "extension-apiserver-authentication-reader";

/// Group and version of the APIs that the metrics server serves.
pub const API_SERVICES: [(&str, &str); 2] =
    [("external.metrics.k8s.io", "v1beta1"), ("reasons.tidemark.dev", "v1alpha1")];

/// What there is in an installation, as far as rights depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub certificates: &'a str,
    pub webhook_configuration: &'a str,
}

/// The rules of a process's role in a scope, in an installation with KEDA's default values.
pub fn rules(process: Process, scope: Scope, setting: Setting<'_>) -> Vec<Value> {
    let grants = process.grants().iter().filter(|grant| grant.scope == scope && grant.when.by_default());
    grants.map(|grant| rule(grant, setting)).collect()
}

/// A right as a rule of a role.
pub fn rule(grant: &Grant, setting: Setting<'_>) -> Value {
    let mut rule = json!({"apiGroups": [grant.group], "resources": grant.resources, "verbs": grant.verbs});
    rule["resourceNames"] = match grant.named {
        Named::All => return rule,
        Named::Certificates => json!([setting.certificates]),
        Named::ApiService => API_SERVICES.map(|(group, version)| format!("{version}.{group}")).into(),
        Named::WebhookConfiguration => json!([setting.webhook_configuration]),
        Named::KedasLease => json!(["operator.keda.sh"]),
    };
    rule
}

/// The list as data, which the chart's templates read.
pub fn data() -> Value {
    let of = |process: Process| {
        let grants = process.grants().iter().map(|grant| {
            let mut entry = json!({
                "scope": grant.scope.key(), "when": grant.when.key(), "apiGroups": [grant.group],
                "resources": grant.resources, "verbs": grant.verbs, "why": grant.why,
            });
            if let Some(named) = grant.named.key() {
                entry["named"] = named.into();
            }
            entry
        });
        (process.key().to_owned(), grants.collect::<Vec<_>>().into())
    };
    Value::Object(Process::ALL.map(of).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_is_granted_twice() {
        for process in Process::ALL {
            let mut seen = BTreeSet::new();
            for grant in process.grants() {
                for (resource, verb) in
                    grant.resources.iter().flat_map(|resource| grant.verbs.iter().map(move |verb| (resource, verb)))
                {
                    let named = grant.named.key();
                    let right = (grant.scope.key(), grant.group, resource, verb, named);
                    assert!(seen.insert(right), "{process:?}: {right:?}");
                }
            }
        }
    }

    #[test]
    fn only_targets_of_any_kind_are_granted_by_wildcard() {
        for grant in Process::ALL.iter().flat_map(|process| process.grants()) {
            let wild = grant.group == "*" || grant.resources.iter().chain(grant.verbs).any(|word| word.contains('*'));
            assert_eq!(wild, grant.when == When::AnyTarget, "{grant:?}");
        }
    }
}
