//! A closed set of texts as an enum.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, LitStr, Result, Variant};

use crate::field::lower_first;

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(input, "Choice is derived on enums"));
    };
    let name = &input.ident;
    let mut texts = Vec::new();
    let mut variants = Vec::new();
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            return Err(Error::new_spanned(variant, "a variant of a Choice has no fields"));
        }
        texts.push(text(variant)?);
        variants.push(&variant.ident);
    }
    Ok(quote! {
        impl ::tidemark_trigger::parameters::Choice for #name {
            const ALL: &'static [(&'static str, Self)] = &[#((#texts, Self::#variants)),*];
        }

        impl ::tidemark_trigger::parameters::Value for #name {
            const KIND: ::tidemark_trigger::parameters::Kind = ::tidemark_trigger::parameters::Kind::Text;
            const CHOICES: &'static [&'static str] = &[#(#texts),*];

            fn parse(
                text: ::tidemark_trigger::parameters::Text<'_>,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                ::tidemark_trigger::parameters::parse_choice(text)
            }

            fn show(
                &self,
                _: ::tidemark_trigger::parameters::ShowSecret,
            ) -> ::tidemark_trigger::parameters::Json {
                ::tidemark_trigger::parameters::Json::from(::tidemark_trigger::parameters::Choice::text(*self))
            }
        }
    })
}

fn text(variant: &Variant) -> Result<String> {
    match variant.attrs.iter().find(|attribute| attribute.path().is_ident("choice")) {
        Some(attribute) => Ok(attribute.parse_args::<LitStr>()?.value()),
        None => Ok(lower_first(&variant.ident.to_string())),
    }
}
