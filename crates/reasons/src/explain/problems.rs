//! What is wrong.

use jiff::SignedDuration;

use super::{View, called};
use crate::report::{Condition, Failure, Problem, Trigger, Trouble};
use crate::words::{ago, capital, counted, length, replicas, times};

/// A poll that is due for longer than this did not merely wait its turn.
const LATE: SignedDuration = SignedDuration::from_secs(5);
/// An HPA asks several times a minute.
const SILENCE: SignedDuration = SignedDuration::from_secs(180);
/// An HPA is made within seconds of the object.
const HPA_MADE: SignedDuration = SignedDuration::from_secs(30);

/// What is wrong, the worst first.
pub(super) fn problems(view: &View<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    lateness(view, &mut found);
    readiness(view, &mut found);
    triggers(view, &mut found);
    hpa(view, &mut found);
    limits(view, &mut found);
    pods(view, &mut found);
    others(view, &mut found);
    found
}

fn say(found: &mut Vec<Problem>, text: impl Into<String>, remedy: impl Into<String>) {
    found.push(Problem { text: text.into(), remedy: remedy.into() });
}

fn lateness(view: &View<'_>, found: &mut Vec<Problem>) {
    let overloaded =
        "see whether the operator gets enough CPU, and its metric keda_internal_scale_loop_latency_seconds";
    let overdue = view.report.next_poll.map(|due| view.now().duration_since(due)).filter(|late| *late > LATE);
    if let Some(late) = overdue {
        say(
            found,
            format!("The control loop is late: a poll was due {} ago and has not begun", length(late)),
            overloaded,
        );
        return;
    }
    if let Some(late) = view.detail.late_seconds.filter(|late| *late > LATE.as_secs_f64()) {
        say(found, format!("The control loop was late: the last poll began {late:.0} s after it was due"), overloaded);
    }
}

fn readiness(view: &View<'_>, found: &mut Vec<Problem>) {
    if let Some(rival) = &view.detail.rival {
        let message = view.report.ready.as_ref().map(|ready| ready.message.clone()).unwrap_or_default();
        let cause = if message.is_empty() { String::new() } else { format!(": {message}") };
        say(
            found,
            format!("The ScaledObject {rival} is in this one's place, so this one does nothing{cause}"),
            "delete one of the two, or give them different workloads and HPA names",
        );
        return;
    }
    let Some(ready) = view.report.ready.as_ref().filter(|ready| ready.status == "False") else { return };
    // Triggers that fail have lines of their own.
    let told = |trigger: &Trigger| trigger.error.as_ref().is_some_and(|error| ready.message.contains(&error.message));
    let written = |error: &Trouble| {
        error.open && matches!(&*error.stage, "Hpa" | "Scale") && ready.message.contains(&error.message)
    };
    if ready.reason == "TriggerError" || view.report.triggers.iter().any(told) || view.report.errors.iter().any(written)
    {
        return;
    }
    let open = |stage: &str| view.report.errors.iter().find(|error| error.open && error.stage == stage);
    let (kind, name) = (&view.report.target.kind, &view.report.target.name);
    let since = |trouble: Option<&Trouble>| {
        trouble.map(|trouble| format!(" (since {})", view.clock(trouble.first))).unwrap_or_default()
    };
    let (missing, unscalable) = (open("TargetMissing"), open("TargetUnscalable"));
    if missing.is_some() {
        let text = format!("The workload is not there: {kind} {name}{}", since(missing));
        say(
            found,
            text,
            "create it, or correct scaleTargetRef (name, kind, apiVersion); it is found at once when it comes",
        );
    } else if unscalable.is_some() {
        let text = format!("{kind} {name} has no subresource /scale{}: {}", since(unscalable), ready.message);
        say(found, text, "only workloads with /scale can be scaled; for a custom resource, its CRD must have it");
    } else {
        let text = format!("The object is not ready{}: {}", since(open("Check")), ready.message);
        say(found, text, "`tidemark lint -f FILE` shows mistakes in a manifest, with their places");
    }
}

