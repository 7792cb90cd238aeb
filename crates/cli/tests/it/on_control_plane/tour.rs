//! Everything that the processes of an installation do with the API server's objects, once through, in a namespace of
//! its own.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::release::{Rest, SECRET};
use crate::with_keda::processes::MANAGER;

/// The group of the custom resource that is scaled.
pub const CUSTOM_GROUP: &str = "example.dev";
pub const TOKEN: &str = "let-me-in";
const LOOK: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);
/// Where something may be missing, nothing is waited for longer than this.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// Where it goes through.
#[derive(Clone)]
pub struct Tour {
    pub rest: Rest,
    /// Namespace of the objects. Its name is also that of what belongs to the cluster.
    pub watched: String,
    /// Namespace of the installation.
    pub installation: String,
    /// The ValidatingWebhookConfiguration.
    pub webhooks: String,
    /// Port of the source.
    pub source: u16,
    /// Whether a custom resource is scaled, too.
    pub custom: bool,
    /// Whether all must come as it should; else what does not come is passed over.
    pub strict: bool,
}

impl Tour {
    fn core(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.watched)
    }

    fn apps(&self, plural: &str) -> String {
        format!("/apis/apps/v1/namespaces/{}/{plural}", self.watched)
    }

    fn keda(&self, plural: &str) -> String {
        format!("/apis/keda.sh/v1alpha1/namespaces/{}/{plural}", self.watched)
    }

    fn hpa(&self, object: &str) -> String {
        format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers/keda-hpa-{object}", self.watched)
    }

    fn pickers(&self) -> String {
        format!("/apis/{CUSTOM_GROUP}/v1/namespaces/{}/pickers", self.watched)
    }

    fn secret(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{SECRET}", self.installation)
    }

    async fn create(&self, path: &str, object: &Value) {
        let made = self.rest.request(http::Method::POST, path, "test", "application/json", object).await;
        assert!(made.is_ok() || !self.strict, "{path}: {made:?}");
    }

    async fn change(&self, path: &str, patch: &Value) {
        let kind = "application/merge-patch+json";
        let made = self.rest.request(http::Method::PATCH, path, "somebody", kind, patch).await;
        assert!(made.is_ok() || !self.strict, "{path}: {made:?}");
    }

    async fn delete(&self, path: &str) {
        let made = self.rest.request(http::Method::DELETE, path, "", "application/json", &Value::Null).await;
        assert!(made.is_ok() || !self.strict, "{path}: {made:?}");
    }

    /// Waits until the object there is as it must be; none is null.
    async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        let limit = if self.strict { PATIENCE } else { GIVEN_UP };
        loop {
            let mut found = self.rest.try_get(path).await.unwrap_or_default();
            if holds(&found) {
                return;
            }
            if began.elapsed() > limit {
                found["metadata"].take();
                assert!(!self.strict, "not within {limit:?}: {what}: {path} is {found}");
                return;
            }
            sleep(LOOK).await;
        }
    }

    async fn until_replicas(&self, path: &str, replicas: i64) {
        self.until(path, "replicas", |found| found["spec"]["replicas"] == replicas).await;
    }

    /// Namespaces, and what belongs to the cluster.
    pub async fn prepare(&self) {
        for namespace in [&self.watched, &self.installation] {
            let namespace = json!({"metadata": {"name": namespace}});
            // One may be there.
            let _ = self
                .rest
                .request(http::Method::POST, "/api/v1/namespaces", "test", "application/json", &namespace)
                .await;
        }
        let token = |namespace: &str| (format!("/api/v1/namespaces/{namespace}/secrets"), namespace.to_owned());
        for (path, name) in [token(&self.watched), token(&self.installation)] {
            self.create(
                &path,
                &json!({"metadata": {"name": format!("token-of-{name}")}, "stringData": {"token": TOKEN}}),
            )
            .await;
        }
        let settings = json!({"metadata": {"name": "settings"}, "data": {"scopes": "all"}});
        self.create(&self.core("configmaps"), &settings).await;
        let of_secret = |namespace: &str| json!([{"parameter": "bearerToken", "name": format!("token-of-{namespace}"), "key": "token"}]);
        let of_settings = json!([{"parameter": "scopes", "name": "settings", "key": "scopes"}]);
        for (path, kind, spec) in [
            (
                self.keda("triggerauthentications"),
                "TriggerAuthentication",
                json!({"secretTargetRef": of_secret(&self.watched), "configMapTargetRef": of_settings}),
            ),
            (
                cluster_authentications().to_owned(),
                "ClusterTriggerAuthentication",
                json!({"secretTargetRef": of_secret(&self.installation)}),
            ),
        ] {
            let object = json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": kind,
                "metadata": {
                    "name": self.watched, "labels": {"tour": self.watched}, "finalizers": ["finalizer.keda.sh"],
                },
                "spec": spec,
            });
            self.create(&path, &object).await;
        }
    }

    /// The operator's objects, and all that can happen to them.
    pub async fn operate(&self) {
        self.create_objects().await;
        self.until_replicas(&format!("{}/web", self.apps("deployments")), 1).await;
        self.until_replicas(&format!("{}/db", self.apps("statefulsets")), 1).await;
        for deployment in ["own", "shared"] {
            self.until_replicas(&format!("{}/{deployment}", self.apps("deployments")), 1).await;
        }
        if self.custom {
            self.until_replicas(&format!("{}/picker", self.pickers()), 1).await;
        }
        self.change(&self.hpa("web"), &json!({"spec": {"maxReplicas": 77}})).await;
        self.until(&self.hpa("web"), "somebody's change is undone", |hpa| hpa["spec"]["maxReplicas"] == 9).await;
        self.wake_again().await;
        let web = format!("{}/web", self.keda("scaledobjects"));
        let paused = |value: Value| json!({"metadata": {"annotations": {"autoscaling.keda.sh/paused": value}}});
        self.change(&web, &paused(json!("true"))).await;
        self.until(&self.hpa("web"), "it is paused", Value::is_null).await;
        self.change(&web, &paused(Value::Null)).await;
        self.until(&self.hpa("web"), "it goes on", Value::is_object).await;
        self.renew_certificates().await;
        self.delete_objects().await;
    }

    async fn create_objects(&self) {
        self.create_counted().await;
        for (plural, kind, name) in [
            ("deployments", "Deployment", "web"),
            ("deployments", "Deployment", "own"),
            ("deployments", "Deployment", "shared"),
            ("deployments", "Deployment", "spread"),
            ("statefulsets", "StatefulSet", "db"),
        ] {
            self.create(&self.apps(plural), &workload(kind, name)).await;
        }
        let counted = json!({"type": "kubernetes-workload", "metadata": {"podSelector": "app=counted", "value": "1"}});
        let read = |kind: &str| {
            json!({
                "type": "metrics-api", "authenticationRef": {"kind": kind, "name": self.watched},
                "metadata": {
                    "url": format!("http://127.0.0.1:{}/stats", self.source), "valueLocation": "values.one",
                    "targetValue": "10", "authMode": "bearer",
                },
            })
        };
        let spread = json!({"type": "metrics-api", "metadata": {
            "url": format!("http://spread.{}:1/", self.watched), "valueLocation": "a", "targetValue": "1",
            "aggregateFromKubeServiceEndpoints": "true",
        }});
        let mut all = vec![
            ("web", "Deployment", "apps/v1", counted.clone()),
            ("db", "StatefulSet", "apps/v1", counted.clone()),
            ("own", "Deployment", "apps/v1", read("TriggerAuthentication")),
            ("shared", "Deployment", "apps/v1", read("ClusterTriggerAuthentication")),
            ("spread", "Deployment", "apps/v1", spread),
        ];
        let version = format!("{CUSTOM_GROUP}/v1");
        if self.custom {
            let picker = json!({
                "apiVersion": version, "kind": "Picker", "metadata": {"name": "picker"}, "spec": {"replicas": 0},
            });
            self.create(&self.pickers(), &picker).await;
            all.push(("picker", "Picker", &version, counted));
        }
        for (name, kind, version, trigger) in all {
            let object = json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
                "spec": {
                    "scaleTargetRef": {"apiVersion": version, "kind": kind, "name": name},
                    "pollingInterval": 1, "cooldownPeriod": 1, "maxReplicaCount": 9, "triggers": [trigger],
                },
            });
            self.create(&self.keda("scaledobjects"), &object).await;
        }
    }

    async fn create_counted(&self) {
        let pod = json!({
            "metadata": {"name": "counted", "labels": {"app": "counted"}},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        });
        self.create(&self.core("pods"), &pod).await;
    }

    /// To zero, and up again: events repeat.
    async fn wake_again(&self) {
        let web = format!("{}/web", self.apps("deployments"));
        for _ in 0..2 {
            self.delete(&format!("{}/counted?gracePeriodSeconds=0", self.core("pods"))).await;
            self.until_replicas(&web, 0).await;
            self.create_counted().await;
            self.until_replicas(&web, 1).await;
        }
    }

    /// They are made, told, and made again when they are lost.
    async fn renew_certificates(&self) {
        let certificate = |secret: &Value| secret["data"]["tls.crt"].is_string();
        self.until(&self.secret(), "there is a certificate", certificate).await;
        let registered =
            format!("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/{}", self.webhooks);
        self.until(&registered, "the webhooks' configuration is told", |found| {
            found["webhooks"][0]["clientConfig"]["caBundle"].is_string()
        })
        .await;
        self.change(&self.secret(), &json!({"data": {"tls.crt": null}})).await;
        self.until(&self.secret(), "there is another certificate", certificate).await;
    }

    async fn delete_objects(&self) {
        let mut names = vec!["own", "shared", "spread", "db", "web"];
        names.extend(self.custom.then_some("picker"));
        for name in names {
            let path = format!("{}/{name}", self.keda("scaledobjects"));
            self.delete(&path).await;
            self.until(&path, "it is gone", Value::is_null).await;
        }
        for path in [self.keda("triggerauthentications"), cluster_authentications().to_owned()] {
            let path = format!("{path}/{}", self.watched);
            self.delete(&path).await;
            self.until(&path, "it is gone", Value::is_null).await;
        }
    }

    /// What only admission looks at: requests of containers, and what is told of an admitted object.
    pub async fn admit(&self) {
        for (plural, kind, name) in
            [("deployments", "Deployment", "metered"), ("statefulsets", "StatefulSet", "metered-set")]
        {
            self.create(&self.apps(plural), &workload(kind, name)).await;
            let object = json!({
                "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": name},
                "spec": {
                    "scaleTargetRef": {"kind": kind, "name": name},
                    "triggers": [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}],
                },
            });
            // A dry run looks at no pods. What gets in before the webhook serves goes out again.
            let objects = self.keda("scaledobjects");
            let began = Instant::now();
            loop {
                let tried = self.rest.request(http::Method::POST, &objects, "test", "application/json", &object).await;
                let refused =
                    matches!(&tried, Err(kube::Error::Api(status)) if status.message.contains("request defined"));
                if tried.is_ok() {
                    self.delete(&format!("{objects}/{name}")).await;
                }
                if refused || !self.strict {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{name} is not refused: {tried:?}");
                sleep(LOOK).await;
            }
        }
        self.create(&self.apps("deployments"), &workload("Deployment", "constant")).await;
        let object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "constant"},
            "spec": {
                "scaleTargetRef": {"name": "constant"}, "minReplicaCount": 1, "pollingInterval": 10,
                "triggers": [{"type": "kubernetes-workload", "metadata": {"podSelector": "app=none", "value": "1"}}],
            },
        });
        let objects = self.keda("scaledobjects");
        self.create(&objects, &object).await;
        let events = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.watched);
        let told = |list: &Value, repeated: bool| {
            let events = list["items"].as_array().into_iter().flatten();
            let mut events = events.filter(|event| event["reportingController"] == "keda-admission");
            events.any(|event| !repeated || event["series"].is_object())
        };
        self.until(&events, "a warning is told", |list| told(list, false)).await;
        for interval in [11, 12] {
            self.change(&format!("{objects}/constant"), &json!({"spec": {"pollingInterval": interval}})).await;
        }
        self.until(&events, "it is counted", |list| told(list, true)).await;
        self.delete(&format!("{objects}/constant")).await;
    }

    /// Objects of all kinds, as an operator that has gone leaves them.
    pub async fn abandon(&self) {
        let pods = json!({"spec": {"containers": [{"name": "main", "image": "none"}], "restartPolicy": "Never"}});
        let event = json!({"clusterName": "here", "destination": {"http": {"uri": "http://127.0.0.1:1"}}});
        let trigger = json!({"type": "kubernetes-workload", "metadata": {"podSelector": "app=none", "value": "1"}});
        let namespaced = |plural: &str| format!("/apis/eventing.keda.sh/v1alpha1/namespaces/{}/{plural}", self.watched);
        for (path, group, kind, spec) in [
            (
                self.keda("scaledobjects"),
                "keda.sh",
                "ScaledObject",
                json!({"scaleTargetRef": {"name": "none"}, "triggers": [trigger]}),
            ),
            (
                self.keda("scaledjobs"),
                "keda.sh",
                "ScaledJob",
                json!({"jobTargetRef": {"template": pods}, "triggers": [trigger]}),
            ),
            (namespaced("cloudeventsources"), "eventing.keda.sh", "CloudEventSource", event.clone()),
            (
                "/apis/eventing.keda.sh/v1alpha1/clustercloudeventsources".to_owned(),
                "eventing.keda.sh",
                "ClusterCloudEventSource",
                event,
            ),
        ] {
            let object = json!({
                "apiVersion": format!("{group}/v1alpha1"), "kind": kind,
                "metadata": {"name": self.watched, "finalizers": ["finalizer.keda.sh"]}, "spec": spec,
            });
            let made = self.rest.create(&path, MANAGER, &object).await;
            assert!(made["metadata"]["uid"].is_string());
        }
    }
}

fn cluster_authentications() -> &'static str {
    "/apis/keda.sh/v1alpha1/clustertriggerauthentications"
}

fn workload(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "replicas": 0, "serviceName": name, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "none"}]},
            },
        },
    })
}

/// The custom resource that can be scaled.
pub async fn define_picker(rest: &Rest) {
    let replicas = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"}, "selector": {"type": "string"},
    }});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("pickers.{CUSTOM_GROUP}")},
        "spec": {
            "group": CUSTOM_GROUP, "scope": "Namespaced", "names": {"kind": "Picker", "plural": "pickers"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": replicas, "status": replicas}}},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector",
                }},
            }],
        },
    });
    rest.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "test", &definition).await;
    let began = Instant::now();
    while rest.try_get(&format!("/apis/{CUSTOM_GROUP}/v1/pickers")).await.is_err() {
        assert!(began.elapsed() < PATIENCE);
        sleep(LOOK).await;
    }
}
