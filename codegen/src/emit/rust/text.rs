//! Names and texts in Rust's form.

use proc_macro2::Ident;
use proc_macro2::Literal;
use proc_macro2::Span;
use proc_macro2::TokenStream;
use quote::quote;

/// An identifier; keywords become raw.
///
/// A name that cannot be one has been complained about; what is written of it must only not stand in the way.
pub(super) fn ident(name: &str) -> Ident {
    let keyword = matches!(
        name,
        "type"
            | "match"
            | "move"
            | "ref"
            | "loop"
            | "in"
            | "mod"
            | "use"
            | "where"
            | "as"
            | "box"
            | "static"
    );
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if keyword {
        Ident::new_raw(name, Span::call_site())
    } else if name.bytes().all(word) && name.starts_with(|c: char| !c.is_ascii_digit()) {
        Ident::new(name, Span::call_site())
    } else {
        let other = |c: char| !c.is_ascii() || !word(c as u8);
        Ident::new(&format!("_{}", name.replace(other, "_")), Span::call_site())
    }
}

/// `TDH.MEM.PAGE.ADD`, `Guest CR0` or `VM-exit reason` as the name of a constant.
pub(super) fn constant_name(name: &str) -> String {
    let name = crate::emit::constant_name(name);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

pub(super) fn constant(name: &str) -> Ident {
    ident(&constant_name(name))
}

/// `PENDING_EXPORTED` or `MEM.PAGE.ADD` as the name of a type or variant.
pub(super) fn camel_name(name: &str) -> String {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters.map(|c| c.to_ascii_lowercase()))
        })
        .collect()
}

pub(super) fn camel(name: &str) -> Ident {
    ident(&camel_name(name))
}

/// A number in hexadecimal, without a type; a digit is just that.
pub(super) fn hex(value: u64) -> Literal {
    if value < 10 {
        return number(value);
    }
    format!("{value:#x}")
        .parse()
        .unwrap_or_else(|_| Literal::u64_unsuffixed(value))
}

/// A decimal number without a type.
pub(super) fn number(value: u64) -> Literal {
    Literal::u64_unsuffixed(value)
}

/// The block that gives `ty` its `constants`, if there are any.
pub(super) fn constants_of(
    ty: &Ident,
    constants: impl Iterator<Item = TokenStream>,
) -> Option<TokenStream> {
    let constants: TokenStream = constants.collect();
    (!constants.is_empty()).then(|| quote!(impl #ty { #constants }))
}

/// A doc text: one leading space, a full stop at the end.
pub(super) fn doc(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?', ':']) {
        format!(" {text}")
    } else {
        format!(" {text}.")
    }
}
