//! Our definitions on the sandbox: asked the same table as the real API server is.

use kube::Client;
use tidemark_clock::Clock;
use tidemark_sandbox::{Options, Sandbox};

#[path = "../../../api/tests/it/rules.rs"]
mod rules;

/// Cases that the sandbox answers otherwise than a real server, with the reason.
const DEVIATIONS: &[(&str, &str)] = &[
    ("ScaledObject spec.pollingInterval: 2147483648", NAMED),
    ("ScaledJob spec.jobTargetRef.backoffLimit: 2147483648", NAMED),
];

/// Both refuse a number that is too large.
const NAMED: &str = "the sandbox names the field; a real server calls it <nil> and has the name in the message only";

#[tokio::test(start_paused = true)]
async fn the_sandbox_accepts_and_refuses_what_a_real_server_does() {
    let sandbox = Sandbox::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Options::default());
    sandbox.install_crds(&tidemark_api::crds()).unwrap();
    let client = Client::new(sandbox.service(), "default");
    let (deviations, _) = rules::ask(&client).await;
    let unknown: Vec<_> =
        deviations.iter().filter(|found| DEVIATIONS.iter().all(|(case, _)| found.case != *case)).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    for (case, reason) in DEVIATIONS {
        assert!(deviations.iter().any(|found| found.case == *case), "{case}: no longer deviates ({reason})");
    }
}
