//! Prometheus' text format 0.0.4.

use std::fmt::Write;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::catalogue::Metric;
use crate::series::{Page, Point, Snapshot, Subject, Value};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// Values in one piece of the text, about: so much is in memory at once, however many there are.
const POINTS: usize = 1000;

/// The text of these metrics in pieces, so that many series need no room at once.
pub fn pieces(metrics: &'static [&'static Metric], snapshot: Snapshot) -> impl Iterator<Item = Bytes> {
    let mut left = metrics.iter();
    let mut present: Option<(&'static Metric, &'static str, Page, bool)> = None;
    std::iter::from_fn(move || {
        loop {
            let Some((metric, name, page, headed)) = &mut present else {
                let metric = left.next()?;
                present = metric.prometheus.map(|name| (*metric, name, Page::default(), false));
                continue;
            };
            let mut text = String::new();
            if !*headed {
                let (help, kind) = (metric.help, metric.instrument.prometheus());
                text = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            }
            match snapshot.page(metric, page, POINTS, &mut |point| lines(&mut text, name, metric, &point)) {
                None => present = None,
                Some(0) => {}
                Some(_) => {
                    *headed = true;
                    return Some(Bytes::from(text));
                }
            }
        }
    })
}

/// The same pieces compressed with gzip, for scrapers that take that: series repeat themselves, to a twentieth.
pub fn gzip(pieces: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let mut pieces = pieces.fuse();
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    std::iter::from_fn(move || {
        loop {
            let Some(piece) = pieces.next() else {
                // Writing into memory does not fail.
                return Some(Bytes::from(encoder.take()?.finish().unwrap_or_default()));
            };
            let writing = encoder.as_mut()?;
            let _ = writing.write_all(&piece);
            let ready = std::mem::take(writing.get_mut());
            if !ready.is_empty() {
                return Some(Bytes::from(ready));
            }
        }
    })
}

fn lines(text: &mut String, name: &str, metric: &Metric, point: &Point<'_>) {
    match point.value {
        Value::Number(value) => line(text, name, metric, &point.subject, None, value),
        Value::Histogram(histogram) => {
            let mut below = 0;
            let bounds = histogram.bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(&histogram.buckets) {
                below += count;
                line(text, &format!("{name}_bucket"), metric, &point.subject, Some(&bound), below as f64);
            }
            line(text, &format!("{name}_sum"), metric, &point.subject, None, histogram.sum);
            line(text, &format!("{name}_count"), metric, &point.subject, None, histogram.count() as f64);
        }
    }
}

