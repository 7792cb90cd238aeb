//! Kubernetes' protobuf, which `kubectl create` sends: its generators know no JSON.
//!
//! The description of a kind says what its fields hold, and a table which number they have. A field without a name is
//! passed over if it is empty and refused otherwise.

use std::sync::LazyLock;

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::kinds;
use super::resource::api_version;
use super::rows::ROWS;
use super::scale::SCALE;
use super::schema::{Schema, Type};

/// Media type of such a body.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// How such a body begins.
const MAGIC: &[u8] = b"k8s\0";
/// Levels of nesting that a message may have.
const DEEPEST: usize = 40;

/// The envelope's head: group, version and kind.
const TYPE: u64 = 1;
/// The envelope's message.
const RAW: u64 = 2;
/// Names of field numbers and descriptions of kinds.
static NUMBERS: LazyLock<Value> = LazyLock::new(kinds::numbers);

/// Reads a body as the JSON that it stands for.
pub(super) fn read(body: &[u8]) -> Result<Value, Failure> {
    let mut rest = body.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let (mut raw, mut version, mut kind): (&[u8], _, _) = (&[], String::new(), String::new());
    while let Some((number, wire)) = next(&mut rest)? {
        match number {
            TYPE => {
                let mut head = wire.bytes()?;
                while let Some((number, wire)) = next(&mut head)? {
                    match number {
                        1 => version = wire.text()?.to_owned(),
                        2 => kind = wire.text()?.to_owned(),
                        _ => {}
                    }
                }
            }
            RAW => raw = wire.bytes()?,
            _ => {}
        }
    }
    let row = ROWS.iter().find(|row| api_version(row.group, row.version) == version && row.kind == kind);
    let definition = match (row, version.as_str(), kind.as_str()) {
        (Some(row), ..) => row.definition,
        (None, "autoscaling/v1", "Scale") => SCALE,
        (None, _, "DeleteOptions") => "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        _ => "",
    };
    if NUMBERS[definition].is_null() {
        return Err(Failure::not_implemented(&format!("{kind} of {version} as protobuf; send JSON")));
    }
    let mut value = message(raw, definition, &kinds::schema(definition), 0)?;
    value["apiVersion"] = version.into();
    value["kind"] = kind.into();
    Ok(value)
}

fn malformed() -> Failure {
    Failure::bad_request("the body of the request is no protobuf message of Kubernetes")
}

/// A value as it stands on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn is_empty(self) -> bool {
        match self {
            Self::Number(number) => number == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    fn bytes(self) -> Result<&'a [u8], Failure> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(malformed()),
        }
    }

    fn text(self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.bytes()?).map_err(|_| malformed())
    }

    fn number(self) -> Result<i64, Failure> {
        match self {
            // Negative numbers are written as their two's complement.
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) => Err(malformed()),
        }
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Failure> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, after) = rest.split_first().ok_or_else(malformed)?;
        *rest = after;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed())
}

/// The next field's number and value; `None` at the end. Only the two wire types that Kubernetes uses.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u64, Wire<'a>)>, Failure> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    match key & 7 {
        0 => Ok(Some((key >> 3, Wire::Number(varint(rest)?)))),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| malformed())?;
            let (bytes, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
            *rest = after;
            Ok(Some((key >> 3, Wire::Bytes(bytes))))
        }
        _ => Err(malformed()),
    }
}

/// Reads a message whose fields are numbered in `definition` and described in `schema`. The two differ where the fields
/// of a message stand in JSON beside those of another.
fn message(bytes: &[u8], definition: &str, schema: &Schema, depth: usize) -> Result<Value, Failure> {
    if depth > DEEPEST {
        return Err(malformed());
    }
    let names = &NUMBERS[definition];
    let mut fields = Map::new();
    let mut rest = bytes;
    while let Some((number, wire)) = next(&mut rest)? {
        let name = names[number.to_string()].as_str();
        let Some(name) = name else {
            if wire.is_empty() {
                continue;
            }
            let what = format!("protobuf field {number} of {definition}; send JSON");
            return Err(Failure::not_implemented(&what));
        };
        if let Some(inline) = name.strip_prefix('+') {
            if let Value::Object(more) = message(wire.bytes()?, inline, schema, depth + 1)? {
                fields.extend(more);
            }
            continue;
        }
        let (name, pointer) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        let Some(part) = schema.properties.get(name) else {
            return Err(Failure::not_implemented(&format!("protobuf field {name} of {definition}; send JSON")));
        };
        add(&mut fields, name, part, wire, pointer, depth)?;
    }
    Ok(Value::Object(fields))
}

fn add(
    fields: &mut Map<String, Value>,
    name: &str,
    schema: &Schema,
    wire: Wire<'_>,
    pointer: bool,
    depth: usize,
) -> Result<(), Failure> {
    if let Some(inner) = &schema.additional {
        let (key, value) = entry(wire.bytes()?, inner, depth)?;
        let map = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
        map[key] = value;
    } else if let Some(inner) = &schema.items {
        let value = one(inner, wire, depth)?;
        let list = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let (Some(items), Some(value)) = (list.as_array_mut(), value) {
            items.push(value);
        }
    } else if pointer || !wire.is_empty() || matches!(schema.kind, Some(Type::Object)) {
        // What is no pointer is always written, and means nothing if it is empty.
        fields.extend(one(schema, wire, depth)?.map(|value| (name.to_owned(), value)));
    }
    Ok(())
}