fn triggers(view: &View<'_>, found: &mut Vec<Problem>) {
    let mut last = None;
    for trigger in &view.report.triggers {
        let Some(error) = &trigger.error else { continue };
        // The metrics of a trigger are read together.
        if last.replace(trigger.index) == Some(trigger.index) {
            continue;
        }
        let about =
            |trouble: &&Trouble| trouble.open && trouble.stage == "Trigger" && trouble.trigger == Some(trigger.index);
        let run = view.report.errors.iter().rev().find(about).map(|trouble| {
            let lasting = length(view.now().duration_since(trouble.first));
            format!("; it has failed {} since {} ({lasting})", times(trouble.count), view.clock(trouble.first))
        });
        let (run, doing) = (run.unwrap_or_default(), if trigger.metric.is_empty() { "built" } else { "read" });
        let name = if trigger.metric.is_empty() { capital(&called(trigger)) } else { called(trigger) };
        let text = format!("{name} cannot be {doing} ({}): {}{run}", error.kind, error.message);
        say(found, text, remedy(error, trigger));
    }
}

/// What a person does about a trigger's error.
fn remedy(error: &Failure, trigger: &Trigger) -> String {
    let source = trigger.endpoint.as_ref().map_or("the source".to_owned(), Clone::clone);
    match error.kind.as_str() {
        "configuration" => "correct the trigger: `tidemark lint -f FILE` shows the place".to_owned(),
        "authentication" => format!(
            "check the credentials that the trigger's authenticationRef leads to, and what they may do at {source}; \
             a corrected Secret is picked up by the next read"
        ),
        "unreachable" => format!(
            "see whether {source} is up and can be reached from the operator's pod: address, port, DNS, TLS, NetworkPolicies"
        ),
        "timed out" => format!("see why {source} does not answer: it may be slow, or packets are dropped on the way"),
        "refused" => format!("see why {source} refuses: the request may be wrong, or the source not well"),
        "bad reply" => format!("look at what {source} answers, and whether the trigger's parameters fit it"),
        "missing resource" => "create what is asked for, or correct its name in the trigger".to_owned(),
        _ => "`tidemark probe -f FILE` reads the trigger once and shows what comes of it".to_owned(),
    }
}

fn hpa(view: &View<'_>, found: &mut Vec<Problem>) {
    if view.report.paused || view.detail.rival.is_some() || view.detail.deleting {
        return;
    }
    let Some(hpa) = &view.detail.hpa else {
        let settled = view.now().duration_since(view.detail.observed_since) > HPA_MADE;
        let ready = view.report.ready.as_ref().is_some_and(|ready| ready.status == "True");
        if view.report.detail.is_some() && settled && ready {
            let text = "The object has no HPA, so nothing scales it beyond its minimum";
            say(found, text, "see `kubectl describe scaledobject` for why it was not made, and the operator's log");
        }
        return;
    };
    let fails = |condition: &Condition| condition.status == "False";
    if !view.hpa_condition("ScalingActive").is_some_and(fails) {
        unasked(view, &hpa.name, found);
    }
    if let Some(active) = view.hpa_condition("ScalingActive").filter(|condition| fails(condition)) {
        not_scaling(view, &hpa.name, active, found);
    }
    if let Some(able) = view.hpa_condition("AbleToScale").filter(|condition| fails(condition)) {
        let text = format!("The HPA {} cannot scale ({}): {}", hpa.name, able.reason, able.message);
        say(found, text, "the HPA controller must be able to read and write the workload's /scale");
    }
}

/// Nobody asks for the values, though somebody should.
fn unasked(view: &View<'_>, name: &str, found: &mut Vec<Problem>) {
    let asks = view.report.triggers.iter().any(|trigger| !trigger.read_by_hpa && trigger.error.is_none());
    let since = view.detail.last_query.unwrap_or(view.detail.observed_since);
    let silence = view.now().duration_since(since);
    if !asks || !view.is_left_to_hpa() || silence < SILENCE {
        return;
    }
    let last = if view.detail.last_query.is_some() { "for" } else { "since the operator began to watch," };
    say(
        found,
        format!("Nobody has asked the operator for a value of the HPA {name} {last} {}", length(silence)),
        "see whether kube-controller-manager runs, and who answers for the APIService \
         v1beta1.external.metrics.k8s.io: it may be another installation's",
    );
}

