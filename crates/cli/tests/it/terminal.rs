//! `tidemark up` on a terminal. It is one of `script`, which Linux systems have.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::desk::{CRON, Desk, skip, workload};

const OTHER_SCREEN: &str = "\x1b[?1049h";
const FIRST_SCREEN: &str = "\x1b[?1049l";

#[tokio::test]
async fn ctrl_z_gives_the_terminal_back_and_fg_takes_it_again_and_nothing_typed_is_shown() {
    let desk = Desk::new();
    desk.write("m/shop.yaml", &workload("shop", "", CRON));
    desk.write(
        "session.sh",
        &format!(
            "{} up m --port 0 --simulate-pods
stty -a | grep -c -- ' -echo '; echo stopped; sleep 1; fg; echo ended $?; stty -a | grep -c -- ' -echo '; echo over
",
            env!("CARGO_BIN_EXE_tidemark")
        ),
    );
    let Some(terminal) = Terminal::start(&desk) else { return skip("TIDEMARK_REQUIRE_TERMINAL", "there is no script") };

    terminal.until(&desk, "the object is on the screen", |text| text.contains("Deployment/shop")).await;
    terminal.press("xyzzy");
    // The file changes while the screen is shown, and the screen says so.
    desk.write("m/shop.yaml", &workload("shop", "maxReplicaCount: 7", CRON));
    terminal.until(&desk, "the change is on the screen", |text| text.contains("ScaledObject shop changed")).await;
    terminal.press("\x1a");
    terminal.until(&desk, "the shell has the terminal", |text| text.contains("stopped")).await;
    let text = terminal.text();
    let behind = &text[text.rfind(FIRST_SCREEN).expect("the first screen is back")..];
    assert!(behind.contains("0\r\nstopped"), "the terminal echoes again: {behind:?}");

    let taken_twice = |text: &str| text.matches(OTHER_SCREEN).count() == 2;
    terminal.until(&desk, "fg brings the screen back", taken_twice).await;
    terminal.until(&desk, "it is drawn", |text| text[text.rfind(OTHER_SCREEN).unwrap()..].contains("shop")).await;
    terminal.press("plugh");
    terminal.press("\x03");
    terminal.until(&desk, "all is over", |text| text.contains("over\r\n")).await;
    let text = terminal.text();
    assert!(text.contains("ended 0\r\n0\r\nover"), "{text:?}");
    assert_eq!(text.matches(FIRST_SCREEN).count(), 2, "{text:?}");
    for typed in ["xyzzy", "plugh", "^C", "^Z"] {
        assert!(!text.contains(typed), "{typed} in: {text:?}");
    }
}

/// A terminal with a shell that runs `session.sh`.
struct Terminal {
    child: Mutex<Child>,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(desk: &Desk) -> Option<Self> {
        let mut command = desk.command("script");
        command.args(["-qfec", "sh -m session.sh", "/dev/null"]);
        command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, text) = (child.stdout.take()?, shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                text.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Some(Self { child: Mutex::new(child), shown })
    }

    fn press(&self, keys: &str) {
        let mut child = self.child.lock().unwrap();
        let keyboard = child.stdin.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
    }

    /// All that was shown so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    async fn until(&self, desk: &Desk, what: &str, holds: impl Fn(&str) -> bool) {
        desk.until(20, what, async || match self.text() {
            text if holds(&text) => Ok(()),
            text => Err(format!("{text:?}")),
        })
        .await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}
