//! Parsing a trigger some of whose parameters are not known, because they come from what is not among the files.
//!
//! An error is certain when it stays whatever the unknown parameters are. They are tried empty and with several values,
//! and only what all attempts say is told.

use std::collections::BTreeSet;

use tidemark_trigger::parameters::{Kind, Parameter, Source};
use tidemark_trigger::{MetricSpec, ParseError, Secret, TriggerInput, TriggerType};

/// What unknown parameters may be: texts, numbers, flags, URLs of the usual kinds.
const TRIALS: [&str; 8] = [
    "x",
    "1",
    "true",
    "a=b",
    "example.com:1234",
    "http://example.com/",
    "amqp://user:password@example.com/",
    "postgresql://user:password@example.com:5432/database",
];
/// Pod identities that an unknown authentication may have.
const IDENTITIES: [&str; 4] = ["aws", "aws-eks", "azure-workload", "gcp"];

/// Which parameters are not known.
#[derive(Clone, Debug, Default)]
pub struct Doubt {
    /// The authentication as a whole is unknown.
    pub all_auth: bool,
    /// Parameters of the authentication.
    pub auth: BTreeSet<String>,
    /// Variables of the environment.
    pub env: BTreeSet<String>,
}

/// What is certain about a trigger.
#[derive(Debug, Default)]
pub struct Outcome {
    pub errors: Vec<ParseError>,
    pub notes: Vec<String>,
    pub metrics: Vec<MetricSpec>,
}

impl Doubt {
    /// Whether every parameter is known.
    pub fn is_none(&self) -> bool {
        !self.all_auth && self.auth.is_empty() && self.env.is_empty()
    }

    /// Parses a trigger with what is known.
    pub fn parse(&self, known: &TriggerType, input: &TriggerInput) -> Outcome {
        let mut attempts = vec![attempt(known, input)];
        if !self.is_none() {
            let unknown = self.unknown(known);
            for text in TRIALS {
                // All of them may be there, or any one.
                attempts.push(attempt(known, &self.tried(input, &unknown, text)));
                for one in &unknown {
                    attempts.push(attempt(known, &self.tried(input, std::slice::from_ref(one), text)));
                }
            }
            for identity in IDENTITIES.iter().filter(|_| self.all_auth) {
                for names in [&[][..], &unknown] {
                    let mut input = self.tried(input, names, TRIALS[0]);
                    input.pod_identity = Some((*identity).to_owned());
                    attempts.push(attempt(known, &input));
                }
            }
        }
        agreed(attempts)
    }

    /// The unknown parameters of the authentication, each with the value that it must have in a trial, if any.
    fn unknown(&self, known: &TriggerType) -> Vec<(String, Option<&'static str>)> {
        let declared = |name: &str| known.parameters.iter().find(|parameter| parameter.names.contains(&name));
        let mut names = self.auth.clone();
        if self.all_auth {
            let from_auth = known.parameters.iter().filter(|parameter| parameter.sources.contains(&Source::Auth));
            names.extend(from_auth.filter(|one| one.removed.is_none()).map(|one| one.name().to_owned()));
        }
        names.into_iter().map(|name| (name.clone(), declared(&name).and_then(fitting))).collect()
    }

    fn tried(&self, input: &TriggerInput, names: &[(String, Option<&'static str>)], text: &str) -> TriggerInput {
        let mut input = input.clone();
        let values = names.iter().map(|(name, fitting)| (name.clone(), Secret::from(fitting.unwrap_or(text))));
        input.auth.extend(values);
        input.env.extend(self.env.iter().map(|variable| (variable.clone(), Secret::from(text))));
        input
    }
}

/// A value of the parameter's form, where not any text will do.
fn fitting(parameter: &Parameter) -> Option<&'static str> {
    match parameter.kind {
        _ if !parameter.one_of.is_empty() => parameter.one_of.first().copied(),
        Kind::Boolean => Some("true"),
        Kind::Integer | Kind::Number => Some("1"),
        Kind::Duration => Some("1s"),
        _ => None,
    }
}

fn attempt(known: &TriggerType, input: &TriggerInput) -> Outcome {
    match (known.parse)(input) {
        Ok(trigger) => {
            Outcome { notes: trigger.notes().to_vec(), metrics: trigger.metrics().to_vec(), errors: Vec::new() }
        }
        Err(errors) => Outcome { errors: errors.0, ..Outcome::default() },
    }
}

/// What all attempts say. Metrics: what all say that have any.
fn agreed(mut attempts: Vec<Outcome>) -> Outcome {
    let mut certain = Outcome { errors: attempts[0].errors.clone(), ..Outcome::default() };
    certain.errors.retain(|error| attempts.iter().all(|attempt| attempt.errors.contains(error)));
    let mut sound = attempts.drain(..).filter(|attempt| attempt.errors.is_empty());
    if let Some(first) = sound.next().filter(|_| certain.errors.is_empty()) {
        (certain.notes, certain.metrics) = (first.notes, first.metrics);
        for other in sound {
            certain.notes.retain(|note| other.notes.contains(note));
            if other.metrics != certain.metrics {
                certain.metrics = Vec::new();
            }
        }
    }
    certain
}
