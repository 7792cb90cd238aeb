//! The messages of the contract between the operator and the metrics server, proto3 package `api`. Either side may be
//! KEDA's: numbers and types are the contract, and the lists are encoded as Kubernetes encodes its types of the same
//! names.

use std::collections::BTreeMap;

/// Paths of the methods.
pub const GET_METRICS: &str = "/api.MetricsService/GetMetrics";
pub const GET_RAW_METRICS_STREAM: &str = "/api.RawMetricsService/GetRawMetricsStream";
pub const SUBSCRIBE_METRIC: &str = "/api.RawMetricsService/SubscribeMetric";
pub const UNSUBSCRIBE_METRIC: &str = "/api.RawMetricsService/UnsubscribeMetric";

/// A metric of a ScaledObject. For raw metrics, `metric_name` is the name of a trigger.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct ScaledObjectRef {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub metric_name: String,
}

/// The answer to [`GET_METRICS`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExternalMetricValueList {
    /// Always there and always empty.
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ListMeta>,
    #[prost(message, repeated, tag = "2")]
    pub items: Vec<ExternalMetricValue>,
}

/// `ExternalMetricValue` of `external.metrics.k8s.io/v1beta1`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExternalMetricValue {
    #[prost(string, tag = "1")]
    pub metric_name: String,
    /// Never filled.
    #[prost(btree_map = "string, string", tag = "2")]
    pub metric_labels: BTreeMap<String, String>,
    /// Absent for the zero time.
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Time>,
    /// Seconds; never filled.
    #[prost(int64, optional, tag = "4")]
    pub window: Option<i64>,
    #[prost(message, optional, tag = "5")]
    pub value: Option<Quantity>,
}

/// `ListMeta` of Kubernetes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListMeta {
    #[prost(string, tag = "1")]
    pub self_link: String,
    #[prost(string, tag = "2")]
    pub resource_version: String,
    #[prost(string, tag = "3")]
    pub r#continue: String,
    #[prost(int64, optional, tag = "4")]
    pub remaining_item_count: Option<i64>,
}

/// A time, both as Kubernetes and as `google.protobuf.Timestamp` write it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Time {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A quantity in its text form; empty means zero.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Quantity {
    #[prost(string, tag = "1")]
    pub string: String,
}

/// Opens a stream of raw metrics.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RawMetricsRequest {
    #[prost(string, tag = "1")]
    pub subscriber: String,
}

/// Subscribes to a trigger, or ends that.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SubscriptionRequest {
    #[prost(string, tag = "1")]
    pub subscriber: String,
    #[prost(message, optional, tag = "2")]
    pub metric_metadata: Option<ScaledObjectRef>,
}

/// Whether the subscriber had been subscribed before.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SubscriptionAck {
    #[prost(bool, tag = "1")]
    pub was_subscribed: bool,
    /// Never filled.
    #[prost(string, optional, tag = "2")]
    pub message: Option<String>,
}

/// What one read of one trigger gave.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RawMetricsResponse {
    #[prost(message, repeated, tag = "1")]
    pub metrics: Vec<RawMetric>,
}

/// One value of a trigger.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RawMetric {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(message, optional, tag = "2")]
    pub timestamp: Option<Time>,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<ScaledObjectRef>,
    #[prost(bool, tag = "4")]
    pub is_active: bool,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_list_is_encoded_as_kubernetes_encodes_its_own() {
        let value = ExternalMetricValue {
            metric_name: "s0-q".to_owned(),
            timestamp: Some(Time { seconds: 5, nanos: 0 }),
            window: Some(7),
            value: Some(Quantity { string: "5".to_owned() }),
            ..Default::default()
        };
        let list = ExternalMetricValueList { metadata: Some(ListMeta::default()), items: vec![value] };
        let item = [b"\x0a\x04s0-q".as_slice(), b"\x1a\x02\x08\x05", b"\x20\x07", b"\x2a\x03\x0a\x015"].concat();
        let expected = [b"\x0a\x00\x12".as_slice(), &[u8::try_from(item.len()).unwrap()], &item].concat();
        assert_eq!(list.encode_to_vec(), expected);
        // Go's encoder of Kubernetes' types writes empty strings and zero numbers too.
        let meta = ListMeta::decode(b"\x0a\x00\x12\x00\x1a\x00".as_slice()).unwrap();
        assert_eq!(meta, ListMeta::default());
    }

    #[test]
    fn the_numbers_of_raw_metrics_are_those_of_the_contract() {
        let metadata = ScaledObjectRef { name: "o".into(), namespace: "n".into(), metric_name: "m".into() };
        let raw = RawMetric {
            value: 1.0,
            timestamp: Some(Time { seconds: 1, nanos: 2 }),
            metadata: Some(metadata),
            is_active: true,
        };
        let expected =
            b"\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x12\x04\x08\x01\x10\x02\x1a\x09\x0a\x01o\x12\x01n\x1a\x01m\x20\x01";
        assert_eq!(raw.encode_to_vec(), expected);
        let ack = SubscriptionAck { was_subscribed: true, message: Some("x".into()) };
        assert_eq!(ack.encode_to_vec(), b"\x08\x01\x12\x01x");
    }
}
