//! The kinds of Kubernetes that are served, as data.

use serde_json::Value;

use super::cells;
use super::event;
use super::failure::Cause;
use super::hpa_one;
use super::resource::{Columns, Exchange, Generation, Naming, Row};
use super::{aggregate, crd, defaults, hpa, validation};

fn unchanged(_: &mut Value) {}
fn newborn(_: &mut Value, _: u64) {}
fn anything(_: &Value, _: Option<&Value>, _: &mut Vec<Cause>) {}

/// A namespaced kind of the core group without status or scale; the rows say what is different.
const PLAIN: Row = Row {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    status: false,
    scale: false,
    generation: Generation::Never,
    unconditional: true,
    naming: Naming::Subdomain,
    selectable: &[],
    definition: "",
    default: unchanged,
    birth: newborn,
    validate: anything,
    columns: Columns { names: &["Name", "Age"], cells: cells::plain },
    exchange: None,
};

/// The kinds, in no particular order.
pub(crate) const ROWS: &[Row] = &[
    Row {
        kind: "Namespace",
        plural: "namespaces",
        short_names: &["ns"],
        namespaced: false,
        status: true,
        naming: Naming::Label,
        selectable: &["status.phase"],
        definition: "io.k8s.api.core.v1.Namespace",
        default: defaults::namespace,
        birth: defaults::new_namespace,
        columns: Columns { names: &["Name", "Status", "Age"], cells: cells::namespace },
        ..PLAIN
    },
    Row {
        kind: "Pod",
        plural: "pods",
        short_names: &["po"],
        categories: &["all"],
        status: true,
        generation: Generation::Spec,
        selectable: &["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "status.phase", "status.podIP"],
        definition: "io.k8s.api.core.v1.Pod",
        default: defaults::pod,
        birth: defaults::new_pod,
        validate: validation::pod,
        columns: Columns {
            names: &[
                "Name",
                "Ready",
                "Status",
                "Restarts",
                "Age",
                "+IP",
                "+Node",
                "+Nominated Node",
                "+Readiness Gates",
            ],
            cells: cells::pod,
        },
        ..PLAIN
    },
    Row {
        kind: "Secret",
        plural: "secrets",
        selectable: &["type"],
        definition: "io.k8s.api.core.v1.Secret",
        default: defaults::secret,
        validate: validation::secret,
        columns: Columns { names: &["Name", "Type", "Data", "Age"], cells: cells::secret },
        ..PLAIN
    },
    Row {
        kind: "ConfigMap",
        plural: "configmaps",
        short_names: &["cm"],
        definition: "io.k8s.api.core.v1.ConfigMap",
        validate: validation::config_map,
        columns: Columns { names: &["Name", "Data", "Age"], cells: cells::config_map },
        ..PLAIN
    },
    Row {
        kind: "Service",
        plural: "services",
        short_names: &["svc"],
        categories: &["all"],
        status: true,
        naming: Naming::Service,
        selectable: &["spec.clusterIP", "spec.type"],
        definition: "io.k8s.api.core.v1.Service",
        default: defaults::service,
        birth: defaults::new_service,
        validate: validation::service,
        columns: Columns {
            names: &["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "+Selector"],
            cells: cells::service,
        },
        ..PLAIN
    },
    Row {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short_names: &["sa"],
        definition: "io.k8s.api.core.v1.ServiceAccount",
        ..PLAIN
    },
    Row {
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        selectable: event::SELECTABLE,
        definition: "io.k8s.api.core.v1.Event",
        validate: event::validate,
        columns: event::COLUMNS,
        ..PLAIN
    },
    Row {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short_names: &["ev"],
        selectable: event::SELECTABLE,
        definition: "io.k8s.api.events.v1.Event",
        validate: event::validate_new,
        columns: event::COLUMNS,
        exchange: Some(Exchange {
            group: "",
            definition: "io.k8s.api.core.v1.Event",
            shown: event::shown,
            stored: event::stored,
        }),
        ..PLAIN
    },
    Row {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        short_names: &["deploy"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: Generation::SpecOrAnnotations,
        definition: "io.k8s.api.apps.v1.Deployment",
        default: defaults::deployment,
        validate: validation::workload,
        columns: Columns {
            names: &["Name", "Ready", "Up-to-date", "Available", "Age", "+Containers", "+Images", "+Selector"],
            cells: cells::deployment,
        },
        ..PLAIN
    },
    Row {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        short_names: &["rs"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: Generation::Spec,
        selectable: &["status.replicas"],
        definition: "io.k8s.api.apps.v1.ReplicaSet",
        default: defaults::replica_set,
        validate: validation::workload,
        columns: Columns {
            names: &["Name", "Desired", "Current", "Ready", "Age", "+Containers", "+Images", "+Selector"],
            cells: cells::replica_set,
        },
        ..PLAIN
    },
    Row {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        short_names: &["sts"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: Generation::Spec,
        definition: "io.k8s.api.apps.v1.StatefulSet",
        default: defaults::stateful_set,
        validate: validation::workload,
        columns: Columns { names: &["Name", "Ready", "Age", "+Containers", "+Images"], cells: cells::stateful_set },
        ..PLAIN
    },
    Row {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        definition: "io.k8s.api.apps.v1.ControllerRevision",
        validate: validation::controller_revision,
        columns: Columns { names: &["Name", "Controller", "Revision", "Age"], cells: cells::controller_revision },
        ..PLAIN
    },
    Row {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        categories: &["all"],
        status: true,
        generation: Generation::Spec,
        selectable: &["status.successful"],
        definition: "io.k8s.api.batch.v1.Job",
        default: defaults::job,
        birth: defaults::new_job,
        validate: validation::job,
        columns: Columns {
            names: &["Name", "Status", "Completions", "Duration", "Age", "+Containers", "+Images", "+Selector"],
            cells: cells::job,
        },
        ..PLAIN
    },
    Row {
        group: "autoscaling",
        version: "v2",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: &["all"],
        status: true,
        definition: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
        default: hpa::default,
        birth: defaults::new_autoscaler,
        validate: hpa::validate,
        columns: Columns {
            names: &["Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age"],
            cells: cells::autoscaler,
        },
        ..PLAIN
    },
    Row {
        group: "autoscaling",
        kind: "HorizontalPodAutoscaler",
        plural: "horizontalpodautoscalers",
        short_names: &["hpa"],
        categories: &["all"],
        status: true,
        definition: "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
        default: hpa::default,
        birth: defaults::new_autoscaler,
        validate: hpa::validate,
        columns: Columns {
            names: &["Name", "Reference", "Targets", "MinPods", "MaxPods", "Replicas", "Age"],
            cells: cells::autoscaler,
        },
        exchange: Some(Exchange {
            group: "autoscaling",
            definition: "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
            shown: hpa_one::shown,
            stored: hpa_one::stored,
        }),
        ..PLAIN
    },
    Row {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        unconditional: false,
        definition: "io.k8s.api.coordination.v1.Lease",
        validate: validation::lease,
        columns: Columns { names: &["Name", "Holder", "Age"], cells: cells::lease },
        ..PLAIN
    },
    Row {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        generation: Generation::Spec,
        definition: "io.k8s.api.discovery.v1.EndpointSlice",
        default: defaults::endpoint_slice,
        validate: validation::endpoint_slice,
        columns: Columns { names: &["Name", "AddressType", "Ports", "Endpoints", "Age"], cells: cells::endpoint_slice },
        ..PLAIN
    },
    Row {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        generation: Generation::Spec,
        unconditional: false,
        definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        default: crd::default,
        validate: crd::validate,
        columns: Columns { names: &["Name", "Created At"], cells: cells::definition },
        ..PLAIN
    },
    Row {
        group: "apiregistration.k8s.io",
        kind: "APIService",
        plural: "apiservices",
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        unconditional: false,
        definition: "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        birth: aggregate::unserved,
        validate: validation::api_service,
        columns: Columns { names: &["Name", "Service", "Available", "Age"], cells: cells::api_service },
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_cell_for_each_column() {
        for row in ROWS {
            let cells = (row.columns.cells)(&serde_json::json!({}), jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), row.columns.names.len(), "{}", row.kind);
        }
    }

    #[test]
    fn every_row_has_a_definition() {
        for row in ROWS {
            assert!(!super::super::kinds::schema(row.definition).properties.is_empty(), "{}", row.kind);
        }
    }
}
