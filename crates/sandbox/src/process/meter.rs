//! What the process groups of containers use of CPU and memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemark_clock::Clock;
use tokio::time::Instant;

use crate::usage::{Gauge, Place, Sample, Usage};

/// How often it is measured.
const EVERY: Duration = Duration::from_secs(5);

/// The process groups that run, by container.
#[derive(Default)]
pub(super) struct Groups(Mutex<BTreeMap<Place, u32>>);

impl Groups {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, container: Place, group: u32) {
        self.all().insert(container, group);
    }

    pub(super) fn remove(&self, container: &Place) {
        self.all().remove(container);
    }
}

/// The use of a group so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    /// CPU time of its processes, and of those that they have waited for.
    cpu: Duration,
    /// Bytes in memory, without the group's leader, which is ours.
    memory: u64,
}

/// Measures for ever; dropping the future stops it.
pub(super) async fn run(groups: &Groups, clock: Clock, gauge: &Gauge) {
    if !cfg!(target_os = "linux") {
        gauge.unavailable("CPU and memory of process pods are measured on Linux only");
        return std::future::pending().await;
    }
    let mut before: BTreeMap<u32, (Total, Instant)> = BTreeMap::new();
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let running = groups.all().clone();
        if running.is_empty() {
            before.clear();
            gauge.measured(BTreeMap::new());
            continue;
        }
        let Ok(totals) = tokio::task::spawn_blocking(totals).await else { continue };
        let (now, time) = (Instant::now(), clock.now());
        let mut samples = BTreeMap::new();
        let mut after = BTreeMap::new();
        for (container, group) in running {
            let Some(total) = totals.get(&group).copied() else { continue };
            if let Some((earlier, since)) = before.get(&group) {
                let span = now.saturating_duration_since(*since);
                let usage = Usage { cpu_milli: milli(earlier.cpu, total.cpu, span), memory: total.memory };
                samples.insert(container, Sample { usage, time, window: span.as_secs().max(1) });
            }
            after.insert(group, (total, now));
        }
        before = after;
        gauge.measured(samples);
    }
}

/// Thousandths of a core. A process that ends unwaited takes its time with it: such a step back is none.
fn milli(before: Duration, after: Duration, span: Duration) -> u64 {
    let used = after.saturating_sub(before).as_micros();
    u64::try_from(used * 1000 / span.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// The totals of all process groups of this machine.
fn totals() -> BTreeMap<u32, Total> {
    let mut totals: BTreeMap<u32, Total> = BTreeMap::new();
    let units = Units::of_machine();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile has nothing to read.
        let Ok(line) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((group, total)) = parse(id, &line, &units) {
            let sum = totals.entry(group).or_default();
            sum.cpu += total.cpu;
            sum.memory += total.memory;
        }
    }
    totals
}

/// What the numbers of `/proc` count.
struct Units {
    ticks_per_second: u64,
    page: u64,
}

impl Units {
    fn of_machine() -> Self {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        Self { ticks_per_second: rustix::param::clock_ticks_per_second().max(1), page }
    }
}

/// The group of a process and its share: `ID (NAME) STATE PARENT GROUP ...`, where the name may hold anything.
fn parse(id: u32, line: &str, units: &Units) -> Option<(u32, Total)> {
    let fields: Vec<_> = line.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let group = u32::try_from(number(2)?).ok()?;
    // User and system time, of itself and of the children that it has waited for.
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    let cpu = Duration::from_millis(ticks.saturating_mul(1000) / units.ticks_per_second);
    let memory = if id == group { 0 } else { number(21)?.saturating_mul(units.page) };
    Some((group, Total { cpu, memory }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_counts_for_its_group_whatever_its_name() {
        let line = "43 (a) b) (c) S 42 42 1 0 -1 0 0 0 0 0 100 50 20 30 20 0 1 0 999 8192 25 18446744073709551615 1 1";
        let units = Units { ticks_per_second: 100, page: 4096 };
        let total = Total { cpu: Duration::from_secs(2), memory: 25 * 4096 };
        assert_eq!(parse(43, line, &units), Some((42, total)));
        let leader = parse(42, line, &units).unwrap().1;
        assert_eq!((leader.cpu, leader.memory), (total.cpu, 0));
        assert_eq!(parse(43, "43 (gone", &units), None);
    }

    #[test]
    fn cpu_is_time_over_time() {
        let seconds = Duration::from_secs;
        assert_eq!(milli(seconds(1), seconds(2), seconds(4)), 250);
        assert_eq!(milli(seconds(2), seconds(1), seconds(4)), 0);
    }
}
