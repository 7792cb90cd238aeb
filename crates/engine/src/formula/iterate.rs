//! The functions that evaluate a predicate for each element of an array.

use std::collections::BTreeMap;

use super::builtins::{Iteration, arrays, insert};
use super::error::EvalProblem;
use super::evaluate::{Evaluated, Evaluation, Item, at};
use super::operators::{binary, boolean, unsuitable};
use super::tree::{Expression, Operator};
use super::value::{Array, Key, Value};

impl Evaluation<'_> {
    pub(super) fn iterate(
        &mut self,
        iteration: Iteration,
        list: Value,
        rest: &[Expression],
        offset: usize,
    ) -> Evaluated {
        let Value::Array(items) = &list else {
            return Err(at(offset)(unsuitable(&list, iteration.name(), "an array")));
        };
        let body = rest.first();
        use Iteration::*;
        match iteration {
            All | NoneOf | Any | One | Count | Filter => self.select(iteration, items, body, offset),
            Find | FindIndex | FindLast | FindLastIndex => self.find(iteration, items, body, offset),
            Map => {
                let mut mapped = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    self.meter.allocate_values(1).map_err(at(offset))?;
                    mapped.push(self.predicate(body, item, index, Value::Nil)?);
                }
                self.meter.array(mapped).map_err(at(offset))
            }
            Sum => {
                let mut sum = Value::Int(0);
                for (index, item) in items.iter().enumerate() {
                    let value = self.predicate(body, item, index, Value::Nil)?;
                    if value.as_f64().is_none() {
                        return Err(at(offset)(unsuitable(&value, "sum", "numbers")));
                    }
                    sum = binary(&mut self.meter, Operator::Add, &sum, &value).map_err(at(offset))?;
                }
                Ok(sum)
            }
            GroupBy => self.group(items, body, offset),
            SortBy => {
                let mut keyed = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    self.meter.allocate_values(2).map_err(at(offset))?;
                    keyed.push((self.predicate(body, item, index, Value::Nil)?, item.clone()));
                }
                let order = rest.get(1).map(|order| self.expression(order)).transpose()?;
                arrays::sorted(&mut self.meter, "sortBy", keyed, order.as_ref()).map_err(at(offset))
            }
            Reduce => self.reduce(items, body, rest.get(1), offset),
        }
    }

    /// The predicate's value for an element; the element itself when there is no predicate.
    fn predicate(&mut self, body: Option<&Expression>, item: &Value, index: usize, accumulator: Value) -> Evaluated {
        let Some(body) = body else { return Ok(item.clone()) };
        self.items.push(Item { value: item.clone(), index, accumulator });
        let value = self.expression(body);
        self.items.pop();
        value
    }

    fn holds(
        &mut self,
        iteration: Iteration,
        body: Option<&Expression>,
        item: &Value,
        index: usize,
        offset: usize,
    ) -> Evaluated<bool> {
        self.meter.spend(1).map_err(at(offset))?;
        let value = self.predicate(body, item, index, Value::Nil)?;
        boolean(&value, iteration.name()).map_err(at(body.map_or(offset, |body| body.offset)))
    }

    fn select(&mut self, iteration: Iteration, items: &Array, body: Option<&Expression>, offset: usize) -> Evaluated {
        let mut selected = Vec::new();
        let mut count = 0;
        for (index, item) in items.iter().enumerate() {
            let holds = self.holds(iteration, body, item, index, offset)?;
            match iteration {
                Iteration::All if !holds => return Ok(Value::Bool(false)),
                Iteration::NoneOf if holds => return Ok(Value::Bool(false)),
                Iteration::Any if holds => return Ok(Value::Bool(true)),
                Iteration::Filter if holds => {
                    self.meter.allocate_values(1).map_err(at(offset))?;
                    selected.push(item.clone());
                }
                _ => count += i64::from(holds),
            }
        }
        match iteration {
            Iteration::Filter => self.meter.array(selected).map_err(at(offset)),
            Iteration::Count => Ok(Value::Int(count)),
            Iteration::One => Ok(Value::Bool(count == 1)),
            Iteration::Any => Ok(Value::Bool(false)),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn find(&mut self, iteration: Iteration, items: &Array, body: Option<&Expression>, offset: usize) -> Evaluated {
        let from_the_end = matches!(iteration, Iteration::FindLast | Iteration::FindLastIndex);
        let wants_index = matches!(iteration, Iteration::FindIndex | Iteration::FindLastIndex);
        for place in 0..items.len() {
            let index = if from_the_end { items.len() - 1 - place } else { place };
            if self.holds(iteration, body, &items[index], index, offset)? {
                return Ok(if wants_index { Value::Int(index as i64) } else { items[index].clone() });
            }
        }
        Ok(if wants_index { Value::Int(-1) } else { Value::Nil })
    }

    fn group(&mut self, items: &Array, body: Option<&Expression>, offset: usize) -> Evaluated {
        let mut groups: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let key = self.predicate(body, item, index, Value::Nil)?;
            let kind = key.type_name();
            self.meter.scan(key.extent().bytes).map_err(at(offset))?;
            self.meter.allocate_values(2).map_err(at(offset))?;
            let key = Key::new(key)
                .ok_or_else(|| EvalProblem::Type(format!("`groupBy` cannot have keys of the type {kind}")))
                .map_err(at(offset))?;
            groups.entry(key).or_default().push(item.clone());
        }
        let mut entries = BTreeMap::new();
        for (key, group) in groups {
            let group = self.meter.array(group).map_err(at(offset))?;
            insert(&mut self.meter, "groupBy", &mut entries, key.value().clone(), group).map_err(at(offset))?;
        }
        self.meter.map(entries).map_err(at(offset))
    }

    fn reduce(
        &mut self,
        items: &Array,
        body: Option<&Expression>,
        initial: Option<&Expression>,
        offset: usize,
    ) -> Evaluated {
        let (mut accumulator, skipped) = match (initial, items.first()) {
            (Some(initial), _) => (self.expression(initial)?, 0),
            (None, Some(first)) => (first.clone(), 1),
            (None, None) => {
                let message = "`reduce` of an empty array needs a third argument to start from".to_owned();
                return Err(at(offset)(EvalProblem::Argument(message)));
            }
        };
        for (index, item) in items.iter().enumerate().skip(skipped) {
            accumulator = self.predicate(body, item, index, accumulator)?;
        }
        Ok(accumulator)
    }
}
