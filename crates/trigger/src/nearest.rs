//! "Did you mean": the nearest of the known names.

use std::cmp::Reverse;

/// The known name that is most like `given`, when it is like it at all: at most a third of its letters differ, case
/// apart. Among equals the first one wins.
pub fn nearest<S: AsRef<str>>(given: &str, known: impl IntoIterator<Item = S>) -> Option<S> {
    let given: Vec<char> = given.to_lowercase().chars().collect();
    let limit = (given.len() / 3).max(1);
    // A name of a manifest is short; this bounds the work for one that is not.
    if given.len() > 128 {
        return None;
    }
    let near = known.into_iter().filter_map(|name| {
        let letters: Vec<char> = name.as_ref().to_lowercase().chars().collect();
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
    }

    #[test]
    fn a_name_like_none_has_no_nearest_one() {
        assert_eq!(nearest("kafka", ["cron", "rabbitmq"]), None);
        assert_eq!(nearest("x", Vec::<String>::new()), None);
    }
}
