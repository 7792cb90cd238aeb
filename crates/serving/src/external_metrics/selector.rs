//! Which ScaledObject a request is about: its label selector says.

mod grammar;

use grammar::{Requirement, Test};

/// The label whose value names the ScaledObject.
const OBJECT_LABEL: &str = "scaledobject.keda.sh/name";

/// What is wrong with a label selector.
#[derive(Debug, PartialEq, Eq)]
pub enum BadSelector {
    /// It is none: 400.
    Syntax(String),
    /// It is one, but not of the kind that is served: 500.
    Unserved(String),
}

/// The ScaledObject that the query's label selector names. Only plain `key=value` terms are served, and those of other
/// labels mean nothing.
pub fn object_of(query: &str) -> Result<String, BadSelector> {
    let selector = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "labelSelector")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default();
    let requirements = grammar::parse(&selector).map_err(BadSelector::Syntax)?;
    let mut object = None;
    for Requirement { key, test } in &requirements {
        match test {
            Test::Equal(value) if key == OBJECT_LABEL => object = Some(value),
            Test::Equal(_) => {}
            Test::Other(written) => return Err(BadSelector::Unserved(format!("invalid selector: [{written}]"))),
        }
    }
    let unnamed = || BadSelector::Unserved("scaledObject name is not specified".to_owned());
    object.filter(|name| !name.is_empty()).cloned().ok_or_else(unnamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(selector: &str) -> Result<String, BadSelector> {
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("labelSelector", selector).finish();
        object_of(&query)
    }

    #[test]
    fn the_label_names_the_object_among_others_and_the_last_one_holds() {
        for selector in ["NAME=orders", "NAME = orders", "x=y,NAME=orders", "NAME=orders,x=", "NAME=other,NAME=orders"]
        {
            assert_eq!(object(&selector.replace("NAME", OBJECT_LABEL)), Ok("orders".to_owned()), "{selector}");
        }
        for selector in ["", "x=y", "NAME=", "NAME=,x=y"] {
            let unnamed = BadSelector::Unserved("scaledObject name is not specified".to_owned());
            assert_eq!(object(&selector.replace("NAME", OBJECT_LABEL)), Err(unnamed), "{selector}");
        }
    }

    #[test]
    fn what_is_no_equality_is_not_served_and_what_is_no_selector_is_told_apart() {
        for (selector, told) in [
            ("NAME!=orders", "NAME!=orders"),
            ("NAME==orders", "NAME==orders"),
            ("NAME in (orders, b)", "NAME in (orders,b)"),
            ("NAME=orders,x notin (y)", "x notin (y)"),
            ("!x", "!x"),
            ("x", "x"),
            ("x>1", "x>1"),
        ] {
            let told = format!("invalid selector: [{}]", told.replace("NAME", OBJECT_LABEL));
            assert_eq!(object(&selector.replace("NAME", OBJECT_LABEL)), Err(BadSelector::Unserved(told)));
        }
        for selector in
            ["=x", "a=b=c", "a=b,", "a;b", "a b", "x>y", "(a)", "x in (", "x in a", "a//b=c", "-x=y", "x=-y"]
        {
            assert!(matches!(object(selector), Err(BadSelector::Syntax(_))), "{selector}");
        }
    }
}
