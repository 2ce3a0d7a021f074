//! Structures in memory: aligned bytes with accessors, so that any content can be held and nothing is lost.

use proc_macro2::TokenStream;
use quote::format_ident;
use quote::quote;

use super::Options;
use super::format::carrier;
use super::format::field_type;
use super::format::layout_module;
use super::format::named_width;
use super::text::constant_name;
use super::text::doc;
use super::text::ident;
use super::text::number;
use crate::model::Spec;
use crate::model::Structure;
use crate::model::StructureField;
use crate::model::StructureItem;

/// Bytes of one element of the type called `ty`.
pub fn type_size(spec: &Spec, ty: &str) -> Option<u32> {
    Some(match ty {
        "u8" => 1,
        "u16" => 2,
        "u32" => 4,
        "u64" | "Hpa" | "Gpa" | "PrivateGpa" | "SharedGpa" => 8,
        name => match named_width(spec, name) {
            Some(width) => width.next_power_of_two().max(8) / 8,
            None => {
                spec.structures
                    .iter()
                    .find(|structure| structure.name == name)?
                    .size
            }
        },
    })
}

/// What `for_each_structure!` says: getter, setter, offset, kind and, of an array, count of each field.
pub(super) fn row(spec: &Spec, structure: &Structure) -> TokenStream {
    let ty = ident(&structure.name);
    let fields = structure.items.iter().filter_map(|item| match item {
        StructureItem::Field(field) => Some(field),
        StructureItem::Reserved { .. } => None,
    });
    let fields = fields.map(|field| {
        let name = ident(&field.name);
        let set = ident(&format!("set_{}", field.name));
        let upper = constant_name(&field.name);
        let offset = format_ident!("OFFSET_{upper}");
        let mut structures = spec.structures.iter();
        let nested = structures.any(|structure| structure.name == field.ty.value);
        let kind = ident(match (field.ty.value.as_str(), nested, field.count) {
            ("bytes", ..) => "bytes",
            (_, false, None) => "one",
            (_, true, None) => "nested",
            (_, false, Some(_)) => "array",
            (_, true, Some(_)) => "nested_array",
        });
        let count = field.count.map(|_| format_ident!("COUNT_{upper}"));
        quote!((#name #set #offset #kind #count))
    });
    quote!(#ty [#(#fields)*])
}

pub(super) fn one_structure(spec: &Spec, options: &Options, structure: &Structure) -> TokenStream {
    let (ty, layout) = (ident(&structure.name), layout_module(options));
    let name_text = &structure.name;
    let text = doc(&structure.doc);
    let size = number(u64::from(structure.size));
    let fields: Vec<&StructureField> = structure
        .items
        .iter()
        .filter_map(|item| match item {
            StructureItem::Field(field) => Some(field),
            StructureItem::Reserved { .. } => None,
        })
        .collect();
    let accessors = fields.iter().map(|field| accessors(spec, options, field));
    let shown = fields.iter().filter(|field| field.count.is_none());
    let mut shown = shown
        .map(|field| {
            let name = &field.name;
            let get = ident(name);
            quote!(.field(#name, &structure.#get()))
        })
        .peekable();
    let shown = shown.peek().is_some().then(|| {
        quote! {
            fn fields(structure: &#ty, to: &mut ::core::fmt::DebugStruct<'_, '_>) {
                to #(#shown)*;
            }
        }
    });
    let reserved = structure.items.iter().filter_map(|item| match item {
        StructureItem::Reserved {
            offset, size, ones, ..
        } => {
            let (offset, size) = (number(u64::from(*offset)), number(u64::from(*size)));
            let byte = if *ones { quote!(0xff) } else { quote!(0) };
            Some(quote!((#offset, #size, #byte)))
        }
        StructureItem::Field(_) => None,
    });
    quote! {
        #[doc = #text]
        pub type #ty = generic::Structure<#layout::#ty, #size>;

        impl #ty {
            #(#accessors)*
        }

        impl generic::StructureLayout<#size> for #layout::#ty {
            const LAYOUT: (&'static str, &'static [(usize, usize, u8)]) =
                (#name_text, &[#(#reserved),*]);

            #shown
        }
    }
}

/// Where the fields of the structure lie.
pub(super) fn offsets(structure: &Structure) -> TokenStream {
    let ty = ident(&structure.name);
    let constants = structure.items.iter().filter_map(|item| match item {
        StructureItem::Field(field) => {
            let text = format!(" Byte at which [`{0}`](Self::{0}) begins.", field.name);
            let name = format_ident!("OFFSET_{}", constant_name(&field.name));
            let offset = number(u64::from(field.offset));
            Some(quote!(#[doc = #text] pub const #name: usize = #offset;))
        }
        StructureItem::Reserved { .. } => None,
    });
    quote!(impl #ty { #(#constants)* })
}

fn accessors(spec: &Spec, options: &Options, field: &StructureField) -> TokenStream {
    let root = &options.root;
    let name = ident(&field.name);
    let set = ident(&format!("set_{}", field.name));
    let offset = number(u64::from(field.offset));
    let text = field.doc.as_deref().map_or_else(
        || format!(" Byte {} on.", field.offset),
        |text| format!(" Byte {} on:{}", field.offset, doc(text)),
    );
    let set_text = format!(" Replaces `{name}`.");
    let ty = field.ty.value.as_str();
    if ty == "bytes" {
        let size = number(u64::from(field.size));
        quote! {
            #[doc = #text]
            pub fn #name(&self) -> &[u8; #size] {
                #root::bytes::chunk(self.as_bytes(), #offset)
            }

            #[doc = #set_text]
            pub fn #set(&mut self, value: &[u8; #size]) {
                #root::bytes::put(self.as_bytes_mut(), #offset, value);
            }
        }
    } else {
        element(spec, options, field, &text, &set_text)
    }
}

/// How an element is read and written.
struct Element {
    get: TokenStream,
    set: TokenStream,
    read: TokenStream,
    write: TokenStream,
}

fn element(
    spec: &Spec,
    options: &Options,
    field: &StructureField,
    text: &str,
    set_text: &str,
) -> TokenStream {
    let name = ident(&field.name);
    let set_name = ident(&format!("set_{}", field.name));
    let offset = number(u64::from(field.offset));
    let at = match (field.count, field.offset, type_size(spec, &field.ty.value)) {
        (None, ..) => quote!(#offset),
        (_, 0, Some(1)) => quote!(index),
        (_, 0, size) => {
            let size = number(u64::from(size.unwrap_or(1)));
            quote!(index * #size)
        }
        (_, _, Some(1)) => quote!(#offset + index),
        (_, _, size) => {
            let size = number(u64::from(size.unwrap_or(1)));
            quote!(#offset + index * #size)
        }
    };
    let Element {
        get,
        set,
        read,
        write,
    } = element_access(spec, options, &field.ty.value, &at);
    match field.count {
        None => quote! {
            #[doc = #text]
            pub fn #name(&self) -> #get {
                #read
            }

            #[doc = #set_text]
            pub fn #set_name(&mut self, value: #set) {
                #write
            }
        },
        Some(count) => {
            let count_name = format_ident!("COUNT_{}", constant_name(&field.name));
            let count_text = format!(" Elements of `{name}`.");
            let count = number(u64::from(count));
            quote! {
                #[doc = #count_text]
                pub const #count_name: usize = #count;

                #[doc = #text]
                ///
                /// `None` from the end of the array on.
                pub fn #name(&self, index: usize) -> Option<#get> {
                    if index >= #count {
                        return None;
                    }
                    Some(#read)
                }

                #[doc = #set_text]
                ///
                /// `None`, and nothing changed, from the end of the array on.
                pub fn #set_name(&mut self, index: usize, value: #set) -> Option<()> {
                    if index >= #count {
                        return None;
                    }
                    #write
                    Some(())
                }
            }
        }
    }
}

fn element_access(spec: &Spec, options: &Options, ty: &str, at: &TokenStream) -> Element {
    let root = &options.root;
    if let Some(structure) = spec
        .structures
        .iter()
        .find(|structure| structure.name == ty)
    {
        let ty = ident(&structure.name);
        return Element {
            get: quote!(#ty),
            set: quote!(&#ty),
            read: quote!(#ty::from_bytes(*#root::bytes::chunk(self.as_bytes(), #at))),
            write: quote!(#root::bytes::put(self.as_bytes_mut(), #at, value.as_bytes());),
        };
    }
    let width = type_size(spec, ty).unwrap_or(1) * 8;
    let kind = field_type(spec, options, Some(ty), width, 0);
    let word = carrier(width);
    let (word_at, put_word) = (format_ident!("{word}_at"), format_ident!("put_{word}"));
    let encoded = kind.encode(width);
    Element {
        get: kind.get.clone(),
        set: kind.set.clone(),
        read: kind.decode(quote!(#root::bytes::#word_at(self.as_bytes(), #at)), width),
        write: quote!(#root::bytes::#put_word(self.as_bytes_mut(), #at, #encoded);),
    }
}
