//! What telling the metrics of many objects costs, while they go on changing: memory at its peak beside what the values
//! themselves take, the time of a scrape and of an export, and how long whoever records has to wait.
//!
//! `cargo bench -p tidemark-telemetry --bench export [-- OBJECTS]`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prost::Message as _;
use tidemark_operator::ObjectKey;
use tidemark_telemetry::catalogue::OPERATOR;
use tidemark_telemetry::otlp::Requests;
use tidemark_telemetry::prometheus;
use tidemark_telemetry::series::{Asked, Build, Kind, Place, Series};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Triggers of each object.
const TRIGGERS: usize = 3;

fn main() {
    let objects: usize = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10_000);
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let series = Series::new(Build { version: "1", commit: "c", toolchain: "t" }, start);
    let empty = resident("VmRSS:");
    let places: Vec<Place> = (0..objects)
        .map(|number| Place {
            kind: Kind::ScaledObject,
            key: Arc::new(ObjectKey::new(format!("team-{}", number % 100), format!("worker-{number}"))),
        })
        .collect();
    for place in &places {
        record(&series, place, start, 1.0);
    }
    let full = resident("VmRSS:");
    let values = full - empty;
    println!("{objects} objects of {TRIGGERS} triggers: {values} kB, {:.2} kB each", values as f64 / objects as f64);

    told(&series, &places, values, full, "a scrape", || {
        let mut bytes = 0;
        for piece in prometheus::pieces(OPERATOR, series.snapshot().with_usage()) {
            bytes += piece.len();
        }
        bytes
    });
    told(&series, &places, values, full, "an export", || {
        let snapshot = series.snapshot();
        Requests::new(&snapshot, start, [], None).map(|request| request.encode_to_vec().len()).sum()
    });
}

/// Tells everything once while another thread records, and prints what that took.
fn told(series: &Series, places: &[Place], values: u64, full: u64, what: &str, tell: impl FnOnce() -> usize) {
    // Begins the peak anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let over = AtomicBool::new(false);
    let (took, bytes, waited) = std::thread::scope(|scope| {
        let recording = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            for place in places.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let begun = Instant::now();
                record(series, place, Timestamp::UNIX_EPOCH, 2.0);
                longest = longest.max(begun.elapsed());
                std::thread::sleep(Duration::from_micros(20));
            }
            longest
        });
        let begun = Instant::now();
        let bytes = tell();
        let took = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        (took, bytes, recording.join().unwrap())
    });
    let more = resident("VmHWM:").saturating_sub(full);
    println!(
        "{what}: {took:.0?}, {} kB told; {more} kB more memory at the peak, {:.2} of what the values take; the longest \
         record took {waited:.1?}",
        bytes / 1024,
        more as f64 / values as f64,
    );
}

fn record(series: &Series, place: &Place, now: Timestamp, value: f64) {
    series.object(place, now, |object| {
        object.lateness = Some(0.001);
        for index in 0..TRIGGERS {
            let metric: Arc<str> = format!("s{index}-prometheus").into();
            let scaler = object.scaler(index, &Arc::from("prometheusScaler"), &metric);
            scaler.value = Some(value);
            scaler.active = Some(true);
            scaler.latency = Some(0.02);
            let of = Asked { index, trigger_name: Arc::default(), metric };
            object.request(&of, &Arc::from("prometheus"), Some(200), None);
        }
    });
}

/// Memory of this process in kB.
fn resident(which: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
