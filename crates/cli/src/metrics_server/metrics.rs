//! Counts what the external metrics API answers.

use std::sync::Arc;

use jiff::Timestamp;
use tidemark_clock::Clock;
use tidemark_serving::external_metrics::{GROUP, VERSION};
use tidemark_serving::{MetricsSource, Values};
use tidemark_telemetry::catalogue::services::{API_REQUESTS, FRESHNESS};
use tidemark_telemetry::series::Series;

/// A source whose answers are counted.
pub struct Counted {
    pub source: Arc<dyn MetricsSource>,
    pub series: Series,
    pub clock: Clock,
}

impl MetricsSource for Counted {
    fn values<'a>(&'a self, namespace: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
        Box::pin(async move {
            let answer = self.source.values(namespace, object, metric).await;
            let code = if answer.is_ok() { "200" } else { "500" };
            // Not by metric: there are as many of these as there are triggers.
            self.series.count(&API_REQUESTS, &["LIST", GROUP, VERSION, "externalmetrics", code]);
            let now = self.clock.now();
            for value in answer.iter().flatten().filter(|value| value.timestamp != Timestamp::UNIX_EPOCH) {
                let age = now.duration_since(value.timestamp).as_secs_f64();
                self.series.add(&FRESHNESS, &[GROUP], age.max(0.0));
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use tidemark_serving::ExternalMetric;
    use tidemark_telemetry::catalogue::METRICS_SERVER;
    use tidemark_telemetry::prometheus;

    use super::*;
    use crate::process::metrics;

    struct Source(Timestamp);

    impl MetricsSource for Source {
        fn values<'a>(&'a self, _: &'a str, object: &'a str, metric: &'a str) -> Values<'a> {
            let value = ExternalMetric { name: metric.to_owned(), value: "1".to_owned(), timestamp: self.0 };
            let answer = if object == "orders" { Ok(vec![value]) } else { Err("no such object".to_owned()) };
            Box::pin(std::future::ready(answer))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_count_by_their_status_and_values_by_their_age() {
        let clock = Clock::starting_at("2026-01-01T00:00:09Z".parse().unwrap());
        let series = metrics::series(clock);
        let source = Arc::new(Source("2026-01-01T00:00:07Z".parse().unwrap()));
        let counted = Counted { source, series: series.clone(), clock };
        assert_eq!(counted.values("shop", "orders", "s0-cron").await.unwrap().len(), 1);
        assert!(counted.values("shop", "other", "s0-cron").await.is_err());
        let text =
            String::from_utf8(prometheus::pieces(METRICS_SERVER, series.snapshot()).flatten().collect()).unwrap();
        for code in ["200", "500"] {
            let line = format!(
                "apiserver_request_total{{verb=\"LIST\",group=\"external.metrics.k8s.io\",version=\"v1beta1\",resource=\"externalmetrics\",code=\"{code}\"}} 1\n"
            );
            assert!(text.contains(&line), "{text}");
        }
        let freshness = "metrics_apiserver_metric_freshness_seconds";
        assert!(text.contains(&format!("{freshness}_sum{{group=\"external.metrics.k8s.io\"}} 2\n")), "{text}");
        assert!(text.contains(&format!("{freshness}_bucket{{group=\"external.metrics.k8s.io\",le=\"1.861\"}} 0\n")));
        assert!(text.contains(&format!("{freshness}_bucket{{group=\"external.metrics.k8s.io\",le=\"2.54\"}} 1\n")));
    }
}
