//! The external metrics API over an operator of the same process.

use std::sync::Arc;

use tidemark_engine::quantity;
use tidemark_operator::Handle;
use tidemark_sandbox::Sandbox;
use tidemark_serving::external_metrics::{GROUP, VERSION};
use tidemark_serving::front_proxy::Access;
use tidemark_serving::{ExternalMetric, ExternalMetrics, MetricsSource, Values};

/// Answers from an operator.
pub struct OperatorMetrics(Handle);

impl OperatorMetrics {
    /// Answers from the operator behind the handle.
    pub fn new(operator: Handle) -> Self {
        Self(operator)
    }
}

impl MetricsSource for OperatorMetrics {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        Box::pin(async move {
            let values = self.0.metric(namespace, object, metric).await.map_err(|error| error.to_string())?;
            Ok(values
                .into_iter()
                .map(|value| ExternalMetric {
                    name: value.metric.to_string(),
                    value: quantity::format_milli(value.value_milli),
                    timestamp: value.timestamp,
                })
                .collect())
        })
    }
}

/// Makes the external metrics API a part of the sandbox's.
pub fn mount(sandbox: &Sandbox, source: Arc<dyn MetricsSource>, access: Access) {
    sandbox.mount(GROUP, VERSION, ExternalMetrics::new(source, access));
}
