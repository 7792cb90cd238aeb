//! What can be said of an expression before it is evaluated: names and fields that there are not, functions that nobody
//! has, operators on values that do not go together, and the type of the result.

use super::functions::{FUNCTIONS, MISSING, SPACED};
use super::parse::{Expr, Macro, Mistake, Node, Operator};
use super::value::unescaped;
use crate::api::schema::{Schema, Type};

/// The type of a value, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind<'a> {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Timestamp,
    Quantity,
    List(Option<&'a Schema>),
    Map(Option<&'a Schema>),
    Object(&'a Schema),
}

impl<'a> Kind<'a> {
    pub(super) fn of(schema: &'a Schema) -> Self {
        if schema.int_or_string || schema.nullable {
            return Self::Any;
        }
        match (schema.kind, schema.format.as_deref()) {
            (Some(Type::Boolean), _) => Self::Bool,
            (Some(Type::Integer), _) => Self::Int,
            (Some(Type::Number), _) => Self::Double,
            (Some(Type::String), Some("date-time")) => Self::Timestamp,
            (Some(Type::String), Some("duration")) => Self::Duration,
            (Some(Type::String), Some("byte")) => Self::Bytes,
            (Some(Type::String), _) => Self::Text,
            (Some(Type::Array), _) => Self::List(schema.items.as_deref()),
            (Some(Type::Object), _) if !schema.properties.is_empty() => Self::Object(schema),
            (Some(Type::Object), _) if schema.additional.is_some() => Self::Map(schema.additional.as_deref()),
            _ => Self::Any,
        }
    }

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Quantity => "kubernetes.Quantity",
            Self::Any | Self::List(_) | Self::Map(_) | Self::Object(_) => return None,
        })
    }

    /// Whether it can be the type.
    pub(super) fn may_be_bool(self) -> bool {
        matches!(self, Self::Any | Self::Bool)
    }

    pub(super) fn may_be_text(self) -> bool {
        matches!(self, Self::Any | Self::Text)
    }
}

/// What is known of names, and what is wrong so far.
pub(super) struct Checker<'a, 'b> {
    pub names: Vec<(&'b str, Kind<'a>)>,
    pub mistakes: Vec<Mistake>,
    /// Functions that the sandbox has not.
    pub missing: Vec<String>,
}

