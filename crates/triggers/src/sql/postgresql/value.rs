//! Values as text, from the binary form in which the driver asks for them.

use std::error::Error;

use tokio_postgres::types::{FromSql, Type};

/// Decimal digits in each digit of a `numeric`, which are of base 10,000.
const NUMERIC_WIDTH: usize = 4;

/// A value as PostgreSQL would write it; empty for the types that are neither numbers nor texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub String);

impl<'a> FromSql<'a> for Text {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *ty {
            Type::INT2 => i16::from_sql(ty, raw)?.to_string(),
            Type::INT4 => i32::from_sql(ty, raw)?.to_string(),
            Type::INT8 => i64::from_sql(ty, raw)?.to_string(),
            Type::OID | Type::XID | Type::CID => u32::from_be_bytes(raw.try_into()?).to_string(),
            Type::XID8 => u64::from_be_bytes(raw.try_into()?).to_string(),
            Type::FLOAT4 => f32::from_sql(ty, raw)?.to_string(),
            Type::FLOAT8 => f64::from_sql(ty, raw)?.to_string(),
            Type::NUMERIC => numeric(raw).ok_or("a numeric that is none")?,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR | Type::UNKNOWN | Type::JSON => {
                str::from_utf8(raw)?.to_owned()
            }
            // One byte with the version comes first.
            Type::JSONB => str::from_utf8(raw.get(1..).unwrap_or_default())?.to_owned(),
            _ => String::new(),
        }))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A `numeric`: the number of digits, the power of 10,000 of the first, sign, scale, and the digits.
fn numeric(raw: &[u8]) -> Option<String> {
    let (words, []) = raw.as_chunks::<2>() else { return None };
    let words: Vec<_> = words.iter().map(|word| u16::from_be_bytes(*word)).collect();
    let [count, weight, sign, scale, digits @ ..] = &words[..] else { return None };
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => return None,
    };
    let whole = usize::try_from(i32::from(weight.cast_signed()) + 1);
    if digits.len() != usize::from(*count) || digits.iter().any(|digit| *digit > 9999) {
        return None;
    }
    // Digits that are left out are zeros, at either end.
    let zeros = whole.map_or_else(|_| usize::from(weight.wrapping_add(1).wrapping_neg()), |_| 0);
    let whole = whole.unwrap_or(0);
    let written = std::iter::repeat_n(0, zeros).chain(digits.iter().copied()).chain(std::iter::repeat(0));
    let length = whole + usize::from(*scale).div_ceil(NUMERIC_WIDTH);
    let text: String = written.take(length).map(|digit| format!("{digit:04}")).collect();
    let (whole, fraction) = text.split_at_checked(whole * NUMERIC_WIDTH)?;
    Some(format!("{sign}0{whole}.{}0", &fraction[..usize::from(*scale)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn a_numeric_is_written_exactly() {
        for (given, expected) in [
            (&[1, 0, 0, 0, 7][..], Some("00007.0")),
            (&[2, 0, 0x4000, 4, 2, 5000], Some("-00002.50000")),
            (&[1, 0xffff, 0, 2, 1000], Some("0.100")),
            (&[1, 0xfffe, 0, 6, 1200], Some("0.0000120")),
            (&[1, 2, 0, 0, 3], Some("0000300000000.0")),
            (&[0, 0, 0, 0], Some("00000.0")),
            (&[0, 0, 0xc000, 0], Some("NaN")),
            (&[0, 0, 0xf000, 0x20], Some("-Infinity")),
            (&[2, 0, 0, 0, 7], None),
            (&[1, 0, 0, 0, 10_000], None),
            (&[1, 0, 1, 0, 1], None),
            (&[1, 0], None),
        ] {
            assert_eq!(numeric(&words(given)).as_deref(), expected, "{given:?}");
        }
        assert_eq!(numeric(b"\0\0\0"), None);
    }

    #[test]
    fn numbers_and_texts_are_read_and_nothing_else() {
        for (ty, raw, expected) in [
            (Type::INT4, &7_i32.to_be_bytes()[..], "7"),
            (Type::INT8, &i64::MIN.to_be_bytes(), "-9223372036854775808"),
            (Type::FLOAT4, &0.1_f32.to_be_bytes(), "0.1"),
            (Type::FLOAT8, &f64::NEG_INFINITY.to_be_bytes(), "-inf"),
            (Type::TEXT, b"12.5", "12.5"),
            (Type::JSONB, b"\x017", "7"),
            (Type::BOOL, b"\x01", ""),
            (Type::TIMESTAMPTZ, &[0; 8], ""),
        ] {
            assert_eq!(Text::from_sql(&ty, raw).unwrap(), Text(expected.to_owned()), "{ty}");
        }
        assert!(Text::from_sql(&Type::INT4, b"\0").is_err());
        assert!(Text::from_sql(&Type::OID, b"\0").is_err());
        assert!(Text::from_sql(&Type::TEXT, b"\xff").is_err());
    }
}
