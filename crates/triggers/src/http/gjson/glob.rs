//! Patterns with `*` (any text), `?` (one character) and `\` (the next character as it is).

use super::budget::{Budget, Exhausted};

/// Whether a text matches a pattern as a whole.
pub(super) fn matches(text: &[u8], pattern: &[u8], budget: &Budget) -> Result<bool, Exhausted> {
    let (mut t, mut p) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() || p < pattern.len() {
        budget.charge(0)?;
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((t, p));
                p += 1;
                continue;
            }
            Some(b'?') if t < text.len() => Some((character(text, t), 1)),
            Some(b'\\') if p + 1 < pattern.len() => (text.get(t) == pattern.get(p + 1)).then_some((1, 2)),
            Some(byte) => (text.get(t) == Some(byte)).then_some((1, 1)),
            None => None,
        };
        match (step, star) {
            (Some((text_step, pattern_step)), _) => {
                t += text_step;
                p += pattern_step;
            }
            (None, Some((from, at))) if from < text.len() => {
                t = from + character(text, from);
                star = Some((t, at));
                p = at + 1;
            }
            (None, _) => return Ok(false),
        }
    }
    Ok(true)
}

/// Bytes of the character at a place; 1 where there is no valid one.
fn character(text: &[u8], at: usize) -> usize {
    let length = match text[at] {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    let whole = text.get(at..at + length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
    if whole { length } else { 1 }
}
