//! What an evaluation has cost so far.

use super::error::EvalProblem;
use super::limits::{BYTES_PER_STEP, MAX_MEMORY, MAX_STEPS};
use super::value::{Array, Key, Map, Value};

/// The outcome of a part, without its place in the text.
pub(super) type Outcome<T = Value> = Result<T, EvalProblem>;

/// Counts work and memory. Memory is never given back: the count bounds all that an evaluation made, which is simple
/// and enough, as results are numbers.
#[derive(Debug, Default)]
pub(super) struct Meter {
    steps: usize,
    memory: usize,
}

impl Meter {
    pub(super) fn spend(&mut self, steps: usize) -> Outcome<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS { Err(EvalProblem::TooManySteps) } else { Ok(()) }
    }

    /// Work on so many bytes of strings.
    pub(super) fn scan(&mut self, bytes: usize) -> Outcome<()> {
        self.spend(bytes / BYTES_PER_STEP)
    }

    /// To be called before the memory is taken.
    pub(super) fn allocate(&mut self, bytes: usize) -> Outcome<()> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > MAX_MEMORY { Err(EvalProblem::TooMuchMemory) } else { Ok(()) }
    }

    /// Room for so many values, and the work to make them.
    pub(super) fn allocate_values(&mut self, count: usize) -> Outcome<()> {
        self.spend(count)?;
        self.allocate(count.saturating_mul(size_of::<Value>()))
    }

    /// A string, its memory not yet counted.
    pub(super) fn text(&mut self, text: impl AsRef<str>) -> Outcome {
        let text = text.as_ref();
        self.scan(text.len())?;
        self.allocate(size_of::<Value>() + text.len())?;
        Ok(Value::String(text.into()))
    }

    /// An array whose memory is counted already.
    pub(super) fn array(&mut self, values: Vec<Value>) -> Outcome {
        let deepest = values.iter().map(|value| value.extent().depth).max();
        Array::new(values).map(Value::Array).ok_or_else(|| oversized(deepest))
    }

    /// A map whose memory is counted already.
    pub(super) fn map(&mut self, values: std::collections::BTreeMap<Key, Value>) -> Outcome {
        let deepest = values.values().map(|value| value.extent().depth).max();
        Map::new(values).map(Value::Map).ok_or_else(|| oversized(deepest))
    }
}

fn oversized(deepest: Option<usize>) -> EvalProblem {
    match deepest {
        Some(depth) if depth >= super::limits::MAX_VALUE_DEPTH => EvalProblem::TooDeep,
        _ => EvalProblem::TooMuchMemory,
    }
}
