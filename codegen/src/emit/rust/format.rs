//! Bit formats.
//!
//! Formats get composed accessors: split fields, addresses that are shifted, numbers that are narrower than their type (whose
//! setter would panic on too large a value in `bitfield_struct`, and is masked here), typed values that not every bit pattern
//! is one of, and overlays. On demand a format of at most 32 bits whose fields are contiguous and fill their types (flags,
//! whole bytes and words) becomes a `bitfield_struct` definition, which makes eight items of a field where two are wanted.

use proc_macro2::Ident;
use proc_macro2::Literal;
use proc_macro2::TokenStream;
use proc_macro2::TokenTree;
use quote::quote;

use super::Options;
use super::text::constant;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::area::Areas;
use crate::area::CORE;
use crate::area::TABLES;
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

/// Bits of [`carrier`].
fn carrier_bits(width: u32) -> u32 {
    width.next_power_of_two().clamp(8, 64)
}

/// The type of a field, and how it is made of and turned into bits.
pub(super) struct FieldType {
    /// What the getter returns.
    pub(super) get: TokenStream,
    /// What the builder takes.
    pub(super) set: TokenStream,
    form: Form,
}

enum Form {
    Bool,
    /// An integer of as many bits.
    Plain(u32),
    /// An enum or format over an integer of as many bits.
    Wrapped(Ident, u32),
    /// An address without its lowest bits.
    Address(TokenStream, u32),
    Level(TokenStream),
    OpState(TokenStream),
    SeptState(TokenStream),
}

