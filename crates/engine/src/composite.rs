//! Scaling modifiers: one formula over the triggers' values, whose result is the only external metric of the HPA.

use std::sync::Arc;

use jiff::Timestamp;

use crate::activation::{Controls, Decision, Known, Memory, Policy, decide_on, reason_of};
use crate::fallback::Fallback;
use crate::formula::{CompileError, EvalError, Formula, Value};
use crate::metric::Target;
use crate::outcome::{Outcome, TriggerState};
use crate::quantity;
use crate::reason::Reason;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// The name of the metric that the formula makes.
pub const METRIC: &str = "composite-metric";

/// The value that every trigger has when a formula is tried out before it is used.
const TRIAL: f64 = -1.0;

/// `advanced.scalingModifiers` as it is written; a member that is not there is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source<'a> {
    pub formula: &'a str,
    pub target: &'a str,
    pub activation_target: &'a str,
    pub metric_type: &'a str,
}

impl Source<'_> {
    /// Whether the modifiers are used at all.
    pub fn in_use(&self) -> bool {
        [self.formula, self.target, self.activation_target, self.metric_type].iter().any(|text| !text.is_empty())
    }
}

/// Why scaling modifiers cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    #[error("scalingModifiers need a formula")]
    NoFormula,
    #[error("scalingModifiers need a target")]
    NoTarget,
    #[error("target \"{0}\" is not a number of at least 0.001")]
    Target(String),
    #[error("activationTarget \"{0}\" is not a number")]
    ActivationTarget(String),
    #[error("metricType \"{0}\" is not allowed; give AverageValue or Value")]
    MetricType(String),
    /// The formula is not one; `offset` is where, in bytes from its start.
    #[error("formula: {message}")]
    Formula { message: String, offset: usize },
    /// The formula fails when every trigger's value is -1.
    #[error("formula: it fails when every trigger is -1: {0}")]
    Trial(EvalError),
    /// The formula gives something else than a number when every trigger's value is -1.
    #[error("formula: it gives {0} when every trigger is -1; it must give a number")]
    NotANumber(&'static str),
}

