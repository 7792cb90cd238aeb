//! Parameters that do nothing.

use tidemark_trigger::nearest::nearest;
use tidemark_trigger::parameters::{Kind, Parameter, Source};
use tidemark_trigger::{TriggerInput, TriggerType};

use super::probing::Doubt;

/// The suffix of a metadata key that names an environment variable.
pub const FROM_ENV: &str = "FromEnv";

/// The metadata key that a note is about: the first one that it names.
pub fn key_in<'a>(note: &str, input: &'a TriggerInput) -> Option<&'a str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut words = note.split(|c| !plain(c)).map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty());
    words.find_map(|word| input.metadata.get_key_value(word)).map(|(key, _)| key.as_str())
}

/// Metadata keys without effect, and why: nobody knows them, or another one comes before them. Of a trigger that has
/// `failed` also the deprecated ones, which a sound trigger tells itself.
pub fn without_effect(known: &TriggerType, input: &TriggerInput, doubt: &Doubt, failed: bool) -> Vec<(String, String)> {
    let table = known.parameters;
    if table.iter().any(|parameter| parameter.kind == Kind::Rest) {
        return Vec::new();
    }
    let names = || table.iter().flat_map(keys_of);
    let unknown = input.metadata.keys().filter(|key| !names().any(|name| name == **key));
    // What stands in the wrong place is told by the trigger itself, or is no more than unknown.
    let mut found: Vec<_> = unknown
        .map(|key| {
            let hint = nearest(key, names()).map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            (key.clone(), format!("unknown parameter {key}{hint}"))
        })
        .collect();
    for parameter in table {
        let keys = keys_of(parameter).into_iter().filter(|key| failed && input.metadata.contains_key(key));
        found.extend(keys.filter_map(|key| Some((key, parameter.deprecated?.to_owned()))));
        found.extend(shadowed(parameter, input, doubt));
    }
    found
}

/// The metadata keys by which a parameter may be given.
fn keys_of(parameter: &Parameter) -> Vec<String> {
    let mut keys = Vec::new();
    for source in parameter.sources {
        for name in parameter.names {
            match source {
                Source::Metadata => keys.push((*name).to_owned()),
                Source::Env => keys.push(format!("{name}{FROM_ENV}")),
                Source::Auth => {}
            }
        }
    }
    keys
}

/// Of several that give one parameter only the first counts: see the order of the look-up.
fn shadowed(parameter: &Parameter, input: &TriggerInput, doubt: &Doubt) -> Vec<(String, String)> {
    let mut first: Option<String> = None;
    let mut found = Vec::new();
    for source in parameter.sources {
        for name in parameter.names {
            let given = match source {
                Source::Metadata => {
                    filled(input.metadata.get(*name)).then(|| (Some((*name).to_owned()), String::new()))
                }
                Source::Env => {
                    let key = format!("{name}{FROM_ENV}");
                    let variable = input.metadata.get(&key).map(|variable| variable.trim());
                    if variable.is_some_and(|variable| doubt.env.contains(variable)) {
                        return found;
                    }
                    let value = variable.and_then(|variable| input.env.get(variable));
                    value.filter(|value| !value.expose().trim().is_empty()).map(|_| (Some(key), String::new()))
                }
                Source::Auth => {
                    if doubt.all_auth || doubt.auth.contains(*name) {
                        return found;
                    }
                    let value = input.auth.get(*name).filter(|value| !value.expose().trim().is_empty());
                    value.map(|_| (None, format!("{name} of the authentication")))
                }
            };
            let Some((key, described)) = given else { continue };
            match (&first, key) {
                (None, key) => first = Some(key.unwrap_or(described)),
                (Some(first), Some(key)) => {
                    let message = format!("{key} has no effect: {first} comes before it");
                    found.push((key, message));
                }
                (Some(_), None) => {}
            }
        }
    }
    found
}

fn filled(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.trim().is_empty())
}

/// Parameters of the authentication that this type does not know, but nearly. An authentication may serve several types,
/// so that others are no mistake.
pub fn misspelt_authentication(known: &TriggerType, input: &TriggerInput) -> Vec<String> {
    let from_auth = || known.parameters.iter().filter(|parameter| parameter.sources.contains(&Source::Auth));
    let names = || from_auth().flat_map(|parameter| parameter.names.iter().copied());
    let elsewhere = |name: &str| known.parameters.iter().any(|parameter| parameter.names.contains(&name));
    let unknown = input.auth.keys().filter(|name| !elsewhere(name));
    unknown
        .filter_map(|name| {
            let near = nearest(name, names()).filter(|near| !input.auth.contains_key(*near))?;
            Some(format!("the authentication gives {name}, which {} does not know: did you mean {near}?", known.name))
        })
        .collect()
}