impl FieldType {
    /// The value of bits that are right-aligned in an integer of `width` bits.
    pub(super) fn decode(&self, raw: TokenStream, width: u32) -> TokenStream {
        match &self.form {
            Form::Bool => quote!(#raw != 0),
            Form::Plain(bits) => cast(raw, width, *bits),
            Form::Wrapped(ty, bits) => {
                let raw = cast(raw, width, *bits);
                quote!(#ty::from_bits(#raw))
            }
            Form::Address(ty, 0) => {
                let raw = cast(raw, width, 64);
                quote!(#ty::new(#raw))
            }
            Form::Address(ty, shift) => {
                let raw = operand(cast(raw, width, 64));
                let shift = number(u64::from(*shift));
                quote!(#ty::new(#raw << #shift))
            }
            Form::Level(ty) => {
                let raw = cast(raw, width, 8);
                quote!(#ty::new(#raw))
            }
            Form::OpState(ty) => {
                let raw = cast(raw, width, 32);
                quote!(#ty::new(#raw))
            }
            Form::SeptState(ty) => {
                let raw = cast(raw, width, 8);
                quote!(#ty::from_encoding(#raw))
            }
        }
    }

    /// The bits of `value` in an integer of `width` bits, right-aligned.
    pub(super) fn encode(&self, width: u32) -> TokenStream {
        let carrier = carrier(width);
        match &self.form {
            Form::Bool | Form::Level(_) | Form::OpState(_) => quote!(value as #carrier),
            Form::Plain(bits) => cast(quote!(value), *bits, width),
            Form::Wrapped(_, bits) => cast(quote!(value.into_bits()), *bits, width),
            Form::Address(_, 0) => cast(quote!(value.bits()), 64, width),
            Form::Address(_, shift) => {
                let shift = number(u64::from(*shift));
                cast(quote!(value.bits() >> #shift), 64, width)
            }
            Form::SeptState(_) => cast(quote!(value.encoding()), 8, width),
        }
    }
}

/// `value`, in parentheses if it is more than one operand.
fn operand(value: TokenStream) -> TokenStream {
    let operator = |token: TokenTree| match token {
        TokenTree::Punct(punct) => matches!(punct.as_char(), '&' | '|' | '<' | '>'),
        TokenTree::Ident(word) => word == "as",
        _ => false,
    };
    if value.clone().into_iter().any(operator) {
        quote!((#value))
    } else {
        value
    }
}

/// `value`, an integer of `from` bits, as one of `to` bits.
fn cast(value: TokenStream, from: u32, to: u32) -> TokenStream {
    let (from, to) = (carrier(from), carrier(to));
    if from == to {
        return value;
    }
    let value = operand(value);
    quote!(#value as #to)
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
    let same = |ty: TokenStream, form: Form| FieldType {
        get: ty.clone(),
        set: ty,
        form,
    };
    let plain = |bits: u32| {
        let carrier = carrier(bits);
        same(quote!(#carrier), Form::Plain(carrier_bits(bits)))
    };
    let maybe = |name: &str, form: fn(TokenStream) -> Form| {
        let ty = ident(name);
        FieldType {
            get: quote!(Option<#root::#ty>),
            set: quote!(#root::#ty),
            form: form(quote!(#root::#ty)),
        }
    };
    match ty {
        None if width == 1 => same(quote!(bool), Form::Bool),
        Some("bool") => same(quote!(bool), Form::Bool),
        None => plain(width),
        Some("u8") => plain(8),
        Some("u16") => plain(16),
        Some("u32") => plain(32),
        Some("u64") => plain(64),
        Some(name @ ("Hpa" | "Gpa" | "PrivateGpa" | "SharedGpa")) => {
            let ty = ident(name);
            same(quote!(#root::#ty), Form::Address(quote!(#root::#ty), shift))
        }
        Some(name @ "Level") => maybe(name, Form::Level),
        Some(name @ "OpState") => maybe(name, Form::OpState),
        Some(name @ ("SeptState" | "L2SeptState")) => maybe(name, Form::SeptState),
        Some(name) => match named_width(spec, name) {
            Some(bits) => {
                let ty = ident(name);
                same(quote!(#ty), Form::Wrapped(ty, carrier_bits(bits)))
            }
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
    let common = options.wants(CORE).then(|| {
        let generic: TokenStream = include_str!("generic.rs").parse().unwrap_or_default();
        // A macro's output is exempt, but for what macros of its own make.
        let reachable = (!options.linted).then(|| quote!(#[allow(dead_code, unreachable_pub)]));
        quote!(#reachable pub mod generic { #generic })
    });
    let areas = Areas::of_types(spec);
    let wanted = |name: &str| options.wants(areas.of(name));
    let layouts = layouts(spec, options, wanted);
    let enums = spec.enums.iter().filter(|entity| wanted(&entity.name));
    let enums = enums.map(|entity| enumeration(options, entity));
    let formats = spec.formats.iter().filter(|format| wanted(&format.name));
    let formats = formats.map(|format| one_format(spec, options, format));
    let structures = spec.structures.iter().filter(|s| wanted(&s.name));
    let structures =
        structures.map(|structure| super::structure::one_structure(spec, options, structure));
    let offsets = spec.structures.iter().filter(|structure| {
        let area = areas.of(&structure.name);
        options.wants(if area == CORE { TABLES } else { area })
    });
    let offsets = offsets.map(super::structure::offsets);
    quote!(#common #layouts #(#enums)* #(#formats)* #(#structures)* #(#offsets)*)
}

/// The macros `for_each_format!`, `for_each_enum!` and `for_each_structure!`.
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
    let structures = spec.structures.iter();
    let structures = structures.map(|structure| super::structure::row(spec, structure));
    quote! {
        macro_rules! for_each_structure {
            ($callback:ident) => {
                $callback! { #(#structures)* }
            };
        }

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

fn enumeration(options: &Options, entity: &Enum) -> TokenStream {
    let (ty, layout) = (ident(&entity.name), layout_module(options));
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
        quote!(#[doc = #text] pub const #name: Self = Self::from_bits(#number);)
    });
    let names = entity.values.iter().map(|value| {
        let (number, name) = (hex(value.value), &value.name);
        quote!((#number, #name))
    });
    quote! {
        #[doc = #text]
        ///
        /// Open: numbers without a name are kept.
        pub type #ty = generic::Number<::core::marker::PhantomData<#layout::#ty>, #carrier>;

        impl #ty {
            #(#constants)*
        }

        impl generic::Names<#carrier> for #layout::#ty {
            const NAMES: (&'static str, &'static [(#carrier, &'static str)]) =
                (#name_text, &[#(#names),*]);
        }
    }
}

/// The module of the markers: each area that is not always there has one of its own.
pub(super) fn layout_module(options: &Options) -> Ident {
    match options.area.as_deref() {
        None | Some(CORE) => ident("layout"),
        Some(area) => ident(&format!("layout_{area}")),
    }
}

/// The types that stand for what the generic types are instances of.
fn layouts(spec: &Spec, options: &Options, wanted: impl Fn(&str) -> bool) -> TokenStream {
    let marker = |name: &str| {
        let text = format!(" Layout of `{name}`.");
        let ty = ident(name);
        wanted(name).then(|| quote!(#[doc = #text] pub struct #ty {}))
    };
    let enums = spec.enums.iter().map(|entity| marker(&entity.name));
    let formats = spec.formats.iter().map(|format| marker(&format.name));
    let structures = spec.structures.iter().filter_map(|structure| {
        let marker = marker(&structure.name)?;
        let align = number(u64::from(structure.align));
        Some(quote!(#[repr(align(#align))] #marker))
    });
    let module = layout_module(options);
    quote! {
        /// What the generic types of words, enums and structures are instances of.
        pub mod #module {
            #(#enums)* #(#formats)* #(#structures)*
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
    let reserved = |ones: &[bool]| {
        hex(mask_of(format.items.iter().filter(
            |item| matches!(item, BitItem::Reserved { ones: of, .. } if ones.contains(of)),
        )))
    };
    let (reserved, ones) = (reserved(&[false, true]), reserved(&[true]));
    match &options.bitfield {
        Some(bitfield) if fits_bitfield_struct(format) => {
            let definition = with_bitfield_struct(bitfield, format, &ty, &carrier);
            quote! {
                #definition

                impl #ty {
                    /// Bits that have no freedom.
                    pub const RESERVED: #carrier = #reserved;

                    /// Whether every reserved bit is as it must be.
                    pub const fn is_reserved_valid(self) -> bool {
                        self.into_bits() & Self::RESERVED == #ones
                    }
                }
            }
        }
        _ => composed(spec, options, format, &reserved, &ones),
    }
}

fn with_bitfield_struct(
    bitfield: &TokenStream,
    format: &Format,
    ty: &Ident,
    carrier: &Ident,
) -> TokenStream {
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
        #[#bitfield(#carrier)]
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

/// The bits of a field of `self`, right-aligned.
fn gather(field: &BitField) -> TokenStream {
    let terms = field.pieces().map(|(bits, at)| {
        let (low, mask) = (number(u64::from(bits.low)), hex(ones(bits.width())));
        let piece = quote!(self.piece(#low, #mask));
        if at == 0 {
            return piece;
        }
        let at = number(u64::from(at));
        quote!((#piece << #at))
    });
    quote!(#(#terms)|*)
}

/// `self` with the bits of `raw` in the places of the field.
fn scatter(field: &BitField, raw: &TokenStream) -> TokenStream {
    let steps = field.pieces().map(|(bits, at)| {
        let (low, mask) = (number(u64::from(bits.low)), hex(ones(bits.width())));
        let raw = if at == 0 {
            raw.clone()
        } else {
            let at = number(u64::from(at));
            quote!(#raw >> #at)
        };
        quote!(.with_piece(#low, #mask, #raw))
    });
    quote!(self #(#steps)*)
}

fn composed(
    spec: &Spec,
    options: &Options,
    format: &Format,
    reserved: &Literal,
    ones: &Literal,
) -> TokenStream {
    let (ty, carrier) = (ident(&format.name), carrier(format.width));
    let layout = layout_module(options);
    let text = doc(&format.doc);
    let name_text = &format.name;
    let width = carrier_bits(format.width);
    let kind = |field: &BitField| {
        let ty = field.ty.as_ref().map(|ty| ty.value.as_str());
        field_type(spec, options, ty, field.width(), field.shift)
    };
    let fields: Vec<&BitField> = format
        .items
        .iter()
        .filter_map(|item| match item {
            BitItem::Field(field) => Some(field),
            _ => None,
        })
        .collect();
    let accessors = fields.iter().map(|field| {
        let kind = kind(field);
        let getter = getter(field, &kind, width);
        let name = ident(&field.name);
        let with = ident(&format!("with_{}", field.name));
        let set = &kind.set;
        let text = format!(" With `{name}` replaced; bits that do not fit are cut off.");
        let body = match (&kind.form, field.bits.as_slice()) {
            (Form::Bool, [bits]) if bits.width() == 1 => {
                let low = number(u64::from(bits.low));
                quote!(self.with_bit(#low, value))
            }
            (_, [_]) => scatter(field, &kind.encode(width)),
            _ => {
                let (raw, encoded) = (quote!(raw), kind.encode(width));
                let body = scatter(field, &raw);
                quote!(let raw = #encoded; #body)
            }
        };
        quote! {
            #getter

            #[doc = #text]
            #[inline]
            pub const fn #with(self, value: #set) -> Self {
                #body
            }
        }
    });
    let views = format
        .views
        .iter()
        .map(|view| getter(view, &kind(view), width));
    let shown = fields.iter().copied().chain(&format.views).map(|field| {
        let name = &field.name;
        let get = ident(name);
        quote!(.field(#name, &word.#get()))
    });
    quote! {
        #[doc = #text]
        pub type #ty = generic::Word<#layout::#ty, #carrier>;

        impl #ty {
            #(#accessors)*
            #(#views)*
        }

        impl generic::WordLayout<#carrier> for #layout::#ty {
            const LAYOUT: (&'static str, #carrier, #carrier) = (#name_text, #reserved, #ones);

            fn fields(word: #ty, to: &mut ::core::fmt::DebugStruct<'_, '_>) {
                to #(#shown)*;
            }
        }
    }
}

fn getter(field: &BitField, kind: &FieldType, width: u32) -> TokenStream {
    let name = ident(&field.name);
    let text = field_doc(field);
    let get = &kind.get;
    let body = match (&kind.form, field.bits.as_slice()) {
        (Form::Bool, [bits]) if bits.width() == 1 => {
            let low = number(u64::from(bits.low));
            quote!(self.bit(#low))
        }
        _ => kind.decode(gather(field), width),
    };
    quote! {
        #[doc = #text]
        #[inline]
        pub const fn #name(self) -> #get {
            #body
        }
    }
}
