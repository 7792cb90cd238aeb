//! Counts what the webhooks decide, as KEDA's do: reviews of ScaledObjects, and refusals by the rule that refused.

use serde_json::Value;
use tidemark_serving::admission_review::{Operation, Question};
use tidemark_telemetry::catalogue::services::{VALIDATION_ERRORS, VALIDATIONS};
use tidemark_telemetry::series::Series;

use super::{Judged, Listener};

/// A listener that counts in `series`.
pub fn counter(series: Series) -> Listener {
    Box::new(move |judged: Judged<'_>| {
        let question = judged.question;
        let action = match question.operation {
            Operation::Create => "create",
            Operation::Update => "update",
        };
        let namespace = question.object["metadata"]["namespace"].as_str().unwrap_or_default();
        if question.kind == "ScaledObject" && !is_release(question) {
            series.count(&VALIDATIONS, &[namespace, action]);
        }
        // One refusal gives one reason: that of the first rule, as KEDA stops there.
        if let Some(reason) = judged.verdict.errors.first().and_then(|error| error.reason) {
            series.count(&VALIDATION_ERRORS, &[namespace, action, reason]);
        }
    })
}

/// Whether nothing happens but that a finalizer is taken off.
fn is_release(question: &Question) -> bool {
    let finalizers = |object: &Value| object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
    question
        .old
        .as_ref()
        .is_some_and(|old| finalizers(&question.object) < finalizers(old) && old["spec"] == question.object["spec"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidemark_admission::{Request, Target, Verdict, View, review};
    use tidemark_clock::Clock;
    use tidemark_telemetry::catalogue::WEBHOOKS;
    use tidemark_telemetry::prometheus;
    use tokio::time::Instant;

    use super::*;
    use crate::process::metrics;

    fn scaled_object(name: &str, spec: Value) -> Value {
        let mut object = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "scaleTargetRef": {"name": "orders"}, "maxReplicaCount": 10,
                "triggers": [{"type": "cron", "name": "hours", "metadata": {}}],
            },
        });
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        object
    }

    fn autoscaler(annotations: Value) -> Value {
        json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "by-hand", "namespace": "shop", "annotations": annotations},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "orders"}},
        })
    }

    fn question(object: Value, old: Option<Value>) -> Question {
        let kind = if object["kind"] == "ScaledJob" { "ScaledJob" } else { "ScaledObject" };
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        Question { kind, operation, object, old, dry_run: false, deadline: Instant::now() }
    }

    /// What is told after these verdicts, without what the process uses.
    fn told(judged: &[(Question, Verdict)]) -> String {
        let series = metrics::series(Clock::system());
        let count = counter(series.clone());
        for (question, verdict) in judged {
            count(Judged { question, verdict });
        }
        String::from_utf8(prometheus::pieces(WEBHOOKS, series.snapshot()).flatten().collect()).unwrap()
    }

    /// An object that a rule refuses beside these neighbours.
    fn refused(object: Value, others: &[Value], autoscalers: &[Value], target: Option<&Value>) -> (Question, Verdict) {
        let target = target.map_or(Target::Unread, Target::Found);
        let view = View { target, scaled_objects: others, autoscalers, limit_ranges: &[] };
        let verdict = review(&Request { object: &object, old: None, dry_run: false }, &view);
        (question(object, None), verdict)
    }

    #[test]
    fn every_reason_of_a_refusal_is_told() {
        let cpu = json!([{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "50"}}]);
        let bare = json!({"spec": {"template": {"spec": {"containers": [{"name": "main"}]}}}});
        let asking = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "main", "resources": {"requests": {"cpu": "1"}}},
        ]}}}});
        let alone = |object: Value| refused(object, &[], &[], None);
        let of = |spec: Value| alone(scaled_object("orders", spec));
        let transfer = |mut object: Value| {
            object["metadata"]["annotations"] = json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"});
            object
        };
        let advanced = |value: Value| json!({"advanced": value});
        let other = scaled_object("other", json!({}));
        let same_hpa = {
            let mut spec = advanced(json!({"horizontalPodAutoscalerConfig": {"name": "keda-hpa-orders"}}));
            spec["scaleTargetRef"] = json!({"name": "elsewhere"});
            scaled_object("other", spec)
        };
        let by_hand = [autoscaler(json!({}))];
        let plain = scaled_object("orders", json!({}));
        let job = json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledJob", "metadata": {"name": "jobs", "namespace": "shop"},
            "spec": {"jobTargetRef": {"template": {}}, "triggers": []},
        });
        let cases = [
            ("incorrect-replicas", of(json!({"minReplicaCount": 20}))),
            ("name-too-long", {
                let mut spec = advanced(json!({"horizontalPodAutoscalerConfig": {"name": "short"}}));
                spec["scaleTargetRef"] = json!({"name": "orders"});
                alone(scaled_object(&"n".repeat(64), spec))
            }),
            ("hpa-name-too-long", alone(scaled_object(&"n".repeat(60), json!({})))),
            ("incorrect-fallback", of(json!({"fallback": {"failureThreshold": -1, "replicas": 1}}))),
            ("incorrect-triggers", of(json!({"triggers": []}))),
            ("transfer-ownership-missing-hpa-name", refused(transfer(plain.clone()), &[], &by_hand, None)),
            ("other-hpa", refused(plain.clone(), &[], &by_hand, None)),
            ("other-scaled-object", refused(plain.clone(), &[other], &[], None)),
            ("other-scaled-object-hpa", refused(plain, &[same_hpa], &[], None)),
            (
                "scaling-modifiers",
                of(advanced(json!({"scalingModifiers": {"formula": "hours + nothing", "target": "1"}}))),
            ),
            ("scaling-modifiers-fallback", {
                of(json!({"fallback": {"failureThreshold": 1, "replicas": 1, "behavior": "scalingModifiers"}}))
            }),
            ("missing-requests", {
                refused(scaled_object("orders", json!({"triggers": cpu, "minReplicaCount": 1})), &[], &[], Some(&bare))
            }),
            ("scale-to-zero-requirements-not-met", {
                refused(scaled_object("orders", json!({"triggers": cpu})), &[], &[], Some(&asking))
            }),
        ];
        for (reason, judged) in cases {
            let errors = format!("{:?}", judged.1.errors);
            let text = told(&[judged]);
            let line = format!(
                "keda_webhook_scaled_object_validation_errors_total{{namespace=\"shop\",action=\"create\",reason=\"{reason}\"}} 1\n"
            );
            assert!(text.contains(&line), "{reason}: {errors}\n{text}");
            let line = "keda_webhook_scaled_object_validations_total{namespace=\"shop\",action=\"create\"} 1\n";
            assert!(text.contains(line), "{reason}: {text}");
        }
        let refused_job = alone(job);
        let text = told(&[refused_job]);
        assert!(text.contains("reason=\"incorrect-triggers\"} 1\n"), "{text}");
        assert!(!text.contains("validations_total"), "a ScaledJob is not counted there: {text}");
    }

    #[test]
    fn a_refusal_without_a_reason_of_kedas_counts_as_a_review_only() {
        let object = scaled_object("orders", json!({"triggers": "none"}));
        let text = told(&[refused(object, &[], &[], None)]);
        assert!(text.contains("validations_total{namespace=\"shop\",action=\"create\"} 1\n"), "{text}");
        assert!(!text.contains("validation_errors_total"), "{text}");
    }

    #[test]
    fn taking_a_finalizer_off_is_no_review() {
        let (mut old, new) = (scaled_object("orders", json!({})), scaled_object("orders", json!({})));
        old["metadata"]["finalizers"] = json!(["finalizer.keda.sh"]);
        assert_eq!(told(&[(question(new.clone(), Some(old)), Verdict::default())]), "");
        let text = told(&[(question(new.clone(), Some(new)), Verdict::default())]);
        assert!(text.contains("validations_total{namespace=\"shop\",action=\"update\"} 1\n"), "{text}");
    }
}
