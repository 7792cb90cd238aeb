//! Replies of Prometheus' query API.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemark_trigger::{ErrorKind, SourceError};

use super::excerpt;

/// What a query yields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    /// Finite or not.
    Number(f64),
    /// No element, or one without a value.
    Nothing,
}

/// What a server says on a query that it does not answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    kind: String,
    text: String,
}

impl Failure {
    /// Whether the query took the server too long.
    pub fn timed_out(&self) -> bool {
        self.kind == "timeout"
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", excerpt(&self.kind), excerpt(&self.text))
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(default)]
    status: Option<String>,
    #[serde(default, rename = "errorType")]
    error_type: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default, borrow)]
    data: Option<Data<'a>>,
}

impl Reply<'_> {
    fn failure(&mut self) -> Option<Failure> {
        let failed = self.status.as_deref() == Some("error");
        failed.then(|| Failure {
            kind: self.error_type.take().unwrap_or_else(|| "error".to_owned()),
            text: self.error.take().unwrap_or_else(|| "no reason given".to_owned()),
        })
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(default, rename = "resultType")]
    result_type: Option<String>,
    #[serde(default, borrow)]
    result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Element {
    #[serde(default)]
    value: Option<Vec<Value>>,
}

/// The failure that a body tells of, if it is such a reply.
pub(super) fn failure(body: &[u8]) -> Option<Failure> {
    serde_json::from_slice::<Reply<'_>>(body).ok()?.failure()
}

/// The sample of a successful reply.
///
/// # Errors
/// The query failed after all (refused, timed out), or the reply is not that of a query for one number (bad reply).
/// Nothing of a reply that is not understood is shown.
pub(super) fn sample(body: &[u8]) -> Result<Sample, SourceError> {
    let mut reply: Reply<'_> = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    if let Some(failure) = reply.failure() {
        let kind = if failure.timed_out() { ErrorKind::TimedOut } else { ErrorKind::Refused };
        return Err(SourceError::new(kind, format!("prometheus query api returned error. {failure}")));
    }
    if reply.data.is_none() && reply.status.as_deref() != Some("success") {
        return Err(bad("the reply is not that of Prometheus' query API: it has neither status nor data"));
    }
    let Some(data) = reply.data else { return Ok(Sample::Nothing) };
    let Some(result) = data.result else { return Ok(Sample::Nothing) };
    match data.result_type.as_deref() {
        Some("scalar") => timed(&decode::<Vec<Value>>(result)?),
        Some("string") => Err(bad("it yields a text, not a number")),
        _ => element(result),
    }
}

fn element(result: &RawValue) -> Result<Sample, SourceError> {
    let elements: Vec<&RawValue> = decode(result)?;
    let [element] = elements[..] else {
        return match elements.len() {
            0 => Ok(Sample::Nothing),
            many => Err(bad(&format!("it yields {many} elements, and must yield one; aggregate them in the query"))),
        };
    };
    match decode::<Element>(element)?.value {
        Some(value) => timed(&value),
        None => Ok(Sample::Nothing),
    }
}

/// A pair of time and value.
fn timed(pair: &[Value]) -> Result<Sample, SourceError> {
    match pair {
        [] | [_, Value::Null, ..] => Ok(Sample::Nothing),
        [_, Value::String(text), ..] => match text.parse() {
            Ok(number) => Ok(Sample::Number(number)),
            Err(_) => Err(bad("the value in the reply is not a number")),
        },
        [_] => Err(bad("the reply has a time and no value")),
        [_, _, ..] => Err(bad("the value in the reply is not a text with a number")),
    }
}

fn decode<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, SourceError> {
    serde_json::from_str(json.get()).map_err(|error| not_understood(&error))
}

fn not_understood(error: &serde_json::Error) -> SourceError {
    let what = if error.is_data() { "has another form" } else { "is not JSON" };
    bad(&format!("the reply is not that of Prometheus' query API: it {what}"))
}