impl Invalid {
    /// The member of `scalingModifiers` that is to blame.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NoTarget | Self::Target(_) => "target",
            Self::ActivationTarget(_) => "activationTarget",
            Self::MetricType(_) => "metricType",
            Self::NoFormula | Self::Formula { .. } | Self::Trial(_) | Self::NotANumber(_) => "formula",
        }
    }

    /// Where in the formula, in bytes from its start.
    pub fn offset(&self) -> Option<usize> {
        match self {
            Self::Formula { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

/// Scaling modifiers that can be used.
#[derive(Debug)]
pub struct Modifiers {
    formula: Formula,
    target: Target,
    activation: f64,
}

/// One external metric of one trigger, for the formula.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The trigger's `name`, by which the formula knows it. Of several metrics with one name the last one counts.
    pub name: Option<Arc<str>>,
    /// After [`fallback::apply`](crate::fallback::apply) with the target of the modifiers.
    pub state: TriggerState,
}

/// The composite metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    /// [`Outcome::served`] answers the HPA.
    pub outcome: Outcome,
    /// The argument, in order.
    pub reasons: Vec<Reason>,
    /// Whether there is an external metric at all.
    fed: bool,
}

impl Modifiers {
    /// Checks and compiles scaling modifiers. `names` holds the names of the triggers that the formula may use: all that
    /// have one, cpu and memory triggers excepted.
    ///
    /// # Errors
    /// See [`Invalid`]. A trial run with -1 for every trigger belongs to the check.
    pub fn build(source: Source<'_>, names: &[&str]) -> Result<Self, Invalid> {
        if source.formula.trim().is_empty() {
            return Err(Invalid::NoFormula);
        }
        if source.target.is_empty() {
            return Err(Invalid::NoTarget);
        }
        let (before, after) = wrapping(source.formula);
        let formula = Formula::compile_between(&before, source.formula, &after, names)
            .map_err(|error| misfit(&error, before.len(), source.formula))?;
        let trial = formula.evaluate(&|_| Some(TRIAL)).map_err(Invalid::Trial)?;
        match trial {
            Value::Nil => {}
            value => number(&value).map(drop).map_err(Invalid::NotANumber)?,
        }
        let milli = number_in(source.target).and_then(target_milli);
        let milli = milli.ok_or_else(|| Invalid::Target(source.target.to_owned()))?;
        let target = match source.metric_type {
            "" | "AverageValue" => Target::AverageValue(milli),
            "Value" => Target::Value(milli),
            other => return Err(Invalid::MetricType(other.to_owned())),
        };
        let activation = match source.activation_target {
            "" => Some(0.0),
            text => number_in(text),
        };
        let activation = activation.ok_or_else(|| Invalid::ActivationTarget(source.activation_target.to_owned()))?;
        Ok(Self { formula, target, activation })
    }

    /// The target of the composite metric, for the HPA and for the fallback.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The composite metric of these values, one for each external metric, in the order of the triggers.
    ///
    /// A trigger that its source announced active makes the whole active, whatever the activation target, until all are
    /// read again. A fallback of any trigger is the result as it stands; otherwise any failure, also one of a trigger that the
    /// formula does not use, is a failure of the whole, and nothing is computed before every trigger was read. A formula
    /// that gives nil asks for the replicas of the fallback. NaN, infinities and negative results count as 0.
    pub fn evaluate(&self, inputs: &[Input], fallback: Option<&Fallback>) -> Composite {
        let reasons = inputs.iter().map(reason_of_input).collect();
        let mut composite = Composite { outcome: Outcome::Unknown, reasons, fed: !inputs.is_empty() };
        let outcomes = || inputs.iter().map(|input| &input.state.outcome);
        let stand_in = outcomes().find(|outcome| matches!(outcome, Outcome::Fallback { .. }));
        let failed = inputs.iter().find(|input| matches!(input.state.outcome, Outcome::Failed { .. }));
        if outcomes().any(|outcome| *outcome == Outcome::Announced) {
            composite.outcome = Outcome::Announced;
        } else if let Some(Outcome::Fallback { replicas, milli, failures, error, .. }) = stand_in {
            composite.fall_back(self, *replicas, *milli, *failures, error);
        } else if let Some(Input { state, .. }) = failed {
            let error = state.outcome.failure().map_or("", |error| error.as_ref());
            composite.fail(format!("{}: {error}", state.metric));
        } else if outcomes().any(|outcome| *outcome == Outcome::Unknown) {
            composite.reasons.push(Reason::CompositeUnknown);
        } else {
            self.compute(inputs, fallback, &mut composite);
        }
        composite
    }

    fn compute(&self, inputs: &[Input], fallback: Option<&Fallback>, composite: &mut Composite) {
        let result = match self.formula.evaluate(&|name| value_of(inputs, name)) {
            Ok(result) => result,
            Err(error) => return composite.fail(format!("the formula fails: {error}")),
        };
        if matches!(result, Value::Nil) {
            return match fallback {
                Some(fallback) => {
                    let replicas = fallback.replicas;
                    let milli = self.target.milli().saturating_mul(i64::from(replicas));
                    composite.fall_back(self, replicas, Some(milli), 0, &"the formula gives nil".into());
                }
                None => composite.fail("the formula gives nil, and there is no fallback for that".to_owned()),
            };
        }
        let result = match number(&result) {
            Ok(result) => result,
            Err(kind) => return composite.fail(format!("the formula gives {kind} instead of a number")),
        };
        if !result.is_finite() || result < 0.0 {
            composite.reasons.push(Reason::CompositeClamped { result });
        }
        let value = truncated(result) as f64 / 1000.0;
        let active = value > self.activation;
        composite.reasons.push(Reason::CompositeValue { value, active, activation: self.activation });
        let without = inputs.iter().find_map(|input| match &input.state.outcome {
            Outcome::Nil { error, .. } => Some(Arc::clone(error)),
            _ => None,
        });
        composite.outcome = match without {
            None => Outcome::Read { value, active },
            Some(error) => Outcome::Partial { value, active, error },
        };
    }
}

impl Composite {
    /// The composite metric as the state of one trigger.
    pub fn state(&self) -> TriggerState {
        TriggerState { metric: METRIC.into(), outcome: self.outcome.clone() }
    }

    fn fail(&mut self, error: String) {
        let error: Arc<str> = error.into();
        self.reasons.push(Reason::CompositeFailed { error: Arc::clone(&error) });
        self.outcome = Outcome::Failed { error };
    }

    fn fall_back(&mut self, modifiers: &Modifiers, replicas: i32, milli: Option<i64>, failures: u32, error: &Arc<str>) {
        let unshared = || modifiers.target.milli().saturating_mul(i64::from(replicas));
        let value = milli.unwrap_or_else(unshared) as f64 / 1000.0;
        let active = value > modifiers.activation;
        let activation = modifiers.activation;
        self.reasons.push(Reason::CompositeFallback { value, replicas, active, activation, error: Arc::clone(error) });
        self.outcome = Outcome::Fallback { replicas, milli, active, failures, error: Arc::clone(error) };
    }
}

/// As [`activation::decide`](crate::activation::decide), on the composite metric instead of the triggers' own activity.
pub fn decide(
    policy: &Policy,
    controls: Controls,
    composite: &Composite,
    resource_triggers: usize,
    replicas: Option<i32>,
    memory: Memory,
    now: Timestamp,
) -> Decision {
    let state = composite.fed.then(|| composite.state());
    let known = Known { triggers: state.as_slice(), reasons: composite.reasons.clone() };
    decide_on(policy, controls, known, resource_triggers, replicas, memory, now)
}

/// What is put before and after a formula so that its result is a float or nil.
///
/// The line breaks keep a comment at the formula's end from swallowing what follows.
fn wrapping(formula: &str) -> (String, String) {
    const NAME: &str = "_kedaCompositeResult";
    if formula.contains("??") {
        (format!("let {NAME} = ("), format!("\n); {NAME} == nil ? nil : float({NAME})"))
    } else if formula.starts_with("float(") {
        (String::new(), String::new())
    } else {
        ("float(".to_owned(), "\n)".to_owned())
    }
}

/// The error with its place in the formula as the user wrote it.
fn misfit(error: &CompileError, before: usize, formula: &str) -> Invalid {
    let offset = error.offset.saturating_sub(before).min(formula.len());
    Invalid::Formula { message: error.to_string(), offset }
}

/// A number, or what it is instead.
fn number(value: &Value) -> Result<f64, &'static str> {
    match value {
        Value::Int(_) | Value::Float(_) => value.as_f64().ok_or("a number"),
        Value::Nil => Err("nil"),
        Value::Bool(_) => Err("a boolean"),
        Value::String(_) => Err("a text"),
        Value::Array(_) => Err("an array"),
        Value::Map(_) => Err("a map"),
    }
}

