//! The caller's side: a type for each operand list, with typed inputs and outputs.

use alloc::collections::BTreeMap;

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::format_ident;
use quote::quote;

use super::Options;
use super::format::carrier;
use super::format::named_width;
use super::leaf_doc::leaf_doc;
use super::text::camel;
use super::text::camel_name;
use super::text::constant;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::model::Bits;
use crate::model::Callee;
use crate::model::Evidence;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::LockMode;
use crate::model::Meaning;
use crate::model::Operand;
use crate::model::Part;
use crate::model::Side;
use crate::model::Spec;
use crate::model::Yields;

/// Registers that an ordinary leaf may use.
const SHORT: [&str; 9] = ["rax", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13"];
/// Registers that a failure keeps.
const KEPT: [&str; 6] = ["rcx", "rdx", "r8", "r9", "r10", "r11"];

/// Whether enough is known of the leaf to make a type of it.
pub fn is_typed(leaf: &Leaf) -> bool {
    leaf.side != Side::Vmcall
        && (!leaf.statuses.is_empty() || !leaf.inputs.is_empty() || !leaf.outputs.is_empty())
}

/// Path of the leaf's type below the root: side, group, name; no group for names of two parts.
pub fn type_path(leaf: &Leaf) -> (String, Option<String>, String) {
    let parts: Vec<&str> = leaf.name.split('.').collect();
    let variant = leaf.variant.as_deref().unwrap_or_default();
    let side = parts[0].to_lowercase();
    match parts.as_slice() {
        [_, name] => (side, None, format!("{}{variant}", camel_name(name))),
        [_, group, rest @ ..] => (
            side,
            Some(group.to_lowercase()),
            format!("{}{variant}", camel_name(&rest.join("."))),
        ),
        [] | [_] => (side, None, variant.to_owned()),
    }
}

/// Modules `tdh`, `tdg` and `seamldr` with a type for each operand list.
pub fn leaves(spec: &Spec, options: &Options) -> TokenStream {
    let mut tree: BTreeMap<String, BTreeMap<Option<String>, Vec<TokenStream>>> = BTreeMap::new();
    let mut list: Vec<&Leaf> = spec.leaves.iter().filter(|leaf| is_typed(leaf)).collect();
    list.sort_by_key(|leaf| (leaf.side, leaf.number.value, leaf.variant.clone()));
    for leaf in list {
        let (side, group, _) = type_path(leaf);
        let items = Writer::new(spec, options, leaf).items();
        tree.entry(side)
            .or_default()
            .entry(group)
            .or_default()
            .push(items);
    }
    let sides = tree.into_iter().map(|(side, groups)| {
        let text = match side.as_str() {
            "tdh" => " Leaves of the TDX module that the host calls.",
            "tdg" => " Leaves of the TDX module that the guest calls.",
            _ => " Leaves of P-SEAMLDR.",
        };
        let side_ident = ident(&side);
        let groups = groups.into_iter().map(|(group, items)| match group {
            None => quote!(#(#items)*),
            Some(group) => {
                let text = format!(" `{}.{}.*`.", side.to_uppercase(), group.to_uppercase());
                let group = ident(&group);
                quote!(#[doc = #text] pub mod #group { #(#items)* })
            }
        });
        quote!(#[doc = #text] pub mod #side_ident { #(#groups)* })
    });
    quote!(#(#sides)*)
}

/// A value as a field: its type, and how it becomes bits of a register.
struct Input<'l> {
    part: &'l Part,
    register: &'static str,
    name: Ident,
    ty: TokenStream,
    /// The register's bits from `self`.
    encode: TokenStream,
}

struct Writer<'l> {
    spec: &'l Spec,
    root: &'l TokenStream,
    leaf: &'l Leaf,
    ty: Ident,
    /// The levels that the leaf's mapping operand may have, if more than one.
    generic_levels: Option<u8>,
    /// Whether the entry's level decides about the size of a page that is given away.
    strict: bool,
}

impl<'l> Writer<'l> {
    fn new(spec: &'l Spec, options: &'l Options, leaf: &'l Leaf) -> Self {
        let parts = || {
            leaf.inputs
                .iter()
                .flat_map(|operand| &operand.meanings)
                .flat_map(|meaning| &meaning.parts)
        };
        let levels = parts().find_map(|part| match &part.kind {
            Kind::Mapping { levels, .. } => {
                Some(levels.iter().fold(0u8, |mask, level| mask | 1 << level))
            }
            _ => None,
        });
        Self {
            spec,
            root: &options.root,
            leaf,
            ty: ident(&type_path(leaf).2),
            generic_levels: levels.filter(|mask| mask.count_ones() > 1),
            strict: parts().any(|part| matches!(part.kind, Kind::Page { level: None, .. })),
        }
    }

    fn level_type(&self, level: u8) -> TokenStream {
        let root = self.root;
        let name = ident(
            ["Pt", "Pd", "Pdpt", "Pml4", "Pml5"]
                .get(usize::from(level))
                .unwrap_or(&"Pt"),
        );
        quote!(#root::level::#name)
    }

    /// The level of the mapping operand as a type.
    fn entry_level(&self, levels: &[u8]) -> TokenStream {
        if self.generic_levels.is_some() {
            quote!(L)
        } else {
            self.level_type(levels.first().copied().unwrap_or(0))
        }
    }

    fn mapping_levels(&self) -> Vec<u8> {
        self.inputs_of()
            .iter()
            .find_map(|(_, part)| match &part.kind {
                Kind::Mapping { levels, .. } => Some(levels.clone()),
                _ => None,
            })
            .unwrap_or_default()
    }

    fn inputs_of(&self) -> Vec<(&'static str, &'l Part)> {
        let parts =
            |operand: &'l Operand| operand.meanings.iter().flat_map(|meaning| &meaning.parts);
        self.leaf
            .inputs
            .iter()
            .flat_map(|operand| parts(operand).map(|part| (operand.register, part)))
            .collect()
    }

    fn has_evidence(&self) -> bool {
        self.inputs_of().iter().any(|(_, part)| {
            matches!(
                part.kind,
                Kind::Mapping {
                    evidence: Some(Evidence::Tracked),
                    ..
                }
            )
        })
    }

    fn inputs(&self) -> Vec<Input<'l>> {
        self.inputs_of()
            .into_iter()
            .map(|(register, part)| self.input(register, part))
            .collect()
    }

    fn input(&self, register: &'static str, part: &'l Part) -> Input<'l> {
        let root = self.root;
        let mut name = ident(&part.name);
        let (ty, encode) = match &part.kind {
            Kind::Number(64) | Kind::Unknown => (quote!(u64), quote!(self.#name)),
            Kind::Number(bits) => {
                let ty = carrier(*bits);
                (quote!(#ty), quote!(self.#name as u64))
            }
            Kind::Bool => (quote!(bool), quote!(self.#name as u64)),
            Kind::Hpa { .. } => (quote!(#root::Hpa), quote!(self.#name.bits())),
            Kind::Gpa { .. } | Kind::SharedGpa { .. } => {
                (quote!(#root::Gpa), quote!(self.#name.bits()))
            }
            Kind::PrivateGpa { .. } => (quote!(#root::PrivateGpa), quote!(self.#name.bits())),
            Kind::Hkid => (quote!(#root::Hkid), quote!(self.#name.number() as u64)),
            Kind::FieldId => (
                quote!(#root::field::FieldId),
                quote!(self.#name.into_bits()),
            ),
            Kind::Tdr if self.has_evidence() => (quote!(), quote!(self.entry.tdr().hpa().bits())),
            Kind::Tdr => (quote!(#root::Tdr), quote!(self.#name.hpa().bits())),
            Kind::Tdvpr => (quote!(#root::Tdvpr), quote!(self.#name.hpa().bits())),
            Kind::Mapping { levels, evidence } => {
                let level = self.entry_level(levels);
                match evidence {
                    Some(Evidence::Tracked) => {
                        name = ident("entry");
                        (
                            quote!(#root::Untranslated<#level>),
                            quote!(self.entry.mapping().bits()),
                        )
                    }
                    None => (quote!(#root::Mapping<#level>), quote!(self.#name.bits())),
                }
            }
            Kind::Page { level, .. } => {
                let level = match level {
                    Some(level) => self.level_type(*level),
                    None => self.entry_level(&self.mapping_levels()),
                };
                (quote!(#root::Page<#level>), quote!(self.#name.hpa().bits()))
            }
            Kind::Structure {
                of: Some(of),
                guest,
                ..
            } => {
                let of = ident(of);
                let ty = if *guest {
                    quote!(#root::GpaOf)
                } else {
                    quote!(#root::HpaOf)
                };
                (
                    quote!(#ty<#root::format::#of>),
                    quote!(self.#name.address().bits()),
                )
            }
            Kind::Structure { guest: true, .. } => (quote!(#root::Gpa), quote!(self.#name.bits())),
            Kind::Structure { .. } => (quote!(#root::Hpa), quote!(self.#name.bits())),
            Kind::Format(format) => {
                let ty = ident(format);
                let wide = named_width(self.spec, format) == Some(64)
                    || named_width(self.spec, format).is_some_and(|width| width > 32);
                let bits = if wide {
                    quote!(self.#name.into_bits())
                } else {
                    quote!(self.#name.into_bits() as u64)
                };
                (quote!(#root::format::#ty), bits)
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

    fn generics(&self) -> (TokenStream, TokenStream) {
        let root = self.root;
        let mut parameters = Vec::new();
        let mut arguments = Vec::new();
        if let Some(mask) = self.generic_levels {
            let mask = number(u64::from(mask));
            let strict = if self.strict {
                quote!(+ #root::level::Fixed)
            } else {
                quote!()
            };
            parameters.push(quote!(L: #root::level::Within<#mask> #strict));
            arguments.push(quote!(L));
        }
        if self.leaf.yields == Some(Yields::Tracked) {
            parameters.push(quote!(B));
            arguments.push(quote!(B));
        }
        if arguments.is_empty() {
            (quote!(), quote!())
        } else {
            (quote!(<#(#parameters),*>), quote!(<#(#arguments),*>))
        }
    }

    fn items(&self) -> TokenStream {
        let (root, leaf, ty) = (self.root, self.leaf, &self.ty);
        let (parameters, arguments) = self.generics();
        let inputs = self.inputs();
        let text = leaf_doc(self.spec, leaf);
        let mut fields: Vec<TokenStream> = Vec::new();
        let mut feature = quote!(#root::Features::EMPTY);
        if let Some((name, bit)) = self.feature() {
            let text = format!(" That the module has {name}.");
            let bit = number(u64::from(bit));
            let constant = constant(&name);
            fields.push(quote!(#[doc = #text] pub supported: #root::module::Has<#bit>,));
            feature = quote!(#root::Features::#constant);
        }
        for input in inputs.iter().filter(|input| !input.ty.is_empty()) {
            let (name, field_ty) = (&input.name, &input.ty);
            let text = self.input_doc(input);
            fields.push(quote!(#[doc = #text] pub #name: #field_ty,));
        }
        if leaf.yields == Some(Yields::Tracked) {
            fields.push(quote! {
                /// What was blocked before: a `Blocked`, a collection of them, or `()`.
                pub blocked: B,
            });
        }
        let derive = if self.is_plain() {
            quote!(Clone, Copy, Debug, PartialEq, Eq)
        } else {
            quote!(Debug, PartialEq, Eq)
        };
        let registers = inputs
            .iter()
            .map(|input| input.register)
            .collect::<Vec<_>>();
        let mut distinct: Vec<&str> = Vec::new();
        registers.iter().for_each(|register| {
            if !distinct.contains(register) {
                distinct.push(register)
            }
        });
        let loads = distinct.iter().map(|register| {
            let name = ident(register);
            let terms = inputs
                .iter()
                .filter(|input| input.register == *register)
                .map(|input| &input.encode);
            quote!(registers.#name = #(#terms)|*;)
        });
        let all = leaf
            .inputs
            .iter()
            .chain(&leaf.outputs)
            .any(|operand| !SHORT.contains(&operand.register));
        let version = leaf.versions.first().copied().unwrap_or(0);
        let seamldr = leaf.side == Side::Seamldr;
        let rax = hex(leaf.number.value | u64::from(version) << 16 | u64::from(seamldr) << 63);
        let name = &leaf.name;
        let error = if seamldr {
            quote!(of_seamldr)
        } else {
            quote!(of_module)
        };
        let (output_items, output_ty, output) = self.output(&inputs);
        let trait_name = if leaf.side == Side::Guest {
            quote!(GuestLeaf)
        } else {
            quote!(HostLeaf)
        };
        let details = self.details(&parameters, &arguments);
        let resume = self.resume(&inputs, &parameters, &arguments);
        let body = if fields.is_empty() {
            quote!(;)
        } else {
            quote!({ #(#fields)* })
        };
        let leaf_ident = constant(&leaf.name);
        let number_ty = match leaf.side {
            Side::Guest => quote!(TdcallLeaf),
            Side::Seamldr => quote!(SeamldrLeaf),
            Side::Host | Side::Vmcall => quote!(SeamcallLeaf),
        };
        quote! {
            #[doc = #text]
            #[derive(#derive)]
            #[must_use = "a leaf does nothing until it is called"]
            pub struct #ty #parameters #body

            impl #parameters #ty #arguments {
                /// The leaf's number, with what modules allow.
                pub const LEAF: #root::leaf::#number_ty = #root::leaf::#number_ty::#leaf_ident;
            }

            impl #parameters #root::Leaf for #ty #arguments {
                const NAME: &'static str = #name;
                const RAX: u64 = #rax;
                const FEATURES: #root::Features = #feature;
                const ALL_REGISTERS: bool = #all;
                type Output = #output_ty;

                #[inline(always)]
                fn encode(&self) -> #root::Registers {
                    let mut registers = #root::Registers::ZERO;
                    registers.rax = Self::RAX;
                    #(#loads)*
                    registers
                }

                #[inline(always)]
                fn decode(self, registers: &#root::Registers) -> Result<#root::Success<Self::Output>, #root::Refused<Self>> {
                    if let Some(error) = #root::CallError::#error(registers) {
                        return Err(#root::Refused { leaf: self, error });
                    }
                    let output = #output;
                    Ok(#root::Success { status: #root::Status::from_rax(registers.rax), output })
                }
            }

            impl #parameters #root::#trait_name for #ty #arguments {}

            #output_items
            #details
            #resume
        }
    }

    /// Name and bit of the feature that the leaf needs.
    fn feature(&self) -> Option<(String, u32)> {
        let name = &self.leaf.feature.as_ref()?.value;
        let feature = self
            .spec
            .features
            .iter()
            .find(|feature| feature.name == *name)?;
        Some((feature.name.clone(), feature.bit))
    }

    /// Whether the inputs can be copied.
    fn is_plain(&self) -> bool {
        self.leaf.yields != Some(Yields::Tracked)
            && !self.has_evidence()
            && !self
                .inputs_of()
                .iter()
                .any(|(_, part)| matches!(part.kind, Kind::Page { .. }))
    }

    fn input_doc(&self, input: &Input<'_>) -> String {
        let register = input.register.to_uppercase();
        let bits = input
            .part
            .bits
            .map(|bits| format!(" bits {bits}"))
            .unwrap_or_default();
        let mut text = match (&input.part.doc, &input.part.kind) {
            (Some(doc_text), _) => format!(" {register}{bits}:{}", doc(doc_text)),
            (
                None,
                Kind::Mapping {
                    evidence: Some(_), ..
                },
            ) => {
                format!(
                    " {register}: the entry, of which no translation can be cached, and with it the TD."
                )
            }
            (None, Kind::Mapping { .. }) => format!(" {register}: the entry of the Secure-EPT."),
            (None, Kind::Tdr) => format!(" {register}: the TD."),
            (None, Kind::Tdvpr) => format!(" {register}: the virtual processor."),
            (None, Kind::Page { .. }) => format!(" {register}: the page, which is given away."),
            (None, _) => format!(" {register}{bits}."),
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

    /// Items of the output type, the type, and the expression that makes it of `self` and `registers`.
    fn output(&self, inputs: &[Input<'_>]) -> (TokenStream, TokenStream, TokenStream) {
        let root = self.root;
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
                    quote!(#root::#ty),
                    quote!(#root::#ty::assume(self.#field.hpa())),
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
                        quote!(#root::Blocked<#level>),
                        quote!(#root::Blocked::assume(self.#tdr, self.#mapping)),
                        " The entry, now blocked.".to_owned(),
                    ));
                }
            }
            Some(Yields::Tracked) => {
                generic.push("B");
                fields.push((
                    ident("tracked"),
                    quote!(#root::Tracked<B>),
                    quote!(#root::Tracked::new(self.blocked)),
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
                        Some(level) => #root::Page::assume_owned(self.#page, level),
                        None => None,
                    });
                    let text = " The page, the host's again; `None` if its size makes no sense."
                        .to_owned();
                    fields.push((ident("reclaimed"), quote!(Option<#root::Page>), value, text));
                }
            }
            None => {}
        }
        if fields.is_empty() {
            return (quote!(), quote!(()), quote!(()));
        }
        generic.dedup();
        let name = format_ident!("{}Output", self.ty);
        let arguments: Vec<Ident> = generic.iter().map(|name| ident(name)).collect();
        let arguments = if arguments.is_empty() {
            quote!()
        } else {
            quote!(<#(#arguments),*>)
        };
        let linear = fields.iter().any(|(_, ty, _, _)| {
            let text = ty.to_string();
            ["Page <", ":: Page >", "Blocked <", "Tracked <"]
                .iter()
                .any(|linear| text.contains(linear))
        });
        let derive = if linear {
            quote!(Debug, PartialEq, Eq)
        } else {
            quote!(Clone, Copy, Debug, PartialEq, Eq)
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
            #[derive(#derive)]
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
        let root = self.root;
        match &part.kind {
            Kind::Number(64) | Kind::Unknown => (quote!(u64), bits),
            Kind::Number(width) => {
                let ty = carrier(*width);
                (quote!(#ty), quote!(#bits as #ty))
            }
            Kind::Bool => (quote!(bool), quote!(#bits & 1 != 0)),
            Kind::Hpa { .. } | Kind::Structure { guest: false, .. } => {
                (quote!(#root::Hpa), quote!(#root::Hpa::new(#bits)))
            }
            Kind::Gpa { .. } | Kind::SharedGpa { .. } | Kind::Structure { .. } => {
                (quote!(#root::Gpa), quote!(#root::Gpa::new(#bits)))
            }
            Kind::PrivateGpa { .. } => (
                quote!(#root::PrivateGpa),
                quote!(#root::PrivateGpa::new(#bits)),
            ),
            Kind::Hkid => (quote!(#root::Hkid), quote!(#root::Hkid::new(#bits as u16))),
            Kind::FieldId => (
                quote!(#root::field::FieldId),
                quote!(#root::field::FieldId::from_bits(#bits)),
            ),
            Kind::Tdr => (
                quote!(#root::Tdr),
                quote!(#root::Tdr::assume(#root::Hpa::new(#bits))),
            ),
            Kind::Tdvpr => (
                quote!(#root::Tdvpr),
                quote!(#root::Tdvpr::assume(#root::Hpa::new(#bits))),
            ),
            Kind::Mapping { .. } => (
                quote!(#root::format::GpaMapping),
                quote!(#root::format::GpaMapping::from_bits(#bits)),
            ),
            Kind::Page {
                level: Some(level), ..
            } => {
                let level = self.level_type(*level);
                (
                    quote!(#root::Page<#level>),
                    quote!(#root::Page::returned(#bits, #level)),
                )
            }
            Kind::Page { level: None, .. } => {
                let level = self.entry_level(&self.mapping_levels());
                let entry = if self.has_evidence() {
                    quote!(self.entry)
                } else {
                    quote!(self.gpa)
                };
                (
                    quote!(#root::Page<#level>),
                    quote!(#root::Page::returned(#bits, #entry.level_type())),
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
                (
                    quote!(#root::format::#ty),
                    quote!(#root::format::#ty::from_bits(#bits)),
                )
            }
        }
    }

    /// What registers mean with an error, as methods of the refusal.
    fn details(&self, parameters: &TokenStream, arguments: &TokenStream) -> TokenStream {
        let (root, ty) = (self.root, &self.ty);
        let (code, code_ty) = if self.leaf.side == Side::Seamldr {
            (quote!(seamldr_status()), ident("SeamldrStatus"))
        } else {
            (quote!(status.code()), ident("StatusCode"))
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
                for part in &meaning.parts {
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
                                #(#root::status::#code_ty::#statuses)|* => Some(#value),
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
            quote!(impl #parameters #root::Refused<#ty #arguments> { #(#methods)* })
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
    fn resume(
        &self,
        inputs: &[Input<'_>],
        parameters: &TokenStream,
        arguments: &TokenStream,
    ) -> TokenStream {
        let (root, ty) = (self.root, &self.ty);
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
                    steps.push(quote!(leaf.#name = #root::format::#format::from_bits(#bits);));
                }
                Kind::Number(64) => steps.push(quote!(leaf.#name = #bits;)),
                _ => return quote!(),
            }
        }
        if steps.is_empty() {
            return quote!();
        }
        quote! {
            impl #parameters #root::Refused<#ty #arguments> {
                /// The leaf that goes on where this one was interrupted; the refusal itself if it was not.
                pub fn resume(self) -> Result<#ty #arguments, Self> {
                    let #root::CallError::Retry(#root::Retry::Resumable, failure) = self.error else {
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

fn is_success(meaning: &Meaning) -> bool {
    meaning.on.is_empty() || meaning.on.iter().any(|on| on.value == "SUCCESS")
}

/// Whether a value stands in its bits as it is (addresses), or shifted down (numbers).
const fn in_place(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Number(_) | Kind::Bool | Kind::Format(_) | Kind::Hkid | Kind::Unknown
    )
}

/// Right-aligned bits put where the part has them.
fn place(kind: &Kind, bits: Option<Bits>, value: TokenStream) -> TokenStream {
    let Some(bits) = bits else { return value };
    let mask = hex(bits.mask());
    if in_place(kind) {
        return quote!(((#value) & #mask));
    }
    let low = number(u64::from(bits.low));
    if bits.low == 0 {
        quote!(((#value) & #mask))
    } else {
        quote!(((#value) << #low & #mask))
    }
}

/// The part's bits of a register, right-aligned unless it stands in place.
pub(super) fn extract(kind: &Kind, bits: Option<Bits>, register: TokenStream) -> TokenStream {
    let Some(bits) = bits else { return register };
    let mask = hex(bits.mask());
    if in_place(kind) || bits.low == 0 {
        return quote!((#register & #mask));
    }
    let low = number(u64::from(bits.low));
    quote!(((#register & #mask) >> #low))
}

/// The name of a handler's method or operand struct.
pub(super) fn flat_name(leaf: &Leaf) -> String {
    let variant = leaf
        .variant
        .as_deref()
        .map(|variant| format!("_{variant}"))
        .unwrap_or_default();
    format!("{}{variant}", leaf.name.replace('.', "_")).to_lowercase()
}

pub(super) fn flat_type(leaf: &Leaf) -> Ident {
    camel(&flat_name(leaf))
}