fn not_scaling(view: &View<'_>, name: &str, active: &Condition, found: &mut Vec<Problem>) {
    let failing = view.report.triggers.iter().any(|trigger| trigger.error.is_some());
    let (reason, message) = (active.reason.as_str(), &active.message);
    match reason {
        // At zero it has nothing to do.
        "ScalingDisabled" => {}
        "FailedGetExternalMetric" if failing => {
            say(
                found,
                format!("So the HPA {name} lacks a value, and does not scale in until it has it: {message}"),
                "",
            );
        }
        "FailedGetExternalMetric" => say(
            found,
            format!("The operator reads the triggers, but the HPA {name} does not get their values: {message}"),
            "the way is: HPA controller, API server, APIService v1beta1.external.metrics.k8s.io, metrics server, operator. \
             See `kubectl get apiservice v1beta1.external.metrics.k8s.io` and the metrics server's log",
        ),
        "FailedGetResourceMetric" | "FailedGetContainerResourceMetric" => say(
            found,
            format!("The HPA {name} gets no cpu or memory usage: {message}"),
            "these come from metrics.k8s.io (metrics-server of Kubernetes), and need requests on every container",
        ),
        "AmbiguousSelector" | "InvalidSelector" => say(
            found,
            format!("The HPA {name} cannot tell which pods are the workload's ({reason}): {message}"),
            "another HPA or an overlapping label selector covers the same pods",
        ),
        _ => say(found, format!("The HPA {name} does not scale ({reason}): {message}"), ""),
    }
}

fn limits(view: &View<'_>, found: &mut Vec<Problem>) {
    if view.has("TriggerFallback") || view.has("CompositeFallback") {
        let fallback = view.detail.fallback.as_ref().map(|fallback| replicas(fallback.replicas)).unwrap_or_default();
        let text = format!("The fallback of {fallback} stands in for what cannot be read");
        say(found, text, "the replicas follow no real load until the trigger is read again");
    }
    let max = view.report.max_replicas;
    let capped = view.hpa_limit().is_some_and(|limited| limited.reason == "TooManyReplicas");
    let wants = view.report.triggers.iter().filter_map(|trigger| trigger.wants).max();
    let beyond = wants.filter(|wants| view.report.active == Some(true) && *wants > i64::from(max));
    if view.is_left_to_hpa() && view.replicas() == Some(max) && (capped || beyond.is_some()) {
        let wish = beyond.map_or("more".to_owned(), |wants| wants.to_string());
        let text = format!("The maximum is reached: {wish} wanted, {max} allowed");
        say(found, text, "raise maxReplicaCount, if the cluster and the source can take it");
    }
    let below = view.replicas().is_some_and(|replicas| replicas < view.report.min_replicas.max(1));
    if view.detail.paused_scale_out && (view.has("ScaleOutPaused") || below) {
        let text = "Scaling out is paused by the annotation autoscaling.keda.sh/paused-scale-out";
        say(found, text, "take the annotation off to scale out again");
    }
}

fn pods(view: &View<'_>, found: &mut Vec<Problem>) {
    let Some(wanted) = view.replicas().filter(|wanted| *wanted > 0) else { return };
    let namespace = &view.report.metadata.namespace;
    match (view.workload.pods, view.workload.ready) {
        (Some(pods), _) if pods < wanted => say(
            found,
            format!("Only {pods} of {} exist", counted(i64::from(wanted), "pod")),
            format!("`kubectl -n {namespace} get events` tells why: a quota, an admission policy, an image"),
        ),
        (_, Some(ready)) if ready < wanted => say(
            found,
            format!("Only {ready} of {} are ready", counted(i64::from(wanted), "pod")),
            format!("`kubectl -n {namespace} get pods`: pending ones have no node, others crash or fail their probes"),
        ),
        _ => {}
    }
}

fn others(view: &View<'_>, found: &mut Vec<Problem>) {
    for trouble in view.report.errors.iter().filter(|trouble| trouble.open) {
        let when = format!("{}, the last time {}", times(trouble.count), ago(view.now(), trouble.last));
        let (text, remedy) = match trouble.stage.as_str() {
            "Scale" => {
                ("Writing the workload's replicas fails", "see what the API server says, and the operator's role")
            }
            "Hpa" => ("Writing the HPA fails", "see what the API server says, and the operator's role"),
            "StatusUpdate" => {
                ("Writing the object's status fails", "see what the API server says, and the operator's role")
            }
            "HpaContested" => ("Somebody else keeps changing the HPA", "the HPA's managed fields name who it is"),
            "PollOverdue" => (
                "Reading a trigger takes longer than pollingInterval",
                "raise pollingInterval, or make the source answer faster",
            ),
            _ => continue,
        };
        say(found, format!("{text} ({when}): {}", trouble.message), remedy);
    }
}
