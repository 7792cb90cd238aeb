//! From a parameter's text to its typed value.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::{Kind, ShowSecret};
use crate::Secret;

/// A text to parse, trimmed and not empty.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub text: &'a str,
    /// Messages must not show it.
    pub hidden: bool,
    /// Separator of lists.
    pub separator: char,
}

impl<'a> Text<'a> {
    /// What a message may show of it.
    pub fn shown(&self) -> &'a str {
        if self.hidden { "***" } else { self.text }
    }

    /// A part of it, trimmed.
    pub fn part(&self, part: &'a str) -> Self {
        Self { text: part.trim(), ..*self }
    }
}

/// A type that a parameter may have.
pub trait Value: Sized {
    /// The form of the text.
    const KIND: Kind;
    /// Whether values must never be shown.
    const SECRET: bool = false;
    /// The allowed texts of a closed set; empty for others.
    const CHOICES: &'static [&'static str] = &[];

    /// Parses the text.
    ///
    /// # Errors
    /// The cause, in the words that follow "unable to set param ...: "; it shows no more than [`Text::shown`].
    fn parse(text: Text<'_>) -> Result<Self, String>;

    /// The number to hold against `min` and `max`; of a duration its seconds.
    fn number(&self) -> Option<f64> {
        None
    }

    /// The value as JSON; a duration as `{"seconds": n}`.
    fn show(&self, secret: ShowSecret) -> serde_json::Value;
}

/// A closed set of texts; derive it on an enum without fields. A variant's text is its name in camelCase, or what
/// `#[choice("text")]` says.
pub trait Choice: Copy + PartialEq + 'static {
    /// Each variant and its text, in the order of the declaration.
    const ALL: &'static [(&'static str, Self)];

    /// The variant of a text; `None` when it is none of the set.
    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == text).map(|(_, value)| *value)
    }

    /// The variant's text.
    fn text(self) -> &'static str {
        Self::ALL.iter().find(|(_, value)| *value == self).map_or("", |(text, _)| text)
    }
}

/// Parses a member of a closed set, as derived [`Value`]s do.
///
/// # Errors
/// The text is none of the set.
pub fn parse_choice<T: Choice>(text: Text<'_>) -> Result<T, String> {
    T::from_text(text.text).ok_or_else(|| {
        let names: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
        format!("\"{}\" is none of [{}]", text.shown(), names.join(" "))
    })
}

macro_rules! text_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::Text;

            fn parse(text: Text<'_>) -> Result<Self, String> {
                Ok(text.text.into())
            }

            fn show(&self, _: ShowSecret) -> serde_json::Value {
                serde_json::Value::String(self.as_ref().to_owned())
            }
        }
    )*};
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        Ok(text.text.to_owned())
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        json!(self)
    }
}

text_value!(Box<str>, Arc<str>);

impl Value for Secret {
    const KIND: Kind = Kind::Text;
    const SECRET: bool = true;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        Ok(Self::from(text.text))
    }

    fn show(&self, secret: ShowSecret) -> serde_json::Value {
        json!(secret(self))
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        match text.text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(format!("unable to parse boolean value \"{}\": must be true or false", text.shown())),
        }
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        json!(self)
    }
}

macro_rules! integer_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::Integer;

            fn parse(text: Text<'_>) -> Result<Self, String> {
                let wrong = |why| format!(
                    "unable to unmarshal to field type {}: \"{}\" {why}", stringify!($type), text.shown());
                if !is_integer(text.text) {
                    return Err(wrong("is not a whole number"));
                }
                text.text.parse().map_err(|_| wrong("is out of range"))
            }

            fn number(&self) -> Option<f64> {
                // Bounds are small; the precision of a float is enough to compare with them.
                Some(*self as f64)
            }

            fn show(&self, _: ShowSecret) -> serde_json::Value {
                json!(self)
            }
        }
    )*};
}

integer_value!(i32, i64, u16, u32, u64);

/// JSON's grammar of whole numbers: no plus sign, no leading zeros.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain && (digits == "0" || !digits.starts_with('0'))
}

/// JSON's grammar of numbers.
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_integer(whole)
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

impl Value for f64 {
    const KIND: Kind = Kind::Number;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        let wrong = |why| format!("unable to unmarshal to field type float64: \"{}\" {why}", text.shown());
        if !is_number(text.text) {
            return Err(wrong("is not a number"));
        }
        text.text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| wrong("is out of range"))
    }

    fn number(&self) -> Option<f64> {
        Some(*self)
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        json!(self)
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        let nanoseconds = go_duration(text.text)
            .or_else(|| text.text.parse::<i64>().ok().and_then(|ms| i128::from(ms).checked_mul(1_000_000)))
            .filter(|ns| i64::try_from(*ns).is_ok())
            .ok_or_else(|| {
                format!(
                    "unable to parse duration value \"{}\": must be either a duration string (e.g. '30s', '5m') or a \
                     number of milliseconds",
                    text.shown()
                )
            })?;
        let positive = u64::try_from(nanoseconds);
        positive.map(Self::from_nanos).map_err(|_| format!("duration cannot be negative: \"{}\"", text.shown()))
    }

    fn number(&self) -> Option<f64> {
        Some(self.as_secs_f64())
    }

    fn show(&self, _: ShowSecret) -> serde_json::Value {
        json!({"seconds": self.as_secs_f64()})
    }
}

