//! Inputs: the fields of a leaf's type, and how they become bits of registers.

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::quote;

use super::Writer;
use super::place;
use crate::emit::rust::format::carrier;
use crate::emit::rust::format::named_width;
use crate::emit::rust::text::doc;
use crate::emit::rust::text::ident;
use crate::model::Evidence;
use crate::model::Kind;
use crate::model::LockMode;
use crate::model::Part;

/// A value as a field: its type, and how it becomes bits of a register.
pub(super) struct Input<'l> {
    pub(super) part: &'l Part,
    pub(super) register: &'static str,
    pub(super) name: Ident,
    pub(super) ty: TokenStream,
    /// The register's bits from `self`.
    pub(super) encode: TokenStream,
}

impl<'l> Writer<'l> {
    pub(super) fn input(&self, register: &'static str, part: &'l Part) -> Input<'l> {
        let mut name = ident(&part.name);
        let (ty, encode) = match &part.kind {
            Kind::Number(64) | Kind::Unknown => (quote!(u64), quote!(self.#name)),
            Kind::Number(bits) => {
                let ty = carrier(*bits);
                (quote!(#ty), quote!(self.#name as u64))
            }
            Kind::Bool => (quote!(bool), quote!(self.#name as u64)),
            Kind::Hpa { .. } => (quote!(Hpa), quote!(self.#name.bits())),
            Kind::Gpa { .. } | Kind::SharedGpa { .. } => (quote!(Gpa), quote!(self.#name.bits())),
            Kind::PrivateGpa { .. } => (quote!(PrivateGpa), quote!(self.#name.bits())),
            Kind::Hkid => (quote!(Hkid), quote!(self.#name.number() as u64)),
            Kind::FieldId => (quote!(field::FieldId), quote!(self.#name.into_bits())),
            Kind::Tdr if self.has_evidence() => (quote!(), quote!(self.entry.tdr().hpa().bits())),
            Kind::Tdr => (quote!(Tdr), quote!(self.#name.hpa().bits())),
            Kind::Tdvpr => (quote!(Tdvpr), quote!(self.#name.hpa().bits())),
            Kind::Mapping { levels, evidence } => {
                let level = self.entry_level(levels);
                match evidence {
                    Some(Evidence::Tracked) => {
                        name = ident("entry");
                        (
                            quote!(Untranslated<#level>),
                            quote!(self.entry.mapping().bits()),
                        )
                    }
                    None => (quote!(Mapping<#level>), quote!(self.#name.bits())),
                }
            }
            Kind::Page { level, .. } => {
                let level = match level {
                    Some(level) => self.level_type(*level),
                    None => self.entry_level(&self.mapping_levels()),
                };
                (quote!(Page<#level>), quote!(self.#name.hpa().bits()))
            }
            Kind::Structure {
                of: Some(of),
                guest,
                ..
            } => {
                let of = ident(of);
                let ty = if *guest { quote!(GpaOf) } else { quote!(HpaOf) };
                (
                    quote!(#ty<format::#of>),
                    quote!(self.#name.address().bits()),
                )
            }
            Kind::Structure { guest: true, .. } => (quote!(Gpa), quote!(self.#name.bits())),
            Kind::Structure { .. } => (quote!(Hpa), quote!(self.#name.bits())),
            Kind::Format(format) => {
                let ty = ident(format);
                let wide = named_width(self.spec, format).is_some_and(|width| width > 32);
                let bits = if wide {
                    quote!(self.#name.into_bits())
                } else {
                    quote!(self.#name.into_bits() as u64)
                };
                (quote!(format::#ty), bits)
            }
        };
        Input {
            part,
            register,
            name,
            ty,
            encode: place(&part.kind, part.bits, encode),
        }
    }

    pub(super) fn input_doc(&self, input: &Input<'_>) -> String {
        let register = input.register.to_uppercase();
        let bits = input
            .part
            .bits
            .map(|bits| format!(" bits {bits}"))
            .unwrap_or_default();
        let said = input.part.doc.as_deref().or(input.part.kind.purpose());
        let mut text = match said {
            Some(said) => format!(" {register}{bits}:{}", doc(said)),
            None => format!(" {register}{bits}."),
        };
        if let Kind::Hpa { align }
        | Kind::Gpa { align }
        | Kind::PrivateGpa { align }
        | Kind::SharedGpa { align } = &input.part.kind
            && *align > 1
        {
            text.push_str(&format!(" Aligned to {align} bytes."));
        }
        let lock = self
            .leaf
            .inputs
            .iter()
            .find(|operand| operand.register == input.register)
            .and_then(|operand| operand.lock);
        match lock {
            Some(LockMode::Shared) => text.push_str(" Locked shared."),
            Some(LockMode::Exclusive) => text.push_str(" Locked exclusively."),
            None => {}
        }
        text
    }
}
