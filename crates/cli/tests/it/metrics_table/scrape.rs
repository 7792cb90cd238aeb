//! What Prometheus gets, read as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A metric of a scrape.
#[derive(Default)]
pub struct Family {
    pub kind: String,
    pub samples: Vec<Sample>,
}

pub struct Sample {
    /// With `_bucket`, `_sum` or `_count`, where it is one of a distribution.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

pub struct Scrape(pub BTreeMap<String, Family>);

impl Scrape {
    /// Asks `/metrics` at a port of this machine.
    pub async fn of(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // Of this version, so that the body comes whole and not in chunks.
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
        Self::read(text)
    }

    fn read(text: &str) -> Self {
        let mut families = BTreeMap::<String, Family>::new();
        let mut present = String::new();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                present = name.to_owned();
                let family = Family { kind: kind.to_owned(), samples: Vec::new() };
                assert!(families.insert(present.clone(), family).is_none(), "{name} comes twice");
            } else if !line.starts_with('#') {
                let sample = sample(line);
                assert!(sample.name.starts_with(&present), "{line} stands under {present}");
                families.get_mut(&present).unwrap().samples.push(sample);
            }
        }
        Self(families)
    }

    /// The label sets of a metric.
    pub fn label_sets(&self, name: &str) -> BTreeSet<BTreeSet<&str>> {
        let samples = self.0.get(name).into_iter().flat_map(|family| &family.samples);
        samples
            .map(|sample| sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect())
            .collect()
    }

    /// The values of a metric whose labels hold these.
    pub fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let samples = self.0.get(name).into_iter().flat_map(|family| &family.samples);
        let holds =
            |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value));
        samples.filter(holds).map(|sample| sample.value).collect()
    }

    /// Whether any label of any metric has this value.
    pub fn mentions(&self, value: &str) -> bool {
        let samples = self.0.values().flat_map(|family| &family.samples);
        samples.flat_map(|sample| sample.labels.values()).any(|found| found == value)
    }

    /// The upper bounds of a distribution, without the last one.
    pub fn bounds(&self, name: &str) -> Vec<f64> {
        let samples = self.0[name].samples.iter().filter_map(|sample| sample.labels.get("le"));
        let bounds: BTreeSet<u64> = samples
            .filter_map(|bound| bound.parse::<f64>().ok())
            .filter(|bound| bound.is_finite())
            .map(|bound| (bound * 1e6).round() as u64)
            .collect();
        bounds.into_iter().map(|bound| bound as f64 / 1e6).collect()
    }
}

fn sample(line: &str) -> Sample {
    let mut labels = BTreeMap::new();
    let name_end = line.find(['{', ' ']).unwrap();
    let mut rest = &line[name_end..];
    if let Some(mut inner) = rest.strip_prefix('{') {
        while !inner.starts_with('}') {
            let (name, after) = inner.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next().unwrap() {
                    (_, '\\') => match characters.next().unwrap().1 {
                        'n' => value.push('\n'),
                        other => value.push(other),
                    },
                    (at, '"') => break at,
                    (_, other) => value.push(other),
                }
            };
            assert!(labels.insert(name.to_owned(), value).is_none(), "{line}");
            inner = after[end + 1..].trim_start_matches(',');
        }
        rest = &inner[1..];
    }
    let value = rest.trim().parse().unwrap_or_else(|_| panic!("{line}"));
    Sample { name: line[..name_end].to_owned(), labels, value }
}
