//! Which ScaledObject a request is about: its label selector says.

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

/// The ScaledObject that the query's label selector names. Only plain `key=value` terms are accepted.
pub fn object_of(query: &str) -> Result<String, BadSelector> {
    let selector = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "labelSelector")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default();
    if let Some(bad) = selector.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_./=!,()<> \t".contains(*c)) {
        return Err(BadSelector::Syntax(format!(
            "unable to parse the label selector {selector:?}: unexpected {bad:?}"
        )));
    }
    let unserved = || BadSelector::Unserved(format!("invalid selector: {selector}"));
    let mut object = None;
    for term in selector.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let (key, value) = term.split_once('=').ok_or_else(unserved)?;
        if key.ends_with('!') || value.starts_with('=') {
            return Err(unserved());
        }
        if key.trim().is_empty() || value.contains('=') {
            return Err(BadSelector::Syntax(format!("unable to parse the label selector {selector:?}: {term:?}")));
        }
        if key.trim() == OBJECT_LABEL {
            object = Some(value.trim().to_owned());
        }
    }
    let unnamed = || BadSelector::Unserved("scaledObject name is not specified".to_owned());
    object.filter(|name| !name.is_empty()).ok_or_else(unnamed)
}
