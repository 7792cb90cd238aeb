//! The one way in which a quantity is written.

use serde_json::Value;

use super::Schema;

/// Powers of a thousand.
const DECIMAL: &[(&str, i32)] =
    &[("n", -3), ("u", -2), ("m", -1), ("", 0), ("k", 1), ("M", 2), ("G", 3), ("T", 4), ("P", 5), ("E", 6)];
/// Powers of 1024.
const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Schema {
    /// Writes all quantities in a value in their one way.
    pub(crate) fn measure(&self, value: &mut Value) {
        if self.quantity {
            let text = match &*value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            *value = canonical(&text).unwrap_or(text).into();
            return;
        }
        match value {
            Value::Object(fields) => {
                for (name, part) in fields {
                    if let Some(schema) = self.of(name) {
                        schema.measure(part);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.measure(item));
                }
            }
            _ => {}
        }
    }
}

/// The quantity without a fraction and with the largest suffix; `None` where it is none, or too large to count with.
fn canonical(text: &str) -> Option<String> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let nano = nanos(number)?;
    let sign = if negative && nano != 0 { "-" } else { "" };
    if let Some(power) = BINARY.iter().skip(1).position(|known| *known == suffix) {
        let factor = 1024_i128.checked_pow(u32::try_from(power + 1).ok()?)?;
        let scaled = nano.checked_mul(factor)?;
        // What is less than one whole cannot be written with these suffixes.
        if scaled % 1_000_000_000 != 0 {
            return Some(format!("{sign}{}", decimal(scaled)));
        }
        let (mut whole, mut power) = (scaled / 1_000_000_000, 0);
        while whole != 0 && whole % 1024 == 0 && power + 1 < BINARY.len() {
            (whole, power) = (whole / 1024, power + 1);
        }
        return Some(format!("{sign}{whole}{}", BINARY[power]));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok()?;
        let mut scaled = nano;
        for _ in 0..exponent.unsigned_abs().min(40) {
            scaled = if exponent > 0 { scaled.checked_mul(10)? } else { scaled / 10 };
        }
        let (mut whole, mut power) = (scaled, -9);
        while whole != 0 && whole % 1000 == 0 {
            (whole, power) = (whole / 1000, power + 3);
        }
        return Some(if whole == 0 {
            "0".to_owned()
        } else if power == 0 {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}e{power}")
        });
    }
    let (_, power) = DECIMAL.iter().find(|(known, _)| *known == suffix)?;
    let scaled = match power {
        0.. => nano.checked_mul(1000_i128.checked_pow(u32::try_from(*power).ok()?)?)?,
        // Less than a billionth counts as one.
        _ => {
            let divisor = 1000_i128.pow(power.unsigned_abs());
            nano / divisor + i128::from(nano % divisor != 0)
        }
    };
    Some(format!("{sign}{}", decimal(scaled)))
}

/// Billionths of a plain number.
fn nanos(number: &str) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let digits = format!("{:0<9}", fraction.get(..fraction.len().min(9))?);
    whole.checked_mul(1_000_000_000)?.checked_add(digits.parse::<i128>().ok()?)
}

fn decimal(nano: i128) -> String {
    let (mut whole, mut power) = (nano, 0);
    if whole == 0 {
        return "0".to_owned();
    }
    while whole % 1000 == 0 && power + 1 < DECIMAL.len() {
        (whole, power) = (whole / 1000, power + 1);
    }
    format!("{whole}{}", DECIMAL[power].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_has_one_way_of_writing() {
        for (given, kept) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1", "1"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Ki", "1536"),
            ("1e3", "1e3"),
            ("-250m", "-250m"),
            ("0", "0"),
            ("100M", "100M"),
            ("64Mi", "64Mi"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(kept), "{given}");
        }
        assert_eq!(canonical("many"), None);
    }
}
