//! The live screen.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::tz::TimeZone;
use tidemark_operator::{Handle, Life, Observation, Snapshot, Stage, What, Write as Written};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use unicode_width::UnicodeWidthChar;

use super::terminal::{Asked, Terminal};
use super::{Places, export, printable, table};

/// Ages on the screen move this often.
const TICK: Duration = Duration::from_secs(1);
/// Between two pictures.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines about what happened last.
const HISTORY: usize = 12;
/// Problems with manifests that are shown at most.
const PROBLEMS: usize = 5;
/// With fewer rows than this, all but the essential is left out.
const SMALL: usize = 16;

/// Shows the state of all objects for as long as it is awaited, and the terminal is ours; dropped, it gives the terminal back
/// as it was.
///
/// # Errors
/// The terminal is gone.
pub(super) async fn show(
    operator: &Handle,
    places: &Places,
    problems: watch::Receiver<Vec<String>>,
    mut news: mpsc::UnboundedReceiver<String>,
) -> anyhow::Result<()> {
    let mut terminal = Terminal::new().context("cannot listen for signals")?;
    let clock = tidemark_clock::Clock::system();
    let mut observations = operator.observe();
    let mut history = VecDeque::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if terminal.take().context("cannot write to the terminal")? {
            let size = size();
            let problems = problems.borrow().clone();
            let rows = size.1.saturating_sub(1);
            let lines = picture(&operator.snapshots(), places, &problems, &history, clock.now(), rows);
            draw(&lines, size.0).context("cannot write to the terminal")?;
        }
        sleep(PAUSE).await;
        tokio::select! {
            biased;
            asked = terminal.asked() => match asked {
                Asked::ToStop => terminal.stop().await,
                Asked::ToGoOn => {}
            },
            observation = observations.recv() => match observation {
                Ok(observation) => remember(&mut history, &observation),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            Some(news) = news.recv() => {
                tracing::info!("{news}");
                line(&mut history, clock.now(), &news);
            }
            () = operator.changed() => {}
            _ = tick.tick() => {}
        }
        while let Ok(observation) = observations.try_recv() {
            remember(&mut history, &observation);
        }
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    terminal_size::terminal_size().map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)))
}

/// What fits on so many rows: on a small terminal the table is what is left.
fn picture(
    snapshots: &[Arc<Snapshot>],
    places: &Places,
    problems: &[String],
    history: &VecDeque<String>,
    now: jiff::Timestamp,
    rows: usize,
) -> Vec<String> {
    let small = rows < SMALL;
    let mut lines = vec![format!("tidemark up    {}    Ctrl-C stops", places.server)];
    if !small {
        lines.extend([export(places), format!("logs: {}", places.logs.display()), String::new()]);
    }
    let mut below = Vec::new();
    if !problems.is_empty() {
        let shown = problems.len().min(if small { 1 } else { PROBLEMS });
        below.extend((!small).then(String::new));
        below.extend(problems.iter().take(shown).map(|problem| format!("problem: {problem}")));
        if shown < problems.len() {
            below.push(format!("problem: and {} more, see the log", problems.len() - shown));
        }
    }
    if !history.is_empty() && !small {
        below.push(String::new());
        below.extend(history.iter().skip(history.len().saturating_sub(rows / 4)).cloned());
    }
    let room = rows.saturating_sub(lines.len() + below.len());
    lines.extend(table::table(snapshots, now, room));
    lines.extend(below);
    lines.truncate(rows);
    lines
}

fn remember(history: &mut VecDeque<String>, observation: &Arc<Observation>) {
    if let Some(what) = happened(&observation.what) {
        line(history, observation.time, &format!("{}  {what}", observation.object));
    }
}

fn line(history: &mut VecDeque<String>, time: jiff::Timestamp, what: &str) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(format!("{}  {what}", time.to_zoned(TimeZone::system()).strftime("%H:%M:%S")));
}

