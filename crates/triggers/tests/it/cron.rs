use tidemark_clock::Clock;
use tidemark_trigger::{Door, DoorSettings};

use crate::conformance::{Case, cases};

#[tokio::test(start_paused = true)]
async fn a_cron_trigger_is_active_when_that_of_keda_is() {
    let Some(cases) = cases("engine/cron.json") else { return };
    let mut wrong = Vec::new();
    for case in &cases {
        let given = Case::of("cron", &case["given"]);
        let clock = Clock::starting_at(case["given"]["now"].as_str().unwrap().parse().unwrap());
        let door = Door::new(clock, DoorSettings::default());
        let trigger = tidemark_triggers::parse(&given.input).unwrap();
        let readings = trigger.connect(&door).await.unwrap().read(&door).await.unwrap();
        let expect = &case["expect"];
        if expect["active"] != readings[0].active || expect["value"].as_f64() != Some(readings[0].value) {
            wrong.push(&case["id"]);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
