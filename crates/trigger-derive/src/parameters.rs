//! A struct of declared parameters.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Path, Result};

use crate::field::{Role, inner_of, role};

pub fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(input, "Parameters is derived on structs"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(input, "Parameters is derived on structs with named fields"));
    };
    let mut parts = Parts::default();
    for field in &fields.named {
        parts.add(field)?;
    }
    let Parts { own, tables, reads, names, shows } = parts;
    let name = &input.ident;
    let check = check(input)?.map(|path| {
        quote! {
            let errors: ::std::vec::Vec<::tidemark_trigger::ParseError> = #path(&parsed, reader.input());
            reader.add(errors);
        }
    });
    Ok(quote! {
        const _: () = {
            use ::tidemark_trigger::parameters::Parameter;

            const OWN: &[Parameter] = &[#(#own),*];
            const PARTS: &[&[Parameter]] = &[#(#tables),*];
            const LENGTH: usize = ::tidemark_trigger::parameters::total(PARTS);
            static ALL: [Parameter; LENGTH] = ::tidemark_trigger::parameters::concat(PARTS);

            impl ::tidemark_trigger::parameters::Parameters for #name {
                const TABLE: &'static [Parameter] = &ALL;

                fn read(
                    reader: &mut ::tidemark_trigger::parameters::Reader<'_>,
                ) -> ::core::option::Option<Self> {
                    #(#reads)*
                    let parsed = Self { #(#names: #names?),* };
                    #check
                    ::core::option::Option::Some(parsed)
                }

                fn show(&self, shown: &mut ::tidemark_trigger::parameters::Shown) {
                    #(#shows)*
                }
            }
        };
    })
}

/// What the fields contribute to the derived code.
#[derive(Default)]
struct Parts {
    /// The struct's own parameters, nested groups left out.
    own: Vec<TokenStream>,
    /// Slices that make up the whole table.
    tables: Vec<TokenStream>,
    reads: Vec<TokenStream>,
    names: Vec<syn::Ident>,
    shows: Vec<TokenStream>,
}

impl Parts {
    fn add(&mut self, field: &syn::Field) -> Result<()> {
        let ident = field.ident.clone().ok_or_else(|| Error::new_spanned(field, "fields are named"))?;
        let (ty, at) = (&field.ty, self.own.len());
        match role(field)? {
            Role::Group => {
                self.tables.push(quote!(<#ty as ::tidemark_trigger::parameters::Parameters>::TABLE));
                self.reads
                    .push(quote!(let #ident = <#ty as ::tidemark_trigger::parameters::Parameters>::read(reader);));
                self.shows.push(quote!(::tidemark_trigger::parameters::Parameters::show(&self.#ident, shown);));
            }
            Role::Rest(docs) => {
                self.own.push(quote!(Parameter { docs: #docs, ..Parameter::REST }));
                self.tables.push(quote!(&[OWN[#at]]));
                self.reads.push(quote!(let #ident = ::core::option::Option::Some(reader.rest());));
            }
            Role::Parameter(declared) => {
                let inner = inner_of(ty, "Option");
                self.own.push(declared.constant(inner.unwrap_or(ty), inner.is_some()));
                self.tables.push(quote!(&[OWN[#at]]));
                let value = inner.unwrap_or(ty);
                let read = match (inner, declared.optional) {
                    (Some(_), _) => quote!(optional),
                    (None, true) => quote!(or_default),
                    (None, false) => quote!(required),
                };
                self.reads.push(quote!(let #ident = reader.#read::<#value>(&OWN[#at]);));
                self.shows.push(match inner {
                    Some(_) => quote! {
                        if let ::core::option::Option::Some(value) = &self.#ident {
                            shown.put(&OWN[#at], value);
                        }
                    },
                    None => quote!(shown.put(&OWN[#at], &self.#ident);),
                });
            }
        }
        self.names.push(ident);
        Ok(())
    }
}

/// The function of `#[parameters(check = path)]`.
fn check(input: &DeriveInput) -> Result<Option<Path>> {
    let mut check = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("parameters")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("check") {
                return Err(meta.error("expected check = path"));
            }
            check = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(check)
}
