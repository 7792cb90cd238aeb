//! Quantities of the Kubernetes API, such as `5`, `12500m` or `1Gi`, and the numbers of triggers as quantities.

use std::fmt;

const NANO: i128 = 1_000_000_000;
/// The largest magnitude that the Kubernetes API keeps.
const LIMIT: i128 = i64::MAX as i128 * NANO;

/// A number with nine decimals and a magnitude of at most 2^63 - 1, as exact as the Kubernetes API keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nano: i128,
}

/// A text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a quantity; write a number such as 5, 2.5, 500m, 10k or 1Gi")]
pub struct BadQuantity(pub String);

impl Quantity {
    /// The value in thousandths, rounded away from zero; capped to what an `i64` holds.
    pub fn milli(self) -> i64 {
        let step = NANO / 1000;
        let truncated = self.nano / step;
        let milli = truncated + if self.nano % step == 0 { 0 } else { self.nano.signum() };
        i64::try_from(milli).unwrap_or(if milli < 0 { i64::MIN } else { i64::MAX })
    }

    /// As a floating-point number, to 15 significant digits or better.
    pub fn to_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }
}

/// Reads a quantity. Digits beyond the ninth decimal round away from zero; what is too large is capped.
///
/// # Errors
/// The text is not `[sign] digits[.digits] [suffix]`, where the suffix is one of `n u m k M G T P E Ki Mi Gi Ti Pi Ei`
/// or a decimal exponent such as `e3`.
pub fn parse(text: &str) -> Result<Quantity, BadQuantity> {
    parse_nano(text).map(|nano| Quantity { nano }).ok_or_else(|| BadQuantity(text.to_owned()))
}

/// A quantity's thousandths, rounded away from zero and capped; `None` when the text is not a quantity.
pub fn parse_milli(text: &str) -> Option<i64> {
    parse(text).ok().map(Quantity::milli)
}

/// A quantity as a floating-point number; `None` when the text is not a quantity.
pub fn parse_f64(text: &str) -> Option<f64> {
    parse(text).ok().map(Quantity::to_f64)
}

/// Writes thousandths as a quantity: `5`, or `12500m` where a whole number does not do.
pub fn format_milli(milli: i64) -> String {
    if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
}

/// A trigger's number in thousandths, rounded to the nearest one (a tie goes to the even one).
///
/// Not a number, infinite and negative become 0: such a reading says nothing that an HPA could use. What is too large
/// becomes `i64::MAX`.
pub fn from_f64(number: f64) -> i64 {
    if !number.is_finite() || number <= 0.0 {
        return 0;
    }
    if number >= i64::MAX as f64 / 1000.0 {
        return i64::MAX;
    }
    // The decimal text is rounded from the exact binary value; multiplying by 1000 would round before that.
    let digits: String = format!("{number:.3}").chars().filter(|c| *c != '.').collect();
    digits.parse().unwrap_or(i64::MAX)
}

/// Thousandths as a person reads them: `5`, `12.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal(pub(crate) i64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let decimals = format!("{rest:03}");
        write!(f, "{sign}{whole}.{}", decimals.trim_end_matches('0'))
    }
}