/// A finite number as Go and Rust both read it.
fn number_in(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// A target in thousandths; `None` when nothing is left of it.
fn target_milli(target: f64) -> Option<i64> {
    Some(truncated(target)).filter(|milli| *milli > 0)
}

/// A result in thousandths, what is beyond them cut off. Not a number, infinite and negative become 0.
fn truncated(number: f64) -> i64 {
    if number.is_finite() && number > 0.0 { (number * 1000.0) as i64 } else { 0 }
}

/// The value of a trigger as the metrics API would show it; `None` is the formula's nil.
fn value_of(inputs: &[Input], name: &str) -> Option<f64> {
    match inputs.iter().rev().find(|input| input.name.as_deref() == Some(name))?.state.outcome {
        Outcome::Read { value, .. } | Outcome::Partial { value, .. } => Some(quantity::from_f64(value) as f64 / 1000.0),
        _ => None,
    }
}

fn reason_of_input(input: &Input) -> Reason {
    let metric = Arc::clone(&input.state.metric);
    match &input.state.outcome {
        Outcome::Read { value, .. } | Outcome::Partial { value, .. } => {
            Reason::TriggerValue { metric, name: input.name.clone(), value: *value }
        }
        Outcome::Nil { failures, error } => {
            Reason::TriggerNil { metric, failures: *failures, error: Arc::clone(error) }
        }
        _ => reason_of(&input.state),
    }
}
