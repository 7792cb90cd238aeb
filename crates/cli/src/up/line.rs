//! Plain lines: one whenever an object's state has changed in a way that a user cares about.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use tidemark_clock::Clock;
use tidemark_operator::{Handle, ObjectKey, Snapshot};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Places, export, printable, table};

/// Between two looks at all objects.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints for as long as somebody reads.
///
/// # Errors
/// Standard output is closed.
pub(super) async fn print(
    operator: &Handle,
    places: &Places,
    mut news: mpsc::UnboundedReceiver<String>,
) -> anyhow::Result<()> {
    say(format_args!("Kubernetes API: {}", places.server))?;
    say(export(places))?;
    say(format_args!("logs of pods: {}", places.logs.display()))?;
    let clock = Clock::system();
    let mut printed = BTreeMap::new();
    loop {
        while let Ok(news) = news.try_recv() {
            say(stamped(clock.now(), &news))?;
        }
        for line in changes(&mut printed, &operator.snapshots()) {
            say(stamped(clock.now(), &line))?;
        }
        sleep(PAUSE).await;
        tokio::select! {
            biased;
            () = operator.changed() => {}
            Some(news) = news.recv() => say(stamped(clock.now(), &news))?,
        }
    }
}

/// A line with its time, as the lines of the log have it.
fn stamped(now: Timestamp, line: &str) -> String {
    format!("{now:.0} {}", printable(line))
}

fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")
}

/// A line for each object that is new, has changed or is gone.
fn changes(printed: &mut BTreeMap<Arc<ObjectKey>, Gist>, snapshots: &[Arc<Snapshot>]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut present = BTreeMap::new();
    // Without a target, nothing is known of an object yet.
    for snapshot in snapshots.iter().filter(|snapshot| !snapshot.target.is_empty()) {
        let gist = gist(snapshot);
        if printed.remove(&snapshot.key).as_ref() != Some(&gist) {
            lines.push(table::summary(snapshot));
        }
        present.insert(snapshot.key.clone(), gist);
    }
    lines.extend(printed.keys().map(|key| format!("{key}: gone")));
    *printed = present;
    lines
}

/// What a new line is worth: not each new value, but what follows from it.
type Gist = (Option<i32>, Option<i32>, Option<bool>, bool, Option<String>, Vec<bool>);

fn gist(snapshot: &Snapshot) -> Gist {
    let problem = snapshot.ready.as_ref().filter(|ready| ready.status != "True");
    (
        snapshot.replicas,
        snapshot.desired,
        snapshot.active,
        snapshot.paused,
        problem.and_then(|ready| ready.message.clone()),
        snapshot.triggers.iter().map(|trigger| trigger.error.is_some()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, replicas: i32) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            key: Arc::new(ObjectKey::new("shop", name)),
            target: format!("Deployment/{name}"),
            replicas: Some(replicas),
            ..Snapshot::default()
        })
    }

    #[test]
    fn a_line_comes_for_what_is_new_changed_or_gone_and_for_nothing_else() {
        let mut printed = BTreeMap::new();
        let subjects = |lines: Vec<String>| {
            lines.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let first = [snapshot("a", 0), snapshot("b", 0)];
        assert_eq!(subjects(changes(&mut printed, &first)), ["shop/a", "shop/b"]);
        assert!(changes(&mut printed, &first).is_empty());
        assert_eq!(subjects(changes(&mut printed, &[snapshot("a", 1), snapshot("b", 0)])), ["shop/a"]);
        assert_eq!(changes(&mut printed, &[snapshot("a", 1)]), ["shop/b: gone"]);
        assert!(changes(&mut printed, &[snapshot("a", 1)]).is_empty());
    }

    #[test]
    fn a_line_begins_with_its_time_and_stays_one_line() {
        let now = "2026-01-01T00:00:05.678Z".parse().unwrap();
        assert_eq!(stamped(now, "a\nb"), "2026-01-01T00:00:05Z a b");
    }
}
