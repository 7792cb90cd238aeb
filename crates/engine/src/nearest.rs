//! "Did you mean": the nearest of the known names. All that tells a user of a wrong name asks here.

use std::cmp::Reverse;

/// The longest name, in characters, for which a nearest one is looked for. A name of a manifest is short; this bounds
/// the work for one that is not.
const LONGEST: usize = 128;

/// The known name that is most like `given`, when it is like it at all: at most a third of its letters differ (or one,
/// in a name of fewer than three), case apart. Among equals the first one wins. A name of more than 128 characters is
/// like none.
pub fn nearest<S: AsRef<str>>(given: &str, known: impl IntoIterator<Item = S>) -> Option<S> {
    let given: Vec<char> = given.to_lowercase().chars().collect();
    if given.len() > LONGEST {
        return None;
    }
    let limit = (given.len() / 3).max(1);
    let near = known.into_iter().filter_map(|name| {
        let letters: Vec<char> = name.as_ref().to_lowercase().chars().collect();
        // So many letters must be added or taken away at least.
        if letters.len().abs_diff(given.len()) > limit {
            return None;
        }
        let distance = distance(&given, &letters);
        (distance <= limit).then_some((distance, name))
    });
    near.enumerate().max_by_key(|(i, (distance, _))| (Reverse(*distance), Reverse(*i))).map(|(_, (_, name))| name)
}

/// Edits from `a` to `b`: insertions, deletions, replacements, and neighbours that changed places.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut edits = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                edits = edits.min(before[j - 1] + 1);
            }
            next.push(edits);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_whatever_its_case() {
        assert_eq!(nearest("rabbitMQ", ["cron", "rabbitmq", "metrics-api"]), Some("rabbitmq"));
        assert_eq!(nearest("vHostName", ["queueName", "vhostName"]), Some("vhostName"));
        assert_eq!(nearest("metric-api", ["cron", "metrics-api"]), Some("metrics-api"));
        assert_eq!(nearest("corn", ["cron"]), Some("cron"));
        assert_eq!(nearest("chron", ["crone", "cron"]), Some("cron"));
        assert_eq!(nearest("qeuue_depth", ["latency", "queue_depth"]), Some("queue_depth"));
        assert_eq!(nearest("mx", ["max", "min"]), Some("max"));
    }

    #[test]
    fn a_name_like_none_has_no_nearest_one() {
        assert_eq!(nearest("kafka", ["cron", "rabbitmq"]), None);
        assert_eq!(nearest("x", Vec::<String>::new()), None);
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(nearest(&long, [long.as_str()]), None);
    }
}
