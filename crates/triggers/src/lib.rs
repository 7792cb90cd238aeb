//! The catalogue of trigger types: one file or folder per type, grouped by what they speak to.

mod http;
mod messaging;
mod time;

use std::sync::Arc;

use tidemark_trigger::nearest::nearest;
use tidemark_trigger::{ParseError, ParseErrors, Trigger, TriggerInput, TriggerType};

/// All trigger types, by name.
pub static CATALOGUE: &[&TriggerType] = &[&time::cron::TYPE, &http::metrics_api::TYPE, &messaging::rabbitmq::TYPE];

/// The trigger type of a name.
///
/// # Errors
/// There is none; the message names the nearest one that there is.
pub fn find(name: &str) -> Result<&'static TriggerType, ParseError> {
    CATALOGUE.iter().find(|known| known.name == name).copied().ok_or_else(|| {
        let hint = nearest(name, CATALOGUE.iter().map(|known| known.name));
        let hint = hint.map(|known| format!(", did you mean {known}?")).unwrap_or_default();
        ParseError::new("type", format!("no scaler found for type: {name}{hint}"))
    })
}

/// Parses a trigger of any type of the catalogue.
///
/// # Errors
/// An unknown type (the message names the nearest known one), or what is wrong with the parameters.
pub fn parse(input: &TriggerInput) -> Result<Arc<dyn Trigger>, ParseErrors> {
    (find(&input.trigger_type)?.parse)(input)
}
