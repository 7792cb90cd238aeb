//! Quantities as the API server writes them.

use tidemark_engine::quantity::{format_milli, parse_milli};

/// Binary suffixes, the largest first.
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
/// Decimal suffixes, the largest first.
const DECIMAL: [(&str, u32); 6] = [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)];

/// A positive quantity with the largest suffix of its family that leaves a whole number, rounded up to thousandths: what
/// an HPA reckons with. `None` for a text that is no quantity, or one of 0 or less.
pub fn canonical(text: &str) -> Option<String> {
    let milli = parse_milli(text).filter(|milli| *milli > 0)?;
    if milli % 1000 != 0 {
        return Some(format_milli(milli));
    }
    let whole = milli / 1000;
    let written = |suffix: &str, factor: i64| (whole % factor == 0).then(|| format!("{}{suffix}", whole / factor));
    let shorter = match text.strip_suffix('i') {
        Some(_) => BINARY.into_iter().find_map(|(suffix, power)| written(suffix, 1 << power)),
        None => DECIMAL.into_iter().find_map(|(suffix, power)| written(suffix, 10_i64.pow(power))),
    };
    Some(shorter.unwrap_or_else(|| whole.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_written_as_the_api_server_writes_it() {
        for (given, expected) in [
            ("500m", "500m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("+2", "2"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("1e6", "1M"),
            ("128Mi", "128Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1.0005Ki", "1024512m"),
            ("100n", "1m"),
        ] {
            assert_eq!(canonical(given).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn what_no_hpa_could_use_is_no_quantity() {
        for given in ["", "abc", "1Mb", "0", "-5", "0Mi", "5 Mi", "1.2.3"] {
            assert_eq!(canonical(given), None, "{given}");
        }
    }
}
