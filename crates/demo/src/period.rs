//! Lengths of time as people write them.

use std::time::Duration;

use jiff::SignedDuration;

/// A length of time of at most a day, such as `90s`, `2m` or `1h 30m`.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    let period: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    if !(SignedDuration::ZERO..=SignedDuration::from_hours(24)).contains(&period) {
        return Err("from 0s to 24h".to_owned());
    }
    Duration::try_from(period).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_written_as_people_write_it() {
        assert_eq!(period("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(period("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(period("0s"), Ok(Duration::ZERO));
        assert!(period("25h").is_err() && period("90").is_err() && period("-1h").is_err());
    }
}
