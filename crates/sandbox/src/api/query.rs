//! The parameters of a request, from its query and, for deletions, its body.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::failure::{Cause, Failure};
use super::selector::{FieldSelector, LabelSelector};

/// What to do with fields that nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The query of a request.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub watch: bool,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// `None`: not given. `0`: any state will do.
    pub resource_version: Option<u64>,
    /// Which versions will do instead of the given one.
    pub version_match: Option<VersionMatch>,
    pub timeout: Option<Duration>,
    pub bookmarks: bool,
    pub initial_events: bool,
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// The objects themselves in a table's rows, or nothing, instead of their metadata.
    pub include_object: Option<String>,
    /// Who writes; empty if the request does not say.
    pub field_manager: String,
    /// An apply takes what others own.
    pub force: bool,
    /// Options of a deletion that came in the query.
    pub deletion: Deletion,
}

impl Query {
    /// Reads a query; unknown parameters are left alone, as the API server does.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut query = Self::default();
        for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
            let value = &*value;
            match &*key {
                "watch" => query.watch = flag(value),
                "labelSelector" => query.labels = LabelSelector::parse(value)?,
                "fieldSelector" => query.fields = FieldSelector::parse(value)?,
                "resourceVersion" if !value.is_empty() => query.resource_version = Some(version(value)?),
                "resourceVersionMatch" if !value.is_empty() => query.version_match = Some(version_match(value)?),
                // As for a real server, no time at all stands for no limit.
                "timeoutSeconds" => {
                    let seconds = number(&key, value)?;
                    query.timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
                }
                // Lists are never cut here, which a client has to expect of any list.
                "limit" => drop(signed(&key, value)?),
                "allowWatchBookmarks" => query.bookmarks = flag(value),
                "sendInitialEvents" => query.initial_events = flag(value),
                "continue" if !value.is_empty() => {
                    return Err(Failure::bad_request("continue key is not valid: lists are never cut here"));
                }
                "dryRun" => query.dry_run = dry_run(value)?,
                "fieldValidation" => query.field_validation = field_validation(value)?,
                "fieldManager" => query.field_manager = manager(value)?,
                "force" => query.force = flag(value),
                "includeObject" => query.include_object = Some(value.to_owned()),
                "gracePeriodSeconds" => query.deletion.grace_period_seconds = Some(signed(&key, value)?),
                "propagationPolicy" => query.deletion.propagation_policy = Some(value.to_owned()),
                "orphanDependents" => query.deletion.orphan_dependents = Some(flag(value)),
                _ => {}
            }
        }
        query.check_version_match()?;
        Ok(query)
    }

    fn check_version_match(&self) -> Result<(), Failure> {
        let (wanted, given, initial) = (self.version_match, self.resource_version, self.initial_events);
        let detail = match (wanted, self.watch) {
            (None | Some(VersionMatch::Exact), true) if initial => {
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            }
            (Some(_), true) if !initial => {
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            }
            (Some(_), false) if given.is_none() => {
                "resourceVersionMatch is forbidden unless resourceVersion is provided"
            }
            (Some(VersionMatch::Exact), false) if given == Some(0) => {
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""
            }
            _ => return Ok(()),
        };
        Err(refused_option("ListOptions", Cause::forbidden("resourceVersionMatch", detail)))
    }
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    /// That very version, which only the latest can be.
    Exact,
    /// That one or any later.
    NotOlderThan,
}

fn version_match(value: &str) -> Result<VersionMatch, Failure> {
    match value {
        "Exact" => Ok(VersionMatch::Exact),
        "NotOlderThan" => Ok(VersionMatch::NotOlderThan),
        other => Err(unsupported_option("ListOptions", "resourceVersionMatch", other, &["Exact", "NotOlderThan"])),
    }
}

/// An option of a request that cannot be.
fn refused_option(options: &str, cause: Cause) -> Failure {
    Failure::invalid("meta.k8s.io", options, "", &[cause])
}

fn unsupported_option(options: &str, field: &str, given: &str, supported: &[&str]) -> Failure {
    let supported: Vec<_> = supported.iter().map(|text| Value::from(*text)).collect();
    refused_option(options, Cause::unsupported(field, &given.into(), &supported))
}

/// `DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Deletion {
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub preconditions: Preconditions,
    pub dry_run: Vec<String>,
}

/// What must hold for a deletion to happen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

