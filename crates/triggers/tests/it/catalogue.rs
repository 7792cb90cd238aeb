use std::collections::BTreeSet;

use tidemark_trigger::parameters::Kind;
use tidemark_triggers::{CATALOGUE, find};

#[test]
fn types_are_in_order_and_unique() {
    let names: Vec<_> = CATALOGUE.iter().map(|known| known.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

#[test]
fn an_unknown_type_is_answered_with_the_nearest_one() {
    let message = |name| find(name).err().map(|error| error.message);
    assert_eq!(message("cron"), None);
    assert_eq!(message("corn").as_deref(), Some("no scaler found for type: corn, did you mean cron?"));
    assert_eq!(message("kafka").as_deref(), Some("trigger type kafka is not supported yet"));
    let expected = "no scaler found for type: kafak, did you mean kafka, which is not supported yet?";
    assert_eq!(message("kafak").as_deref(), Some(expected));
    assert_eq!(message("unheard-of").as_deref(), Some("no scaler found for type: unheard-of"));
}

#[test]
fn every_parameter_is_documented_and_has_a_name_of_its_own() {
    for known in CATALOGUE {
        let mut names = BTreeSet::new();
        for parameter in known.parameters.iter().filter(|parameter| parameter.kind != Kind::Rest) {
            let name = parameter.name();
            assert!(!parameter.docs.is_empty(), "{}: {name} has no description", known.name);
            for name in parameter.names {
                assert!(names.insert(*name), "{}: {name} is declared twice", known.name);
            }
        }
    }
}
