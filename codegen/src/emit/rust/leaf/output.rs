//! Outputs: what success returns, what registers say with an error, and how an interrupted call goes on.

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::format_ident;
use quote::quote;

use super::KEPT;
use super::Writer;
use super::extract;
use super::input::Input;
use crate::emit::rust::format::carrier;
use crate::emit::rust::format::named_width;
use crate::emit::rust::text::constant;
use crate::emit::rust::text::doc;
use crate::emit::rust::text::hex;
use crate::emit::rust::text::ident;
use crate::model::Callee;
use crate::model::Kind;
use crate::model::Meaning;
use crate::model::Part;
use crate::model::Side;
use crate::model::Yields;

impl Writer<'_> {
    /// Items of the output type, the type, and the expression that makes it of `self` and `registers`.
    pub(super) fn output(&self, inputs: &[Input<'_>]) -> (TokenStream, TokenStream, TokenStream) {
        let mut fields: Vec<(Ident, TokenStream, TokenStream, String)> = Vec::new();
        let mut generic = Vec::new();
        for operand in &self.leaf.outputs {
            let register = ident(operand.register);
            for meaning in operand
                .meanings
                .iter()
                .filter(|meaning| is_success(meaning))
            {
                for part in meaning
                    .parts
                    .iter()
                    .filter(|part| !part.name.starts_with("reserved"))
                {
                    let bits = extract(&part.kind, part.bits, quote!(registers.#register));
                    let (ty, value) = self.output_value(part, bits);
                    if matches!(part.kind, Kind::Page { level: None, .. })
                        && self.generic_levels.is_some()
                    {
                        generic.push("L");
                    }
                    let upper = operand.register.to_uppercase();
                    let text = part.doc.as_deref().map_or_else(
                        || format!(" {upper}."),
                        |text| format!(" {upper}:{}", doc(text)),
                    );
                    fields.push((ident(&part.name), ty, value, text));
                }
            }
        }
        for input in inputs {
            if let Kind::Page {
                becomes: Some(becomes),
                ..
            } = &input.part.kind
            {
                let ty = match becomes.as_str() {
                    "tdr" => "Tdr",
                    "tdvpr" => "Tdvpr",
                    _ => continue,
                };
                let (name, ty, field) = (ident(becomes), ident(ty), &input.name);
                let text = format!(" What the module made of `{}`.", input.part.name);
                fields.push((
                    name,
                    quote!(#ty),
                    quote!(#ty::assume(self.#field.hpa())),
                    text,
                ));
            }
        }
        match self.leaf.yields {
            Some(Yields::Blocked) => {
                let mapping = inputs
                    .iter()
                    .find(|input| matches!(input.part.kind, Kind::Mapping { .. }));
                let tdr = inputs
                    .iter()
                    .find(|input| matches!(input.part.kind, Kind::Tdr));
                if let (Some(mapping), Some(tdr)) = (mapping, tdr) {
                    let level = self.entry_level(&self.mapping_levels());
                    let (mapping, tdr) = (&mapping.name, &tdr.name);
                    if self.generic_levels.is_some() {
                        generic.push("L");
                    }
                    fields.push((
                        ident("blocked"),
                        quote!(Blocked<#level>),
                        quote!(Blocked::assume(self.#tdr, self.#mapping)),
                        " The entry, now blocked.".to_owned(),
                    ));
                }
            }
            Some(Yields::Tracked) => {
                generic.push("B");
                fields.push((
                    ident("tracked"),
                    quote!(Tracked<B>),
                    quote!(Tracked::new(self.blocked)),
                    " What was blocked before, now tracked.".to_owned(),
                ));
            }
            Some(Yields::Reclaimed) => {
                let size = fields
                    .iter()
                    .find(|(_, ty, ..)| ty.to_string().ends_with("PageSize"));
                let page = inputs
                    .iter()
                    .find(|input| matches!(input.part.kind, Kind::Hpa { .. }));
                if let (Some((_, _, size, _)), Some(page)) = (size, page) {
                    let page = &page.name;
                    let value = quote!(match #size.level() {
                        Some(level) => Page::assume_owned(self.#page, level),
                        None => None,
                    });
                    let text = " The page, the host's again; `None` if its size makes no sense."
                        .to_owned();
                    fields.push((ident("reclaimed"), quote!(Option<Page>), value, text));
                }
            }
            None => {}
        }
        if fields.is_empty() {
            return (quote!(), quote!(()), quote!());
        }
        generic.dedup();
        let name = format_ident!("{}Output", self.ty);
        let arguments: Vec<Ident> = generic.iter().map(|name| ident(name)).collect();
        let arguments = if arguments.is_empty() {
            quote!()
        } else {
            quote!(<#(#arguments),*>)
        };
        let text = format!(" What [`{}`] returns.", self.ty);
        let declared = fields
            .iter()
            .map(|(name, ty, _, text)| quote!(#[doc = #text] pub #name: #ty,));
        let built = fields
            .iter()
            .map(|(name, _, value, _)| quote!(#name: #value,));
        let items = quote! {
            #[doc = #text]
            #[derive(Debug)]
            #[must_use]
            pub struct #name #arguments {
                #(#declared)*
            }
        };
        (
            items,
            quote!(#name #arguments),
            quote!(#name { #(#built)* }),
        )
    }

    fn output_value(&self, part: &Part, bits: TokenStream) -> (TokenStream, TokenStream) {
        match &part.kind {
            Kind::Number(64) | Kind::Unknown => (quote!(u64), bits),
            Kind::Number(width) => {
                let ty = carrier(*width);
                (quote!(#ty), quote!(#bits as #ty))
            }
            Kind::Bool => (quote!(bool), quote!(#bits & 1 != 0)),
            Kind::Hpa { .. } | Kind::Structure { guest: false, .. } => {
                (quote!(Hpa), quote!(Hpa::new(#bits)))
            }
            Kind::Gpa { .. } | Kind::SharedGpa { .. } | Kind::Structure { .. } => {
                (quote!(Gpa), quote!(Gpa::new(#bits)))
            }
            Kind::PrivateGpa { .. } => (quote!(PrivateGpa), quote!(PrivateGpa::new(#bits))),
            Kind::Hkid => (quote!(Hkid), quote!(Hkid::new(#bits as u16))),
            Kind::FieldId => (
                quote!(field::FieldId),
                quote!(field::FieldId::from_bits(#bits)),
            ),
            Kind::Tdr => (quote!(Tdr), quote!(Tdr::assume(Hpa::new(#bits)))),
            Kind::Tdvpr => (quote!(Tdvpr), quote!(Tdvpr::assume(Hpa::new(#bits)))),
            Kind::Mapping { .. } => (
                quote!(format::GpaMapping),
                quote!(format::GpaMapping::from_bits(#bits)),
            ),
            Kind::Page {
                level: Some(level), ..
            } => {
                let level = self.level_type(*level);
                (quote!(Page<#level>), quote!(Page::returned(#bits, #level)))
            }
            Kind::Page { level: None, .. } => {
                let level = self.entry_level(&self.mapping_levels());
                let entry = if self.has_evidence() {
                    quote!(self.entry)
                } else {
                    quote!(self.gpa)
                };
                (
                    quote!(Page<#level>),
                    quote!(Page::returned(#bits, #entry.level_type())),
                )
            }
            Kind::Format(format) => {
                let ty = ident(format);
                let width = named_width(self.spec, format).unwrap_or(64);
                let carrier = carrier(width);
                let bits = if width > 32 {
                    bits
                } else {
                    quote!(#bits as #carrier)
                };
                (quote!(format::#ty), quote!(format::#ty::from_bits(#bits)))
            }
        }
    }

    /// What registers mean with an error, as methods of the refusal.
    pub(super) fn details(&self, parameters: &TokenStream, arguments: &TokenStream) -> TokenStream {
        let ty = &self.ty;
        let (code, code_ty) = if self.leaf.side == Side::Seamldr {
            (quote!(seamldr_status()), quote!(status::SeamldrStatus))
        } else {
            (quote!(status.code()), quote!(StatusCode))
        };
        let mut methods = Vec::new();
        for operand in self
            .leaf
            .outputs
            .iter()
            .filter(|operand| KEPT.contains(&operand.register))
        {
            let register = ident(operand.register);
            for meaning in &operand.meanings {
                let statuses: Vec<Ident> = meaning
                    .on
                    .iter()
                    .filter(|on| self.is_error(&on.value))
                    .map(|on| constant(&on.value))
                    .collect();
                if statuses.is_empty() {
                    continue;
                }
                let parts = meaning.parts.iter();
                for part in parts.filter(|part| !part.name.starts_with("reserved")) {
                    let bits = extract(&part.kind, part.bits, quote!(failure.#register));
                    let (value_ty, value) = match &part.kind {
                        Kind::Page { .. } => continue,
                        _ => self.output_value(part, bits),
                    };
                    let name = ident(&part.name);
                    let upper = operand.register.to_uppercase();
                    let text = part.doc.as_deref().map_or_else(
                        || format!(" {upper}."),
                        |text| format!(" {upper}:{}", doc(text)),
                    );
                    methods.push(quote! {
                        #[doc = #text]
                        ///
                        /// `None` with other statuses than those that return it.
                        pub fn #name(&self) -> Option<#value_ty> {
                            let failure = self.failure()?;
                            match failure.#code {
                                #(#code_ty::#statuses)|* => Some(#value),
                                _ => None,
                            }
                        }
                    });
                }
            }
        }
        if methods.is_empty() {
            quote!()
        } else {
            quote!(impl #parameters Refused<#ty #arguments> { #(#methods)* })
        }
    }

    fn is_error(&self, status: &str) -> bool {
        let callee = if self.leaf.side == Side::Seamldr {
            Callee::Seamldr
        } else {
            Callee::Module
        };
        let tables = self
            .spec
            .statuses
            .iter()
            .filter(|table| table.callee == callee);
        tables
            .flat_map(|table| &table.rows)
            .any(|row| row.name == status && row.value >> 63 != 0)
    }

    /// The leaf that goes on where an interrupted one stopped.
    pub(super) fn resume(
        &self,
        inputs: &[Input<'_>],
        parameters: &TokenStream,
        arguments: &TokenStream,
    ) -> TokenStream {
        let ty = &self.ty;
        let mut steps = Vec::new();
        for resume in &self.leaf.resume {
            let Some(input) = inputs
                .iter()
                .find(|input| input.register == resume.register)
            else {
                return quote!();
            };
            let name = &input.name;
            let bits = match resume.set {
                None if KEPT.contains(&resume.register) => {
                    let register = ident(resume.register);
                    quote!(failure.#register)
                }
                None => return quote!(),
                Some(set) => {
                    let set = hex(set);
                    match &input.part.kind {
                        Kind::Format(_) => quote!(leaf.#name.into_bits() | #set),
                        Kind::Number(64) => quote!(leaf.#name | #set),
                        _ => return quote!(),
                    }
                }
            };
            match &input.part.kind {
                Kind::Format(format)
                    if named_width(self.spec, format).is_some_and(|width| width > 32) =>
                {
                    let format = ident(format);
                    steps.push(quote!(leaf.#name = format::#format::from_bits(#bits);));
                }
                Kind::Number(64) => steps.push(quote!(leaf.#name = #bits;)),
                _ => return quote!(),
            }
        }
        if steps.is_empty() {
            return quote!();
        }
        let words = inputs.iter().filter(|input| !input.ty.is_empty()).count();
        let large = (self.linted && arguments.is_empty() && words >= LARGE)
            .then(|| quote!(#[expect(clippy::result_large_err, reason = "the inputs come back")]));
        quote! {
            impl #parameters Refused<#ty #arguments> {
                /// The leaf that goes on where this one was interrupted; the refusal itself if it was not.
                #large
                pub fn resume(self) -> Result<#ty #arguments, Self> {
                    let CallError::Retry(Retry::Resumable, failure) = self.error else {
                        return Err(self);
                    };
                    let mut leaf = self.leaf;
                    #(#steps)*
                    let _ = failure;
                    Ok(leaf)
                }
            }
        }
    }
}

/// Inputs from which on a refusal is, for clippy, a large error.
const LARGE: usize = 8;

fn is_success(meaning: &Meaning) -> bool {
    meaning.on.is_empty() || meaning.on.iter().any(|on| on.value == "SUCCESS")
}
