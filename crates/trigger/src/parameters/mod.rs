//! Declared parameters: a trigger type is a struct whose fields say what they are called, where they may come from and
//! what is allowed. `#[derive(Parameters)]` turns the declaration into a [`TABLE`](Parameters::TABLE) for lint, schema
//! and reference page, and into the reading of the fields; the look-up itself is the ordinary code of [`Reader`].
//!
//! ```
//! use tidemark_trigger::{Parameters, Secret};
//!
//! /// The parameters of a trigger type.
//! #[derive(Clone, Debug, Parameters)]
//! struct Example {
//!     /// Name of the queue.
//!     #[param(from = "metadata")]
//!     queue_name: String, // no `Option`, no default: required
//!     /// Messages per replica.
//!     #[param(from = "metadata", default = 20, min = 1)]
//!     queue_length: i64,
//!     /// Password of the user.
//!     #[param(from = "auth env")]
//!     password: Option<Secret>,
//! }
//! ```
//!
//! What an attribute `#[param(..)]` may say:
//!
//! | word | meaning |
//! | --- | --- |
//! | `from = "metadata auth env"` | the sources, in the order in which they are asked; required |
//! | `name = "x"` | the name; without it the field's name in camelCase |
//! | `alias = "y"` | a further name; may be repeated |
//! | `default = v` | the value when nothing is given, written as a user would write it |
//! | `optional` | `Default::default()` when nothing is given |
//! | `one_of = ["a", "b"]` | the allowed texts; of a list: of each element |
//! | `exclusive = ["a", "b"]` | at most one element of the list may be among these |
//! | `min = v`, `max = v` | bounds of a number, or of a duration in seconds |
//! | `separator = ";"` | separator of a list, `,` without it |
//! | `unit = "messages"` | the unit, for the reference page |
//! | `secret` | a value that messages must not show; `Secret` fields are so without it |
//! | `plain` | a text from authentication or environment that may nevertheless be shown |
//! | `deprecated = "text"` | still works; the text becomes a note to the user |
//! | `removed = "text"` | giving it is an error with this text; the field is an `Option` |
//! | `group` | a nested declared group (no other words) |
//! | `rest` | all of the metadata, as a map (no other words) |
//!
//! On the struct, `#[parameters(check = path)]` names a function `fn(&Self, &TriggerInput) -> Vec<ParseError>` that runs
//! after all fields of the group were read; the checks of nested groups run before those of the outer one.
//!
//! A text from authentication or environment that is not a `Secret` does not compile unless it says `plain`:
//!
//! ```compile_fail
//! #[derive(tidemark_trigger::Parameters)]
//! struct Leaky {
//!     /// Password of the user.
//!     #[param(from = "auth")]
//!     password: String,
//! }
//! ```

mod list;
mod reader;
mod value;

use crate::{ParseErrors, Secret, TriggerInput};

pub use list::{Form, Pairs, Ranges};
pub use reader::Reader;
pub use value::{Choice, Text, Value, parse_choice};

/// Where a parameter's value may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `spec.triggers[i].metadata`.
    Metadata,
    /// The referenced TriggerAuthentication.
    Auth,
    /// The container's environment: the metadata key `<name>FromEnv` names the variable.
    Env,
}

impl Source {
    /// The name that KEDA's messages use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "triggerMetadata",
            Self::Auth => "authParams",
            Self::Env => "resolvedEnv",
        }
    }
}

/// The form of a parameter's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Text,
    Boolean,
    /// A whole number.
    Integer,
    Number,
    /// Go's duration syntax, or a whole number of milliseconds.
    Duration,
    List(&'static Kind),
    /// A list of whole numbers and inclusive ranges, such as `1,4-6`.
    Ranges,
    /// `key=value` pairs, separated by commas.
    Pairs,
    /// A URL query string.
    Form,
    /// All of the metadata.
    Rest,
}

/// One declared parameter of a trigger type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// The names under which it may be given; the first one is the documented one. Empty for [`Kind::Rest`].
    pub names: &'static [&'static str],
    /// The sources, in the order in which they are asked.
    pub sources: &'static [Source],
    pub kind: Kind,
    /// The value when nothing is given.
    pub default: Option<&'static str>,
    /// It may be left out.
    pub optional: bool,
    /// The allowed texts; empty for any. For a list: of each element.
    pub one_of: &'static [&'static str],
    /// At most one element of a list may be among these.
    pub exclusive: &'static [&'static str],
    /// Lower bound, inclusive; of a duration in seconds.
    pub min: Option<f64>,
    /// Upper bound, inclusive; of a duration in seconds.
    pub max: Option<f64>,
    /// Separator of a list.
    pub separator: char,
    /// The unit of a number, for people.
    pub unit: Option<&'static str>,
    /// Its value must never be shown.
    pub secret: bool,
    /// Still works; this is what to do instead.
    pub deprecated: Option<&'static str>,
    /// Giving it is an error with this text.
    pub removed: Option<&'static str>,
    /// What it is, for the user.
    pub docs: &'static str,
}

