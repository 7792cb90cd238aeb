//! The HorizontalPodAutoscaler of a ScaledObject: how it must look, and whether one that is there looks so.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, CrossVersionObjectReference, ExternalMetricSource, HPAScalingPolicy,
    HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec as HpaSpecMetric, MetricStatus, MetricTarget,
    ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::ResourceExt;
use tidemark_api::{SCALED_OBJECT_LABEL, ScaledObject, annotations};
use tidemark_engine::activation::Controls;
use tidemark_engine::composite::{self, Modifiers};
use tidemark_engine::{metric, quantity};
use tidemark_trigger::{MetricSpec, MetricType, Resource, ResourceTarget};

use crate::FIELD_MANAGER;
use crate::observation::{HpaCondition, HpaMetric, HpaSeen};
use crate::target::Target;

/// Field managers whose labels and annotations on an HPA are this operator's to remove: its own, and KEDA's.
const OWN_MANAGERS: [&str; 3] = [FIELD_MANAGER, "keda", "keda-operator"];

/// The metrics of the HPA: sorted by their kind, and with scaling modifiers the composite one in place of all external
/// ones.
pub(crate) fn metrics(mut metrics: Vec<MetricSpec>, modifiers: Option<&Modifiers>) -> Vec<MetricSpec> {
    metrics.sort_by_key(MetricSpec::source);
    if let Some(modifiers) = modifiers {
        metrics.retain(|metric| metric.external_name().is_none());
        let (metric_type, target_milli) = match modifiers.target() {
            metric::Target::AverageValue(milli) => (MetricType::AverageValue, milli),
            metric::Target::Value(milli) => (MetricType::Value, milli),
        };
        metrics.push(MetricSpec::External { name: composite::METRIC.into(), metric_type, target_milli });
    }
    metrics
}

/// The HPA that the object asks for.
pub(crate) fn wanted(
    object: &ScaledObject,
    controls: Controls,
    target: &Target,
    metrics: &[MetricSpec],
    version_label: &str,
) -> HorizontalPodAutoscaler {
    let name = object.wanted_hpa_name();
    let (min_replicas, max_replicas) = object.spec.policy(Timestamp::UNIX_EPOCH).hpa_bounds();
    let configured = object
        .spec
        .advanced
        .as_ref()
        .and_then(|advanced| advanced.horizontal_pod_autoscaler_config.as_ref())
        .and_then(|config| config.behavior.clone())
        .map(HorizontalPodAutoscalerBehavior::from);
    HorizontalPodAutoscaler {
        metadata: ObjectMeta {
            labels: Some(labels(object, &name, version_label)),
            annotations: object.metadata.annotations.clone().filter(|map| !map.is_empty()),
            owner_references: Some(vec![owner(object)]),
            namespace: object.metadata.namespace.clone(),
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some(target.resource.api.api_version.clone()),
                kind: target.resource.api.kind.clone(),
                name: target.name.to_string(),
            },
            min_replicas: Some(min_replicas),
            max_replicas,
            metrics: Some(metrics.iter().map(|metric| metric_of(&object.name_any(), metric)).collect()),
            behavior: behavior(configured, controls),
        },
        status: None,
    }
}

fn owner(object: &ScaledObject) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", tidemark_api::GROUP, tidemark_api::VERSION),
        kind: "ScaledObject".to_owned(),
        name: object.name_any(),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn labels(object: &ScaledObject, hpa_name: &str, version_label: &str) -> BTreeMap<String, String> {
    let name = object.name_any();
    let mut labels = BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), label_value(hpa_name)),
        ("app.kubernetes.io/version".to_owned(), version_label.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), name.clone()),
        ("app.kubernetes.io/managed-by".to_owned(), "keda-operator".to_owned()),
    ]);
    let excluded: BTreeSet<&str> = object
        .annotations()
        .get(annotations::HPA_EXCLUDED_LABELS)
        .map(|list| list.split(',').collect())
        .unwrap_or_default();
    for (key, value) in object.labels().iter().filter(|(key, _)| !excluded.contains(key.as_str())) {
        labels.insert(key.clone(), value.clone());
    }
    labels.insert(SCALED_OBJECT_LABEL.to_owned(), name);
    labels
}

/// A label's value holds 63 bytes and ends with a letter or digit.
fn label_value(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    let cut: String = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 63).map(|(_, c)| c).collect();
    cut.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

fn metric_of(object: &str, metric: &MetricSpec) -> HpaSpecMetric {
    match metric {
        MetricSpec::External { name, metric_type, target_milli } => external(object, name, *metric_type, *target_milli),
        MetricSpec::Resource { resource, container, target } => {
            resource_metric(*resource, container.as_deref(), resource_target(target))
        }
    }
}

