//! The look-up of declared parameters: sources, names, defaults, constraints, messages.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Kind, Parameter, Source, Text, Value};
use crate::nearest::nearest;
use crate::{ParseError, TriggerInput};

/// The suffix of a metadata key that names an environment variable.
const FROM_ENV: &str = "FromEnv";

/// Reads declared parameters and collects what is wrong with them.
pub struct Reader<'a> {
    input: &'a TriggerInput,
    errors: Vec<ParseError>,
}

/// The outcome of a look-up.
enum Found<'a> {
    /// Nothing is given and there is no default.
    Nothing,
    Given(Text<'a>),
    /// Something is given that is refused; the error is recorded.
    Refused,
}

impl<'a> Reader<'a> {
    /// A reader of a trigger's parameters.
    pub fn new(input: &'a TriggerInput) -> Self {
        Self { input, errors: Vec::new() }
    }

    /// The trigger whose parameters are read.
    pub fn input(&self) -> &'a TriggerInput {
        self.input
    }

    /// What was found wrong, in order.
    pub fn into_errors(self) -> Vec<ParseError> {
        self.errors
    }

    /// Adds what a check between parameters found.
    pub fn add(&mut self, errors: Vec<ParseError>) {
        self.errors.extend(errors);
    }

    /// Reads a parameter that must have a value, be it the default.
    pub fn required<T: Value>(&mut self, parameter: &Parameter) -> Option<T> {
        match self.find(parameter) {
            Found::Given(text) => self.convert(parameter, text),
            Found::Refused => None,
            Found::Nothing => {
                let message = missing(parameter, self.input);
                self.fail(parameter, message)
            }
        }
    }

    /// Reads a parameter that may be left out; the outer `None` stands for an error.
    pub fn optional<T: Value>(&mut self, parameter: &Parameter) -> Option<Option<T>> {
        match self.find(parameter) {
            Found::Given(text) => self.convert(parameter, text).map(Some),
            Found::Refused => None,
            Found::Nothing => Some(None),
        }
    }

    /// Reads a parameter that has its type's default value when it is left out.
    pub fn or_default<T: Value + Default>(&mut self, parameter: &Parameter) -> Option<T> {
        self.optional(parameter).map(Option::unwrap_or_default)
    }

    /// All of the metadata.
    pub fn rest(&self) -> BTreeMap<String, String> {
        self.input.metadata.clone()
    }

    fn fail<T>(&mut self, parameter: &Parameter, message: String) -> Option<T> {
        self.errors.push(ParseError::new(parameter.name(), message));
        None
    }

    fn find(&mut self, parameter: &Parameter) -> Found<'a> {
        let given = look_up(parameter, self.input);
        if let (Some(_), Some(removed)) = (given, parameter.removed) {
            let message = format!("scaler {} info: {removed}", self.input.trigger_type);
            self.errors.push(ParseError::new(parameter.name(), message));
            return Found::Refused;
        }
        let Some(given) = given else {
            let default = parameter.default.filter(|text| !text.is_empty());
            return default.map_or(Found::Nothing, |text| {
                Found::Given(Text { text, hidden: false, separator: parameter.separator })
            });
        };
        let text = Text {
            text: given.text,
            hidden: parameter.secret || given.source != Source::Metadata,
            separator: parameter.separator,
        };
        match constraint(parameter, text) {
            Some(message) => {
                self.errors.push(ParseError::new(parameter.name(), message));
                Found::Refused
            }
            None => Found::Given(text),
        }
    }

    fn convert<T: Value>(&mut self, parameter: &Parameter, text: Text<'_>) -> Option<T> {
        let (names, shown) = (parameter.names.join(","), text.shown());
        let value = match T::parse(text) {
            Ok(value) => value,
            Err(cause) => {
                return self.fail(parameter, format!("unable to set param \"{names}\" value \"{shown}\": {cause}"));
            }
        };
        let number = value.number();
        let bound = |bound: Option<f64>| bound.zip(number);
        if let Some((min, _)) = bound(parameter.min).filter(|(min, number)| number < min) {
            return self.fail(parameter, format!("parameter \"{names}\" value \"{shown}\" must be at least {min}"));
        }
        if let Some((max, _)) = bound(parameter.max).filter(|(max, number)| number > max) {
            return self.fail(parameter, format!("parameter \"{names}\" value \"{shown}\" must be at most {max}"));
        }
        Some(value)
    }
}

/// A value as it was given.
#[derive(Clone, Copy)]
struct Given<'a> {
    text: &'a str,
    source: Source,
}

/// The first value that is not blank: the sources are the outer loop, the names the inner one.
fn look_up<'a>(parameter: &Parameter, input: &'a TriggerInput) -> Option<Given<'a>> {
    parameter.sources.iter().find_map(|source| {
        let names = parameter.names.iter();
        names.filter_map(|name| raw(*source, name, input)).find_map(|text| {
            let text = text.trim();
            (!text.is_empty()).then_some(Given { text, source: *source })
        })
    })
}