impl Parameter {
    /// A required text from nowhere: what declarations start from.
    pub const UNSET: Self = Self {
        names: &[],
        sources: &[],
        kind: Kind::Text,
        default: None,
        optional: false,
        one_of: &[],
        exclusive: &[],
        min: None,
        max: None,
        separator: ',',
        unit: None,
        secret: false,
        deprecated: None,
        removed: None,
        docs: "",
    };

    /// All of the metadata.
    pub const REST: Self = Self { sources: &[Source::Metadata], kind: Kind::Rest, optional: true, ..Self::UNSET };

    /// The documented name; empty for [`Kind::Rest`].
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }

    /// Whether something must be given.
    pub fn required(&self) -> bool {
        !self.optional && self.default.is_none() && self.removed.is_none()
    }
}

/// The number of parameters in all parts.
#[doc(hidden)]
pub const fn total(parts: &[&[Parameter]]) -> usize {
    let (mut sum, mut i) = (0, 0);
    while i < parts.len() {
        sum += parts[i].len();
        i += 1;
    }
    sum
}

/// The parts as one table.
#[doc(hidden)]
pub const fn concat<const N: usize>(parts: &[&[Parameter]]) -> [Parameter; N] {
    let mut table = [Parameter::UNSET; N];
    let (mut at, mut part) = (0, 0);
    while part < parts.len() {
        let mut i = 0;
        while i < parts[part].len() {
            table[at] = parts[part][i];
            at += 1;
            i += 1;
        }
        part += 1;
    }
    table
}

/// How a secret is written where parsed parameters are shown. Nothing but a caller's own function exposes one.
pub type ShowSecret = fn(&Secret) -> String;

/// Shows `***` in place of a secret.
pub fn hide(secret: &Secret) -> String {
    secret.to_string()
}

/// Parameters as parsed, by their documented names.
pub struct Shown {
    secret: ShowSecret,
    values: serde_json::Map<String, serde_json::Value>,
}

impl Shown {
    /// Nothing shown yet.
    pub fn new(secret: ShowSecret) -> Self {
        Self { secret, values: serde_json::Map::new() }
    }

    /// Adds a parameter's value.
    pub fn put<T: Value>(&mut self, parameter: &Parameter, value: &T) {
        let shown = value.show(self.secret);
        // A secret type sees to itself; in any other one that is declared secret, everything is.
        let shown = if parameter.secret && !T::SECRET { masked(shown, self.secret) } else { shown };
        self.values.insert(parameter.name().to_owned(), shown);
    }

    /// What was added.
    pub fn into_map(self) -> serde_json::Map<String, serde_json::Value> {
        self.values
    }
}

/// A value in which every text, number and flag is written as a secret.
fn masked(value: Json, secret: ShowSecret) -> Json {
    match value {
        Json::Object(fields) => fields.into_iter().map(|(key, value)| (key, masked(value, secret))).collect(),
        Json::Array(items) => items.into_iter().map(|item| masked(item, secret)).collect(),
        Json::String(text) => secret(&text.into()).into(),
        Json::Null => Json::Null,
        other => secret(&other.to_string().into()).into(),
    }
}

/// A declared group of parameters; derive it.
pub trait Parameters: Sized {
    /// The declared parameters, nested groups included, in the order of their declaration.
    const TABLE: &'static [Parameter];

    /// Reads the fields. What is wrong goes to the reader; `None` when a field could not be read.
    fn read(reader: &mut Reader<'_>) -> Option<Self>;

    /// Adds the values of the fields, for people and tests. Fields that are unset are left out.
    fn show(&self, shown: &mut Shown);

    /// Parses a trigger's parameters.
    ///
    /// # Errors
    /// All that is wrong, in the order of the declaration, the checks of the groups last. No message shows a value that
    /// came from authentication or environment.
    fn parse(input: &TriggerInput) -> Result<Self, ParseErrors> {
        let mut reader = Reader::new(input);
        let parsed = Self::read(&mut reader);
        match (parsed, reader.into_errors()) {
            (Some(parsed), errors) if errors.is_empty() => Ok(parsed),
            (_, errors) => Err(ParseErrors(errors)),
        }
    }

    /// Notes on what was given that are no errors: deprecated parameters, unknown keys, keys that have no effect.
    fn notes(input: &TriggerInput) -> Box<[String]> {
        reader::notes(Self::TABLE, input).into()
    }
}

/// Parses and shows the parameters of a type whose declared fields say all: an `inspect` for
/// [`TriggerType`](crate::TriggerType).
///
/// # Errors
/// As [`Parameters::parse`].
pub fn inspect<P: Parameters>(
    input: &TriggerInput,
    secret: ShowSecret,
) -> Result<serde_json::Map<String, serde_json::Value>, ParseErrors> {
    let mut shown = Shown::new(secret);
    P::parse(input)?.show(&mut shown);
    Ok(shown.into_map())
}

/// What derived code calls a JSON value.
#[doc(hidden)]
pub use serde_json::Value as Json;
