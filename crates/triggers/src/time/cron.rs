//! `cron`: a number of replicas while the clock is inside a window between two schedules.

mod schedule;
mod zone;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidemark_trigger::metric::{MetricType, external_name, metric_type, target_milli};
use tidemark_trigger::{
    Connection, Door, MetricSpec, Parameters, ParseError, ParseErrors, Reading, SourceError, Trigger, TriggerInput,
    TriggerType, parameters,
};

use schedule::Schedule;
use zone::zone;

/// The trigger type `cron`.
pub static TYPE: TriggerType = TriggerType {
    name: "cron",
    scaler_name: "cronScaler",
    parameters: CronParameters::TABLE,
    cached_metrics: false,
    parse: |input| Cron::parse(input).map(|cron| Arc::new(cron) as Arc<dyn Trigger>),
    inspect: parameters::inspect::<CronParameters>,
};

#[derive(Clone, Debug, Parameters)]
struct CronParameters {
    /// Time zone of the schedules: an IANA name such as `Europe/Berlin`, `UTC`, or `Local` for the operator's own.
    #[param(from = "metadata")]
    timezone: String,
    /// When the window opens: minute, hour, day of month, month, day of week, as in `0 6 * * MON-FRI`. With
    /// `TZ=Zone` in front it is in a zone of its own.
    #[param(from = "metadata")]
    start: String,
    /// When the window closes, written like `start`.
    #[param(from = "metadata")]
    end: String,
    /// Replicas inside the window.
    #[param(from = "metadata", unit = "replicas")]
    desired_replicas: i64,
}

/// A parsed cron trigger.
#[derive(Debug)]
struct Cron {
    metrics: [MetricSpec; 1],
    notes: Box<[String]>,
    window: Arc<Window>,
}

/// When the trigger is active, and its value then.
#[derive(Debug)]
struct Window {
    start: Schedule,
    end: Schedule,
    zone: TimeZone,
    desired_replicas: i64,
}

impl Cron {
    fn parse(input: &TriggerInput) -> Result<Self, ParseErrors> {
        let CronParameters { timezone, start, end, desired_replicas } = CronParameters::parse(input)?;
        let mut errors = Vec::new();
        let zone = kept(&mut errors, "timezone", zone(&timezone));
        let window =
            (kept(&mut errors, "start", start_schedule(&start)), kept(&mut errors, "end", schedule("end", &end)));
        if start == end {
            errors.push(ParseError::general("start and end can not have exactly same time input"));
        }
        if desired_replicas == 0 {
            errors.push(ParseError::new("desiredReplicas", "no desiredReplicas specified"));
        }
        let metric_type = metric_type(input).map_err(|error| errors.push(error));
        let ((Some(start_at), Some(end_at)), Some(zone), Ok(metric_type), true) =
            (window, zone, metric_type, errors.is_empty())
        else {
            return Err(ParseErrors(errors));
        };
        let name = external_name(input.index, &format!("cron-{timezone}-{}-{}", in_name(&start), in_name(&end)));
        let window = Window { start: start_at, end: end_at, zone, desired_replicas };
        Ok(Self {
            metrics: [MetricSpec::External { name, metric_type, target_milli: target_milli(1.0) }],
            notes: window.notes(input, metric_type),
            window: Arc::new(window),
        })
    }
}

/// The value of an outcome, or nothing after its error was added.
fn kept<T>(errors: &mut Vec<ParseError>, parameter: &str, outcome: Result<T, String>) -> Option<T> {
    outcome.map_err(|cause| errors.push(ParseError::new(parameter, cause))).ok()
}

fn schedule(parameter: &str, text: &str) -> Result<Schedule, String> {
    Schedule::parse(text).map_err(|cause| format!("error parsing {parameter} schedule: {cause}"))
}

/// A start that never comes would leave the window open for ever: it is refused.
fn start_schedule(text: &str) -> Result<Schedule, String> {
    let start = schedule("start", text)?;
    if start.ever_fires() {
        return Ok(start);
    }
    Err(format!("error parsing start schedule: \"{text}\" never fires, the calendar has no such day"))
}

/// A schedule as a part of a metric's name.
fn in_name(schedule: &str) -> String {
    schedule.replace(' ', "").replace('*', "x").replace('/', "Sl").replace('?', "Qm").replace(',', "Cm")
}

impl Window {
    /// Whether `now` lies in the window: its end comes next, before another start or with it.
    fn open(&self, now: Timestamp) -> bool {
        let start = self.start.next(now, &self.zone);
        let end = self.end.next(now, &self.zone);
        start.zip(end).is_some_and(|(start, end)| end <= start)
    }

    fn notes(&self, input: &TriggerInput, metric_type: MetricType) -> Box<[String]> {
        let mut notes = CronParameters::notes(input).into_vec();
        if !self.end.ever_fires() {
            notes.push("end never fires, so the trigger is never active".to_owned());
        }
        if self.desired_replicas < 0 {
            notes.push("desiredReplicas is negative and counts as 0".to_owned());
        }
        if metric_type == MetricType::Value {
            notes.push(
                "with metricType Value the replicas are multiplied by desiredReplicas again and again up to the maximum"
                    .to_owned(),
            );
        }
        notes.into()
    }
}

