//! Manifests for `tidemark lint`: any text gives a report, in lines and as JSON, without a panic, and every place in it is a
//! place in the text.

use tidemark_cli::lint::{Input, Linter, Rules};

thread_local! {
    // The definitions are installed once, not for each input.
    static LINTER: (tokio::runtime::Runtime, Linter) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let linter = runtime.block_on(async { Linter::new() }).expect("our own definitions are sound");
        (runtime, linter)
    };
}

/// Panics if anything of that does not hold for the input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut read = Input::default();
    read.text("f.yaml", text);
    let rules = Rules { strict: text.len() % 2 == 0, cluster_object_namespace: "keda".to_owned() };
    let report = LINTER.with(|(runtime, linter)| runtime.block_on(linter.check(&read, &rules)));
    // YAML takes each of these for the end of a line.
    let lines = text.matches(['\n', '\r']).count() as u64 + 1;
    for document in &report.documents {
        let of_triggers = document.triggers.iter().flat_map(|trigger| trigger.errors.iter().chain(&trigger.warnings));
        for found in document.errors.iter().chain(&document.warnings).chain(of_triggers) {
            assert!((1..=lines).contains(&found.line), "{}: line {} of {lines}", found.message, found.line);
        }
    }
    assert!(!report.text().is_empty());
    serde_json::from_str::<serde_json::Value>(&report.json().expect("texts and numbers")).expect("JSON");
}
