//! Bit formats.
//!
//! A format of at most 32 bits whose fields are contiguous and fill their types (flags, whole bytes and words) becomes a
//! `bitfield_struct` definition. That makes eight items of a field where two are wanted: the 64-bit words, which have most
//! of the fields, would make up half of what the compiler reads, so they are not. All others get composed accessors: split fields, addresses that are shifted, numbers that are narrower than
//! their type (whose setter would panic on too large a value in `bitfield_struct`, and is masked here), typed values
//! that not every bit pattern is one of, and overlays.

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::text::constant;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::model::BitField;
use crate::model::BitItem;
use crate::model::Bits;
use crate::model::Enum;
use crate::model::Format;
use crate::model::Spec;

/// The smallest unsigned integer with at least this many bits.
pub(super) fn carrier(width: u32) -> Ident {
    ident(match width {
        0..=8 => "u8",
        9..=16 => "u16",
        17..=32 => "u32",
        _ => "u64",
    })
}

/// The type of a field, and how it is made of and turned into bits that are right-aligned in a `u64`.
pub(super) struct FieldType {
    /// What the getter returns.
    pub(super) get: TokenStream,
    /// What the builder takes.
    pub(super) set: TokenStream,
    /// From the `u64` called `raw`.
    pub(super) decode: TokenStream,
    /// From the value called `value` to a `u64`.
    pub(super) encode: TokenStream,
}

