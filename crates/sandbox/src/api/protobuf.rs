//! As much of Kubernetes' protobuf as `kubectl create` sends: its generators know no JSON.
//!
//! Messages are tables from field number to name. A field that is not in a table is passed over if it is empty, as most
//! are, and refused otherwise.

use base64::Engine;
use serde_json::{Map, Value};

use super::failure::Failure;

/// Media type of such a body.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// How such a body begins.
const MAGIC: &[u8] = b"k8s\0";

/// What a field holds.
enum Kind {
    Text,
    /// A number of which zero means absent.
    Number,
    /// A number of which zero means zero.
    Count,
    Flag,
    Message(&'static [Field]),
    /// From text to text.
    Labels,
    /// From text to bytes.
    Blobs,
    /// The server's own business.
    Ignored,
}

/// Number, name, content, and whether it can come more than once.
type Field = (u64, &'static str, Kind, bool);

const fn one(number: u64, name: &'static str, kind: Kind) -> Field {
    (number, name, kind, false)
}

const fn many(number: u64, name: &'static str, kind: Kind) -> Field {
    (number, name, kind, true)
}

const METADATA: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "generateName", Kind::Text),
    one(3, "namespace", Kind::Text),
    one(8, "creationTimestamp", Kind::Ignored),
    one(11, "labels", Kind::Labels),
    one(12, "annotations", Kind::Labels),
];
const ENVELOPE: &[Field] = &[one(1, "typeMeta", Kind::Message(TYPE)), one(3, "contentEncoding", Kind::Text)];
const TYPE: &[Field] = &[one(1, "apiVersion", Kind::Text), one(2, "kind", Kind::Text)];
const NAMESPACE: &[Field] =
    &[one(1, "metadata", Kind::Message(METADATA)), one(2, "spec", Kind::Ignored), one(3, "status", Kind::Ignored)];
const SECRET: &[Field] = &[
    one(1, "metadata", Kind::Message(METADATA)),
    one(2, "data", Kind::Blobs),
    one(3, "type", Kind::Text),
    one(4, "stringData", Kind::Labels),
];
const CONFIG_MAP: &[Field] =
    &[one(1, "metadata", Kind::Message(METADATA)), one(2, "data", Kind::Labels), one(3, "binaryData", Kind::Blobs)];
const SERVICE_ACCOUNT: &[Field] = &[one(1, "metadata", Kind::Message(METADATA))];
const DEPLOYMENT: &[Field] = &[
    one(1, "metadata", Kind::Message(METADATA)),
    one(2, "spec", Kind::Message(DEPLOYMENT_SPEC)),
    one(3, "status", Kind::Ignored),
];
const DEPLOYMENT_SPEC: &[Field] = &[
    one(1, "replicas", Kind::Count),
    one(2, "selector", Kind::Message(&[one(1, "matchLabels", Kind::Labels)])),
    one(3, "template", Kind::Message(TEMPLATE)),
    one(4, "strategy", Kind::Message(&[one(1, "type", Kind::Text)])),
    one(5, "minReadySeconds", Kind::Number),
];
const TEMPLATE: &[Field] = &[
    one(1, "metadata", Kind::Message(METADATA)),
    one(
        2,
        "spec",
        Kind::Message(&[many(2, "containers", Kind::Message(CONTAINER)), one(3, "restartPolicy", Kind::Text)]),
    ),
];
const CONTAINER: &[Field] = &[
    one(1, "name", Kind::Text),
    one(2, "image", Kind::Text),
    many(3, "command", Kind::Text),
    many(4, "args", Kind::Text),
    one(5, "workingDir", Kind::Text),
    many(
        6,
        "ports",
        Kind::Message(&[
            one(1, "name", Kind::Text),
            one(3, "containerPort", Kind::Number),
            one(4, "protocol", Kind::Text),
        ]),
    ),
    many(7, "env", Kind::Message(&[one(1, "name", Kind::Text), one(2, "value", Kind::Text)])),
    one(14, "imagePullPolicy", Kind::Text),
    one(16, "stdin", Kind::Flag),
    one(18, "tty", Kind::Flag),
];
const KINDS: &[(&str, &str, &[Field])] = &[
    ("v1", "ConfigMap", CONFIG_MAP),
    ("v1", "Namespace", NAMESPACE),
    ("v1", "Secret", SECRET),
    ("v1", "ServiceAccount", SERVICE_ACCOUNT),
    ("apps/v1", "Deployment", DEPLOYMENT),
];

