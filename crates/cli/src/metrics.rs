//! The external metrics API over an operator of the same process, and the operator's end of the link to a metrics server.

use std::sync::Arc;

use futures::future::BoxFuture;
use tidemark_engine::quantity;
use tidemark_operator::Handle;
use tidemark_sandbox::Sandbox;
use tidemark_serving::external_metrics::{GROUP, VERSION};
use tidemark_serving::front_proxy::Access;
use tidemark_serving::metrics_service::{MetricsService, RawMetrics};
use tidemark_serving::{ExternalMetric, ExternalMetrics, MetricsSource, Values};
use tokio_util::sync::CancellationToken;

use crate::operator::raw_metrics::{self, Mode};

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

/// The gRPC services of an operator, for [`tidemark_serving::metrics_service::serve`], and what must run beside them
/// until the shutdown. `raw` says which reads subscribers get; without it they get none.
pub fn service(
    handle: &Handle,
    raw: Option<Mode>,
    shutdown: CancellationToken,
) -> (MetricsService, BoxFuture<'static, ()>) {
    let subscriptions = RawMetrics::default();
    let service = MetricsService::new(Arc::new(OperatorMetrics::new(handle.clone())), subscriptions.clone());
    let feeding: BoxFuture<'static, ()> = match raw {
        Some(mode) => raw_metrics::feed(handle, mode, subscriptions, shutdown),
        None => Box::pin(async move { shutdown.cancelled().await }),
    };
    (service, feeding)
}
