//! Leaf numbers with what each module allows.

use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::states::states;
use super::text::constant;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::model::Allowed;
use crate::model::FlagTable;
use crate::model::Leaf;
use crate::model::Side;
use crate::model::Spec;

/// Constants of `SeamcallLeaf`, `TdcallLeaf` and `SeamldrLeaf`, and the table behind each.
pub fn leaf_numbers(spec: &Spec, _: &Options) -> TokenStream {
    let host = side(spec, Side::Host, "SeamcallLeaf", "SEAMCALL_LEAVES");
    let guest = side(spec, Side::Guest, "TdcallLeaf", "TDCALL_LEAVES");
    let seamldr = side(spec, Side::Seamldr, "SeamldrLeaf", "SEAMLDR_LEAVES");
    quote!(#host #guest #seamldr)
}

fn side(spec: &Spec, side: Side, ty: &str, table: &str) -> TokenStream {
    let (ty, table) = (ident(ty), ident(table));
    let mut leaves: Vec<&Leaf> = spec
        .leaves
        .iter()
        .filter(|leaf| leaf.side == side && leaf.variant.is_none())
        .collect();
    // A number that several leaves claim belongs first to the one that a public module dispatches.
    leaves.sort_by_cached_key(|leaf| {
        (
            leaf.number.value,
            !dispatched(spec, leaf),
            leaf.name.clone(),
        )
    });
    let constants = leaves.iter().map(|leaf| {
        let name = constant(&leaf.name);
        let value = number(leaf.number.value);
        let text = doc(&leaf.doc);
        quote!(#[doc = #text] pub const #name: Self = Self(#value);)
    });
    let rows = leaves.iter().map(|leaf| row(spec, leaf));
    quote! {
        impl #ty {
            #(#constants)*
        }

        /// Every leaf with a name, by ascending number.
        pub static #table: &[LeafRow] = &[#(#rows),*];
    }
}

fn dispatched(spec: &Spec, leaf: &Leaf) -> bool {
    spec.modules.iter().any(|module| {
        module
            .leaves
            .iter()
            .any(|(name, _)| name.value == leaf.name)
    })
}

fn row(spec: &Spec, leaf: &Leaf) -> TokenStream {
    let name = &leaf.name;
    let value = number(leaf.number.value);
    let versions = spec.modules.iter().map(|module| {
        let found = module
            .leaves
            .iter()
            .find(|(known, _)| known.value == leaf.name);
        let bits = found.map_or(0, |(_, versions)| {
            versions
                .iter()
                .fold(0u64, |all, version| all | 1 << (version & 7))
        });
        hex(bits)
    });
    let op_states = gates(spec, &leaf.op_states, &spec.op_states, |_, row| row);
    let sept_states = gates(spec, &leaf.sept_states, &spec.sept_states, |position, _| {
        position as u64
    });
    let feature = match &leaf.feature {
        Some(feature) => {
            let feature = constant(&feature.value);
            quote!(Features::#feature)
        }
        None => quote!(Features::EMPTY),
    };
    quote!(LeafRow::new(#value, #name, [#(#versions),*], [#(#op_states),*], [#(#sept_states),*], #feature))
}

/// The allowed states in each module as a bit set; `None` where the module does not gate.
fn gates<'s>(
    spec: &'s Spec,
    allowed: &'s [Allowed],
    table: &'s FlagTable,
    bit: fn(usize, u64) -> u64,
) -> impl Iterator<Item = TokenStream> + 's {
    let states = states(table);
    (0..spec.modules.len()).map(move |module| {
        let Some(list) = allowed
            .iter()
            .find(|allowed| allowed.modules.contains(module))
        else {
            return quote!(None);
        };
        let bits = list.states.iter().fold(0u64, |all, state| {
            match states.iter().position(|row| row.name == state.value) {
                Some(position) => all | 1 << bit(position, states[position].value),
                None => all,
            }
        });
        let bits = hex(bits);
        quote!(Some(#bits))
    })
}
