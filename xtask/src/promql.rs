//! Questions in PromQL to a Prometheus on this machine.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::services::prometheus::get;

/// Between two points, in seconds.
const STEP: f64 = 1.0;

/// A Prometheus without TLS and login at a port of the loopback interface. Calls block, for seconds at most.
#[derive(Clone, Debug)]
pub struct Prometheus {
    port: u16,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Value,
}

/// Time in Unix seconds, and value.
type Sample = (f64, String);

#[derive(Deserialize)]
struct Series {
    values: Vec<Sample>,
}

#[derive(Deserialize)]
struct Element {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Sample,
}

impl Prometheus {
    /// The one at `http://ADDRESS:PORT`.
    ///
    /// # Errors
    /// When there is no port.
    pub fn new(url: &str) -> Result<Self> {
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Ok(Self { port: port.with_context(|| format!("{url} has no port"))? })
    }

    /// The labels and present values of what a query selects; empty when that is nothing.
    ///
    /// # Errors
    /// When Prometheus does not answer, refuses the query, or answers with anything but a vector.
    pub fn instant(&self, query: &str) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
        let elements: Vec<Element> =
            serde_json::from_value(self.ask(&format!("/api/v1/query?query={}", encoded(query)))?)?;
        elements.into_iter().map(|element| Ok((element.metric, element.value.1.parse()?))).collect()
    }

    /// Its present time in Unix seconds.
    pub(crate) fn now(&self) -> Result<f64> {
        let (_, value): Sample = serde_json::from_value(self.ask("/api/v1/query?query=time()")?)?;
        Ok(value.parse()?)
    }

    /// The values of a query since `start`, `length` seconds long: seconds since then, and value.
    ///
    /// # Errors
    /// When there is not just one series: what is drawn would not be what is meant.
    pub(crate) fn range(&self, query: &str, start: f64, length: f64) -> Result<Vec<(f64, f64)>> {
        let path =
            format!("/api/v1/query_range?query={}&start={start}&end={}&step={STEP}", encoded(query), start + length);
        let series: Vec<Series> = serde_json::from_value(self.ask(&path)?)?;
        let [series] = &series[..] else { bail!("{} series instead of one: {query}", series.len()) };
        series.values.iter().map(|(time, value)| Ok((time - start, value.parse()?))).collect()
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = get(self.port, path)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("Prometheus answers without a body")?;
        ensure!(head.starts_with("HTTP/1.0 200"), "Prometheus answers {path}: {body}");
        let answer: Answer = serde_json::from_str(body).context("Prometheus' answer is not understood")?;
        Ok(answer.data.result)
    }
}

/// A text as a part of a URL's query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_query_survives_the_url() {
        assert_eq!(super::encoded(r#"sum({a="b c"}[1m])"#), "sum%28%7Ba%3D%22b%20c%22%7D%5B1m%5D%29");
    }
}
