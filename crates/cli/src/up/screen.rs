//! The live screen.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tidemark_operator::{Handle, Observation, Stage, What, Write as Written};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{Places, table};

/// Ages on the screen move this often.
const TICK: Duration = Duration::from_secs(1);
/// Between two pictures.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines about what happened last.
const HISTORY: usize = 12;

/// Shows the state of all objects until `stop` resolves, and gives the terminal back as it was.
pub(super) async fn show(
    operator: &Handle,
    places: &Places,
    problems: &[String],
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let _terminal = Terminal::take()?;
    let clock = tidemark_clock::Clock::system();
    let mut observations = operator.observe();
    let mut history = VecDeque::new();
    let mut stop = std::pin::pin!(stop);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        draw(&picture(operator, places, problems, &history, clock.now()))?;
        let earliest = Instant::now() + PAUSE;
        tokio::select! {
            biased;
            outcome = &mut stop => return outcome,
            _ = tick.tick() => {}
            () = operator.changed() => {}
            observation = observations.recv() => match observation {
                Ok(observation) => remember(&mut history, &observation),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
        }
        while let Ok(observation) = observations.try_recv() {
            remember(&mut history, &observation);
        }
        sleep_until(earliest).await;
    }
}

fn picture(
    operator: &Handle,
    places: &Places,
    problems: &[String],
    history: &VecDeque<String>,
    now: jiff::Timestamp,
) -> Vec<String> {
    let mut lines = vec![
        format!("tidemark up    {}    Ctrl-C stops", places.server),
        format!("export KUBECONFIG={}", places.kubeconfig.display()),
        format!("logs: {}", places.logs.display()),
        String::new(),
    ];
    lines.extend(table::table(&operator.snapshots(), now));
    if !problems.is_empty() {
        lines.push(String::new());
        lines.extend(problems.iter().map(|problem| format!("problem: {problem}")));
    }
    if !history.is_empty() {
        lines.push(String::new());
        lines.extend(history.iter().cloned());
    }
    lines
}

fn remember(history: &mut VecDeque<String>, observation: &Arc<Observation>) {
    if let Some(what) = happened(&observation.what) {
        if history.len() == HISTORY {
            history.pop_front();
        }
        let time = observation.time.strftime("%H:%M:%S");
        history.push_back(format!("{time}  {}  {what}", observation.object));
    }
}

/// What a person who watches wants to read; fetches and decisions are in the table.
fn happened(what: &What) -> Option<String> {
    match what {
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
        What::Life(life) => Some(format!("{life:?}")),
        What::Write { .. } | What::Fetch { .. } | What::Decision { .. } => None,
    }
}

fn draw(lines: &[String]) -> io::Result<()> {
    let (width, height) = terminal_size::terminal_size()
        .map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
    let mut out = String::from("\x1b[H");
    for line in lines.iter().take(height.saturating_sub(1)) {
        out.extend(line.chars().filter(|c| !c.is_control()).take(width));
        out.push_str("\x1b[K\r\n");
    }
    out.push_str("\x1b[J");
    let mut stdout = io::stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()
}

/// The terminal's other screen; dropping it gives the first one back.
struct Terminal;

impl Terminal {
    fn take() -> io::Result<Self> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        stdout.flush()?;
        Ok(Self)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(b"\x1b[?25h\x1b[?1049l");
        let _ = stdout.flush();
    }
}
