//! Errors as the API server writes them: `Status` objects.

use std::borrow::Cow;

use http::StatusCode;
use serde_json::{Value, json};

/// A refused request.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: StatusCode,
    reason: Cow<'static, str>,
    message: Box<str>,
    details: Value,
}

/// Why one field is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cause {
    field: String,
    reason: &'static str,
    message: String,
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", shown(value));
        Self { field: field.into(), reason: "FieldValueInvalid", message }
    }

    /// A rule that an object or a list breaks as a whole.
    pub(crate) fn ruled(field: impl Into<String>, detail: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueInvalid", message: format!("Invalid value: {detail}") }
    }

    /// As [`Cause::invalid`], with the value as it is to be shown.
    pub(crate) fn invalid_text(field: impl Into<String>, shown: &str, detail: &str) -> Self {
        let message = format!("Invalid value: {shown}: {detail}");
        Self { field: field.into(), reason: "FieldValueInvalid", message }
    }

    /// What a real server would take and this one cannot do.
    pub(crate) fn not_implemented(field: impl Into<String>, what: &str) -> Self {
        Self::forbidden(field, &format!("not implemented by the sandbox: {what}"))
    }

    /// Field and message.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }

    /// Whether rules cannot be evaluated on a value with this fault.
    pub(crate) fn is_blocking(&self) -> bool {
        let kinds = ["NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid"];
        self.reason.strip_prefix("FieldValue").is_some_and(|kind| kinds.contains(&kind))
    }

    /// The value's type is wrong; `found` is the type that came.
    pub(crate) fn mistyped(field: impl Into<String>, found: &str, wanted: &str) -> Self {
        let field = field.into();
        let message = format!("Invalid value: \"{found}\": {field} in body must be of type {wanted}: \"{found}\"");
        Self { field, reason: "FieldValueTypeInvalid", message }
    }

    pub(crate) fn unsupported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let supported: Vec<_> = supported.iter().map(Value::to_string).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", message }
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {detail}") }
    }

    pub(crate) fn too_long(field: impl Into<String>, limit: usize) -> Self {
        let message = format!("Too long: may not be more than {limit} bytes");
        Self { field: field.into(), reason: "FieldValueTooLong", message }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self { field: field.into(), reason: "FieldValueDuplicate", message: format!("Duplicate value: {value}") }
    }
}

/// Whole objects are not worth repeating in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        other => other.to_string(),
    }
}

impl Failure {
    pub(crate) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), message: message.into().into(), details: Value::Null }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = json!({});
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details[key] = value.into();
            }
        }
        self.details = details;
        self
    }

    fn with_cause(mut self, cause: &Cause) -> Self {
        if self.details.is_null() {
            self.details = json!({});
        }
        self.details["causes"] = json!([shape(cause)]);
        self
    }

    /// No such path.
    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about("", "", "")
    }

    /// No such object.
    pub(crate) fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, plural));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(group, plural, name)
    }

    pub(crate) fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, plural));
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(group, plural, name)
    }

    pub(crate) fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, plural));
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(group, plural, name)
    }

    /// The writer has read an older state.
    pub(crate) fn stale(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let mut lines: Vec<_> = causes.iter().map(Cause::text).collect();
        let text = if lines.len() == 1 { lines.remove(0) } else { format!("[{}]", lines.join(", ")) };
        let message = format!("{} {name:?} is invalid: {text}", qualified(group, kind));
        let mut failure = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(group, kind, name);
        failure.details["causes"] = causes.iter().map(shape).collect();
        failure
    }

    /// Fields of an applied object that others own.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let message = match conflicts {
            [(manager, path)] => format!("Apply failed with 1 conflict: conflict with {manager}: {path}"),
            _ => {
                let mut managers: Vec<_> = conflicts.iter().map(|(manager, _)| manager).collect();
                managers.sort();
                managers.dedup();
                let mut lines = Vec::new();
                for manager in managers {
                    lines.push(format!("conflicts with {manager}:"));
                    let theirs = conflicts.iter().filter(|(one, _)| one == manager);
                    lines.extend(theirs.map(|(_, path)| format!("- {path}")));
                }
                format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
            }
        };
        let mut failure = Self::new(StatusCode::CONFLICT, "Conflict", message);
        let cause = |(manager, path): &(String, String)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path});
        failure.details = json!({"causes": conflicts.iter().map(cause).collect::<Vec<_>>()});
        failure
    }

    /// What a real server fails at without a reason.
    pub(crate) fn unexplained(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// What an admission webhook says no to; `code` is its own, 400 to 599, or 403.
    pub(crate) fn denied(webhook: &str, code: Option<u16>, reason: &str, message: &str) -> Self {
        let message = match (message, reason) {
            ("", "") => format!("admission webhook {webhook:?} denied the request without explanation"),
            ("", reason) => format!("admission webhook {webhook:?} denied the request: {reason}"),
            (message, _) => format!("admission webhook {webhook:?} denied the request: {message}"),
        };
        let code = code.filter(|code| (400..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
        let mut failure = Self::new(code.unwrap_or(StatusCode::FORBIDDEN), "", message);
        failure.reason = reason.to_owned().into();
        failure
    }

    /// A patch that does not fit the object; a real server does not say why.
    pub(crate) fn rejected() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// What a real server gives up on, though the request is to blame.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// The namespace is on its way out.
    pub(crate) fn terminating(group: &str, plural: &str, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let message = format!("{} {name:?} is forbidden: {why}", qualified(group, plural));
        let cause = Cause {
            field: "metadata.namespace".to_owned(),
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(group, plural, name).with_cause(&cause)
    }

    /// A thing that a real API server does and this one does not.
    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", format!("not implemented by the sandbox: {what}"))
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).about("", "", "")
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// The history does not reach back to a revision.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(StatusCode::GONE, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// A revision that has not happened.
    pub(crate) fn too_large_version(asked: u64, latest: u64) -> Self {
        let cause = Cause {
            field: String::new(),
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
        };
        let message = format!("Timeout: Too large resource version: {asked}, current: {latest}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with_cause(&cause)
    }

    pub(crate) fn too_large_body(limit: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// The HTTP status.
    pub(crate) fn code(&self) -> StatusCode {
        self.code
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = (*self.reason).into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status["code"] = self.code.as_u16().into();
        status
    }
}

fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn shape(cause: &Cause) -> Value {
    let mut value = json!({"reason": cause.reason, "message": cause.message});
    if !cause.field.is_empty() {
        value["field"] = cause.field.as_str().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_stands_alone_and_several_stand_in_brackets() {
        let replicas = Cause::invalid("spec.replicas", &json!(-1), "must be greater than or equal to 0");
        let selector = Cause::required("spec.selector", "");
        let one = Failure::invalid("apps", "Deployment", "x", std::slice::from_ref(&replicas)).status();
        assert_eq!(
            one["message"],
            "Deployment.apps \"x\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(one["details"]["causes"][0]["field"], "spec.replicas");
        let two = Failure::invalid("apps", "Deployment", "x", &[replicas, selector]).status();
        assert!(two["message"].as_str().unwrap().ends_with("0, spec.selector: Required value]"), "{two}");
    }

    #[test]
    fn the_core_group_leaves_no_dot_behind() {
        assert_eq!(Failure::not_found("", "pods", "x").status()["message"], "pods \"x\" not found");
        assert_eq!(Failure::not_found("apps", "deployments", "x").status()["details"]["group"], "apps");
    }
}