fn raw<'a>(source: Source, name: &str, input: &'a TriggerInput) -> Option<&'a str> {
    match source {
        Source::Metadata => input.metadata.get(name).map(String::as_str),
        Source::Auth => input.auth.get(name).map(|secret| secret.expose()),
        Source::Env => {
            let variable = input.metadata.get(&format!("{name}{FROM_ENV}"))?;
            input.env.get(variable.trim()).map(|secret| secret.expose())
        }
    }
}

/// What is wrong with a text by its allowed and exclusive words.
fn constraint(parameter: &Parameter, text: Text<'_>) -> Option<String> {
    let names = || parameter.names.join(",");
    let parts: Vec<&str> = if matches!(parameter.kind, Kind::List(_)) {
        text.text.split(text.separator).map(str::trim).collect()
    } else {
        vec![text.text]
    };
    if !parameter.one_of.is_empty() && !parts.iter().all(|part| parameter.one_of.contains(part)) {
        let allowed = parameter.one_of.join(" ");
        return Some(format!("parameter \"{}\" value \"{}\" must be one of [{allowed}]", names(), text.shown()));
    }
    if parts.iter().filter(|part| parameter.exclusive.contains(part)).count() > 1 {
        let exclusive = parameter.exclusive.join(" ");
        let shown = text.shown();
        return Some(format!("parameter \"{}\" value \"{shown}\" must contain only one of [{exclusive}]", names()));
    }
    None
}

/// The message on a missing parameter, with the cause where something was meant to give it.
fn missing(parameter: &Parameter, input: &TriggerInput) -> String {
    let sources: Vec<_> = parameter.sources.iter().map(|source| source.as_str()).collect();
    let mut message =
        format!("missing required parameter \"{}\" in [{}]", parameter.names.join(","), sources.join(" "));
    // A key that is the name itself was given without a value.
    let mut others = input.metadata.keys().filter(|key| !parameter.names.contains(&key.as_str()));
    if let Some((key, name)) = others.find_map(|key| Some((key, nearest(key, parameter.names)?))) {
        message.push_str(&format!(" (the metadata has {key}, did you mean {name}?)"));
    }
    for name in parameter.names {
        let variable = input.metadata.get(&format!("{name}{FROM_ENV}"));
        if let Some(variable) = variable.filter(|_| parameter.sources.contains(&Source::Env)) {
            let variable = variable.trim();
            message.push_str(&format!(
                " ({name}{FROM_ENV} names the variable \"{variable}\", which the container does not set)"
            ));
        }
        if parameter.sources.contains(&Source::Auth) && input.auth.contains_key(*name) {
            message.push_str(&format!(" (the authentication's value of {name} is empty or could not be read)"));
        }
    }
    message
}

/// Notes on what was given that are no errors.
pub(super) fn notes(table: &[Parameter], input: &TriggerInput) -> Vec<String> {
    let deprecated = table
        .iter()
        .filter(|parameter| look_up(parameter, input).is_some())
        .filter_map(|parameter| parameter.deprecated.map(|text| format!("scaler {} info: {text}", input.trigger_type)));
    let mut notes: Vec<_> = deprecated.collect();
    if !table.iter().any(|parameter| parameter.kind == Kind::Rest) {
        notes.extend(input.metadata.keys().filter_map(|key| unused(key, table)));
    }
    notes
}

/// Why a metadata key has no effect; `None` for one that may have.
fn unused(key: &str, table: &[Parameter]) -> Option<String> {
    let by_name = |name: &str| table.iter().find(|parameter| parameter.names.contains(&name));
    if let Some(parameter) = by_name(key) {
        let read = parameter.sources.contains(&Source::Metadata);
        return (!read).then(|| format!("{key} in the metadata has no effect: it is {}", taken_from(parameter)));
    }
    if let Some(parameter) = key.strip_suffix(FROM_ENV).and_then(by_name) {
        let read = parameter.sources.contains(&Source::Env);
        return (!read).then(|| format!("{key} has no effect: {} is {}", parameter.name(), taken_from(parameter)));
    }
    let known = table.iter().flat_map(|parameter| {
        let sources = parameter.sources.iter().filter(|source| **source != Source::Auth);
        sources.flat_map(|source| {
            parameter.names.iter().map(move |name| match source {
                Source::Env => Cow::Owned(format!("{name}{FROM_ENV}")),
                _ => Cow::Borrowed(*name),
            })
        })
    });
    Some(match nearest(key, known) {
        Some(name) => format!("unknown parameter {key}, did you mean {name}?"),
        None => format!("unknown parameter {key}"),
    })
}

fn taken_from(parameter: &Parameter) -> String {
    let sources = parameter.sources.iter().map(|source| match source {
        Source::Metadata => "the metadata",
        Source::Auth => "a TriggerAuthentication",
        Source::Env => "the container's environment",
    });
    let sources: Vec<_> = sources.collect();
    format!("only taken from {}", sources.join(" or "))
}
