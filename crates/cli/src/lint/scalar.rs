//! Places within a text of a manifest.

use tidemark_engine::formula::line_and_column;

use super::document::Spot;

/// The place in a file of a byte of a scalar, which starts at a spot of it. `None` where the file has the text up to there
/// in another spelling: folded, or with escapes.
pub fn within(file: &str, start: Spot, value: &str, offset: usize) -> Option<Spot> {
    let first_line = usize::try_from(start.line - 1).ok()?;
    let first = file.lines().nth(first_line)?;
    let raw = first.char_indices().nth(usize::try_from(start.column - 1).ok()?).map_or("", |(at, _)| &first[at..]);
    // A block may be known by its indicator or by its first line.
    let behind = usize::from(raw.starts_with(['|', '>']));
    if let Some(spot) = in_block(file, first_line + behind, value, offset) {
        return Some(spot);
    }
    let quoted = raw.starts_with(['"', '\'']);
    let written = if quoted { &raw[1..] } else { raw };
    let before = value.get(..offset)?;
    let column = start.column + u64::from(quoted) + before.chars().count() as u64;
    written.starts_with(before).then_some(Spot { line: start.line, column })
}

/// The same for a block whose text begins after so many lines of the file.
fn in_block(file: &str, skipped: usize, value: &str, offset: usize) -> Option<Spot> {
    let (line, column) = line_and_column(value, offset);
    let written: Vec<_> = file.lines().skip(skipped).take(value.lines().count()).collect();
    let first = written.iter().find(|line| !line.trim().is_empty())?;
    let indentation = first.len() - first.trim_start_matches(' ').len();
    let alike = value.lines().zip(&written).take(line).all(|(line, written)| match written.get(indentation..) {
        Some(written) => line == written,
        None => line.is_empty(),
    });
    let there = alike && line <= written.len();
    there.then(|| Spot { line: (skipped + line) as u64, column: (indentation + column) as u64 })
}

#[cfg(test)]
mod tests {
    use super::super::document::{Side, parse};
    use super::*;

    /// Line and column of the byte in the value of `f`.
    fn place(text: &str, offset: usize) -> Option<(u64, u64)> {
        let node = parse(text, 0).unwrap().unwrap();
        let start = node.spot(&node.path("f"), Side::Value);
        within(text, start, node.text("f").unwrap(), offset).map(|spot| (spot.line, spot.column))
    }

    #[test]
    fn a_byte_of_a_text_is_found_in_every_plain_spelling() {
        assert_eq!(place("a: 1\nf: one + tow\n", 6), Some((2, 10)));
        assert_eq!(place("f: 'one + tow'\n", 6), Some((1, 11)));
        assert_eq!(place("{f: \"é + tow\", g: 1}\n", 5), Some((1, 10)));
        assert_eq!(place("f: one +\n", 5), Some((1, 9)), "the end");
    }

    #[test]
    fn a_byte_of_a_literal_block_is_found_in_its_line() {
        assert_eq!(place("a: 1\nf: |\n    one +\n      tow\ng: 1\n", 8), Some((4, 7)));
        assert_eq!(place("f: |-\n  one + tow\n", 6), Some((2, 9)));
    }

    #[test]
    fn what_is_spelled_otherwise_has_no_place_within() {
        assert_eq!(place("f: 'it''s + tow'\n", 7), None);
        assert_eq!(place("f: \"\\u006fne + tow\"\n", 6), None);
        assert_eq!(place("f: >\n  one +\n  tow\n", 6), None);
    }
}