/// One value; `None` stands for an absent one.
fn one(schema: &Schema, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, Failure> {
    if schema.quantity {
        return Ok(text_field(wire.bytes()?, 1)?.map(Value::from));
    }
    if schema.int_or_string {
        return either(wire.bytes()?).map(Some);
    }
    Ok(Some(match (schema.kind, schema.format.as_deref()) {
        (Some(Type::String), Some("date-time")) => return time(wire.bytes()?),
        (Some(Type::String), Some("byte")) => base64::engine::general_purpose::STANDARD.encode(wire.bytes()?).into(),
        (Some(Type::String), _) => wire.text()?.into(),
        (Some(Type::Integer), _) => wire.number()?.into(),
        (Some(Type::Boolean), _) => (wire.number()? != 0).into(),
        (Some(Type::Object), _) => {
            let definition = schema.definition.as_deref().unwrap_or_default();
            message(wire.bytes()?, definition, schema, depth + 1)?
        }
        // Any JSON there may be.
        (None, _) => match raw(wire.bytes()?)? {
            Some(text) => serde_json::from_str(text).map_err(|_| malformed())?,
            None => return Ok(None),
        },
        (Some(Type::Number | Type::Array), _) => {
            return Err(Failure::not_implemented("such a protobuf field; send JSON"));
        }
    }))
}

/// The text of a field of a message.
fn text_field(bytes: &[u8], wanted: u64) -> Result<Option<&str>, Failure> {
    let mut rest = bytes;
    while let Some((number, wire)) = next(&mut rest)? {
        if number == wanted {
            return wire.text().map(Some);
        }
    }
    Ok(None)
}

fn raw(bytes: &[u8]) -> Result<Option<&str>, Failure> {
    Ok(text_field(bytes, 1)?.filter(|text| !text.is_empty()))
}

/// An `IntOrString`.
fn either(bytes: &[u8]) -> Result<Value, Failure> {
    let (mut textual, mut number, mut text) = (false, 0, "");
    let mut rest = bytes;
    while let Some((field, wire)) = next(&mut rest)? {
        match field {
            1 => textual = wire.number()? == 1,
            2 => number = wire.number()?,
            3 => text = wire.text()?,
            _ => return Err(malformed()),
        }
    }
    Ok(if textual { text.into() } else { number.into() })
}

/// A `Time` or `MicroTime`; none at all is an empty message.
fn time(bytes: &[u8]) -> Result<Option<Value>, Failure> {
    let (mut seconds, mut nanos) = (None, 0);
    let mut rest = bytes;
    while let Some((field, wire)) = next(&mut rest)? {
        match field {
            1 => seconds = Some(wire.number()?),
            2 => nanos = i32::try_from(wire.number()?).map_err(|_| malformed())?,
            _ => return Err(malformed()),
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let time = Timestamp::new(seconds, nanos).map_err(|_| malformed())?;
    Ok(Some(time.to_string().into()))
}

/// One entry of a map.
fn entry<'a>(bytes: &'a [u8], schema: &Schema, depth: usize) -> Result<(&'a str, Value), Failure> {
    let (mut key, mut value) = ("", None);
    let mut rest = bytes;
    while let Some((number, wire)) = next(&mut rest)? {
        match number {
            1 => key = wire.text()?,
            2 => value = one(schema, wire, depth)?,
            _ => return Err(malformed()),
        }
    }
    Ok((key, value.unwrap_or_else(|| "".into())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend(bytes);
        out
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let head = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &head), field(2, raw), field(3, b""), field(4, b"")].concat()
    }

    #[test]
    fn a_secret_as_kubectl_creates_it_is_read() {
        let metadata =
            [field(1, b"s"), field(2, b""), field(8, b""), field(11, &[field(1, b"a"), field(2, b"b")].concat())];
        let data = [field(1, b"password"), field(2, b"x\xff")].concat();
        let raw = [field(1, &metadata.concat()), field(2, &data), field(3, b"Opaque")].concat();
        assert_eq!(
            read(&body("v1", "Secret", &raw)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"a": "b"}},
                "data": {"password": "eP8="}, "type": "Opaque",
            })
        );
    }

    #[test]
    fn what_no_table_knows_is_refused_and_never_dropped() {
        let raw = [field(1, &field(1, b"s")), field(9, b"more")].concat();
        assert_eq!(read(&body("v1", "Secret", &raw)).unwrap_err().code(), 501);
        assert_eq!(read(&body("v1", "Node", b"")).unwrap_err().code(), 501);
    }

    #[test]
    fn broken_bytes_are_refused() {
        for bytes in
            [&b""[..], b"k8s", b"k8s\0\x0a", b"k8s\0\x0a\x7f", b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(read(bytes).unwrap_err().code(), 400, "{bytes:?}");
        }
    }
}
