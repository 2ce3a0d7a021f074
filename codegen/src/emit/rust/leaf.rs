//! The caller's side: a type for each operand list, with typed inputs and outputs.

mod input;
mod output;

use alloc::collections::BTreeMap;

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::quote;

use self::input::Input;
use super::Options;
use super::leaf_doc::leaf_doc;
use super::text::camel;
use super::text::camel_name;
use super::text::constant;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::area;
use crate::model::Bits;
use crate::model::Evidence;
use crate::model::Kind;
use crate::model::Leaf;
use crate::model::Operand;
use crate::model::Part;
use crate::model::Side;
use crate::model::Spec;
use crate::model::Yields;

/// Registers that leaves read beyond RCX, with the variant of `Reach` that has them.
const REACHES: [(&str, &str); 7] = [
    ("rdx", "Rdx"),
    ("r8", "R8"),
    ("r9", "R9"),
    ("r10", "R11"),
    ("r11", "R11"),
    ("r12", "R13"),
    ("r13", "R13"),
];
/// Registers that a call passes.
const REGISTERS: usize = 15;
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

/// Modules `tdh`, `tdg` and `seamldr` with a type for each operand list; of one of them the content, if that is the part wanted.
pub fn leaves(spec: &Spec, options: &Options) -> TokenStream {
    let mut tree: BTreeMap<String, BTreeMap<Option<String>, Vec<TokenStream>>> = BTreeMap::new();
    let mut list: Vec<&Leaf> = spec.leaves.iter().filter(|leaf| is_typed(leaf)).collect();
    list.retain(|leaf| options.wants(area::of_leaf(spec, leaf)));
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
        let root = &options.root;
        let groups = groups.into_iter().map(|(group, items)| match group {
            None => quote!(use #root::*; #(#items)*),
            Some(group) => {
                let text = format!(" `{}.{}.*`.", side.to_uppercase(), group.to_uppercase());
                let group = ident(&group);
                quote!(#[doc = #text] pub mod #group { use #root::*; #(#items)* })
            }
        });
        match &options.part {
            None => quote!(#[doc = #text] pub mod #side_ident { #(#groups)* }),
            Some(wanted) if *wanted == side => quote!(#(#groups)*),
            Some(_) => quote!(),
        }
    });
    quote!(#(#sides)*)
}

struct Writer<'l> {
    spec: &'l Spec,
    /// Whether lints will see the code: what a macro writes is exempt from most.
    linted: bool,
    leaf: &'l Leaf,
    ty: Ident,
    /// The levels that the leaf's mapping operand may have, if more than one.
    generic_levels: Option<u8>,
    /// Whether the entry's level decides about the size of a page that is given away.
    strict: bool,
}

impl<'l> Writer<'l> {
    fn new(spec: &'l Spec, options: &Options, leaf: &'l Leaf) -> Self {
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
            linted: options.linted,
            leaf,
            ty: ident(&type_path(leaf).2),
            generic_levels: levels.filter(|mask| mask.count_ones() > 1),
            strict: parts().any(|part| matches!(part.kind, Kind::Page { level: None, .. })),
        }
    }

    fn level_type(&self, level: u8) -> TokenStream {
        let name = ident(
            ["Pt", "Pd", "Pdpt", "Pml4", "Pml5"]
                .get(usize::from(level))
                .unwrap_or(&"Pt"),
        );
        quote!(level::#name)
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

    fn generics(&self) -> (TokenStream, TokenStream) {
        let mut parameters = Vec::new();
        let mut arguments = Vec::new();
        if let Some(mask) = self.generic_levels {
            let mask = number(u64::from(mask));
            let strict = if self.strict {
                quote!(+ level::Fixed)
            } else {
                quote!()
            };
            parameters.push(quote!(L: level::Within<#mask> #strict));
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
        let (leaf, ty) = (self.leaf, &self.ty);
        let (parameters, arguments) = self.generics();
        let inputs = self.inputs();
        let text = leaf_doc(self.spec, leaf);
        let mut fields: Vec<TokenStream> = Vec::new();
        let mut feature = quote!();
        if let Some((name, bit)) = self.feature() {
            let text = format!(" That the module has {name}.");
            let bit = number(u64::from(bit));
            let constant = constant(&name);
            fields.push(quote!(#[doc = #text] pub supported: module::Has<#bit>,));
            feature = quote!(.needing(Features::#constant));
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
            quote!(#name: #(#terms)|*,)
        });
        let reach = self.reach();
        let version = leaf.versions.first().copied().unwrap_or(0);
        let seamldr = leaf.side == Side::Seamldr;
        let rax = hex(leaf.rax(version));
        let name = &leaf.name;
        let (output_items, output_ty, output) = self.output(&inputs);
        let caller = ident(if leaf.side == Side::Guest {
            "Guest"
        } else {
            "Host"
        });
        let details = self.details(&parameters, &arguments);
        let resume = self.resume(&inputs, &parameters, &arguments);
        let body = if fields.is_empty() {
            quote!(;)
        } else {
            quote!({ #(#fields)* })
        };
        let number = seamldr.then(|| {
            let number = constant(name);
            quote! {
                impl #ty {
                    /// The leaf's number, with what modules allow.
                    pub const LEAF: leaf::SeamldrLeaf = leaf::SeamldrLeaf::#number;
                }
            }
        });
        let registers = if output.to_string().contains("registers") {
            quote!(registers)
        } else {
            quote!(_)
        };
        // RAX is always there; an update that replaces nothing is one that lints complain of.
        let others = (distinct.len() + 1 < REGISTERS).then(|| quote!(..Registers::ZERO));
        quote! {
            #[doc = #text]
            #[must_use = "a leaf does nothing until it is called"]
            pub struct #ty #parameters #body

            #number

            impl #parameters Leaf for #ty #arguments {
                const SIGNATURE: Signature = Signature::new(#name, #rax, Reach::#reach)#feature;
                type Caller = #caller;
                type Output = #output_ty;

                #[inline(always)]
                fn encode(&self) -> Registers {
                    Registers { rax: Self::RAX, #(#loads)* #others }
                }

                #[inline(always)]
                fn output(self, #registers: &Registers) -> Self::Output { #output }
            }

            #output_items
            #details
            #resume
        }
    }

    /// The variant of `Reach`: the last register that the leaf reads, or writes beyond R11.
    ///
    /// Of all operand lists that the number has: which of them a module follows may depend on how it is configured, and a
    /// register that is not expected to change must not.
    fn reach(&self) -> Ident {
        let place = |operand: &Operand| match operand.register {
            "rax" | "rcx" => 0,
            register => {
                1 + REACHES
                    .iter()
                    .position(|(name, _)| *name == register)
                    .unwrap_or(REACHES.len())
            }
        };
        let inputs = self.leaf.inputs.iter().map(place);
        let same = self.spec.leaves.iter().filter(|leaf| {
            leaf.side == self.leaf.side && leaf.number.value == self.leaf.number.value
        });
        // R12 stands at place 6.
        let others = same
            .flat_map(|leaf| leaf.inputs.iter().chain(&leaf.outputs))
            .map(place)
            .filter(|place| *place >= 6);
        let variant = match inputs.chain(others).max().unwrap_or(0) {
            0 => "Rcx",
            last => REACHES.get(last - 1).map_or("All", |(_, variant)| variant),
        };
        ident(variant)
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