fn resource_target(target: &ResourceTarget) -> MetricTarget {
    match target {
        ResourceTarget::Utilization(percent) => MetricTarget {
            type_: "Utilization".to_owned(),
            average_utilization: Some(*percent),
            ..MetricTarget::default()
        },
        ResourceTarget::AverageValue(amount) => MetricTarget {
            type_: "AverageValue".to_owned(),
            average_value: Some(Quantity(amount.to_string())),
            ..MetricTarget::default()
        },
    }
}

fn resource_metric(resource: Resource, container: Option<&str>, target: MetricTarget) -> HpaSpecMetric {
    let name = resource.as_str().to_owned();
    match container {
        None => HpaSpecMetric {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricSource { name, target }),
            ..HpaSpecMetric::default()
        },
        Some(container) => HpaSpecMetric {
            type_: "ContainerResource".to_owned(),
            container_resource: Some(ContainerResourceMetricSource { container: container.to_owned(), name, target }),
            ..HpaSpecMetric::default()
        },
    }
}

fn external(object: &str, name: &str, metric_type: MetricType, target_milli: i64) -> HpaSpecMetric {
    let amount = Some(Quantity(quantity::format_milli(target_milli)));
    let target = match metric_type {
        MetricType::AverageValue => {
            MetricTarget { type_: "AverageValue".to_owned(), average_value: amount, ..MetricTarget::default() }
        }
        MetricType::Value => MetricTarget { type_: "Value".to_owned(), value: amount, ..MetricTarget::default() },
    };
    HpaSpecMetric {
        type_: "External".to_owned(),
        external: Some(ExternalMetricSource {
            metric: MetricIdentifier {
                name: name.to_owned(),
                selector: Some(LabelSelector {
                    match_labels: Some(BTreeMap::from([(SCALED_OBJECT_LABEL.to_owned(), object.to_owned())])),
                    ..LabelSelector::default()
                }),
            },
            target,
        }),
        ..HpaSpecMetric::default()
    }
}

/// The configured behavior with the directions switched off that are paused.
fn behavior(
    configured: Option<HorizontalPodAutoscalerBehavior>,
    controls: Controls,
) -> Option<HorizontalPodAutoscalerBehavior> {
    // An empty one is not none: with it the API server's defaults come into force.
    let is_configured = configured.is_some();
    let mut behavior = configured.unwrap_or_default();
    let disable = |rules: &mut Option<HPAScalingRules>| {
        rules.get_or_insert_default().select_policy = Some("Disabled".to_owned());
    };
    if controls.scale_in_paused {
        disable(&mut behavior.scale_down);
    }
    if controls.scale_out_paused {
        disable(&mut behavior.scale_up);
    }
    (is_configured || controls.scale_in_paused || controls.scale_out_paused).then_some(behavior)
}

/// What must be written so that `found` looks as `wanted`; nothing where it does already.
///
/// Labels, annotations and finalizers that others have put on the HPA stay; labels and annotations that are this operator's and no longer wanted go.
/// Where the API server does not tell who put them there, all of them are taken for this operator's.
pub(crate) fn update(
    found: &HorizontalPodAutoscaler,
    wanted: &HorizontalPodAutoscaler,
) -> Option<HorizontalPodAutoscaler> {
    let meta = &found.metadata;
    let labels = merged(&meta.labels, &wanted.metadata.labels, &foreign_keys(meta, "f:labels"));
    let annotations = merged(&meta.annotations, &wanted.metadata.annotations, &foreign_keys(meta, "f:annotations"));
    let same = canonical(found.spec.clone()) == canonical(wanted.spec.clone())
        && labels == meta.labels.clone().unwrap_or_default()
        && annotations == meta.annotations.clone().unwrap_or_default()
        && meta.owner_references == wanted.metadata.owner_references;
    (!same).then(|| HorizontalPodAutoscaler {
        metadata: ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: wanted.metadata.owner_references.clone(),
            managed_fields: None,
            ..meta.clone()
        },
        spec: wanted.spec.clone(),
        status: None,
    })
}

type Texts = BTreeMap<String, String>;

fn merged(found: &Option<Texts>, wanted: &Option<Texts>, foreign: &BTreeSet<String>) -> Texts {
    let mut result: Texts = found.iter().flatten().filter(|(key, _)| foreign.contains(*key)).map(clone_pair).collect();
    result.extend(wanted.iter().flatten().map(clone_pair));
    result
}

