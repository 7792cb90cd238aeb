//! Prometheus' text format 0.0.4.

use std::fmt::Write;

use bytes::Bytes;

use crate::catalogue::{ALL, DURATION_BOUNDS, Instrument, Metric};
use crate::series::{Point, Snapshot, Subject, Value};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// The text in pieces, one for each metric that has a value, so that many series need no room at once.
pub fn pieces(snapshot: Snapshot) -> impl Iterator<Item = Bytes> {
    ALL.iter().filter_map(move |metric| piece(&snapshot, metric)).map(Bytes::from)
}

fn piece(snapshot: &Snapshot, metric: &Metric) -> Option<String> {
    let name = metric.prometheus?;
    let kind = match metric.instrument {
        Instrument::Gauge | Instrument::UpDownCounter => "gauge",
        Instrument::Counter => "counter",
        Instrument::Histogram => "histogram",
    };
    let head = format!("# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help);
    let mut text = head.clone();
    snapshot.each(metric, |point| lines(&mut text, name, metric, &point));
    (text.len() > head.len()).then_some(text)
}

fn lines(text: &mut String, name: &str, metric: &Metric, point: &Point<'_>) {
    match point.value {
        Value::Number(value) => line(text, name, metric, &point.subject, None, value),
        Value::Histogram(histogram) => {
            let mut below = 0;
            let bounds = DURATION_BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(histogram.buckets) {
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
    use crate::series::{Build, Kind, Place, Series};

    fn series() -> Series {
        let build = Build { version: "1.2.3", commit: "abc", toolchain: "rust" };
        Series::new(build, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    fn text(series: &Series) -> String {
        pieces(series.snapshot()).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
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
}