fn line(text: &mut String, name: &str, metric: &Metric, subject: &Subject<'_>, bound: Option<&str>, value: f64) {
    text.push_str(name);
    let mut separator = '{';
    for label in metric.labels {
        let Some(name) = label.prometheus else { continue };
        text.push(separator);
        separator = ',';
        text.push_str(name);
        text.push_str("=\"");
        subject.tell(label.what, |value| escape(text, value));
        text.push('"');
    }
    if let Some(bound) = bound {
        let _ = write!(text, "{separator}le=\"{bound}\"");
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
    let _ = match value {
        value if value.is_nan() => writeln!(text, " NaN"),
        value if value.is_infinite() => writeln!(text, " {}Inf", if value > 0.0 { '+' } else { '-' }),
        value => writeln!(text, " {value}"),
    };
}

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tidemark_operator::ObjectKey;

    use super::*;
    use crate::catalogue::services::{CLIENT, VALIDATION_ERRORS};
    use crate::catalogue::{METRICS_SERVER, OPERATOR, WEBHOOKS};
    use crate::series::{Asked, Build, Kind, Place, Series};

    fn series() -> Series {
        let build = Build { version: "1.2.3", commit: "abc", toolchain: "rust" };
        Series::new(build, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    fn text(series: &Series) -> String {
        told(OPERATOR, series)
    }

    fn told(metrics: &'static [&'static Metric], series: &Series) -> String {
        pieces(metrics, series.snapshot()).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
    }

    fn place(kind: Kind, name: &str) -> Place {
        Place { kind, key: Arc::new(ObjectKey::new("shop", name)) }
    }

    fn record(series: &Series, place: &Place, name: &str) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        series.object(place, now, |object| {
            let scaler = object.scaler(0, &Arc::from(name), &Arc::from("s0-queue"));
            scaler.active = Some(true);
            scaler.value = Some(12.5);
            scaler.read = true;
            scaler.fail("authentication");
        });
    }

    #[test]
    fn a_series_has_the_labels_of_dashboards_and_escapes_what_they_say() {
        let series = series();
        record(&series, &place(Kind::ScaledObject, "workers"), "say \"hi\"\\\n");
        let text = text(&series);
        let labels = r#"{namespace="shop",metric="s0-queue",scaledObject="workers",scaler="say \"hi\"\\\n",triggerIndex="0",type="scaledobject"}"#;
        assert!(
            text.contains(&format!("# TYPE keda_scaler_metrics_value gauge\nkeda_scaler_metrics_value{labels} 12.5\n")),
            "{text}"
        );
        assert!(text.contains(&format!("keda_scaler_detail_errors_total{labels} 1\n")));
        assert!(text.contains(r#"type="scaledobject",kind="authentication"} 1"#));
    }

    #[test]
    fn the_series_of_an_object_go_with_it() {
        let series = series();
        let place = place(Kind::ScaledJob, "jobs");
        record(&series, &place, "a");
        assert!(text(&series).contains(r#"scaledObject="jobs",scaler="a",triggerIndex="0",type="scaledjob"}"#));
        series.remove(&place);
        assert!(!text(&series).contains("jobs"));
    }

    #[test]
    fn triggers_and_resources_stay_with_zero() {
        let series = series();
        let (place, now) = (place(Kind::ScaledObject, "workers"), "2026-01-01T00:00:00Z".parse().unwrap());
        series.set_triggers(&place, now, Arc::from([Arc::from("cron"), Arc::from("redis")]));
        series.set_triggers(&place, now, Arc::from([Arc::from("cron")]));
        series.count_resource("scaled_object", "", 1);
        let text = text(&series);
        assert!(text.contains("keda_trigger_registered_total{type=\"cron\"} 1\n"));
        assert!(text.contains("keda_trigger_registered_total{type=\"redis\"} 0\n"));
        assert!(text.contains("keda_resource_registered_total{type=\"scaled_object\",namespace=\"default\"} 1\n"));
    }

    #[test]
    fn a_distribution_is_told_cumulatively() {
        let series = series();
        for milliseconds in [5, 6, 20_000] {
            series.http(&Arc::from("prometheus"), Some(200), Duration::from_millis(milliseconds));
        }
        let text = text(&series);
        let line = |bound, count| {
            format!(
                "keda_scaler_http_request_duration_seconds_bucket{{scaler=\"prometheus\",status_code=\"200\",le=\"{bound}\"}} {count}\n"
            )
        };
        assert!(
            text.contains(&line("0.005", 1)) && text.contains(&line("0.01", 2)) && text.contains(&line("+Inf", 3)),
            "{text}"
        );
        assert!(text.contains("_sum{scaler=\"prometheus\",status_code=\"200\"} 20.011\n"));
    }
    #[test]
    fn what_was_counted_is_told_by_the_process_whose_metric_it_is() {
        let series = series();
        series.count(&VALIDATION_ERRORS, &["shop", "create", "other-hpa"]);
        series.count(&VALIDATION_ERRORS, &["shop", "create", "other-hpa"]);
        let call = ["unary", "api.MetricsService", "GetMetrics"];
        series.add(&CLIENT.handling, &call, 0.2);
        let refused = "keda_webhook_scaled_object_validation_errors_total";
        let webhooks = told(WEBHOOKS, &series);
        let line = format!("{refused}{{namespace=\"shop\",action=\"create\",reason=\"other-hpa\"}} 2\n");
        assert!(webhooks.contains(&format!("# TYPE {refused} counter\n{line}")), "{webhooks}");
        assert!(!webhooks.contains("keda_build_info") && !webhooks.contains("grpc_client"));
        let client = told(METRICS_SERVER, &series);
        let name = "keda_internal_metricsservice_grpc_client_handling_seconds";
        let labels = r#"grpc_type="unary",grpc_service="api.MetricsService",grpc_method="GetMetrics""#;
        assert!(client.contains(&format!("{name}_bucket{{{labels},le=\"0.1\"}} 0\n")), "{client}");
        assert!(client.contains(&format!("{name}_bucket{{{labels},le=\"0.3\"}} 1\n")), "{client}");
        assert!(client.contains(&format!("{name}_count{{{labels}}} 1\n")), "{client}");
    }

    #[test]
    fn ten_thousand_objects_come_in_small_pieces_each_metric_in_one_run() {
        let series = series();
        for number in 0..10_000 {
            record(&series, &place(Kind::ScaledObject, &format!("object-{number}")), "a");
        }
        let mut heads = 0;
        let mut values = 0;
        for piece in pieces(OPERATOR, series.snapshot()) {
            assert!(piece.len() < 512 * 1024, "{}", piece.len());
            let text = String::from_utf8(piece.to_vec()).unwrap();
            heads += text.matches("# TYPE keda_scaler_metrics_value gauge\n").count();
            values += text.lines().filter(|line| line.starts_with("keda_scaler_metrics_value{")).count();
        }
        assert_eq!((heads, values), (1, 10_000));
    }

    #[test]
    fn what_is_compressed_is_the_same_text_and_much_smaller() {
        let series = series();
        for number in 0..5_000 {
            record(&series, &place(Kind::ScaledObject, &format!("object-{number}")), "a");
        }
        let compressed: Vec<u8> = gzip(pieces(OPERATOR, series.snapshot())).flatten().collect();
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*compressed), &mut plain).unwrap();
        assert!(plain == text(&series));
        assert!(compressed.len() * 8 < plain.len(), "{} of {}", compressed.len(), plain.len());
    }

    #[test]
    fn durations_are_told_by_trigger_where_that_is_wanted() {
        let series = series();
        let of = Asked { index: 0, trigger_name: "queue".into(), metric: "s0-queue".into() };
        let took = Some(Duration::from_millis(7));
        series.object(&place(Kind::ScaledObject, "workers"), "2026-01-01T00:00:00Z".parse().unwrap(), |object| {
            object.request(&of, &Arc::from("prometheus"), Some(200), took);
            object.empty(&of, true);
        });
        let text = text(&series);
        let labels = r#"namespace="shop",scaled_resource="workers",scaler="prometheus",trigger_name="queue",metric_name="s0-queue",status_code="200""#;
        assert!(text.contains(&format!("keda_scaler_http_request_duration_seconds_count{{{labels}}} 1\n")), "{text}");
        let labels = r#"namespace="shop",scaledResource="workers",triggerName="queue",metricName="s0-queue",resourceType="ScaledObject",ignoreNullValues="true""#;
        assert!(text.contains(&format!("keda_scaler_empty_upstream_responses_total{{{labels}}} 1\n")), "{text}");
    }
}
