//! The number in an answer.

use super::session::Answer;

/// The number of the first row, as the reference implementation's language reads one.
///
/// # Errors
/// Why there is none, as a sentence without its subject. No value is shown.
pub(super) fn of(answer: &Answer) -> Result<f64, String> {
    let row = answer.row.as_ref().ok_or("gave no row")?;
    let [value] = &row[..] else { return Err(format!("gave {} columns in place of one", row.len())) };
    let text = value.as_deref().ok_or("gave NULL")?;
    let number: f64 = text.parse().map_err(|_| "gave a value that is no number")?;
    if number.is_infinite() && text.contains(|character: char| character.is_ascii_digit()) {
        return Err("gave a number that is too large".to_owned());
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(values: &[Option<&str>]) -> Answer {
        Answer { row: Some(values.iter().map(|value| value.map(str::to_owned)).collect()) }
    }

    #[test]
    fn numbers_of_every_column_type_are_read() {
        for (text, number) in [
            ("42", 42.0),
            ("-1.5", -1.5),
            ("1e3", 1000.0),
            ("0.10", 0.1),
            ("9223372036854775807", 9223372036854775807.0),
            ("Infinity", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(of(&answer(&[Some(text)])), Ok(number), "{text}");
        }
        assert!(of(&answer(&[Some("NaN")])).unwrap().is_nan());
    }

    #[test]
    fn what_is_no_single_number_is_no_reading() {
        assert_eq!(of(&Answer::default()).unwrap_err(), "gave no row");
        assert_eq!(of(&answer(&[])).unwrap_err(), "gave 0 columns in place of one");
        assert_eq!(of(&answer(&[Some("1"), Some("2")])).unwrap_err(), "gave 2 columns in place of one");
        assert_eq!(of(&answer(&[None])).unwrap_err(), "gave NULL");
        for text in ["t", "", "hunter2", "2024-01-01 00:00:00", "5 "] {
            assert_eq!(of(&answer(&[Some(text)])).unwrap_err(), "gave a value that is no number", "{text}");
        }
        assert_eq!(of(&answer(&[Some("1e400")])).unwrap_err(), "gave a number that is too large");
    }
}