fn bad(message: &str) -> SourceError {
    SourceError::new(ErrorKind::BadReply, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Result<Sample, (ErrorKind, String)> {
        sample(body.as_bytes()).map_err(|error| (error.kind, error.message))
    }

    fn success(result_type: &str, result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"{result_type}","result":{result}}}}}"#)
    }

    #[test]
    fn the_value_of_one_element_or_of_a_scalar_is_the_sample() {
        for (text, number) in [("42", 42.0), ("-0.5", -0.5), ("1e+06", 1e6), ("+Inf", f64::INFINITY)] {
            let vector = success("vector", &format!(r#"[{{"metric":{{"a":"b"}},"value":[1700000000.1,"{text}"]}}]"#));
            assert_eq!(of(&vector), Ok(Sample::Number(number)), "{text}");
            assert_eq!(of(&success("scalar", &format!(r#"[1700000000,"{text}"]"#))), Ok(Sample::Number(number)));
        }
        let nan = of(&success("vector", r#"[{"value":[1,"NaN"]}]"#));
        assert!(matches!(nan, Ok(Sample::Number(number)) if number.is_nan()), "{nan:?}");
        assert_eq!(of(r#"{"data":{"result":[{"value":[1,"3"]}]}}"#), Ok(Sample::Number(3.0)));
    }

    #[test]
    fn empty_results_are_nothing() {
        let range = success("matrix", r#"[{"values":[[1,"2"]]}]"#);
        let histogram = success("vector", r#"[{"metric":{},"histogram":[1,{"count":"1"}]}]"#);
        let empty = [success("vector", "[]"), success("vector", "null"), range, histogram];
        let elements = [r#"[{"value":[]}]"#, r#"[{"value":null}]"#, r#"[{"value":[1,null]}]"#];
        let missing = [r#"{"status":"success"}"#, r#"{"status":"success","data":{}}"#, r#"{"data":{}}"#];
        let elements = elements.map(|result| success("vector", result));
        for body in empty.iter().chain(&elements).map(String::as_str).chain(missing) {
            assert_eq!(of(body), Ok(Sample::Nothing), "{body}");
        }
    }

    #[test]
    fn what_is_not_one_number_is_a_bad_reply_that_quotes_nothing() {
        let results = [
            ("vector", r#"[{"value":[1,"2"]},{"value":[1,"3"]}]"#),
            ("vector", r#"[{"value":[1]}]"#),
            ("vector", r#"[{"value":[1,"many"]}]"#),
            ("vector", r#"[{"value":[1,2]}]"#),
            ("vector", r#"[{"value":[1,{"a":1}]}]"#),
            ("vector", r#"[{"value":"hunter2"}]"#),
            ("vector", r#"["hunter2"]"#),
            ("vector", r#""hunter2""#),
            ("vector", r#"[1,"2"]"#),
            ("string", r#"[1,"2"]"#),
            ("scalar", r#"[1]"#),
        ];
        let results = results.map(|(result_type, result)| success(result_type, result));
        let others =
            ["", "{}", "[]", "null", "\"hunter2\"", "<html>hunter2", r#"{"message":"hunter2"}"#, r#"{"data":[1"#];
        for body in results.iter().map(String::as_str).chain(others) {
            let (kind, message) = of(body).unwrap_err();
            assert_eq!(kind, ErrorKind::BadReply, "{body}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        let many = of(&success("vector", r#"[{"value":[1,"2"]},{"value":[1,"3"]}]"#)).unwrap_err().1;
        assert_eq!(many, "it yields 2 elements, and must yield one; aggregate them in the query");
    }

    #[test]
    fn an_error_that_comes_as_a_success_is_an_error() {
        let refused = of(r#"{"status":"error","errorType":"bad_data","error":"no"}"#);
        assert_eq!(refused, Err((ErrorKind::Refused, "prometheus query api returned error. bad_data: no".to_owned())));
        let late = of(r#"{"status":"error","errorType":"timeout","error":"too\nlate","data":{"result":[]}}"#);
        assert_eq!(
            late,
            Err((ErrorKind::TimedOut, "prometheus query api returned error. timeout: too late".to_owned()))
        );
    }
}