fn clone_pair((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

/// The keys of a map of the metadata that only others have written, by the managed fields.
fn foreign_keys(meta: &ObjectMeta, map: &str) -> BTreeSet<String> {
    let mut own = BTreeSet::new();
    let mut foreign = BTreeSet::new();
    for entry in meta.managed_fields.iter().flatten() {
        let Some(fields) = entry.fields_v1.as_ref().and_then(|fields| fields.0.pointer(&format!("/f:metadata/{map}")))
        else {
            continue;
        };
        let manager = entry.manager.as_deref().unwrap_or_default();
        let keys = if OWN_MANAGERS.contains(&manager) { &mut own } else { &mut foreign };
        let names = fields.as_object().into_iter().flat_map(|fields| fields.keys());
        keys.extend(names.filter_map(|name| name.strip_prefix("f:")).map(str::to_owned));
    }
    foreign.difference(&own).cloned().collect()
}

/// A spec with the API server's defaults filled in and all quantities written alike.
fn canonical(mut spec: HorizontalPodAutoscalerSpec) -> HorizontalPodAutoscalerSpec {
    spec.min_replicas.get_or_insert(1);
    for target in spec.metrics.iter_mut().flatten().filter_map(target_of) {
        target.value.iter_mut().chain(&mut target.average_value).for_each(canonical_quantity);
    }
    if let Some(behavior) = &mut spec.behavior {
        let policy = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        fill_rules(up, || vec![policy("Pods", 4), policy("Percent", 100)]);
        fill_rules(behavior.scale_down.get_or_insert_default(), || vec![policy("Percent", 100)]);
    }
    spec
}

fn target_of(metric: &mut HpaSpecMetric) -> Option<&mut MetricTarget> {
    let external = metric.external.as_mut().map(|source| &mut source.target);
    let resource = metric.resource.as_mut().map(|source| &mut source.target);
    let container = metric.container_resource.as_mut().map(|source| &mut source.target);
    external.or(resource).or(container)
}

fn fill_rules(rules: &mut HPAScalingRules, policies: impl FnOnce() -> Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        rules.policies = Some(policies());
    }
    rules.tolerance.iter_mut().for_each(canonical_quantity);
}

fn canonical_quantity(quantity: &mut Quantity) {
    if let Some(milli) = quantity::parse_milli(&quantity.0) {
        quantity.0 = quantity::format_milli(milli);
    }
}

/// What the operator needs to know of an HPA when it changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HpaView {
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
    /// Changes with everything but the status.
    pub(crate) fingerprint: u64,
    pub(crate) desired: Option<i32>,
    /// What people may see of it.
    pub(crate) seen: Arc<HpaSeen>,
    pub(crate) deleted: bool,
}

impl HpaView {
    pub(crate) fn new(hpa: &HorizontalPodAutoscaler, deleted: bool) -> Self {
        Self {
            name: hpa.name_any().into(),
            uid: hpa.metadata.uid.clone().unwrap_or_default().into(),
            fingerprint: fingerprint(hpa),
            desired: hpa.status.as_ref().map(|status| status.desired_replicas),
            seen: Arc::new(seen(hpa)),
            deleted: deleted || hpa.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// What people may see of an HPA.
fn seen(hpa: &HorizontalPodAutoscaler) -> HpaSeen {
    let status = hpa.status.clone().unwrap_or_default();
    let condition = |condition: HorizontalPodAutoscalerCondition| HpaCondition {
        kind: condition.type_,
        status: condition.status,
        reason: condition.reason.unwrap_or_default(),
        message: condition.message.unwrap_or_default(),
    };
    HpaSeen {
        name: hpa.name_any().into(),
        min: hpa.spec.min_replicas.unwrap_or(1),
        max: hpa.spec.max_replicas,
        current: status.current_replicas,
        desired: hpa.status.as_ref().map(|status| status.desired_replicas),
        last_scale: status.last_scale_time.map(|time| time.0),
        conditions: status.conditions.into_iter().flatten().map(condition).collect(),
        metrics: status.current_metrics.into_iter().flatten().filter_map(metric_seen).collect(),
    }
}

fn metric_seen(metric: MetricStatus) -> Option<HpaMetric> {
    let external = metric.external.map(|external| (external.metric.name, external.current));
    let resource = metric.resource.map(|resource| (resource.name, resource.current));
    let container = metric.container_resource.map(|resource| (resource.name, resource.current));
    let (name, current) = external.or(resource).or(container)?;
    Some(HpaMetric {
        name,
        value: current.value.map(|value| value.0),
        average_value: current.average_value.map(|value| value.0),
        average_utilization: current.average_utilization,
    })
}

fn fingerprint(hpa: &HorizontalPodAutoscaler) -> u64 {
    let mut hasher = DefaultHasher::new();
    let meta = &hpa.metadata;
    (&meta.labels, &meta.annotations).hash(&mut hasher);
    for owner in meta.owner_references.iter().flatten() {
        (&owner.uid, &owner.name).hash(&mut hasher);
    }
    // A spec holds nothing that JSON cannot.
    serde_json::to_string(&hpa.spec).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