/// Reads a body as the JSON that it stands for.
pub(super) fn read(body: &[u8]) -> Result<Value, Failure> {
    let envelope = body.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let mut raw: &[u8] = &[];
    let mut rest = envelope;
    while let Some((number, wire)) = next(&mut rest)? {
        if let (2, Wire::Bytes(bytes)) = (number, wire) {
            raw = bytes;
        }
    }
    let head = message(envelope, ENVELOPE, &[2, 4])?;
    let text = |field: &str| head["typeMeta"][field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let table = KINDS.iter().find(|(of_version, of_kind, _)| *of_version == version && *of_kind == kind);
    let Some((_, _, table)) = table else {
        return Err(Failure::not_implemented(&format!("{kind} of {version} as protobuf; send JSON")));
    };
    let mut value = message(raw, table, &[])?;
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

fn message(bytes: &[u8], table: &[Field], passed_over: &[u64]) -> Result<Value, Failure> {
    let mut fields = Map::new();
    let mut rest = bytes;
    while let Some((number, wire)) = next(&mut rest)? {
        match table.iter().find(|(known, ..)| *known == number) {
            Some((_, _, Kind::Ignored, _)) => {}
            Some((_, name, kind, repeated)) => add(&mut fields, name, kind, *repeated, wire)?,
            None if wire.is_empty() || passed_over.contains(&number) => {}
            None => {
                let known: Vec<_> = table.iter().map(|(_, name, ..)| *name).collect();
                let what = format!("protobuf field {number} beside {}; send JSON", known.join(", "));
                return Err(Failure::not_implemented(&what));
            }
        }
    }
    Ok(Value::Object(fields))
}

fn add(
    fields: &mut Map<String, Value>,
    name: &str,
    kind: &Kind,
    repeated: bool,
    wire: Wire<'_>,
) -> Result<(), Failure> {
    if let Kind::Labels | Kind::Blobs = kind {
        let (key, value) = entry(wire.bytes()?, matches!(kind, Kind::Blobs))?;
        let map = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
        map[key] = value;
        return Ok(());
    }
    let value: Value = match kind {
        Kind::Text => wire.text()?.into(),
        Kind::Number | Kind::Count => wire.number()?.into(),
        Kind::Flag => (wire.number()? != 0).into(),
        Kind::Message(table) => message(wire.bytes()?, table, &[])?,
        Kind::Labels | Kind::Blobs | Kind::Ignored => return Ok(()),
    };
    if repeated {
        let list = fields.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(items) = list.as_array_mut() {
            items.push(value);
        }
    } else if !wire.is_empty() || matches!(kind, Kind::Count | Kind::Message(_)) {
        fields.insert(name.to_owned(), value);
    }
    Ok(())
}

/// One entry of a map.
fn entry(bytes: &[u8], blob: bool) -> Result<(&str, Value), Failure> {
    let (mut key, mut value) = ("", Value::from(""));
    let mut rest = bytes;
    while let Some((number, wire)) = next(&mut rest)? {
        match number {
            1 => key = wire.text()?,
            2 if blob => value = base64::engine::general_purpose::STANDARD.encode(wire.bytes()?).into(),
            2 => value = wire.text()?.into(),
            _ => return Err(malformed()),
        }
    }
    Ok((key, value))
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
