//! One declared field.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, Error, Expr, ExprLit, ExprUnary, Field, GenericArgument, Ident, Lit, LitStr, PathArguments};
use syn::{Result, Token, Type, UnOp};

/// What a field is.
pub enum Role {
    Parameter(Box<Declared>),
    Group,
    /// All of the metadata, with its docs.
    Rest(String),
}

/// The words of a parameter's attribute.
#[derive(Default)]
pub struct Declared {
    names: Vec<String>,
    sources: Vec<TokenStream>,
    from_outside: bool,
    default: Option<String>,
    pub optional: bool,
    one_of: Vec<LitStr>,
    exclusive: Vec<LitStr>,
    min: Option<f64>,
    max: Option<f64>,
    separator: Option<char>,
    unit: Option<LitStr>,
    secret: bool,
    plain: bool,
    deprecated: Option<LitStr>,
    removed: Option<LitStr>,
    docs: String,
}

/// What the attribute says of a field.
pub fn role(field: &Field) -> Result<Role> {
    let Some(attribute) = field.attrs.iter().find(|attribute| attribute.path().is_ident("param")) else {
        return Err(Error::new_spanned(field, "every field needs #[param(..)]"));
    };
    let mut declared = Declared { docs: docs(&field.attrs), ..Declared::default() };
    let (mut group, mut rest, mut alias) = (false, false, Vec::new());
    attribute.parse_nested_meta(|meta| {
        if meta.path.is_ident("group") {
            group = true;
        } else if meta.path.is_ident("rest") {
            rest = true;
        } else if meta.path.is_ident("alias") {
            alias.push(meta.value()?.parse::<LitStr>()?.value());
        } else {
            declared.word(&meta)?;
        }
        Ok(())
    })?;
    if group {
        return Ok(Role::Group);
    }
    if rest {
        return Ok(Role::Rest(declared.docs));
    }
    if declared.names.is_empty() {
        let ident = field.ident.as_ref().ok_or_else(|| Error::new_spanned(field, "fields are named"))?;
        declared.names.push(camel_case(&ident.to_string()));
    }
    declared.names.extend(alias);
    declared.check(field)?;
    Ok(Role::Parameter(Box::new(declared)))
}

impl Declared {
    fn word(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        match word.as_str() {
            "from" => self.from(&meta.value()?.parse()?)?,
            "name" => self.names.push(meta.value()?.parse::<LitStr>()?.value()),
            "default" => self.default = Some(literal(&meta.value()?.parse()?)?),
            "optional" => self.optional = true,
            "one_of" => self.one_of = texts(meta)?,
            "exclusive" => self.exclusive = texts(meta)?,
            "min" => self.min = Some(number(&meta.value()?.parse()?)?),
            "max" => self.max = Some(number(&meta.value()?.parse()?)?),
            "separator" => self.separator = Some(separator(&meta.value()?.parse()?)?),
            "unit" => self.unit = Some(meta.value()?.parse()?),
            "secret" => self.secret = true,
            "plain" => self.plain = true,
            "deprecated" => self.deprecated = Some(meta.value()?.parse()?),
            "removed" => self.removed = Some(meta.value()?.parse()?),
            _ => return Err(meta.error("unknown word in #[param(..)]")),
        }
        Ok(())
    }