/// What happens to the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Deletion {
    /// The options of the body where there is one, of the query otherwise; and whether it is a rehearsal.
    pub(crate) fn of(query: &Query, body: &[u8]) -> Result<(Self, bool), Failure> {
        if body.is_empty() {
            return Ok((query.deletion.clone(), query.dry_run));
        }
        let options: Self = serde_json::from_slice(body)
            .map_err(|error| Failure::bad_request(format!("the body is no DeleteOptions: {error}")))?;
        let rehearsal = query.dry_run || dry_run(options.dry_run.first().map_or("", String::as_str))?;
        Ok((options, rehearsal))
    }

    /// The wished propagation; `None` leaves it to the resource.
    pub(crate) fn propagation(&self) -> Result<Option<Propagation>, Failure> {
        match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (Some("Background"), None) => Ok(Some(Propagation::Background)),
            (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
            (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
            (None, Some(false)) => Ok(Some(Propagation::Background)),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(Failure::bad_request("orphanDependents and propagationPolicy cannot be both set"))
            }
            (Some(other), None) => {
                let supported = ["Foreground", "Background", "Orphan"];
                Err(unsupported_option("DeleteOptions", "propagationPolicy", other, &supported))
            }
        }
    }
}

pub(super) fn flag(value: &str) -> bool {
    !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F")
}

fn dry_run(value: &str) -> Result<bool, Failure> {
    match value {
        "" => Ok(false),
        "All" => Ok(true),
        other => Err(unsupported_option("CreateOptions", "dryRun", other, &["All"])),
    }
}

/// An apply by nobody.
pub(super) fn nobody_applies() -> Failure {
    refused_option("PatchOptions", Cause::required("fieldManager", "is required for apply patch"))
}

fn manager(value: &str) -> Result<String, Failure> {
    const LONGEST: usize = 128;
    if value.chars().count() > LONGEST {
        let cause = Cause::too_long("fieldManager", LONGEST);
        return Err(refused_option("CreateOptions", cause));
    }
    if value.chars().any(char::is_control) {
        let cause = Cause::invalid("fieldManager", &value.into(), "should only contain printable characters");
        return Err(refused_option("CreateOptions", cause));
    }
    Ok(value.to_owned())
}

fn field_validation(value: &str) -> Result<FieldValidation, Failure> {
    match value {
        "Ignore" => Ok(FieldValidation::Ignore),
        "Warn" | "" => Ok(FieldValidation::Warn),
        "Strict" => Ok(FieldValidation::Strict),
        other => Err(unsupported_option("CreateOptions", "fieldValidation", other, &["Ignore", "Strict", "Warn"])),
    }
}

/// A resource version. They are numbers here, which clients must not know.
pub(crate) fn version(value: &str) -> Result<u64, Failure> {
    value.parse().map_err(|_| Failure::bad_request(format!("invalid resource version {value:?}")))
}

fn number(key: &str, value: &str) -> Result<u64, Failure> {
    value.parse().map_err(|_| Failure::bad_request(format!("{key}: {value:?} is no number")))
}

pub(super) fn signed(key: &str, value: &str) -> Result<i64, Failure> {
    value.parse().map_err(|_| Failure::bad_request(format!("{key}: {value:?} is no number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_options_wins_over_the_query() {
        let query = Query::parse("gracePeriodSeconds=5&propagationPolicy=Orphan").unwrap();
        let (from_query, rehearsal) = Deletion::of(&query, b"").unwrap();
        assert_eq!((from_query.grace_period_seconds, rehearsal), (Some(5), false));
        assert_eq!(from_query.propagation().unwrap(), Some(Propagation::Orphan));
        let body = br#"{"kind":"DeleteOptions","gracePeriodSeconds":0,"dryRun":["All"],"preconditions":{"uid":"u"}}"#;
        let (from_body, rehearsal) = Deletion::of(&query, body).unwrap();
        assert_eq!((from_body.grace_period_seconds, rehearsal), (Some(0), true));
        assert_eq!(from_body.preconditions.uid.as_deref(), Some("u"));
        assert_eq!(from_body.propagation().unwrap(), None);
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for text in ["resourceVersion=x", "timeoutSeconds=-1", "continue=abc", "limit=x"] {
            assert_eq!(Query::parse(text).unwrap_err().code(), 400, "{text}");
        }
        for text in [
            "dryRun=Some",
            "fieldValidation=Never",
            "resourceVersionMatch=Exact",
            "resourceVersion=0&resourceVersionMatch=Exact",
            "resourceVersion=1&resourceVersionMatch=Any",
            "watch=1&sendInitialEvents=true",
            "watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
        ] {
            assert_eq!(Query::parse(text).unwrap_err().code(), 422, "{text}");
        }
        assert!(Query::parse("watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan").is_ok());
    }
}
