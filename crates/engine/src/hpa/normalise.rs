//! Stabilization and limits: from what the metrics propose to what is done.

use std::time::Duration;

use jiff::Timestamp;

use super::{Behavior, Controls, Decision, Memory, Policy, Rules, Sample, Select, Spec, before, remember};
use crate::reason::Reason;
use crate::verdict::{Status, Verdict};

/// Why a wish was cut, as condition and as reason.
enum Limit {
    ScaleUp,
    ScaleDown,
    Maximum,
    Minimum,
}

/// Without `behavior`: the largest of the recent recommendations, at most max(2 * current, 4).
pub(super) fn by_default(
    spec: &Spec,
    controls: &Controls,
    current: i32,
    proposed: i32,
    now: Timestamp,
    decision: &mut Decision,
) {
    let window = controls.downscale_stabilization;
    let cutoff = before(now, window);
    let recommendations = &mut decision.memory.recommendations;
    let recent = recommendations.iter().filter(|sample| sample.time >= cutoff);
    let stable = recent.map(|sample| sample.replicas).fold(proposed, i32::max);
    remember(recommendations, Sample { replicas: proposed, time: now }, |sample| sample.time < cutoff);
    stabilized(proposed, stable, window, decision);

    let fastest = current.saturating_mul(2).max(4);
    let (upper, limit) =
        if spec.max_replicas > fastest { (fastest, Limit::ScaleUp) } else { (spec.max_replicas, Limit::Maximum) };
    if stable < spec.min_replicas {
        limited(stable, spec.min_replicas, &Limit::Minimum, decision);
    } else if stable > upper {
        limited(stable, upper, &limit, decision);
    } else {
        in_range(stable, decision);
    }
}

/// With `behavior`: its windows and policies.
pub(super) fn by_behavior(
    spec: &Spec,
    behavior: &Behavior,
    controls: &Controls,
    current: i32,
    proposed: i32,
    now: Timestamp,
    decision: &mut Decision,
) {
    let up_window = behavior.scale_up.stabilization.unwrap_or_default();
    let down_window = behavior.scale_down.stabilization.unwrap_or(controls.downscale_stabilization);
    let (up_cutoff, down_cutoff) = (before(now, up_window), before(now, down_window));
    let (mut up, mut down) = (proposed, proposed);
    for sample in &decision.memory.recommendations {
        if sample.time > up_cutoff {
            up = up.min(sample.replicas);
        }
        if sample.time > down_cutoff {
            down = down.max(sample.replicas);
        }
    }
    let stable = current.max(up).min(down);
    let expired = |sample: &Sample| sample.time < up_cutoff && sample.time < down_cutoff;
    remember(&mut decision.memory.recommendations, Sample { replicas: proposed, time: now }, expired);
    let window = if stable < proposed { up_window } else { down_window };
    stabilized(proposed, stable, window, decision);

    if stable > current {
        let fastest = scale_up_limit(&behavior.scale_up, current, &decision.memory, now).max(current);
        let (upper, limit) =
            if spec.max_replicas > fastest { (fastest, Limit::ScaleUp) } else { (spec.max_replicas, Limit::Maximum) };
        if stable > upper { limited(stable, upper, &limit, decision) } else { in_range(stable, decision) }
    } else if stable < current {
        let fastest = scale_down_limit(&behavior.scale_down, current, &decision.memory, now).min(current);
        let (lower, limit) =
            if spec.min_replicas < fastest { (fastest, Limit::ScaleDown) } else { (spec.min_replicas, Limit::Minimum) };
        if stable < lower { limited(stable, lower, &limit, decision) } else { in_range(stable, decision) }
    } else {
        in_range(stable, decision);
    }
}

fn stabilized(wanted: i32, to: i32, window: Duration, decision: &mut Decision) {
    let verdict = if wanted == to {
        Verdict::new(Status::True, "ReadyForNewScale", "the recommended replicas are applied")
    } else if to < wanted {
        decision.reasons.push(Reason::HpaScaleUpStabilized { wanted, to, window });
        Verdict::new(Status::True, "ScaleUpStabilized", "a lower recent recommendation is applied")
    } else {
        decision.reasons.push(Reason::HpaScaleDownStabilized { wanted, to, window });
        Verdict::new(Status::True, "ScaleDownStabilized", "a higher recent recommendation is applied")
    };
    decision.able_to_scale = Some(verdict);
}

fn limited(wanted: i32, to: i32, limit: &Limit, decision: &mut Decision) {
    let (word, message, reason) = match limit {
        Limit::ScaleUp => {
            ("ScaleUpLimit", "replicas are added as fast as allowed", Reason::HpaScaleUpLimited { wanted, to })
        }
        Limit::ScaleDown => {
            ("ScaleDownLimit", "replicas are removed as fast as allowed", Reason::HpaScaleDownLimited { wanted, to })
        }
        Limit::Maximum => {
            ("TooManyReplicas", "more than the maximum replicas are wanted", Reason::HpaAtMaximum { wanted, to })
        }
        Limit::Minimum => {
            ("TooFewReplicas", "fewer than the minimum replicas are wanted", Reason::HpaAtMinimum { wanted, to })
        }
    };
    decision.desired = to;
    decision.scaling_limited = Some(Verdict::new(Status::True, word, message));
    decision.reasons.push(reason);
}

fn in_range(desired: i32, decision: &mut Decision) {
    decision.desired = desired;
    let message = "the wanted replicas are within the allowed range";
    decision.scaling_limited = Some(Verdict::new(Status::False, "DesiredWithinRange", message));
}

/// The most replicas that the policies allow now.
fn scale_up_limit(rules: &Rules, current: i32, memory: &Memory, now: Timestamp) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let start = period_start(policy.period(), current, memory, now);
        match *policy {
            Policy::Pods { value, .. } => start.saturating_add(value),
            // Rounded up, or a small workload could never grow.
            Policy::Percent { value, .. } => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
        }
    });
    match rules.select {
        Select::Disabled => current,
        Select::Max => limits.max().unwrap_or(current),
        Select::Min => limits.min().unwrap_or(current),
    }
}

/// The fewest replicas that the policies allow now.
fn scale_down_limit(rules: &Rules, current: i32, memory: &Memory, now: Timestamp) -> i32 {
    let limits = rules.policies.iter().map(|policy| {
        let start = period_start(policy.period(), current, memory, now);
        match *policy {
            Policy::Pods { value, .. } => start.saturating_sub(value),
            Policy::Percent { value, .. } => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
        }
    });
    match rules.select {
        Select::Disabled => current,
        // The largest change leaves the fewest replicas.
        Select::Max => limits.min().unwrap_or(current),
        Select::Min => limits.max().unwrap_or(current),
    }
}

/// The replicas at the start of a policy's period, from what this controller changed since.
fn period_start(period: Duration, current: i32, memory: &Memory, now: Timestamp) -> i32 {
    let start = before(now, period);
    let changed = |events: &[Sample]| {
        events.iter().filter(|event| event.time > start).fold(0i32, |sum, event| sum.saturating_add(event.replicas))
    };
    current.saturating_sub(changed(&memory.scale_up_events)).saturating_add(changed(&memory.scale_down_events))
}
