//! The secret that `tidemark-operator`'s tests plant shows up in nothing that the command writes, whatever level is
//! logged.

#[path = "../../../operator/tests/it/canary/echo.rs"]
pub mod echo;
#[path = "../../../operator/tests/it/canary/planted.rs"]
pub mod planted;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::desk::Desk;
use planted::{cases, knows, leaks, unplanted};

/// All that is below a folder, as one text.
fn all_below(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        text += &if path.is_dir() { all_below(&path) } else { std::fs::read_to_string(&path).unwrap_or_default() };
    }
    text
}

#[tokio::test]
async fn a_planted_secret_shows_up_in_no_output() {
    let desk = Desk::new();
    let servers = echo::start(knows).await;
    let cases = cases(&servers);
    assert_eq!(unplanted(&cases), Vec::<String>::new());
    for case in &cases {
        let mut documents = case.objects();
        // No pod need run.
        documents[3]["spec"]["replicas"] = json!(0);
        let documents: Vec<String> = documents.iter().map(ToString::to_string).collect();
        desk.write(&format!("m/{}.yaml", case.name), &documents.join("\n---\n"));
        if let Some((name, text)) = case.file() {
            desk.write(&format!("files/{name}"), &text);
        }
    }
    let everything = [("RUST_LOG", "trace,lapin=trace")];
    let mut told = Vec::new();
    let files = ["--filepath-auth-root-path", "files", "--timeout", "3"];
    for (command, more) in [("lint", &[][..]), ("probe", &files)] {
        for output in ["text", "json"] {
            let arguments =
                [&[command, "-f", "m", "-o", output, "--cluster-object-namespace", "default"], more].concat();
            let done = desk.tidemark(&arguments, &everything).await;
            let text = String::from_utf8(done.stdout).unwrap();
            assert!(text.contains("case-1"), "{command}: {text}");
            told.push((command, text + &String::from_utf8(done.stderr).unwrap()));
        }
    }
    assert!(servers.told.missed().is_empty(), "probe: {:?}", servers.told.missed());
    desk.spawn("up", &["up", "--port", "0", "m"], &everything);
    desk.until(60, "up tells of failures", async || {
        let log = desk.log("up");
        let failed = log.contains("case-1") && log.contains("RabbitMQ API status");
        if failed { Ok(()) } else { Err(log) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    told.push(("up", desk.log("up")));
    told.push(("the files of up", all_below(&desk.folder().join("state"))));
    assert!(told.iter().any(|(_, text)| text.contains("TRACE")), "every level is logged");
    let mut leaking = Vec::new();
    for (who, text) in &told {
        leaking.extend(leaks(text).into_iter().map(|leak| format!("{who}: {leak}")));
    }
    leaking.dedup();
    assert!(leaking.is_empty(), "{} leaks:\n{}", leaking.len(), leaking.join("\n"));
}
