//! Percent-encoding of parts of a URL, as Go writes them.

/// Percent-encodes a text so that it is one segment of a path, or one value in a query.
pub fn encode_segment(text: &str) -> String {
    encode(text, "", "%20")
}

/// Encodes a text as HTML forms do: a blank becomes `+`.
pub fn encode_form(text: &str) -> String {
    encode(text, "", "+")
}

/// Encodes only what may not stand in the path of a URL; percent-encodings that are already there stay.
pub fn encode_path(path: &str) -> String {
    encode(path, "/%!$&'()*+,;=:@", "%20")
}

fn encode(text: &str, also_kept: &str, blank: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "-_.~".contains(character) || also_kept.contains(character) {
            encoded.push(character);
        } else if byte == b' ' {
            encoded.push_str(blank);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_is_a_plus_in_forms_and_percent_20_in_paths() {
        assert_eq!(encode_form("a b/c~*"), "a+b%2Fc~%2A");
        assert_eq!(encode_segment("a b/c"), "a%20b%2Fc");
        assert_eq!(encode_path("/sub path/%2f"), "/sub%20path/%2f");
    }
}
