//! Times, counts and numbers as people read them.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

/// A length of time in at most two units: `4 s`, `9 min 20 s`, `2 h`, `3 d 4 h`.
pub(crate) fn length(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (large, unit, small, small_unit) = match seconds {
        0..60 => return format!("{seconds} s"),
        60..3600 => (seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => (seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => (seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    };
    // After some minutes nobody counts seconds any more.
    if small == 0 || large >= 10 { format!("{large} {unit}") } else { format!("{large} {unit} {small} {small_unit}") }
}

/// `4 s ago`.
pub(crate) fn ago(now: Timestamp, time: Timestamp) -> String {
    match now.duration_since(time) {
        age if age < SignedDuration::from_secs(1) => "just now".to_owned(),
        age => format!("{} ago", length(age)),
    }
}

/// `in 4 s`.
pub(crate) fn ahead(now: Timestamp, time: Timestamp) -> String {
    match time.duration_since(now) {
        rest if rest < SignedDuration::from_secs(1) => "now".to_owned(),
        rest => format!("in {}", length(rest)),
    }
}

/// The time of the day in UTC, with the day where that is not the day of `now`.
pub(crate) fn clock(now: Timestamp, time: Timestamp) -> String {
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    let format = if day(now) == day(time) { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    time.strftime(format).to_string()
}

/// `1 replica`, `3 replicas`.
pub(crate) fn replicas(count: impl Into<i64>) -> String {
    counted(count.into(), "replica")
}

/// A count of something.
pub(crate) fn counted(count: i64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Once, twice, three times.
pub(crate) fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// A number with at most three decimals.
pub(crate) fn number(value: f64) -> String {
    if value.abs() < 1e15 { ((value * 1000.0).round() / 1000.0).to_string() } else { format!("{value:e}") }
}

/// Thousandths as a number.
pub(crate) fn milli(milli: i64) -> String {
    number(milli as f64 / 1000.0)
}

/// A text on one line: what comes from elsewhere must neither break the layout nor move a cursor.
pub(crate) fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The first letter in upper case.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A list as a sentence has it: `a`, `a and b`, `a, b and c`.
pub(crate) fn and<T: fmt::Display>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [one] => one.to_string(),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(ToString::to_string).collect();
            format!("{} and {last}", most.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn lengths_have_two_units_at_most() {
        let told = |seconds| length(SignedDuration::from_secs(seconds));
        assert_eq!([told(-3), told(59), told(60), told(272)], ["0 s", "59 s", "1 min", "4 min 32 s"]);
        assert_eq!([told(3599), told(3660), told(90_000), told(864_001)], ["59 min", "1 h 1 min", "1 d 1 h", "10 d"]);
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now = at("2026-01-05T08:00:00Z");
        assert_eq!(clock(now, at("2026-01-05T07:59:58.9Z")), "07:59:58");
        assert_eq!(clock(now, at("2026-01-04T23:00:00Z")), "2026-01-04 23:00:00");
        assert_eq!(
            (ago(now, now), ahead(now, at("2026-01-05T08:01:30Z"))),
            ("just now".into(), "in 1 min 30 s".into())
        );
    }

    #[test]
    fn words_fit_their_counts() {
        assert_eq!([replicas(1), replicas(0), times(1), times(7)], ["1 replica", "0 replicas", "once", "7 times"]);
        assert_eq!([and(&["a"]), and(&["a", "b", "c"])], ["a", "a, b and c"]);
        assert_eq!([number(100.0 / 3.0), milli(12_500), number(1e300)], ["33.333", "12.5", "1e300"]);
        assert_eq!(one_line("a\x1b[2Jb\n  c"), "a [2Jb c");
        assert_eq!(capital("ähre"), "Ähre");
    }
}
