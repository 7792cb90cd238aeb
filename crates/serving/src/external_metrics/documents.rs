//! What the API says about itself.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{GROUP, VERSION};
use crate::described::{Described, Parameter, operation_v2, operation_v3};

const LIST: &str = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValueList";
const ITEM: &str = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValue";
const METRIC_PATH: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{name}";

/// Names of the path, as both versions of OpenAPI call them.
const PARAMETERS: [Parameter; 3] = [
    ("namespace", "path", "Namespace of the ScaledObject"),
    ("name", "path", "Name of the metric"),
    ("labelSelector", "query", "scaledobject.keda.sh/name=NAME names the ScaledObject"),
];

/// The title of the OpenAPI documents, as KEDA's has it.
pub const TITLE: &str = "keda-adapter";

/// The group.
pub static DESCRIBED: LazyLock<Described> = LazyLock::new(|| {
    let path = |operation: Value| [(METRIC_PATH.to_owned(), operation)].into_iter().collect();
    Described {
        group: GROUP,
        version: VERSION,
        resources: vec![json!({
            "name": "externalmetrics", "singularName": "", "namespaced": true,
            "kind": "ExternalMetricValueList", "verbs": ["get"],
        })],
        aggregated: vec![json!({
            "resource": "externalmetrics", "scope": "Namespaced", "singularResource": "", "verbs": ["get"],
            "responseKind": {"group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList"},
        })],
        paths_v2: path(operation_v2(operation(), &PARAMETERS, LIST)),
        definitions: schemas("#/definitions/"),
        paths_v3: path(operation_v3(operation(), &PARAMETERS, LIST)),
        schemas: schemas("#/components/schemas/"),
    }
});

fn operation() -> Value {
    json!({
        "description": "Read the values of an external metric of a ScaledObject",
        "operationId": "listExternalMetricsV1beta1NamespacedExternalMetric",
        "tags": ["externalMetrics_v1beta1"],
    })
}

fn schemas(reference: &str) -> Map<String, Value> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let gvk = |kind: &str| json!([{"group": GROUP, "version": VERSION, "kind": kind}]);
    let list = json!({
        "type": "object", "description": "The values of an external metric", "required": ["items"],
        "x-kubernetes-group-version-kind": gvk("ExternalMetricValueList"),
        "properties": {
            "apiVersion": text("Version of the schema"),
            "kind": text("ExternalMetricValueList"),
            "metadata": {"type": "object", "description": "Always empty"},
            "items": {
                "type": "array", "description": "The values",
                "items": {"$ref": format!("{reference}{ITEM}")},
            },
        },
    });
    let item = json!({
        "type": "object", "description": "A value of an external metric",
        "required": ["metricName", "metricLabels", "timestamp", "value"],
        "x-kubernetes-group-version-kind": gvk("ExternalMetricValue"),
        "properties": {
            "apiVersion": text("Version of the schema"),
            "kind": text("ExternalMetricValue"),
            "metricName": text("Name of the metric"),
            "metricLabels": {
                "type": "object", "description": "Always null", "additionalProperties": {"type": "string"},
            },
            "timestamp": {"type": "string", "format": "date-time", "description": "When the value was read"},
            "window": {"type": "integer", "format": "int64", "description": "Never there"},
            "value": text("The value, a quantity"),
        },
    });
    [(LIST.to_owned(), list), (ITEM.to_owned(), item)].into_iter().collect()
}
