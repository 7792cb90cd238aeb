//! Derives of declared parameters. The words of the attributes are described at `tidemark_trigger::parameters`.

mod choice;
mod field;
mod parameters;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `tidemark_trigger::Parameters` for a struct with named fields.
#[proc_macro_derive(Parameters, attributes(param, parameters))]
pub fn derive_parameters(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    parameters::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Derives `tidemark_trigger::Choice`, and the parameter value with it, for an enum whose variants have no fields.
#[proc_macro_derive(Choice, attributes(choice))]
pub fn derive_choice(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    choice::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
