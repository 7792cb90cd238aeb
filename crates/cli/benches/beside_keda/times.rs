//! How long both take: from an object to its HPA, from an event to replicas, to answer an HPA, and to start.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Client;

use crate::objects::{self, Seen};
use crate::report::Results;
use crate::stage::{Stage, read};
use crate::systems::{Programs, System};

/// Objects that are created in a burst.
const BURST: usize = 200;
/// Objects whose events are pushed, and how far apart.
const PUSHED: usize = 50;
const APART: Duration = Duration::from_millis(200);
/// Until what the creation of objects entails is over: statuses, events, first polls.
const SETTLING: Duration = Duration::from_secs(20);
/// Objects whose metrics are read.
const READ: usize = 500;
const READS: usize = 3;
/// Requests that the HPA controller has under way at once.
const WORKERS: usize = 5;
/// Between reads of the same metric: longer than Tidemark takes a value for fresh.
const PAUSE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(300);

/// False where there is no control plane.
pub async fn measure(system: System, programs: &Programs, results: &mut Results) -> bool {
    let Some(mut stage) = Stage::set(system, programs, false).await else { return false };
    let names = (0..READ).map(objects::polled_name).chain((0..PUSHED).map(objects::pushed_name));
    objects::create_workloads(&stage.client, names).await;
    stage.start().await;
    burst(system, &mut stage, results).await;
    push(system, &mut stage, results).await;
    reads(system, &mut stage, results).await;
    start(system, &mut stage, results).await;
    true
}

async fn burst(system: System, stage: &mut Stage<'_>, results: &mut Results) {
    let autoscalers = Seen::autoscalers(&stage.client);
    let before = stage.processor_times();
    let objects = (0..BURST).map(|number| objects::polled(number, stage.source.port));
    let created = objects::create(&stage.client, objects).await;
    stage.until(&autoscalers, BURST).await;
    let times = created.iter().map(|(name, created)| {
        let at = autoscalers.at(&format!("keda-hpa-{name}")).unwrap();
        // The watch may tell of it before the answer to the creation has come.
        at.saturating_duration_since(*created)
    });
    results.add_times(system, &format!("from an object to its HPA, {BURST} at once"), times.collect());
    let spent = (stage.processor_times()[0] - before[0]).as_secs_f64() * 1e3;
    results.add(system, "processor time of the operator, each of these objects", "ms", spent / BURST as f64);
}

async fn push(system: System, stage: &mut Stage<'_>, results: &mut Results) {
    let (autoscalers, awake) = (Seen::autoscalers(&stage.client), Seen::awake(&stage.client));
    objects::create(&stage.client, (0..PUSHED).map(|number| objects::pushed(number, stage.source.port))).await;
    stage.until(&autoscalers, BURST + PUSHED).await;
    let start = Instant::now();
    while stage.source.waiting() < PUSHED {
        assert!(start.elapsed() < PATIENCE, "{} of {PUSHED} wait for events", stage.source.waiting());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(SETTLING).await;
    let mut times = Vec::new();
    for number in 0..PUSHED {
        tokio::time::sleep(APART).await;
        let name = objects::pushed_name(number);
        let start = Instant::now();
        stage.source.push(&name);
        let at = loop {
            if let Some(at) = awake.at(&name) {
                break at;
            }
            assert!(start.elapsed() < PATIENCE, "{name} stays at zero");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        times.push(at - start);
    }
    results.add_times(system, "from a pushed event to the workload's replica", times);
}

async fn reads(system: System, stage: &mut Stage<'_>, results: &mut Results) {
    let autoscalers = Seen::autoscalers(&stage.client);
    let others = (BURST..READ).map(|number| objects::polled(number, stage.source.port));
    objects::create(&stage.client, others).await;
    stage.until(&autoscalers, READ + PUSHED).await;
    let asker = stage.asker();
    all_served(&asker).await;
    // First polls are spread over half a minute.
    tokio::time::sleep(Duration::from_secs(35)).await;

    let (mut times, mut took, mut spent) = (Vec::new(), Duration::ZERO, [Duration::ZERO; 2]);
    let before = stage.source.reads();
    for _ in 0..READS {
        tokio::time::sleep(PAUSE).await;
        let (start, before) = (Instant::now(), stage.processor_times());
        let asks = (0..READ).map(|number| timed(&asker, number));
        times.extend(futures::stream::iter(asks).buffer_unordered(WORKERS).collect::<Vec<_>>().await);
        took += start.elapsed();
        for ((spent, before), after) in spent.iter_mut().zip(before).zip(stage.processor_times()) {
            *spent += after - before;
        }
    }
    let answers = (READ * READS) as f64;
    println!("  the source was read {} times for {answers} answers", stage.source.reads() - before);
    results.add_times(system, &format!("an HPA's metric of {READ}, {WORKERS} asked at a time"), times);
    results.add(system, "answers a second", "", answers / took.as_secs_f64());
    for (spent, process) in spent.into_iter().zip(["operator", "metrics server"]) {
        let what = format!("processor time of the {process}, each answer");
        results.add(system, &what, "ms", spent.as_secs_f64() * 1e3 / answers);
    }
}

async fn timed(asker: &Client, number: usize) -> Duration {
    let start = Instant::now();
    read(asker, number).await.unwrap();
    start.elapsed()
}

/// Waits until the metric of every object has been read.
async fn all_served(asker: &Client) {
    let start = Instant::now();
    let served = (0..READ).map(|number| async move {
        while let Err(error) = read(asker, number).await {
            assert!(start.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    futures::stream::iter(served).buffer_unordered(WORKERS).collect::<()>().await;
}

/// Both processes anew, with all the objects there.
async fn start(system: System, stage: &mut Stage<'_>, results: &mut Results) {
    stage.stop().await;
    let start = Instant::now();
    stage.start_operator();
    stage.start_metrics_server();
    stage.leading().await;
    results.add(system, "from the start to leading", "ms", start.elapsed().as_secs_f64() * 1e3);
    all_served(&stage.asker()).await;
    let what = format!("from the start until the metrics of {READ} HPAs have been served");
    results.add(system, &what, "ms", start.elapsed().as_secs_f64() * 1e3);
    let spent = stage.processor_times().iter().sum::<Duration>().as_secs_f64() * 1e3;
    results.add(system, "processor time of both until then", "ms", spent);
}
