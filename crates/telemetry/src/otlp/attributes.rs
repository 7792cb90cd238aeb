//! Attributes, times and limits, as all signals have them.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::settings::Signal;
use super::variables::Reader;

/// An attribute, or a part of one.
pub(crate) fn attribute(key: &str, value: impl Into<Told>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

/// A value of any type that attributes have.
pub(crate) fn any(value: impl Into<Told>) -> AnyValue {
    AnyValue { value: Some(value.into().0) }
}

/// The value of an attribute.
pub(crate) struct Told(Value);

impl From<String> for Told {
    fn from(text: String) -> Self {
        Self(Value::StringValue(text))
    }
}

impl From<&str> for Told {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<bool> for Told {
    fn from(is: bool) -> Self {
        Self(Value::BoolValue(is))
    }
}

impl From<i64> for Told {
    fn from(number: i64) -> Self {
        Self(Value::IntValue(number))
    }
}

impl From<f64> for Told {
    fn from(number: f64) -> Self {
        Self(Value::DoubleValue(number))
    }
}

impl<T: Into<Self>> From<Vec<T>> for Told {
    fn from(values: Vec<T>) -> Self {
        Self(Value::ArrayValue(ArrayValue { values: values.into_iter().map(any).collect() }))
    }
}

/// Nanoseconds since 1970; 0 for earlier times.
pub(crate) fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// How much one span or log record may hold; what is more is left out and counted in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attributes.
    pub attributes: usize,
    /// Characters of a text in an attribute; none where nothing limits them.
    pub characters: Option<usize>,
    /// Events of a span.
    pub events: usize,
    /// Links of a span.
    pub links: usize,
    /// Attributes of one event.
    pub event_attributes: usize,
    /// Attributes of one link.
    pub link_attributes: usize,
}

impl Limits {
    /// The limits that the variables set.
    pub(crate) fn read(reader: &mut Reader<'_>, signal: Signal) -> Self {
        let what = if signal == Signal::Logs { "LOGRECORD" } else { "SPAN" };
        let mut limit = |names: &[&str]| reader.limit(names, Some(128)).unwrap_or(usize::MAX);
        let attributes = limit(&[&format!("OTEL_{what}_ATTRIBUTE_COUNT_LIMIT"), "OTEL_ATTRIBUTE_COUNT_LIMIT"]);
        let (events, links) = (limit(&["OTEL_SPAN_EVENT_COUNT_LIMIT"]), limit(&["OTEL_SPAN_LINK_COUNT_LIMIT"]));
        let event_attributes = limit(&["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"]);
        let link_attributes = limit(&["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"]);
        let own = format!("OTEL_{what}_ATTRIBUTE_VALUE_LENGTH_LIMIT");
        let characters = reader.limit(&[&own, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"], None);
        Self { attributes, characters, events, links, event_attributes, link_attributes }
    }

    /// Leaves out what is too much of a span.
    pub(crate) fn cut(&self, span: &mut Span) {
        span.dropped_attributes_count += self.cut_attributes(&mut span.attributes, self.attributes);
        span.dropped_events_count += shorten(&mut span.events, self.events);
        span.dropped_links_count += shorten(&mut span.links, self.links);
        for event in &mut span.events {
            event.dropped_attributes_count += self.cut_attributes(&mut event.attributes, self.event_attributes);
        }
        for link in &mut span.links {
            link.dropped_attributes_count += self.cut_attributes(&mut link.attributes, self.link_attributes);
        }
    }

    /// Leaves out attributes above `most` and the ends of long ones; how many were left out.
    pub(crate) fn cut_attributes(&self, attributes: &mut Vec<KeyValue>, most: usize) -> u32 {
        let dropped = shorten(attributes, most);
        if let Some(characters) = self.characters {
            for value in attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()) {
                cut_value(value, characters);
            }
        }
        dropped
    }
}

fn shorten<T>(list: &mut Vec<T>, most: usize) -> u32 {
    let dropped = list.len().saturating_sub(most);
    list.truncate(most);
    u32::try_from(dropped).unwrap_or(u32::MAX)
}

fn cut_value(value: &mut AnyValue, characters: usize) {
    match &mut value.value {
        Some(Value::StringValue(text)) => {
            if let Some((end, _)) = text.char_indices().nth(characters) {
                text.truncate(end);
            }
        }
        Some(Value::ArrayValue(array)) => array.values.iter_mut().for_each(|value| cut_value(value, characters)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::span::Event;

    use super::*;

    #[test]
    fn what_is_too_much_is_left_out_and_counted() {
        let variables = [
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "2"),
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "1"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "3"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "many"),
        ];
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let mut reader = Reader::new(&get);
        let limits = Limits::read(&mut reader, Signal::Traces);
        assert_eq!((limits.attributes, limits.links), (2, 128));
        assert_eq!(Limits::read(&mut reader, Signal::Logs).attributes, 1);
        assert!(reader.into_warnings()[0].contains("OTEL_SPAN_LINK_COUNT_LIMIT"));
        let mut span = Span {
            attributes: vec![attribute("a", "äöüß"), attribute("b", vec!["1234"]), attribute("c", 1)],
            events: vec![Event::default(), Event::default()],
            ..Span::default()
        };
        limits.cut(&mut span);
        assert_eq!(span.attributes, [attribute("a", "äöü"), attribute("b", vec!["123"])]);
        assert_eq!((span.dropped_attributes_count, span.events.len(), span.dropped_events_count), (1, 1, 1));
    }
}
