//! The functions for quantities of the Kubernetes API.

use tidemark_engine::quantity::{self, Quantity};

use super::eval::Outcome;
use super::value::Val;

/// `quantity(text)` and `isQuantity(text)`.
pub(super) fn made<'a>(name: &str, value: &Val<'a>) -> Outcome<'a> {
    let Val::Text(text) = value else {
        return Err(format!("no such overload: {name}({})", value.kind()));
    };
    match (name, quantity::parse(text)) {
        ("isQuantity", parsed) => Ok(Val::Bool(parsed.is_ok())),
        (_, Ok(quantity)) => Ok(Val::Quantity(quantity)),
        (_, Err(_)) => Err("quantities must match the regular expression \
                            '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            .to_owned()),
    }
}

/// `sign(quantity)`: it stands alone, while all others are called on the quantity.
pub(super) fn sign<'a>(value: &Val<'a>) -> Outcome<'a> {
    match value {
        Val::Quantity(quantity) => Ok(Val::Int(quantity.cmp(&Quantity::default()) as i64)),
        other => Err(format!("no such overload: sign({})", other.kind())),
    }
}

pub(super) fn on_quantity<'a>(quantity: Quantity, name: &str, arguments: &[Val<'a>]) -> Outcome<'a> {
    Ok(match (name, arguments) {
        ("compareTo", [Val::Quantity(other)]) => Val::Int(quantity.cmp(other) as i64),
        ("isLessThan", [Val::Quantity(other)]) => Val::Bool(quantity < *other),
        ("isGreaterThan", [Val::Quantity(other)]) => Val::Bool(quantity > *other),
        ("asApproximateFloat", []) => Val::Double(quantity.to_f64()),
        _ => return Err(format!("no such overload: kubernetes.Quantity.{name}")),
    })
}
