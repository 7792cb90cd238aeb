//! The Rust in docs/adding-a-trigger.md is that of the trigger type it is about.

const GUIDE: &str = "../../docs/adding-a-trigger.md";
const SOURCE: &str = "src/http/metrics_api.rs";

#[test]
fn the_guide_shows_the_code_as_it_is() {
    let (guide, source) = (std::fs::read_to_string(GUIDE).unwrap(), std::fs::read_to_string(SOURCE).unwrap());
    let blocks: Vec<_> = guide.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let mut rest = source.as_str();
        for piece in pieces(block) {
            let at = rest.find(&piece).unwrap_or_else(|| panic!("{SOURCE} does not hold, in this order:\n{piece}"));
            rest = &rest[at + piece.len()..];
        }
    }
}

/// What stands between the places where the guide leaves something out.
fn pieces(block: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for line in block.lines() {
        match (line.trim(), pieces.last_mut()) {
            ("// ...", _) => pieces.push(String::new()),
            (_, Some(piece)) => *piece += &format!("{line}\n"),
            (_, None) => {}
        }
    }
    pieces
}