/// The value in units of 10^-9, rounded away from zero and capped.
fn parse_nano(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let split = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(split);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.contains('.') || (whole.is_empty() && decimals.is_empty()) {
        return None;
    }
    let (exponent, doublings) = scale(suffix)?;
    let digits = format!("{whole}{decimals}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // Number of digits before the decimal point when the value is written in nano units, doublings apart.
    let point = significant.len() as i64 - decimals.len() as i64 + exponent + 9;
    let nano = magnitude(significant, point, doublings).unwrap_or(LIMIT).min(LIMIT);
    Some(if negative { -nano } else { nano })
}

/// `0.significant * 10^point * 2^doublings`, rounded up; `None` when it is far beyond the limit.
fn magnitude(significant: &str, point: i64, doublings: u32) -> Option<i128> {
    // 10^28 is beyond the limit, and 10^-20 is less than one, whatever the doublings.
    if point > 28 {
        return None;
    }
    if point < -20 {
        return Some(1);
    }
    let split = usize::try_from(point).unwrap_or(0).min(significant.len());
    let (whole, rest) = significant.split_at(split);
    let zeros = u32::try_from(point - whole.len() as i64).unwrap_or(0);
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
    let whole = whole.checked_mul(10i128.checked_pow(zeros)?)?.checked_mul(1i128 << doublings)?;
    // Nineteen digits times 2^60 fit; digits after these only say that there is more.
    let leading = usize::try_from(-point.min(0)).unwrap_or(0);
    let decimals = format!("{}{rest}", "0".repeat(leading));
    let kept = &decimals[..decimals.len().min(19)];
    let more = decimals[kept.len()..].contains(|c| c != '0');
    let unit = 10i128.checked_pow(kept.len() as u32)?;
    let scaled = if kept.is_empty() { 0 } else { kept.parse::<i128>().ok()?.checked_mul(1i128 << doublings)? };
    whole.checked_add(scaled / unit + i128::from(scaled % unit != 0 || more))
}

/// A suffix as powers of ten and of two.
fn scale(suffix: &str) -> Option<(i64, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (i64::from(suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?), 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_in_all_their_spellings() {
        let cases = [
            ("5", 5000),
            ("+5", 5000),
            ("-5", -5000),
            ("2.5", 2500),
            (".5", 500),
            ("5.", 5000),
            ("0005", 5000),
            ("500m", 500),
            ("1u", 1),
            ("1n", 1),
            ("1000001n", 2),
            ("-1n", -1),
            ("10k", 10_000_000),
            ("1.5M", 1_500_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("0.1Ki", 102_400),
            ("12e3", 12_000_000),
            ("12E-3", 12),
            ("2E", 2_000_000_000_000_000_000_i64.saturating_mul(1000)),
            ("9Ei", i64::MAX),
            ("1e1000", i64::MAX),
            ("-1e1000", i64::MIN),
            ("1e-1000", 1),
            ("0e1000", 0),
            ("0.0004", 1),
            ("0.00000000000000000000000000001", 1),
            ("9007199254740993", 9_007_199_254_740_993_000),
        ];
        for (text, milli) in cases {
            assert_eq!(parse_milli(text), Some(milli), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in
            ["", ".", "+", "-", "m", "5K", "5 ", " 5", "5mm", "1e", "1e1.5", "1.2.3", "five", "0x5", "5µ", "NaN"]
        {
            assert_eq!(parse_milli(text), None, "{text:?}");
        }
        assert!(parse("five").unwrap_err().to_string().contains("\"five\""));
    }

    #[test]
    fn quantities_become_floating_point_numbers() {
        assert_eq!(parse_f64("1.1"), Some(1.1));
        assert_eq!(parse_f64("-12500m"), Some(-12.5));
        assert_eq!(parse_f64("1Ei"), Some(1_152_921_504_606_846_976.0));
    }

    #[test]
    fn a_number_of_a_trigger_keeps_three_decimals_correctly_rounded() {
        assert_eq!(from_f64(5.0), 5000);
        assert_eq!(from_f64(1.5), 1500);
        assert_eq!(from_f64(0.0004), 0);
        assert_eq!(from_f64(0.0006), 1);
        // Exact ties go to the even thousandth; 1.0005 lies just below one in binary.
        assert_eq!(from_f64(0.0625), 62);
        assert_eq!(from_f64(0.1875), 188);
        assert_eq!(from_f64(1.0005), 1000);
        assert_eq!(from_f64(9_007_199_254_740_992.0), 9_007_199_254_740_992_000);
    }

    #[test]
    fn a_number_that_is_none_becomes_zero_and_a_huge_one_is_capped() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0, -9.3e15] {
            assert_eq!(from_f64(number), 0, "{number}");
        }
        assert_eq!(from_f64(9.3e15), i64::MAX);
        assert_eq!(from_f64(f64::MAX), i64::MAX);
    }

    #[test]
    fn thousandths_are_written_so_that_they_are_read_back() {
        for milli in [0, 5000, 12_500, -12_500, -5000, 1, i64::MAX, i64::MIN] {
            assert_eq!(parse_milli(&format_milli(milli)), Some(milli), "{milli}");
        }
        assert_eq!((format_milli(5000), format_milli(12_500)), ("5".to_owned(), "12500m".to_owned()));
    }

    #[test]
    fn people_read_decimals() {
        let shown: Vec<String> = [5000, 12_500, -50, 1, 0].into_iter().map(|m| Decimal(m).to_string()).collect();
        assert_eq!(shown, ["5", "12.5", "-0.05", "0.001", "0"]);
    }
}
