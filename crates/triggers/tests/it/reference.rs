//! The reference page of all trigger types is generated from the declarations. To write it anew:
//! `TIDEMARK_UPDATE=1 cargo test -p tidemark-triggers reference`.

use std::fmt::Write;

use tidemark_trigger::TriggerType;
use tidemark_trigger::parameters::{Parameter, Source};
use tidemark_triggers::CATALOGUE;

const PAGE: &str = "../../docs/triggers.md";

#[test]
fn the_reference_page_says_what_the_declarations_say() {
    let wanted = page();
    if std::env::var_os("TIDEMARK_UPDATE").is_some() {
        std::fs::write(PAGE, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/triggers.md is out of date: TIDEMARK_UPDATE=1 cargo test -p tidemark-triggers reference"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# Trigger types\n\n\
         Generated from the declarations in `crates/triggers`. A parameter is looked up in its sources in the order given:\n\
         `metadata` is the trigger's own, `auth` a TriggerAuthentication, `env` the environment of the scale target's\n\
         container, named by the metadata key `<name>FromEnv`.\n",
    );
    for trigger_type in CATALOGUE {
        section(&mut page, trigger_type);
    }
    page
}

fn section(page: &mut String, trigger_type: &TriggerType) {
    writeln!(page, "\n## {}\n", trigger_type.name).unwrap();
    page.push_str("| parameter | from | default | meaning |\n|---|---|---|---|\n");
    for parameter in trigger_type.parameters {
        row(page, parameter);
    }
}

fn row(page: &mut String, parameter: &Parameter) {
    let names = match parameter.names {
        [] => "any other".to_owned(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
    };
    let sources: Vec<_> = parameter.sources.iter().map(|source| source_name(*source)).collect();
    let default = match (parameter.default, parameter.optional) {
        (Some(""), _) | (None, true) => String::new(),
        (Some(default), _) => format!("`{default}`"),
        (None, false) => "required".to_owned(),
    };
    let mut meaning = parameter.docs.split_whitespace().collect::<Vec<_>>().join(" ");
    if !parameter.one_of.is_empty() {
        let words: Vec<_> = parameter.one_of.iter().map(|word| format!("`{word}`")).collect();
        write!(meaning, " One of {}.", words.join(", ")).unwrap();
    }
    if let Some(text) = parameter.deprecated {
        write!(meaning, " Deprecated: {text}").unwrap();
    }
    if let Some(text) = parameter.removed {
        write!(meaning, " Removed: {text}").unwrap();
    }
    writeln!(page, "| {names} | {} | {default} | {} |", sources.join(", "), meaning.replace('|', "\\|")).unwrap();
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Metadata => "metadata",
        Source::Auth => "auth",
        Source::Env => "env",
    }
}
