//! SPDX licence expressions: `OR`, `AND`, `WITH`, parentheses, and the old slash for `OR`.

use std::iter::Peekable;

/// Whether `expression` can be satisfied with the `allowed` licences alone. An exception (`WITH`) counts as a licence
/// of its own, written as in the expression.
///
/// # Errors
/// What is wrong with an expression that cannot be read, an empty one included.
pub(super) fn allowed(expression: &str, allowed: &[&str]) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let result = alternatives(&mut words, allowed)?;
    match words.next() {
        None => Ok(result),
        Some(word) => Err(format!("{word:?} is not expected there")),
    }
}

fn alternatives<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[&str]) -> Result<bool, String> {
    let mut result = conjunction(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        // Not `||`: the right side must be read in any case.
        result |= conjunction(words, allowed)?;
    }
    Ok(result)
}

fn conjunction<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[&str]) -> Result<bool, String> {
    let mut result = term(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        result &= term(words, allowed)?;
    }
    Ok(result)
}

fn term<'a>(words: &mut Peekable<impl Iterator<Item = &'a str>>, allowed: &[&str]) -> Result<bool, String> {
    match words.next() {
        None => Err("a licence is missing".into()),
        Some("(") => {
            let result = alternatives(words, allowed)?;
            words.next_if_eq(&")").map(|_| result).ok_or_else(|| "a parenthesis is not closed".into())
        }
        Some(word @ (")" | "OR" | "AND" | "WITH")) => Err(format!("a licence is missing before {word:?}")),
        Some(licence) if words.next_if_eq(&"WITH").is_some() => {
            let exception = words.next().ok_or("an exception is missing after WITH")?;
            Ok(allowed.contains(&format!("{licence} WITH {exception}").as_str()))
        }
        Some(licence) => Ok(allowed.contains(&licence)),
    }
}

#[cfg(test)]
mod tests {
    use super::allowed;

    const LIST: &[&str] = &["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"];

    #[test]
    fn expressions_are_weighed_as_spdx_says() {
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            // AND binds tighter than OR.
            ("MIT OR GPL-3.0-only AND GPL-2.0-only", true),
            ("(MIT OR GPL-3.0-only) AND GPL-2.0-only", false),
            ("ISC AND (Apache-2.0 OR LGPL-2.1-or-later)", true),
            ("Unlicense/MIT", true),
            ("Apache-2.0 / MIT", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(allowed(expression, LIST), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn broken_expressions_are_refused_with_the_reason() {
        for (expression, reason) in [
            ("", "a licence is missing"),
            ("MIT OR", "a licence is missing"),
            ("(MIT", "a parenthesis is not closed"),
            ("MIT Apache-2.0", "\"Apache-2.0\" is not expected there"),
            ("AND MIT", "a licence is missing before \"AND\""),
            ("Apache-2.0 WITH", "an exception is missing after WITH"),
        ] {
            assert_eq!(allowed(expression, LIST), Err(reason.to_owned()), "{expression}");
        }
    }
}