/// What a person who watches wants to read; fetches and decisions are in the table.
fn happened(what: &What) -> Option<String> {
    match what {
        // An error of the check, of the status or of the deletion tells of these.
        What::Write { write: Written::Status | Written::FinalizerAdded | Written::FinalizerRemoved, .. } => None,
        What::Write { error: Some(error), .. } => Some(format!("a write failed: {error}")),
        What::Write { write: Written::Scale { target, from, to, .. }, .. } => {
            Some(format!("{target} scaled from {from} to {to}"))
        }
        What::Write { write: Written::HpaCreated { name }, .. } => Some(format!("HPA {name} created")),
        What::Write { write: Written::HpaDeleted { name }, .. } => Some(format!("HPA {name} deleted")),
        What::Error { stage: Stage::Trigger { index, trigger_type }, message } => {
            Some(format!("trigger {index} ({trigger_type}): {message}"))
        }
        What::Error { message, .. } => Some(message.to_string()),
        What::Life(life) => Some(turn(life)),
        What::Write { .. } | What::Fetch { .. } | What::Decision { .. } => None,
        What::Poll { .. } | What::Pushed { .. } | What::Hpa(_) | What::Query { .. } | What::Checked { .. } => None,
        What::Defined { .. } | What::Gone | What::Paused(_) | What::Resource { .. } => None,
    }
}

fn turn(life: &Life) -> String {
    match life {
        Life::Started => "is polled".to_owned(),
        Life::Stopped => "is polled no longer".to_owned(),
        Life::TriggerBuilt { index, trigger_type } => format!("trigger {index} ({trigger_type}) is built"),
        Life::TriggerNote { index, trigger_type, note } => format!("trigger {index} ({trigger_type}): {note}"),
        Life::Ready => "is ready".to_owned(),
        Life::Paused => "is paused".to_owned(),
        Life::Unpaused => "is paused no longer".to_owned(),
        Life::FallbackActivated => "is scaled by its fallback".to_owned(),
        Life::FallbackDeactivated => "is scaled by its fallback no longer".to_owned(),
        Life::Deleted => "is deleted".to_owned(),
    }
}

fn draw(lines: &[String], width: usize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(paint(lines, width).as_bytes())?;
    stdout.flush()
}

/// The lines from the upper left corner on, each cut off at the right edge.
fn paint(lines: &[String], width: usize) -> String {
    let mut out = String::from("\x1b[H");
    for line in lines {
        // Cleared first: behind a full line the cursor stands on its last character.
        out.push_str("\x1b[K");
        let mut left = width;
        for c in printable(line).chars() {
            let columns = c.width().unwrap_or(0);
            if columns > left {
                break;
            }
            left -= columns;
            out.push(c);
        }
        out.push_str("\r\n");
    }
    out + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use tidemark_operator::ObjectKey;

    use super::*;

    fn shown(objects: usize, problems: usize, rows: usize) -> Vec<String> {
        let snapshot = |number: usize| {
            let key = Arc::new(ObjectKey::new("shop", format!("worker-{number:05}")));
            Arc::new(Snapshot { key, target: "Deployment/worker".to_owned(), ..Snapshot::default() })
        };
        let snapshots: Vec<_> = (0..objects).map(snapshot).collect();
        let places = Places { server: "https://127.0.0.1:1".to_owned(), kubeconfig: "/k".into(), logs: "/l".into() };
        let problems: Vec<_> = (0..problems).map(|number| format!("f.yaml:{number}: broken")).collect();
        let history: VecDeque<_> = (0..HISTORY).map(|number| format!("event {number}")).collect();
        picture(&snapshots, &places, &problems, &history, "2026-01-01T00:00:00Z".parse().unwrap(), rows)
    }

    #[test]
    fn many_objects_leave_room_for_problems_and_for_what_happened_last() {
        let lines = shown(60_000, 100, 40);
        assert!(lines.len() <= 40, "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("worker-00000")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("and 599") && line.contains("more")), "{lines:?}");
        assert!(lines.iter().any(|line| line == "problem: and 95 more, see the log"), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "event 11");
    }

    #[test]
    fn a_tiny_terminal_shows_the_first_object_and_a_problem() {
        let lines = shown(2, 1, 5);
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(lines[2].contains("shop/worker-00000"), "{lines:?}");
        assert_eq!(lines[4], "problem: f.yaml:0: broken");
        for rows in 0..5 {
            assert!(shown(2, 1, rows).len() <= rows);
        }
    }

    #[test]
    fn a_line_ends_at_the_right_edge_also_with_wide_characters() {
        assert_eq!(paint(&["abcdef".to_owned()], 4), "\x1b[H\x1b[Kabcd\r\n\x1b[J");
        assert_eq!(paint(&["a世界b".to_owned()], 4), "\x1b[H\x1b[Ka世\r\n\x1b[J");
        assert_eq!(paint(&["e\u{301}\x1b[2Jx".to_owned()], 3), "\x1b[H\x1b[Ke\u{301} [\r\n\x1b[J");
    }
}
