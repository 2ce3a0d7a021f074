//! Sub-functions of TDG.VP.VMCALL.

use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::text::constant;
use super::text::doc;
use super::text::hex;
use crate::model::Leaf;
use crate::model::Operand;
use crate::model::Side;
use crate::model::Spec;

/// Constants of `Vmcall`, and the table behind them.
pub fn vmcalls(spec: &Spec, _: &Options) -> TokenStream {
    let mut leaves: Vec<&Leaf> = spec
        .leaves
        .iter()
        .filter(|leaf| leaf.side == Side::Vmcall && leaf.variant.is_none())
        .collect();
    leaves.sort_by_key(|leaf| (leaf.number.value, leaf.name.clone()));
    let constants = leaves.iter().map(|leaf| {
        let name = constant(short(&leaf.name));
        let value = hex(leaf.number.value);
        let text = doc(&leaf.doc);
        quote!(#[doc = #text] pub const #name: Self = Self(#value);)
    });
    let rows = leaves.iter().map(|leaf| {
        let name = short(&leaf.name);
        let value = hex(leaf.number.value);
        let (inputs, outputs) = (registers(&leaf.inputs), registers(&leaf.outputs));
        quote!(VmcallRow { number: #value, name: #name, inputs: &[#(#inputs),*], outputs: &[#(#outputs),*] })
    });
    quote! {
        impl Vmcall {
            #(#constants)*
        }

        /// Every sub-function, by ascending number.
        pub static VMCALLS: &[VmcallRow] = &[#(#rows),*];
    }
}

/// The name without `TDVMCALL.`.
fn short(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, name)| name)
}

/// Register and name of each operand.
fn registers(operands: &[Operand]) -> impl Iterator<Item = TokenStream> + '_ {
    operands.iter().map(|operand| {
        let register = operand.register;
        let parts = operand.meanings.iter().flat_map(|meaning| &meaning.parts);
        let names: Vec<&str> = parts.map(|part| part.name.as_str()).collect();
        let name = names.join(", ");
        quote!((#register, #name))
    })
}
