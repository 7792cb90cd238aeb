//! References to other variables in the value of an environment variable, as Kubernetes expands them.

/// Replaces each `$(NAME)` by what `known` gives. A name that is not known and an unclosed reference stay as they are;
/// `$$` gives `$`, so that `$$(NAME)` gives `$(NAME)`.
pub(crate) fn expand<'a>(value: &str, known: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut expanded = String::with_capacity(value.len());
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
    }
    expanded.push_str(rest);
    expanded
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
            assert_eq!(expand(value, known), expanded, "{value}");
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
            assert_eq!(expand(value, known), expanded, "{value}");
        }
    }
}
