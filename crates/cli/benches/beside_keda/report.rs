//! What was measured, and the table of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::systems::System;

/// Values by what they are of and whose they are; what was measured first stands first.
#[derive(Default)]
pub struct Results {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    unit: &'static str,
    values: BTreeMap<System, Vec<f64>>,
}

impl Results {
    /// Notes a value, of one of several rounds perhaps, and shows it.
    pub fn add(&mut self, system: System, what: &str, unit: &'static str, value: f64) {
        println!("  {what}: {} {unit}", number(value));
        let known = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.rows.push(Row { what: what.to_owned(), unit, values: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[known].values.entry(system).or_default().push(value);
    }

    /// Notes the middle and the 99th part of a hundred of some times.
    pub fn add_times(&mut self, system: System, what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
        self.add(system, &format!("{what}, p50"), "ms", at(50));
        self.add(system, &format!("{what}, p99"), "ms", at(99));
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use System::{Keda, KedaUnthrottled, Tidemark};
        writeln!(f, "| what | KEDA : Tidemark | unthrottled : Tidemark | {Keda} | {KedaUnthrottled} | {Tidemark} |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for Row { what, unit, values } in &self.rows {
            let of = |system| values.get(&system).map(|values| Spread::of(values));
            let ratio = |system| match (of(system), of(Tidemark)) {
                (Some(theirs), Some(ours)) if ours.middle > 0.0 => number(theirs.middle / ours.middle),
                _ => "–".to_owned(),
            };
            let shown = |system| of(system).map_or("–".to_owned(), |spread| format!("{spread} {unit}"));
            writeln!(
                f,
                "| {what} | {} | {} | {} | {} | {} |",
                ratio(Keda),
                ratio(KedaUnthrottled),
                shown(Keda),
                shown(KedaUnthrottled),
                shown(Tidemark),
            )?;
        }
        Ok(())
    }
}

/// The middle one of some values, and how far they lie apart.
struct Spread {
    least: f64,
    middle: f64,
    most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_unstable_by(f64::total_cmp);
        Self { least: values[0], middle: values[values.len() / 2], most: values[values.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&number(self.middle))?;
        match self.least < self.most {
            true => write!(f, " ({} to {})", number(self.least), number(self.most)),
            false => Ok(()),
        }
    }
}

/// With two or three digits that mean something.
fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}
