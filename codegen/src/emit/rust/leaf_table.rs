//! Leaf numbers with what each module allows.

use alloc::collections::BTreeMap;

use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::states::states;
use super::text::constant;
use super::text::constants_of;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::area::CORE;
use crate::area::of_leaf;
use crate::model::Allowed;
use crate::model::Leaf;
use crate::model::Side;
use crate::model::Spec;
use crate::model::StateRow;

/// Constants of `SeamcallLeaf`, `TdcallLeaf` and `SeamldrLeaf`, and the table behind each.
pub fn leaf_numbers(spec: &Spec, options: &Options) -> TokenStream {
    let tables = Tables {
        spec,
        options,
        dispatched: Dispatched::new(spec),
        op_states: states(&spec.op_states),
        sept_states: states(&spec.sept_states),
    };
    let host = tables.side(Side::Host, "SeamcallLeaf", "SEAMCALL_LEAVES");
    let guest = tables.side(Side::Guest, "TdcallLeaf", "TDCALL_LEAVES");
    let seamldr = tables.side(Side::Seamldr, "SeamldrLeaf", "SEAMLDR_LEAVES");
    quote!(#host #guest #seamldr)
}

/// The versions that each module dispatches, as a bit set.
struct Dispatched<'s> {
    /// Position in `versions` by name of the leaf.
    leaves: BTreeMap<&'s str, usize>,
    versions: Vec<Vec<u64>>,
}

impl<'s> Dispatched<'s> {
    fn new(spec: &'s Spec) -> Self {
        let (mut leaves, mut versions) = (BTreeMap::new(), Vec::new());
        for (module, manifest) in spec.modules.iter().enumerate() {
            for (name, list) in &manifest.leaves {
                let index = *leaves.entry(&*name.value).or_insert(versions.len());
                if index == versions.len() {
                    versions.push(vec![0; spec.modules.len()]);
                }
                for version in list {
                    versions[index][module] |= 1 << (version & 7);
                }
            }
        }
        Self { leaves, versions }
    }

    /// The versions of the leaf called `name` by module, if any module dispatches it.
    fn versions(&self, name: &str) -> Option<&[u64]> {
        Some(&self.versions[*self.leaves.get(name)?])
    }
}

/// What every row is made from.
struct Tables<'s> {
    spec: &'s Spec,
    options: &'s Options,
    dispatched: Dispatched<'s>,
    op_states: Vec<&'s StateRow>,
    sept_states: Vec<&'s StateRow>,
}

impl Tables<'_> {
    fn side(&self, side: Side, ty: &str, table: &str) -> TokenStream {
        let (ty, table) = (ident(ty), ident(table));
        let leaves = self.spec.leaves.iter();
        let leaves = leaves.filter(|leaf| leaf.side == side && leaf.variant.is_none());
        let mut leaves: Vec<&Leaf> = leaves.collect();
        // A number that several leaves claim belongs first to the one that a public module dispatches.
        leaves.sort_by_key(|leaf| {
            let dispatched = self.dispatched.versions(&leaf.name).is_some();
            (leaf.number.value, !dispatched, &leaf.name)
        });
        let wanted = leaves.iter();
        let wanted = wanted.filter(|leaf| self.options.wants(of_leaf(self.spec, leaf)));
        let constants = wanted.map(|leaf| {
            let name = constant(&leaf.name);
            let value = number(leaf.number.value);
            let text = doc(&leaf.doc);
            quote!(#[doc = #text] pub const #name: Self = Self(#value);)
        });
        let constants = constants_of(&ty, constants);
        if !self.options.wants(CORE) {
            return quote!(#constants);
        }
        let rows = leaves.iter().map(|leaf| self.row(leaf));
        quote! {
            #constants

            /// Every leaf with a name, by ascending number.
            pub static #table: &[LeafRow] = &[#(#rows),*];
        }
    }

    fn row(&self, leaf: &Leaf) -> TokenStream {
        let name = &leaf.name;
        let value = number(leaf.number.value);
        let versions = self.dispatched.versions(name);
        let versions = (0..self.spec.modules.len()).map(|module| {
            let bits = versions.map_or(0, |versions| versions[module]);
            hex(bits)
        });
        let op_states = self.gates(&leaf.op_states, &self.op_states, |_, row| row);
        let sept_states = self.gates(&leaf.sept_states, &self.sept_states, |position, _| {
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
    fn gates(
        &self,
        allowed: &[Allowed],
        states: &[&StateRow],
        bit: fn(usize, u64) -> u64,
    ) -> impl Iterator<Item = TokenStream> {
        (0..self.spec.modules.len()).map(move |module| {
            let mut lists = allowed.iter();
            let Some(list) = lists.find(|allowed| allowed.modules.contains(module)) else {
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
}