    fn from(&mut self, sources: &LitStr) -> Result<()> {
        for source in sources.value().split_whitespace() {
            let variant = match source {
                "metadata" => "Metadata",
                "auth" => "Auth",
                "env" => "Env",
                _ => return Err(Error::new_spanned(sources, "a source is metadata, auth or env")),
            };
            self.from_outside |= source != "metadata";
            let variant = Ident::new(variant, Span::call_site());
            self.sources.push(quote!(::tidemark_trigger::parameters::Source::#variant));
        }
        Ok(())
    }

    fn check(&self, field: &Field) -> Result<()> {
        let wrong = |message: &str| Err(Error::new_spanned(field, message));
        if self.sources.is_empty() {
            return wrong("from = \"..\" must name at least one source");
        }
        if self.default.is_some() && (self.optional || inner_of(&field.ty, "Option").is_some()) {
            return wrong("a parameter with a default is never unset: leave out Option and optional");
        }
        if self.removed.is_some() && inner_of(&field.ty, "Option").is_none() {
            return wrong("a removed parameter is an Option");
        }
        if self.from_outside && !self.plain && !self.secret && is_text(&field.ty) {
            return wrong(
                "what comes from auth or env is a Secret; if it may be shown to anybody, say so with the word plain",
            );
        }
        Ok(())
    }

    /// The constant that declares it. `value` is the type without `Option`.
    pub fn constant(&self, value: &Type, option: bool) -> TokenStream {
        let Self { names, sources, one_of, exclusive, docs, .. } = self;
        let default = quote_option(self.default.as_ref());
        let (min, max) = (quote_option(self.min.as_ref()), quote_option(self.max.as_ref()));
        let separator = self.separator.unwrap_or(',');
        let (unit, deprecated) = (quote_option(self.unit.as_ref()), quote_option(self.deprecated.as_ref()));
        let removed = quote_option(self.removed.as_ref());
        let (optional, secret, plain) = (self.optional || option, self.secret, self.plain);
        let one_of = if one_of.is_empty() {
            quote!(<#value as ::tidemark_trigger::parameters::Value>::CHOICES)
        } else {
            quote!(&[#(#one_of),*])
        };
        quote! {
            ::tidemark_trigger::parameters::Parameter {
                names: &[#(#names),*],
                sources: &[#(#sources),*],
                kind: <#value as ::tidemark_trigger::parameters::Value>::KIND,
                default: #default,
                optional: #optional,
                one_of: #one_of,
                exclusive: &[#(#exclusive),*],
                min: #min,
                max: #max,
                separator: #separator,
                unit: #unit,
                secret: !#plain && (#secret || <#value as ::tidemark_trigger::parameters::Value>::SECRET),
                deprecated: #deprecated,
                removed: #removed,
                docs: #docs,
            }
        }
    }
}

fn quote_option<T: quote::ToTokens>(value: Option<&T>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn texts(meta: &ParseNestedMeta<'_>) -> Result<Vec<LitStr>> {
    let content;
    let value = meta.value()?;
    syn::bracketed!(content in value);
    Ok(content.parse_terminated(|input| input.parse::<LitStr>(), Token![,])?.into_iter().collect())
}

/// A literal as a user would write it.
fn literal(expr: &Expr) -> Result<String> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.value()),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => Ok(number.base10_digits().to_owned()),
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => Ok(number.base10_digits().to_owned()),
        Expr::Lit(ExprLit { lit: Lit::Bool(flag), .. }) => Ok(flag.value.to_string()),
        Expr::Unary(ExprUnary { op: UnOp::Neg(_), expr, .. }) => Ok(format!("-{}", literal(expr)?)),
        _ => Err(Error::new_spanned(expr, "expected a literal")),
    }
}

fn number(expr: &Expr) -> Result<f64> {
    literal(expr)?.parse().map_err(|_| Error::new_spanned(expr, "expected a number"))
}

fn separator(text: &LitStr) -> Result<char> {
    let value = text.value();
    let mut chars = value.chars();
    match (chars.next(), chars.next()) {
        (Some(separator), None) => Ok(separator),
        _ => Err(Error::new_spanned(text, "a separator is one character")),
    }
}

/// The lines of the doc comment, joined by blanks; an empty line starts a new one.
fn docs(attributes: &[Attribute]) -> String {
    let mut docs = String::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let Ok(pair) = attribute.meta.require_name_value() else { continue };
        let Expr::Lit(ExprLit { lit: Lit::Str(line), .. }) = &pair.value else { continue };
        let (line, first) = (line.value(), docs.is_empty() || docs.ends_with('\n'));
        match line.trim() {
            "" => docs.push('\n'),
            line if first => docs.push_str(line),
            line => {
                docs.push(' ');
                docs.push_str(line);
            }
        }
    }
    docs
}

/// The `T` of `Outer<T>`.
pub fn inner_of<'a>(ty: &'a Type, outer: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == outer)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Whether the type holds free text, as far as its spelling tells.
fn is_text(ty: &Type) -> bool {
    for outer in ["Option", "Vec", "Box", "Arc"] {
        if let Some(inner) = inner_of(ty, outer) {
            return is_text(inner);
        }
    }
    match ty {
        Type::Slice(slice) => is_text(&slice.elem),
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|segment| ["String", "str", "Pairs", "Form"].iter().any(|name| segment.ident == name)),
        _ => false,
    }
}

/// `queue_name` as `queueName`.
fn camel_case(name: &str) -> String {
    let mut words = name.trim_start_matches("r#").split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

/// `QueueName` as `queueName`.
pub fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|letter| letter.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