/// The type named `ty`, or the one that `width` bits imply.
pub(super) fn field_type(
    spec: &Spec,
    options: &Options,
    ty: Option<&str>,
    width: u32,
    shift: u32,
) -> FieldType {
    let root = &options.root;
    let plain = |bits: u32| {
        let carrier = carrier(bits);
        let ty = quote!(#carrier);
        let (decode, encode) = if bits > 32 {
            (quote!(raw), quote!(value))
        } else {
            (quote!(raw as #carrier), quote!(value as u64))
        };
        FieldType {
            get: ty.clone(),
            set: ty,
            decode,
            encode,
        }
    };
    let wrapped = |name: &str, bits: u32| {
        let (ty, carrier) = (ident(name), carrier(bits));
        let (decode, encode) = if bits > 32 {
            (quote!(#ty::from_bits(raw)), quote!(value.into_bits()))
        } else {
            (
                quote!(#ty::from_bits(raw as #carrier)),
                quote!(value.into_bits() as u64),
            )
        };
        FieldType {
            get: quote!(#ty),
            set: quote!(#ty),
            decode,
            encode,
        }
    };
    match ty {
        None if width == 1 => FieldType {
            get: quote!(bool),
            set: quote!(bool),
            decode: quote!(raw != 0),
            encode: quote!(value as u64),
        },
        Some("bool") => FieldType {
            get: quote!(bool),
            set: quote!(bool),
            decode: quote!(raw != 0),
            encode: quote!(value as u64),
        },
        None => plain(width),
        Some("u8") => plain(8),
        Some("u16") => plain(16),
        Some("u32") => plain(32),
        Some("u64") => plain(64),
        Some(name @ ("Hpa" | "Gpa" | "PrivateGpa" | "SharedGpa")) => {
            let ty = ident(name);
            let (decode, encode) = if shift == 0 {
                (quote!(#root::#ty::new(raw)), quote!(value.bits()))
            } else {
                let shift = number(u64::from(shift));
                (
                    quote!(#root::#ty::new(raw << #shift)),
                    quote!(value.bits() >> #shift),
                )
            };
            FieldType {
                get: quote!(#root::#ty),
                set: quote!(#root::#ty),
                decode,
                encode,
            }
        }
        Some("Level") => FieldType {
            get: quote!(Option<#root::Level>),
            set: quote!(#root::Level),
            decode: quote!(#root::Level::new(raw as u8)),
            encode: quote!(value as u64),
        },
        Some("OpState") => FieldType {
            get: quote!(Option<#root::OpState>),
            set: quote!(#root::OpState),
            decode: quote!(#root::OpState::new(raw as u32)),
            encode: quote!(value as u64),
        },
        Some(name @ ("SeptState" | "L2SeptState")) => {
            let ty = ident(name);
            FieldType {
                get: quote!(Option<#root::#ty>),
                set: quote!(#root::#ty),
                decode: quote!(#root::#ty::from_encoding(raw as u8)),
                encode: quote!(value.encoding() as u64),
            }
        }
        Some(name) => match named_width(spec, name) {
            Some(bits) => wrapped(name, bits),
            None => plain(width),
        },
    }
}

/// Width of the enum or format called `name`.
pub(super) fn named_width(spec: &Spec, name: &str) -> Option<u32> {
    let width = spec
        .enums
        .iter()
        .find(|entity| entity.name == name)
        .map(|entity| entity.width);
    width.or_else(|| {
        spec.formats
            .iter()
            .find(|format| format.name == name)
            .map(|format| format.width)
    })
}

/// Every enum, format and structure.
pub fn formats(spec: &Spec, options: &Options) -> TokenStream {
    let enums = spec.enums.iter().map(enumeration);
    let formats = spec
        .formats
        .iter()
        .map(|format| one_format(spec, options, format));
    let structures = spec
        .structures
        .iter()
        .map(|structure| super::structure::one_structure(spec, options, structure));
    quote!(#(#enums)* #(#formats)* #(#structures)*)
}

/// The macros `for_each_format!` and `for_each_enum!`.
pub fn format_list(spec: &Spec, _: &Options) -> TokenStream {
    let rows = spec.formats.iter().map(|format| {
        let ty = ident(&format.name);
        let carrier = carrier(format.width);
        let fields = format.items.iter().filter_map(|item| match item {
            BitItem::Field(field) => {
                Some((ident(&field.name), ident(&format!("with_{}", field.name))))
            }
            _ => None,
        });
        let fields = fields.map(|(name, with)| quote!(#name #with));
        let views = format.views.iter().map(|view| ident(&view.name));
        quote!(#ty #carrier [#(#fields),*] [#(#views),*])
    });
    let enums = spec.enums.iter().map(|entity| ident(&entity.name));
    quote! {
        macro_rules! for_each_enum {
            ($callback:ident) => {
                $callback! { #(#enums)* }
            };
        }

        macro_rules! for_each_format {
            ($callback:ident) => {
                $callback! { #(#rows)* }
            };
        }
    }
}

fn enumeration(entity: &Enum) -> TokenStream {
    let ty = ident(&entity.name);
    let name_text = &entity.name;
    let text = doc(&entity.doc);
    let carrier = carrier(entity.width);
    let constants = entity.values.iter().map(|value| {
        let name = constant(&value.name);
        let number = hex(value.value);
        let text = value
            .doc
            .as_deref()
            .map_or_else(|| format!(" {}.", value.name), doc);
        quote!(#[doc = #text] pub const #name: Self = Self(#number);)
    });
    let numbers = entity.values.iter().map(|value| hex(value.value));
    let names = entity.values.iter().map(|value| &value.name);
    quote! {
        #[doc = #text]
        ///
        /// Open: numbers without a name are kept.
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct #ty(#carrier);

        impl #ty {
            #(#constants)*

            /// The value with this number.
            pub const fn from_bits(bits: #carrier) -> Self {
                Self(bits)
            }

            /// The number.
            pub const fn into_bits(self) -> #carrier {
                self.0
            }

            /// The name, if the number has one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    #(#numbers => Some(#names),)*
                    _ => None,
                }
            }
        }

        impl ::core::fmt::Debug for #ty {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => ::core::write!(f, ::core::concat!(#name_text, "({:#x})"), self.0),
                }
            }
        }
    }
}

/// Whether `bitfield_struct` can carry the format; see the module's documentation.
pub fn fits_bitfield_struct(format: &Format) -> bool {
    let fills = |field: &BitField| match (
        field.bits.as_slice(),
        field.ty.as_ref().map(|ty| ty.value.as_str()),
    ) {
        ([_], None | Some("bool")) if field.width() == 1 => true,
        ([_], None) => matches!(field.width(), 8 | 16 | 32 | 64),
        ([_], Some("u8")) => field.width() == 8,
        ([_], Some("u16")) => field.width() == 16,
        ([_], Some("u32")) => field.width() == 32,
        ([_], Some("u64")) => field.width() == 64,
        _ => false,
    };
    format.width <= 32
        && format.views.is_empty()
        && format.items.iter().all(|item| match item {
            BitItem::Field(field) => fills(field),
            BitItem::Reserved { bits, ones, .. } => !ones && bits.len() == 1,
            BitItem::Ignored { bits, .. } => bits.len() == 1,
        })
}

fn mask_of<'i>(items: impl Iterator<Item = &'i BitItem>) -> u64 {
    items
        .flat_map(|item| item.bits())
        .fold(0, |all, bits| all | bits.mask())
}

fn one_format(spec: &Spec, options: &Options, format: &Format) -> TokenStream {
    let ty = ident(&format.name);
    let carrier = carrier(format.width);
    let zeros = mask_of(
        format
            .items
            .iter()
            .filter(|item| matches!(item, BitItem::Reserved { ones: false, .. })),
    );
    let ones = mask_of(
        format
            .items
            .iter()
            .filter(|item| matches!(item, BitItem::Reserved { ones: true, .. })),
    );
    let reserved = hex(zeros | ones);
    let check = if zeros | ones == 0 {
        quote!(true)
    } else {
        let valid = hex(ones);
        quote!(self.into_bits() & Self::RESERVED == #valid)
    };
    let definition = if options.bitfield_struct && fits_bitfield_struct(format) {
        with_bitfield_struct(options, format, &ty, &carrier)
    } else {
        composed(spec, options, format, &ty, &carrier)
    };
    quote! {
        #definition

        impl #ty {
            /// Bits that have no freedom.
            pub const RESERVED: #carrier = #reserved;

            /// Whether every reserved bit is as it must be.
            pub const fn is_reserved_valid(self) -> bool {
                #check
            }
        }
    }
}

fn with_bitfield_struct(
    options: &Options,
    format: &Format,
    ty: &Ident,
    carrier: &Ident,
) -> TokenStream {
    let root = &options.root;
    let text = doc(&format.doc);
    let fields = format.items.iter().rev().map(|item| match item {
        BitItem::Field(field) => {
            let name = ident(&field.name);
            let text = field_doc(field);
            let width = field.width();
            let ty = if width == 1 {
                ident("bool")
            } else {
                super::format::carrier(width)
            };
            quote!(#[doc = #text] pub #name: #ty)
        }
        other => {
            let width = other.bits().iter().map(|bits| bits.width()).sum::<u32>();
            let ty = super::format::carrier(width);
            let width = number(u64::from(width));
            quote!(#[bits(#width)] __: #ty)
        }
    });
    quote! {
        #[doc = #text]
        #[#root::bitfield(#carrier)]
        #[derive(PartialEq, Eq, Hash)]
        pub struct #ty {
            #(#fields),*
        }
    }
}

fn field_doc(field: &BitField) -> String {
    let bits = field
        .bits
        .iter()
        .map(Bits::to_string)
        .collect::<Vec<_>>()
        .join(" and ");
    let word = if field.width() == 1 { "Bit" } else { "Bits" };
    match &field.doc {
        Some(text) => format!(" {word} {bits}:{}", doc(text)),
        None => format!(" {word} {bits}."),
    }
}

const fn ones(width: u32) -> u64 {
    if width >= 64 {
        u64::MAX
    } else {
        (1 << width) - 1
    }
}

/// The bits of a field in the word `word: u64`, right-aligned.
fn gather(word: &TokenStream, field: &BitField) -> TokenStream {
    let terms = field.pieces().map(|(bits, at)| {
        let (low, width) = (bits.low, bits.width());
        let shifted = if low == 0 {
            word.clone()
        } else {
            let low = number(u64::from(low));
            quote!(#word >> #low)
        };
        let masked = if low + width == 64 {
            shifted
        } else {
            let mask = hex(ones(width));
            if low == 0 {
                quote!(#shifted & #mask)
            } else {
                quote!((#shifted) & #mask)
            }
        };
        if at == 0 && field.bits.len() == 1 {
            masked
        } else if at == 0 {
            quote!((#masked))
        } else {
            let at = number(u64::from(at));
            quote!((#masked) << #at)
        }
    });
    quote!(#(#terms)|*)
}

/// The value `raw: u64` in the places of the field.
fn scatter(field: &BitField) -> TokenStream {
    let terms = field.pieces().map(|(bits, at)| {
        let (low, width) = (bits.low, bits.width());
        let raw = if at == 0 {
            quote!(raw)
        } else {
            let at = number(u64::from(at));
            quote!(raw >> #at)
        };
        if width == 64 {
            return raw;
        }
        let mask = hex(ones(width));
        match low {
            0 if field.bits.len() == 1 => quote!(#raw & #mask),
            0 => quote!((#raw & #mask)),
            low => {
                let low = number(u64::from(low));
                quote!((#raw & #mask) << #low)
            }
        }
    });
    quote!(#(#terms)|*)
}

fn composed(
    spec: &Spec,
    options: &Options,
    format: &Format,
    ty: &Ident,
    carrier: &Ident,
) -> TokenStream {
    let text = doc(&format.doc);
    let name_text = &format.name;
    let ones =
        hex(mask_of(format.items.iter().filter(|item| {
            matches!(item, BitItem::Reserved { ones: true, .. })
        })));
    let wide = format.width == 64;
    let word = if wide {
        quote!(self.0)
    } else {
        quote!(self.0 as u64)
    };
    let fields: Vec<&BitField> = format
        .items
        .iter()
        .filter_map(|item| match item {
            BitItem::Field(field) => Some(field),
            _ => None,
        })
        .collect();
    let word = if wide { word } else { quote!((#word)) };
    let accessors = fields.iter().map(|field| {
        let kind = field_type(
            spec,
            options,
            field.ty.as_ref().map(|ty| ty.value.as_str()),
            field.width(),
            field.shift,
        );
        let getter = getter(field, &kind, &word);
        let name = ident(&field.name);
        let with = ident(&format!("with_{}", field.name));
        let set = &kind.set;
        let encode = &kind.encode;
        let text =
            format!(" With [`{name}`](Self::{name}) replaced; bits that do not fit are cut off.");
        let clear = hex(field.bits.iter().fold(0, |all, bits| all | bits.mask()));
        let scattered = scatter(field);
        let placed = if wide {
            quote!((#scattered))
        } else {
            quote!((#scattered) as #carrier)
        };
        quote! {
            #getter

            #[doc = #text]
            #[inline]
            pub const fn #with(self, value: #set) -> Self {
                let raw: u64 = #encode;
                Self(self.0 & !#clear | #placed)
            }
        }
    });
    let views = format.views.iter().map(|view| {
        let kind = field_type(
            spec,
            options,
            view.ty.as_ref().map(|ty| ty.value.as_str()),
            view.width(),
            view.shift,
        );
        getter(view, &kind, &word)
    });
    let shown = fields
        .iter()
        .chain(&format.views.iter().collect::<Vec<_>>())
        .map(|field| {
            let name = &field.name;
            let get = ident(name);
            quote!(.field(#name, &self.#get()))
        })
        .collect::<Vec<_>>();
    quote! {
        #[doc = #text]
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[must_use]
        #[repr(transparent)]
        pub struct #ty(#carrier);

        impl #ty {
            /// The value whose fields are all 0.
            pub const fn new() -> Self {
                Self(#ones)
            }

            /// The value with these bits, reserved ones included.
            #[inline]
            pub const fn from_bits(bits: #carrier) -> Self {
                Self(bits)
            }

            /// The bits, as they were given.
            #[inline]
            pub const fn into_bits(self) -> #carrier {
                self.0
            }

            #(#accessors)*
            #(#views)*
        }

        impl Default for #ty {
            fn default() -> Self {
                Self::new()
            }
        }

        impl ::core::fmt::Debug for #ty {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#name_text)#(#shown)*.finish()
            }
        }
    }
}

fn getter(field: &BitField, kind: &FieldType, word: &TokenStream) -> TokenStream {
    let name = ident(&field.name);
    let text = field_doc(field);
    let (get, decode) = (&kind.get, &kind.decode);
    let gathered = gather(word, field);
    let body = if decode.to_string() == "raw" {
        gathered
    } else {
        quote!(let raw: u64 = #gathered; #decode)
    };
    quote! {
        #[doc = #text]
        #[inline]
        pub const fn #name(self) -> #get {
            #body
        }
    }
}
