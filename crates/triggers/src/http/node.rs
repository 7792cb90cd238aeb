//! Documents of YAML and XML as a tree, and the dot path into it.

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// Members in the document's order, each key once.
    Map(Vec<(String, Node)>),
}

/// The most levels of a document. Trees are built and dropped level by level.
pub const MAX_DEPTH: usize = 96;

impl Node {
    /// What a dot path leads to: each piece is a key of a mapping or a place in a list, from 0. The first value that is
    /// neither is the result, and what is left of the path does not count.
    ///
    /// # Errors
    /// A piece that is not there, or a path that ends at a mapping or list.
    pub fn find(&self, path: &str) -> Result<&Self, String> {
        if !matches!(self, Self::Map(_)) {
            return Err("cannot be followed: the reply is no mapping".to_owned());
        }
        let mut node = self;
        for piece in path.split('.') {
            let next = match node {
                Self::Map(members) => members.iter().find(|(key, _)| key == piece).map(|(_, value)| value),
                Self::List(items) => piece.parse().ok().and_then(|place: usize| items.get(place)),
                _ => return Ok(node),
            };
            node = next.ok_or_else(|| format!("leads to nothing in the reply: it has no key \"{piece}\" there"))?;
        }
        match node {
            Self::Map(_) => Err("leads to a mapping in the reply, not to a value".to_owned()),
            Self::List(_) => Err("leads to a list in the reply, not to a value".to_owned()),
            _ => Ok(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Node {
        let map = |members: &[(&str, Node)]| {
            Node::Map(members.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
        };
        let list = Node::List(vec![Node::Number(1.0), map(&[("b", Node::Text("2".to_owned()))])]);
        map(&[("a", Node::Number(5.0)), ("l", list), ("m", map(&[("0", Node::Null)]))])
    }

    #[test]
    fn pieces_are_keys_or_places() {
        let tree = tree();
        assert_eq!(tree.find("a"), Ok(&Node::Number(5.0)));
        assert_eq!(tree.find("a.b.c"), Ok(&Node::Number(5.0)), "a scalar ends the path");
        assert_eq!(tree.find("l.1.b"), Ok(&Node::Text("2".to_owned())));
        assert_eq!(tree.find("m.0"), Ok(&Node::Null));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let tree = tree();
        for (path, piece) in [("x", "x"), ("l.2", "2"), ("l.-1", "-1"), ("m..a", ""), ("", "")] {
            let error = tree.find(path).unwrap_err();
            assert!(error.ends_with(&format!("no key \"{piece}\" there")), "{path}: {error}");
        }
        assert!(tree.find("m").unwrap_err().contains("a mapping"));
        assert!(tree.find("l").unwrap_err().contains("a list"));
        assert!(Node::List(vec![]).find("0").unwrap_err().contains("no mapping"));
    }
}
