//! The user's terminal while the live screen has it: its other screen, without an echo of what is typed, given back whenever
//! the program is stopped, is in the background, or ends.

use std::io::{self, Write};
use std::time::Duration;

use rustix::process::{Signal, getpgrp, getpid, getppid, getsid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

/// After a stop that did not happen, the screen comes back this soon.
const PATIENCE: Duration = Duration::from_secs(1);

/// The terminal behind standard output. Dropped, it is as it was.
pub(super) struct Terminal {
    stop: Signals,
    go_on: Signals,
    /// How the terminal was, while the live screen has it; none inside where it could not be read.
    taken: Option<Option<Termios>>,
}

/// What the shell or the user wants.
pub(super) enum Asked {
    ToStop,
    ToGoOn,
}

impl Terminal {
    /// A terminal that is not taken yet. From now on Ctrl-Z stops the program only through [`Terminal::stop`].
    ///
    /// # Errors
    /// The process cannot listen for signals.
    pub(super) fn new() -> io::Result<Self> {
        let of = |kind: Signal| signal(SignalKind::from_raw(kind.as_raw()));
        Ok(Self { stop: of(Signal::TSTP)?, go_on: of(Signal::CONT)?, taken: None })
    }

    /// Whether the screen may be drawn: takes the terminal where it is free. Not in the background, where it is another's.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(super) fn take(&mut self) -> io::Result<bool> {
        if !in_foreground() {
            return Ok(false);
        }
        if self.taken.is_none() {
            let before = tcgetattr(io::stdout()).ok();
            if let Some(mut settings) = before.clone() {
                settings.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
                let _ = tcsetattr(io::stdout(), OptionalActions::Now, &settings);
            }
            self.taken = Some(before);
            write("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        }
        Ok(true)
    }

    /// Resolves when the user has pressed Ctrl-Z, or when the program goes on after a stop that was not its own. May be dropped
    /// and called again.
    pub(super) async fn asked(&mut self) -> Asked {
        tokio::select! {
            biased;
            _ = self.stop.recv() => Asked::ToStop,
            _ = self.go_on.recv() => Asked::ToGoOn,
        }
    }

    /// Gives the terminal back and stops the program until it is told to go on.
    pub(super) async fn stop(&mut self) {
        self.give_back();
        if has_shell() {
            // Not the signal that came: it is caught, and would only come again.
            let _ = kill_process(getpid(), Signal::STOP);
        }
        // This thread may run on for a moment.
        let _ = tokio::time::timeout(PATIENCE, self.go_on.recv()).await;
    }

    fn give_back(&mut self) {
        let Some(before) = self.taken.take() else { return };
        let _ = write("\x1b[?25h\x1b[?1049l");
        if let Some(settings) = before.filter(|_| in_foreground()) {
            // What was typed was meant for nobody, least of all for the shell.
            let _ = tcsetattr(io::stdout(), OptionalActions::Flush, &settings);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Whether what is typed goes to this program. A terminal that does not say is taken for granted.
fn in_foreground() -> bool {
    tcgetpgrp(io::stdout()).map_or(true, |group| group == getpgrp())
}

/// Whether somebody is there who could make a stopped program go on.
fn has_shell() -> bool {
    getppid().is_some_and(|parent| getsid(Some(parent)).is_ok_and(|theirs| getsid(None).is_ok_and(|own| own == theirs)))
}
