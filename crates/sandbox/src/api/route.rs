//! From a URL's path to what it names.

use std::borrow::Cow;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/healthz`, `/livez`, `/readyz` and their checks.
    Health,
    /// `/version`
    Version,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(Cow<'a, str>),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources { group: Cow<'a, str>, version: Cow<'a, str> },
    /// `/openapi/v2`
    OpenApiTwo,
    /// `/openapi/v3`
    OpenApi,
    /// `/openapi/v3/api/v1`, `/openapi/v3/apis/GROUP/VERSION`
    OpenApiOf { group: Cow<'a, str>, version: Cow<'a, str> },
    /// Objects.
    Objects(Target<'a>),
    /// Nothing that exists anywhere.
    Unknown,
}

/// A collection, an object or a subresource.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Empty for the core group.
    pub group: Cow<'a, str>,
    pub version: Cow<'a, str>,
    pub namespace: Option<Cow<'a, str>>,
    pub plural: Cow<'a, str>,
    pub name: Option<Cow<'a, str>>,
    pub subresource: Option<Cow<'a, str>>,
}

impl Route<'_> {
    /// Reads a path; escapes are undone segment by segment.
    pub(crate) fn of(path: &str) -> Route<'_> {
        let parts: Vec<Cow<'_, str>> =
            path.split('/').filter(|part| !part.is_empty()).map(|part| unescaped(part)).collect();
        let words: Vec<&str> = parts.iter().map(|part| &**part).collect();
        match words[..] {
            ["healthz" | "livez" | "readyz", ..] => Route::Health,
            ["version"] => Route::Version,
            ["api"] => Route::CoreVersions,
            ["apis"] => Route::Groups,
            ["openapi", "v2"] => Route::OpenApiTwo,
            ["openapi", "v3"] => Route::OpenApi,
            ["openapi", "v3", "api", _] => Route::OpenApiOf { group: Cow::Borrowed(""), version: parts[3].clone() },
            ["openapi", "v3", "apis", _, _] => Route::OpenApiOf { group: parts[3].clone(), version: parts[4].clone() },
            ["apis", _] => Route::Group(parts[1].clone()),
            ["api", _, ..] => resources(Cow::Borrowed(""), &parts[1..]),
            ["apis", _, _, ..] => resources(parts[1].clone(), &parts[2..]),
            _ => Route::Unknown,
        }
    }
}

/// `parts` begins with the version.
fn resources<'a>(group: Cow<'a, str>, parts: &[Cow<'a, str>]) -> Route<'a> {
    let version = parts[0].clone();
    let mut rest = &parts[1..];
    if rest.is_empty() {
        return Route::Resources { group, version };
    }
    let mut namespace = None;
    // `namespaces/x/status` is the namespace's own status, `namespaces/x/pods` is what is inside.
    if rest[0] == "namespaces" && rest.len() > 2 && !matches!(&*rest[2], "status" | "finalize") {
        namespace = Some(rest[1].clone());
        rest = &rest[2..];
    }
    if rest.len() > 3 {
        return Route::Unknown;
    }
    Route::Objects(Target {
        group,
        version,
        namespace,
        plural: rest[0].clone(),
        name: rest.get(1).cloned(),
        subresource: rest.get(2).cloned(),
    })
}

fn unescaped(part: &str) -> Cow<'_, str> {
    if !part.contains('%') {
        return Cow::Borrowed(part);
    }
    percent_encoding::percent_decode_str(part).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> (String, Option<String>, String, Option<String>, Option<String>) {
        let Route::Objects(target) = Route::of(path) else { panic!("{path} names no object") };
        let owned = |part: Option<Cow<'_, str>>| part.map(Cow::into_owned);
        (
            format!("{}/{}", target.group, target.version),
            owned(target.namespace),
            target.plural.into_owned(),
            owned(target.name),
            owned(target.subresource),
        )
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place() {
        let text = |value: &str| Some(value.to_owned());
        assert_eq!(target("/api/v1/namespaces"), ("/v1".into(), None, "namespaces".into(), None, None));
        assert_eq!(target("/api/v1/namespaces/a"), ("/v1".into(), None, "namespaces".into(), text("a"), None));
        assert_eq!(
            target("/api/v1/namespaces/a/status"),
            ("/v1".into(), None, "namespaces".into(), text("a"), text("status"))
        );
        assert_eq!(target("/api/v1/namespaces/a/pods"), ("/v1".into(), text("a"), "pods".into(), None, None));
        assert_eq!(
            target("/apis/apps/v1/namespaces/a/deployments/x%2Ey/scale"),
            ("apps/v1".into(), text("a"), "deployments".into(), text("x.y"), text("scale"))
        );
    }

    #[test]
    fn a_longer_path_than_a_subresource_names_nothing() {
        assert_eq!(Route::of("/api/v1/namespaces/a/pods/x/proxy/more"), Route::Unknown);
        assert_eq!(Route::of("/metrics"), Route::Unknown);
    }
}