impl<'a, 'b> Checker<'a, 'b> {
    fn mistake(&mut self, at: usize, message: String) -> Kind<'a> {
        self.mistakes.push(Mistake { at, message });
        Kind::Any
    }

    pub(super) fn kind(&mut self, expr: &'b Expr) -> Kind<'a> {
        match &expr.node {
            Node::Null => Kind::Any,
            Node::Bool(_) => Kind::Bool,
            Node::Int(_) => Kind::Int,
            Node::Uint(_) => Kind::Uint,
            Node::Double(_) => Kind::Double,
            Node::Text(_) => Kind::Text,
            Node::Bytes(_) => Kind::Bytes,
            Node::Ident(name) => self.named(expr.at, name),
            Node::Select(of, name, optional) => {
                let of = self.kind(of);
                let kind = self.field(expr.at, of, name);
                if *optional { Kind::Any } else { kind }
            }
            Node::Has(of, name) => {
                let kind = self.kind(of);
                self.field(of.at, kind, name);
                Kind::Bool
            }
            Node::Index(of, index, optional) => {
                let (of, _) = (self.kind(of), self.kind(index));
                match of {
                    Kind::List(Some(inner)) | Kind::Map(Some(inner)) if !optional => Kind::of(inner),
                    _ => Kind::Any,
                }
            }
            Node::Call(of, name, arguments) => self.call(expr.at, of.as_deref(), name, arguments),
            Node::Not(of) => {
                self.kind(of);
                Kind::Bool
            }
            Node::Negated(of) => self.kind(of),
            Node::Binary(operator, left, right) => self.binary(expr.at, *operator, left, right),
            Node::Conditional(condition, then, otherwise) => {
                self.kind(condition);
                let (then, otherwise) = (self.kind(then), self.kind(otherwise));
                if then.name() == otherwise.name() { then } else { Kind::Any }
            }
            Node::List(items) => {
                for item in items {
                    self.kind(item);
                }
                Kind::List(None)
            }
            Node::Map(entries) => {
                for (key, value) in entries {
                    self.kind(key);
                    self.kind(value);
                }
                Kind::Map(None)
            }
            Node::Each(form, of, variables, bodies) => self.each(*form, of, variables, bodies),
            Node::OptMap(_, of, name, body) => {
                self.kind(of);
                self.names.push((name, Kind::Any));
                self.kind(body);
                self.names.pop();
                Kind::Any
            }
        }
    }

    fn named(&mut self, at: usize, name: &str) -> Kind<'a> {
        let kinds = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];
        if let Some((_, kind)) = self.names.iter().rev().find(|(known, _)| *known == name) {
            return *kind;
        }
        if kinds.contains(&name) {
            return Kind::Any;
        }
        self.mistake(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn field(&mut self, at: usize, of: Kind<'a>, name: &str) -> Kind<'a> {
        match of {
            Kind::Object(schema) => match schema.properties.get(&unescaped(name)) {
                Some(inner) => Kind::of(inner),
                None if schema.preserve || schema.embedded => Kind::Any,
                None => self.mistake(at, format!("undefined field '{name}'")),
            },
            Kind::Map(Some(inner)) => Kind::of(inner),
            Kind::Map(None) | Kind::Any => Kind::Any,
            other => {
                let kind = other.name().unwrap_or("list");
                self.mistake(at, format!("type '{kind}' does not support field selection"))
            }
        }
    }

    fn call(&mut self, at: usize, of: Option<&'b Expr>, name: &str, arguments: &'b [Expr]) -> Kind<'a> {
        for argument in arguments {
            self.kind(argument);
        }
        if let Some(Node::Ident(space)) = of.map(|of| &of.node)
            && !self.names.iter().any(|(known, _)| known == space)
        {
            let spaced = SPACED
                .iter()
                .any(|(of, function, count)| of == space && *function == name && *count == arguments.len());
            if spaced {
                return if space == "sets" { Kind::Bool } else { Kind::Any };
            }
            if MISSING.contains(&space.as_str()) || SPACED.iter().any(|(of, ..)| of == space) {
                self.missing.push(format!("{space}.{name}"));
                return Kind::Any;
            }
        }
        if let Some(of) = of {
            self.kind(of);
        }
        let known = |(function, method, least, most): &&(&str, bool, usize, usize)| {
            *function == name && *method == of.is_some() && (*least..=*most).contains(&arguments.len())
        };
        if FUNCTIONS.iter().find(known).is_some() {
            return result(name);
        }
        let elsewhere = FUNCTIONS.iter().any(|(function, method, ..)| *function == name && *method == of.is_some());
        if MISSING.contains(&name) || (elsewhere && name.starts_with("get")) {
            self.missing.push(name.to_owned());
            return Kind::Any;
        }
        self.mistake(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn binary(&mut self, at: usize, operator: Operator, left: &'b Expr, right: &'b Expr) -> Kind<'a> {
        let (left, right) = (self.kind(left), self.kind(right));
        let (Some(mine), Some(theirs)) = (left.name(), right.name()) else {
            return match operator {
                Operator::Add => match (left, right) {
                    (Kind::List(_), _) | (_, Kind::List(_)) => Kind::List(None),
                    _ => Kind::Any,
                },
                Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => Kind::Any,
                _ => Kind::Bool,
            };
        };
        let numbers = ["int", "uint", "double"];
        let quantity = matches!(left, Kind::Quantity);
        let timed = mine.starts_with("google") && theirs.starts_with("google");
        let (fits, kind) = match operator {
            Operator::Or | Operator::And => (mine == "bool" && theirs == "bool", Kind::Bool),
            Operator::Equal | Operator::NotEqual => (mine == theirs, Kind::Bool),
            Operator::In => (false, Kind::Bool),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                (mine == theirs && !quantity || numbers.contains(&mine) && numbers.contains(&theirs), Kind::Bool)
            }
            Operator::Add | Operator::Subtract if timed => (true, Kind::Any),
            Operator::Add => (mine == theirs && mine != "bool" && !quantity, left),
            Operator::Remainder => (mine == theirs && matches!(mine, "int" | "uint"), left),
            Operator::Subtract | Operator::Multiply | Operator::Divide => {
                (mine == theirs && numbers.contains(&mine), left)
            }
        };
        if !fits {
            let function = match operator {
                Operator::In => "@in".to_owned(),
                other => format!("_{}_", other.symbol()),
            };
            let message = format!("found no matching overload for '{function}' applied to '({mine}, {theirs})'");
            self.mistakes.push(Mistake { at, message });
        }
        kind
    }

    fn each(&mut self, form: Macro, of: &'b Expr, variables: &'b [String], bodies: &'b [Expr]) -> Kind<'a> {
        let of = self.kind(of);
        let depth = self.names.len();
        let item = |inner: Option<&'a Schema>| inner.map_or(Kind::Any, Kind::of);
        let kinds = match (of, variables.len()) {
            (Kind::List(inner), 1) => vec![item(inner)],
            (Kind::List(inner), _) => vec![Kind::Int, item(inner)],
            (Kind::Map(inner), _) => vec![Kind::Text, item(inner)],
            _ => vec![Kind::Any, Kind::Any],
        };
        self.names.extend(variables.iter().map(String::as_str).zip(kinds));
        for body in bodies {
            self.kind(body);
        }
        self.names.truncate(depth);
        match (form, of) {
            (Macro::Map, _) => Kind::List(None),
            (Macro::Filter, Kind::List(_)) => of,
            (Macro::Filter, _) => Kind::List(None),
            _ => Kind::Bool,
        }
    }
}

fn result<'a>(name: &str) -> Kind<'a> {
    match name {
        "size" | "int" | "indexOf" | "lastIndexOf" | "sign" | "compareTo" => Kind::Int,
        "uint" => Kind::Uint,
        "double" | "asApproximateFloat" => Kind::Double,
        "quantity" => Kind::Quantity,
        "isQuantity" | "isLessThan" | "isGreaterThan" => Kind::Bool,
        "bool" | "contains" | "startsWith" | "endsWith" | "matches" | "isSorted" | "hasValue" => Kind::Bool,
        "string" | "charAt" | "lowerAscii" | "upperAscii" | "replace" | "substring" | "trim" | "join" | "find" => {
            Kind::Text
        }
        "bytes" => Kind::Bytes,
        "duration" => Kind::Duration,
        "timestamp" => Kind::Timestamp,
        "split" | "findAll" => Kind::List(None),
        name if name.starts_with("get") => Kind::Int,
        _ => Kind::Any,
    }
}
