//! XML replies: the children of the root element by name, repeated names as a list, texts as they are.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};

use super::node::{MAX_DEPTH, Node};

/// An element whose end has not come yet.
#[derive(Default)]
struct Open {
    name: String,
    text: String,
    children: Vec<(String, Node)>,
}

impl Open {
    /// The element's value: its children, or its text where it has none. Text between children does not count.
    fn close(self) -> (String, Node) {
        if self.children.is_empty() {
            return (self.name, Node::Text(self.text.trim().to_owned()));
        }
        (self.name, Node::Map(grouped(self.children)))
    }
}

/// Children of the same name become a list in the place of the first of them.
fn grouped(children: Vec<(String, Node)>) -> Vec<(String, Node)> {
    let mut places = std::collections::BTreeMap::new();
    let mut groups: Vec<(String, Vec<Node>)> = Vec::new();
    for (name, node) in children {
        let place = *places.entry(name.clone()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((name, Vec::new()));
        }
        groups[place].1.push(node);
    }
    let single = |mut nodes: Vec<Node>| match nodes.pop() {
        Some(node) if nodes.is_empty() => node,
        Some(last) => {
            nodes.push(last);
            Node::List(nodes)
        }
        None => Node::Null,
    };
    groups.into_iter().map(|(name, nodes)| (name, single(nodes))).collect()
}

/// The root element's value.
///
/// # Errors
/// Where the text is no XML, or too deep.
pub fn parse(body: &[u8]) -> Result<Node, String> {
    let text = std::str::from_utf8(body).map_err(|_| "not UTF-8".to_owned())?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Open> = Vec::new();
    loop {
        let event = reader.read_event().map_err(|_| format!("byte {}", reader.error_position()))?;
        match event {
            Event::Start(start) if open.len() < MAX_DEPTH => {
                open.push(Open { name: start.local_name().as_ref().to_owned(), ..Open::default() });
            }
            Event::Start(_) => return Err(format!("more than {MAX_DEPTH} levels")),
            Event::End(_) => {
                let Some(element) = open.pop() else { return Err("an end without a start".to_owned()) };
                let (name, node) = element.close();
                match open.last_mut() {
                    Some(parent) => parent.children.push((name, node)),
                    None => return Ok(node),
                }
            }
            Event::Text(text) => push(&mut open, &text.xml10_content()),
            Event::CData(text) => push(&mut open, &text.xml10_content()),
            Event::GeneralRef(reference) => push(&mut open, &resolved(&reference)?),
            Event::Eof => return Err("the text ends too early".to_owned()),
            _ => {}
        }
    }
}

fn push(open: &mut [Open], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// A character reference or one of XML's own entities. Others are not expanded.
fn resolved(reference: &BytesRef<'_>) -> Result<String, String> {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return Ok(character.to_string());
    }
    let known = resolve_predefined_entity(&reference.xml10_content()).map(str::to_owned);
    known.ok_or_else(|| "an entity that XML does not know".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(xml: &str, path: &str) -> Result<Node, String> {
        parse(xml.as_bytes())?.find(path).cloned()
    }

    fn text(text: &str) -> Result<Node, String> {
        Ok(Node::Text(text.to_owned()))
    }

    #[test]
    fn children_of_the_root_go_by_name_and_repeated_ones_by_place() {
        let xml = "<?xml version=\"1.0\"?><!DOCTYPE r><r xmlns:n='u'><a>5</a><q><n>x</n><v> 7 </v></q><b/><q>\
                   <v>9</v></q><n:c><![CDATA[1]]>&#50;&amp;</n:c><!-- no --></r>";
        assert_eq!(value(xml, "a"), text("5"));
        assert_eq!(value(xml, "q.0.v"), text("7"));
        assert_eq!(value(xml, "q.1.v"), text("9"));
        assert_eq!(value(xml, "b"), text(""));
        assert_eq!(value(xml, "c"), text("12&"));
        assert!(value(xml, "r.a").is_err(), "the root's name is no part of the path");
    }

    #[test]
    fn broken_and_hostile_texts_are_refused() {
        for xml in ["", "<a>", "<a></b>", "<a>&lol;</a>", "text"] {
            assert!(parse(xml.as_bytes()).is_err(), "{xml}");
        }
        assert!(parse("<a>".repeat(100_000).as_bytes()).is_err());
        assert!(value("<a>5</a>", "a").is_err());
    }
}
