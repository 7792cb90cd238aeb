//! What both need when nothing happens: memory, processor time, and requests to the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemark_testkit::Audited;

use crate::objects::{self, Seen};
use crate::report::Results;
use crate::stage::{PROCESSES, Stage};
use crate::systems::{self, METRICS_SERVER, NAMESPACE, OPERATOR, Programs, System};

/// Until the first polls and the HPA controller's first looks are over.
const SETTLING: Duration = Duration::from_secs(60);
/// Kinds of requests that are named.
const NAMED: usize = 8;

/// False where there is no control plane.
pub async fn measure(system: System, programs: &Programs, count: usize, window: u64, results: &mut Results) -> bool {
    let Some(mut stage) = Stage::set(system, programs, true).await else { return false };
    stage.start().await;
    let (autoscalers, awake) = (Seen::autoscalers(&stage.client), Seen::awake(&stage.client));
    objects::create_workloads(&stage.client, (0..count).map(objects::polled_name)).await;
    objects::create(&stage.client, (0..count).map(|number| objects::polled(number, stage.source.port))).await;
    stage.until(&autoscalers, count).await;
    stage.until(&awake, count.div_ceil(2)).await;
    drop((autoscalers, awake));
    tokio::time::sleep(SETTLING).await;

    let mut record = stage.plane.follow_audit();
    record.news().unwrap();
    let (before, reads) = (stage.processor_times(), stage.source.reads());
    tokio::time::sleep(Duration::from_secs(window)).await;
    let (after, reads) = (stage.processor_times(), stage.source.reads() - reads);
    let asked = record.news().unwrap();
    stage.check();

    let minute = |value: f64| value * 60.0 / window as f64;
    for (number, id) in stage.ids().into_iter().enumerate() {
        let memory = systems::memory(id);
        let of = format!("{}, {count} ScaledObjects", ["operator", "metrics server"][number]);
        results.add(system, &format!("memory of the {of}"), "MiB", memory.resident);
        results.add(system, &format!("anonymous memory of the {of}"), "MiB", memory.anonymous);
        results.add(system, &format!("peak of the memory of the {of}"), "MiB", memory.peak);
        let time = (after[number] - before[number]).as_secs_f64() * 1e3;
        results.add(system, &format!("processor time a minute of the {of}"), "ms", minute(time));
        let asked = asked.iter().filter(|asked| is_request(asked, PROCESSES[number])).count();
        results.add(system, &format!("requests a minute of the {of}"), "", minute(asked as f64));
    }
    results.add(system, &format!("reads of the source a minute, {count} ScaledObjects"), "", minute(reads as f64));
    name_requests(&asked);
    true
}

/// Whether the process has asked for something. A watch waits, and the Lease is renewed whatever happens.
fn is_request(asked: &Audited, process: &str) -> bool {
    let is_theirs = asked.user == format!("system:serviceaccount:{NAMESPACE}:{process}");
    is_theirs && asked.verb != "watch" && asked.resource != "leases"
}

fn name_requests(asked: &[Audited]) {
    let mut counts = BTreeMap::<_, usize>::new();
    for asked in asked.iter().filter(|asked| [OPERATOR, METRICS_SERVER].iter().any(|name| is_request(asked, name))) {
        *counts.entry((&asked.verb, &asked.resource, &asked.subresource)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for ((verb, resource, subresource), count) in counts.into_iter().take(NAMED) {
        println!("    {count} times {verb} {resource} {subresource}");
    }
}
