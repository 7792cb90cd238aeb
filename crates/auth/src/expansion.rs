//! References to other variables in the value of an environment variable, as Kubernetes expands them.

/// Replaces each `$(NAME)` by what `known` gives. A name that is not known and an unclosed reference stay as they are;
/// `$$` gives `$`, so that `$$(NAME)` gives `$(NAME)`.
///
/// `None` when it becomes longer than `limit` bytes: variables that name each other twice double with each line.
pub(crate) fn expand<'a>(value: &str, limit: usize, known: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
    let mut expanded = String::with_capacity(value.len().min(limit));
    let mut rest = value;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = if let Some(escaped) = after.strip_prefix('$') {
            expanded.push('$');
            escaped
        } else if let Some((name, behind)) = after.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match known(name) {
                Some(text) => expanded.push_str(text),
                None => expanded.extend(["$(", name, ")"]),
            }
            behind
        } else {
            expanded.push('$');
            after
        };
        if expanded.len() > limit {
            return None;
        }
    }
    expanded.push_str(rest);
    (expanded.len() <= limit).then_some(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<&'static str> {
        match name {
            "HOST" => Some("rabbit"),
            "ODD" => Some("$(HOST)"),
            _ => None,
        }
    }

    #[test]
    fn references_are_replaced_once_and_unknown_ones_stay() {
        for (value, expanded) in [
            ("amqp://$(HOST):5672/$(VHOST)", "amqp://rabbit:5672/$(VHOST)"),
            ("$(HOST)$(HOST)", "rabbitrabbit"),
            ("$(ODD)", "$(HOST)"),
            ("$()", "$()"),
            ("", ""),
        ] {
            assert_eq!(expand(value, 100, known).as_deref(), Some(expanded), "{value}");
        }
    }

    #[test]
    fn two_dollars_make_one_wherever_they_stand() {
        for (value, expanded) in [
            ("$$(HOST)", "$(HOST)"),
            ("$$$(HOST)", "$rabbit"),
            ("cost: 5$$", "cost: 5$"),
            ("$", "$"),
            ("a$b", "a$b"),
            ("$(HOST", "$(HOST"),
            ("$((HOST)", "$((HOST)"),
        ] {
            assert_eq!(expand(value, 100, known).as_deref(), Some(expanded), "{value}");
        }
    }

    #[test]
    fn what_becomes_too_long_is_not_built() {
        assert_eq!(expand("$(HOST)", 6, known).as_deref(), Some("rabbit"));
        for value in ["$(HOST)", "$(HOST)$(HOST)$(HOST)", "$$$$$$$$$$$$", "abcdef"] {
            assert_eq!(expand(value, 5, known), None, "{value}");
        }
    }
}