impl Trigger for Cron {
    fn metrics(&self) -> &[MetricSpec] {
        &self.metrics
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn connect<'a>(&'a self, _: &'a Door) -> BoxFuture<'a, Result<Arc<dyn Connection>, SourceError>> {
        let window: Arc<dyn Connection> = self.window.clone();
        async move { Ok(window) }.boxed()
    }
}

impl Connection for Window {
    fn read<'a>(&'a self, door: &'a Door) -> BoxFuture<'a, Result<Vec<Reading>, SourceError>> {
        let active = self.open(door.clock().now());
        let value = if active { self.desired_replicas as f64 } else { 0.0 };
        async move { Ok(vec![Reading { value, active }]) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::trigger_input;

    fn input(metadata: &[(&str, &str)]) -> TriggerInput {
        TriggerInput { index: 2, ..trigger_input("cron", metadata, &[]) }
    }

    fn cron(timezone: &str, start: &str, end: &str) -> Result<Cron, ParseErrors> {
        Cron::parse(&input(&[("timezone", timezone), ("start", start), ("end", end), ("desiredReplicas", "10")]))
    }

    fn open(timezone: &str, start: &str, end: &str, now: &str) -> bool {
        cron(timezone, start, end).unwrap().window.open(now.parse().unwrap())
    }

    #[test]
    fn the_start_is_inside_and_the_end_is_outside() {
        let day = |now| open("UTC", "0 6 * * *", "0 20 * * *", now);
        assert!(!day("2026-01-01T05:59:59Z"));
        assert!(day("2026-01-01T06:00:00Z"));
        assert!(day("2026-01-01T19:59:59.999Z"));
        assert!(!day("2026-01-01T20:00:00Z"));
    }

    #[test]
    fn a_window_may_span_midnight_or_repeat_within_the_hour() {
        assert!(open("UTC", "0 20 * * *", "0 6 * * *", "2026-01-01T23:00:00Z"));
        assert!(open("UTC", "0,30 * * * *", "15,45 * * * *", "2026-01-01T23:10:00Z"));
        assert!(!open("UTC", "0,30 * * * *", "15,45 * * * *", "2026-01-01T23:20:00Z"));
        // Both fall on the same instant, though their texts differ: the end wins.
        assert!(open("UTC", "0 6 * * *", "00 06 * * *", "2026-01-01T07:00:00Z"));
    }

    #[test]
    fn a_change_of_the_clock_moves_the_window_as_it_moves_the_schedules() {
        let new_york = |start, end, now| open("America/New_York", start, end, now);
        // 02:30 does not exist on 10 March, so the window of the 9th stays open until the end of the 10th.
        let early = |now| new_york("30 2 * * *", "0 5 * * *", now);
        assert!(!early("2024-03-09T02:29:59-05:00") && early("2024-03-09T02:30:00-05:00"));
        assert!(early("2024-03-09T12:00:00-05:00") && early("2024-03-10T04:59:59-04:00"));
        assert!(!early("2024-03-10T05:00:00-04:00"));
        // An end that does not exist: the window that would open at 01:00 on 10 March is skipped.
        assert!(!new_york("0 1 * * *", "30 2 * * *", "2024-03-10T01:30:00-05:00"));
        // 01:15 to 01:45 comes twice on 3 November.
        let twice = |now| new_york("15 1 * * *", "45 1 * * *", now);
        assert!(twice("2024-11-03T01:30:00-04:00") && !twice("2024-11-03T01:50:00-04:00"));
        assert!(twice("2024-11-03T01:30:00-05:00") && !twice("2024-11-03T01:50:00-05:00"));
    }

    #[test]
    fn a_start_that_never_fires_is_refused_and_such_an_end_is_noted() {
        let error = cron("UTC", "0 0 31 2 *", "0 6 * * *").unwrap_err();
        assert!(error.to_string().contains("\"0 0 31 2 *\" never fires"), "{error}");
        let never = cron("UTC", "0 6 * * *", "0 0 31 2 *").unwrap();
        assert!(!never.window.open("2026-01-01T07:00:00Z".parse().unwrap()));
        assert_eq!(never.notes.len(), 1);
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let mut bad = input(&[("timezone", "Europe/Berlni"), ("start", "0 6 * *"), ("end", "0 6 * *")]);
        bad.metadata.insert("desiredReplicas".to_owned(), "0".to_owned());
        bad.metric_type = Some("Utilization".to_owned());
        let errors = Cron::parse(&bad).unwrap_err();
        let parameters: Vec<_> = errors.0.iter().map(|error| error.parameter.as_deref()).collect();
        let expected =
            [Some("timezone"), Some("start"), Some("end"), None, Some("desiredReplicas"), Some("metricType")];
        assert_eq!(parameters, expected);
        assert!(errors.0[0].message.contains("did you mean Europe/Berlin?"));
    }

    #[test]
    fn the_metric_is_named_after_zone_and_schedules() {
        let name =
            |timezone, start, end| cron(timezone, start, end).unwrap().metrics[0].external_name().unwrap().to_string();
        assert_eq!(name("Etc/UTC", "0 0 * * Thu", "59 23 * * Thu"), "s2-cron-Etc-UTC-00xxThu-5923xxThu");
        assert_eq!(name("UTC", "0 0 1/9 * ?", "TZ=Etc/UTC 0 1 * * *"), "s2-cron-UTC-001Sl9xQm-TZ=EtcSlUTC01xxx");
    }

    #[test]
    fn an_idle_trigger_is_small() {
        let size = size_of::<Cron>() + size_of::<Window>();
        assert!(size <= 256, "{size} bytes");
    }
}
