//! What one decision costs, in nanoseconds: `cargo bench -p tidemark-engine`. A word after `--` picks those with it in
//! their name.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tidemark_engine::activation::{self, Outcome, TriggerState};
use tidemark_engine::composite::{self, Input, Modifiers, Source};
use tidemark_engine::fallback::{self, Behavior, Fallback, Health, Workload};
use tidemark_engine::formula::Formula;
use tidemark_engine::hpa::{self, Measured, PerPod, Phase, Pod, PodTiming, Ready, Resource, ResourceTarget, Usage};
use tidemark_engine::metric::Target;
use tidemark_engine::verdict::Status;

/// How long each one is measured, in each of the rounds of which the fastest counts.
const ROUND: Duration = Duration::from_millis(100);
const ROUNDS: usize = 5;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    activation(&wanted);
    composite(&wanted);
    hpa(&wanted);
}

/// Prints the nanoseconds of one call: the mean over a round, of the fastest round.
fn measure<T>(wanted: &str, name: &str, mut call: impl FnMut() -> T) {
    if !name.contains(wanted) {
        return;
    }
    let round = |call: &mut dyn FnMut()| {
        let (start, mut calls) = (Instant::now(), 0u32);
        while start.elapsed() < ROUND {
            for _ in 0..100 {
                call();
            }
            calls += 100;
        }
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    let mut call = || {
        black_box(call());
    };
    let fastest = (0..ROUNDS).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min);
    println!("{name:<48} {fastest:>10.0} ns");
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(1_760_000_000)
}

fn policy() -> activation::Policy {
    activation::Policy {
        min_replicas: 0,
        max_replicas: 100,
        idle_replicas: None,
        cooldown: Duration::from_secs(300),
        initial_cooldown: Duration::ZERO,
        fallback_replicas: Some(6),
        created: now() - Duration::from_secs(100_000),
    }
}

fn trigger(index: usize, value: f64) -> TriggerState {
    let outcome = Outcome::Read { value, active: value > 0.0 };
    TriggerState { metric: format!("s{index}-queue").into(), outcome }
}

fn activation(wanted: &str) {
    let (policy, controls) = (policy(), activation::Controls::default());
    let memory = activation::Memory { last_active: Some(now() - Duration::from_secs(10)) };
    for (count, value) in [(1, 0.0), (1, 7.0), (10, 0.0)] {
        let triggers: Vec<TriggerState> = (0..count).map(|index| trigger(index, value)).collect();
        let state = if value > 0.0 { "active" } else { "quiet" };
        measure(wanted, &format!("activation: {count} trigger(s), {state}"), || {
            activation::decide(&policy, controls, black_box(&triggers), 0, Some(3), memory, now())
        });
    }
    let fallback = Fallback { failure_threshold: 3, replicas: 6, behavior: Behavior::Static };
    let failed = Outcome::Failed { error: "the broker is down".into() };
    let workload = Workload { replicas: Some(3), ready_pods: Some(3) };
    measure(wanted, "fallback: one failed fetch put to use", || {
        let health = Health { failures: 3 }.after(false);
        fallback::apply(Some(&fallback), health, Target::AverageValue(5000), black_box(&failed).clone(), workload)
    });
}

fn composite(wanted: &str) {
    let names = ["trigger_one", "trigger_two"];
    let inputs: Vec<Input> = names
        .iter()
        .enumerate()
        .map(|(index, name)| Input { name: Some((*name).into()), state: trigger(index, 7.0) })
        .collect();
    for (what, formula) in [
        ("a sum", "trigger_one + trigger_two"),
        ("conditions", "trigger_one > 5 && trigger_two < 9 ? max(trigger_one, trigger_two) * 2 : trigger_one ?? 1"),
        ("an array", "mean(filter([trigger_one, trigger_two, 3, 4, 5], {# > 3}))"),
    ] {
        measure(wanted, &format!("formula: compile {what}"), || Formula::compile(black_box(formula), &names).is_ok());
        if let Ok(compiled) = Formula::compile(formula, &names) {
            let value_of = |_: &str| Some(black_box(7.0));
            measure(wanted, &format!("formula: evaluate {what}"), || compiled.evaluate(&value_of).is_ok());
        }
    }
    let source = Source { formula: "trigger_one + trigger_two", target: "5", ..Source::default() };
    let Ok(modifiers) = Modifiers::build(source, &names) else { return };
    let (policy, controls) = (policy(), activation::Controls::default());
    let memory = activation::Memory { last_active: Some(now() - Duration::from_secs(10)) };
    measure(wanted, "composite: evaluate and decide, 2 triggers", || {
        let composite = modifiers.evaluate(black_box(&inputs), None);
        composite::decide(&policy, controls, &composite, 0, Some(3), memory, now())
    });
}

fn pod(usage: i64) -> Pod {
    let since = now() - Duration::from_secs(3600);
    Pod {
        deleting: false,
        phase: Phase::Running,
        started: Some(since),
        ready: Some(Ready { status: Status::True, since }),
        request: Ok(100),
        usage: Some(Usage { milli: usage, time: now(), window: Duration::from_secs(30) }),
    }
}

fn hpa(wanted: &str) {
    let controls = hpa::Controls::default();
    let spec = |target: hpa::Target, behavior: bool| hpa::Spec {
        min_replicas: 1,
        max_replicas: 200,
        metrics: vec![hpa::Metric { name: "s0-queue".into(), target }],
        behavior: behavior.then(hpa::Behavior::default),
    };
    let observed = hpa::Observed { spec_replicas: 10, status_replicas: 10, ready_pods: 10, pods: 10 };
    for behavior in [false, true] {
        let spec = spec(hpa::Target::AverageValue(5000), behavior);
        let mut memory = hpa::Memory::default();
        for pass in (1..=40).rev() {
            let then = now() - Duration::from_secs(15 * pass);
            memory = hpa::decide(&spec, &controls, observed, &[Ok(50_000)], &memory, then).memory;
        }
        let kind = if behavior { "with behavior" } else { "without behavior" };
        measure(wanted, &format!("hpa: one External metric, {kind}"), || {
            hpa::decide(&spec, &controls, observed, black_box(&[Ok(70_000)]), &memory, now())
        });
    }
    let target = ResourceTarget { resource: Resource::Cpu, container: false, per_pod: PerPod::Utilization(50) };
    let spec = spec(hpa::Target::Resource(target), true);
    for pods in [10, 100] {
        let measured = [Measured::Pods(Ok(vec![pod(80); pods]))];
        measure(wanted, &format!("hpa: cpu utilization of {pods} pods"), || {
            let (timing, memory) = (PodTiming::default(), hpa::Memory::default());
            hpa::decide_all(&spec, &controls, &timing, observed, black_box(&measured), &memory, now())
        });
    }
}