/// Nanoseconds of a duration in Go's syntax (`1m30s`, `1.5h`, `300ms`); `None` for any other text.
fn go_duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum = 0i128;
    let mut any = false;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (whole, fraction) = rest[..number].split_once('.').unwrap_or((&rest[..number], ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = unit_nanoseconds(&rest[..unit])?;
        rest = &rest[unit..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(scale)?)?;
        let mut place = scale;
        for digit in fraction.bytes() {
            // A digit beyond the nanosecond adds nothing.
            place /= 10;
            sum = sum.checked_add(i128::from(digit - b'0') * place)?;
        }
        any = true;
    }
    any.then_some(sign * sum)
}

fn unit_nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

impl<T: Value> Value for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);
    const SECRET: bool = T::SECRET;
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        let parts = text.text.split(text.separator).enumerate();
        parts.map(|(i, part)| T::parse(text.part(part)).map_err(|e| format!("slice element {i}: {e}"))).collect()
    }

    fn show(&self, secret: ShowSecret) -> serde_json::Value {
        self.iter().map(|value| value.show(secret)).collect()
    }
}

impl<T: Value> Value for Box<[T]> {
    const KIND: Kind = Vec::<T>::KIND;
    const SECRET: bool = T::SECRET;
    const CHOICES: &'static [&'static str] = T::CHOICES;

    fn parse(text: Text<'_>) -> Result<Self, String> {
        Vec::parse(text).map(Vec::into_boxed_slice)
    }

    fn show(&self, secret: ShowSecret) -> serde_json::Value {
        self.iter().map(|value| value.show(secret)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: Value>(text: &str) -> Option<T> {
        T::parse(Text { text, hidden: false, separator: ',' }).ok()
    }

    #[test]
    fn booleans_are_those_of_go() {
        for text in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse::<bool>(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse::<bool>(text), Some(false), "{text}");
        }
        for text in ["yes", "on", "tRUE", "2"] {
            assert_eq!(parse::<bool>(text), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_follow_the_grammar_of_json() {
        assert_eq!(parse::<i64>("-12"), Some(-12));
        assert_eq!(parse::<i64>("0"), Some(0));
        assert_eq!(parse::<i64>("9223372036854775807"), Some(i64::MAX));
        for text in ["+1", "007", "1.0", "1e3", "0x10", "1_000", "9223372036854775808", "-", "--1"] {
            assert_eq!(parse::<i64>(text), None, "{text}");
        }
        assert_eq!(parse::<u32>("-1"), None);
        assert_eq!(parse::<i32>("2147483648"), None);
    }

    #[test]
    fn numbers_follow_the_grammar_of_json() {
        for (text, number) in [("1e3", 1000.0), ("-0.5", -0.5), ("12", 12.0), ("1.5E-1", 0.15), ("2e+2", 200.0)] {
            assert_eq!(parse::<f64>(text), Some(number), "{text}");
        }
        for text in [".5", "5.", "+1", "NaN", "Inf", "1e", "1e400", "01.5", "-", "1.e3", "0x1"] {
            assert_eq!(parse::<f64>(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_go_durations_or_milliseconds() {
        let cases = [
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("300ms", 300_000_000),
            ("2us", 2_000),
            ("2µs", 2_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0", 0),
            ("1000", 1_000_000_000),
            ("+5", 5_000_000),
            ("-0s", 0),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse::<Duration>(text), Some(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["-1", "-1s", "a", "1.5", "s", ".s", "1d", "1s2", "300000000000h", "9223372036854775807", "1..5s"] {
            assert_eq!(parse::<Duration>(text), None, "{text}");
        }
        // Just below what the sum of nanoseconds can hold.
        assert_eq!(parse::<Duration>("170141183460469231731687303715884105.9us"), None);
    }

    #[test]
    fn empty_elements_of_a_list_are_kept_and_are_no_numbers() {
        assert_eq!(parse::<Vec<String>>("a,, b "), Some(vec!["a".to_owned(), String::new(), "b".to_owned()]));
        assert_eq!(parse::<Vec<String>>("a,").map(|list| list.len()), Some(2));
        assert_eq!(parse::<Vec<i64>>("1, 2"), Some(vec![1, 2]));
        assert_eq!(parse::<Vec<i64>>("1,,2"), None);
    }

    #[test]
    fn a_hidden_text_never_appears_in_a_cause() {
        let text = Text { text: "hunter2", hidden: true, separator: ',' };
        let causes = [
            bool::parse(text).unwrap_err(),
            i64::parse(text).unwrap_err(),
            f64::parse(text).unwrap_err(),
            Duration::parse(text).unwrap_err(),
            Vec::<i64>::parse(text).unwrap_err(),
            super::super::Ranges::parse(text).unwrap_err(),
            super::super::Pairs::parse(text).unwrap_err(),
            super::super::Form::parse(Text { text: "hunter2;", ..text }).unwrap_err(),
        ];
        for cause in causes {
            assert!(!cause.contains("hunter2"), "{cause}");
        }
    }
}
