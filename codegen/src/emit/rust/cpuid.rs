//! CPUID virtualization.

use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::modules::variant;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::area::TABLES;
use crate::model::CpuidTable;
use crate::model::CpuidValues;
use crate::model::Spec;

/// A module of tables for each table of the specification, and which TDX module has which.
pub fn cpuid(spec: &Spec, options: &Options) -> TokenStream {
    if !options.wants(TABLES) {
        return TokenStream::new();
    }
    let tables = spec.cpuid.iter().map(|table| one(spec, table, options));
    let cases = spec.cpuid.iter().map(|table| {
        let modules = table
            .modules
            .iter()
            .map(|index| variant(&spec.modules[index].name));
        let name = name(spec, table);
        quote! {
            #(Module::#modules)|* => Some(CpuidTable {
                lookup: &#name::LOOKUP,
                configurable: &#name::CONFIGURABLE,
                xfam_masks: #name::XFAM_MASKS,
            }),
        }
    });
    let is_complete = (0..spec.modules.len()).all(|module| {
        spec.cpuid
            .iter()
            .any(|table| table.modules.contains(module))
    });
    let rest = (!is_complete).then(|| quote!(_ => None,));
    quote! {
        #(#tables)*

        /// CPUID virtualization of `module`, if it is known.
        pub const fn table(module: Module) -> Option<CpuidTable> {
            match module {
                #(#cases)*
                #rest
            }
        }
    }
}

/// `v1_5_01`, after the oldest module that has the table.
fn name(spec: &Spec, table: &CpuidTable) -> proc_macro2::Ident {
    let oldest = table.modules.iter().next();
    let module = oldest.and_then(|index| spec.modules.get(index));
    ident(&module.map_or_else(
        || "none".to_owned(),
        |module| variant(&module.name).to_string().to_lowercase(),
    ))
}

fn words(values: &CpuidValues) -> TokenStream {
    let values = values.iter().map(|value| hex(u64::from(*value)));
    quote!([#(#values),*])
}

fn option(value: Option<u32>) -> TokenStream {
    match value {
        Some(value) => {
            let value = number(u64::from(value));
            quote!(Some(#value))
        }
        None => quote!(None),
    }
}

fn one(spec: &Spec, table: &CpuidTable, options: &Options) -> TokenStream {
    let root = &options.root;
    let name = name(spec, table);
    let leaf = |leaf: u32, subleaf: Option<u32>| {
        let leaf = hex(u64::from(leaf));
        let subleaf = option(subleaf);
        quote!(leaf: #leaf, subleaf: #subleaf)
    };
    let lookup = table.lookup.iter().map(|row| {
        let leaf = leaf(row.leaf, row.subleaf);
        let faulting = row.faulting;
        let [mask, value, same, fixed0, fixed1] = [
            &row.verify_mask,
            &row.verify_value,
            &row.verify_same,
            &row.fixed0_or_dynamic,
            &row.fixed1,
        ]
        .map(words);
        let config = option(row.config);
        quote! {
            CpuidLookup {
                #leaf, faulting: #faulting, verify_mask: #mask, verify_value: #value, verify_same: #same,
                fixed0_or_dynamic: #fixed0, fixed1: #fixed1, config: #config,
            }
        }
    });
    let configurable = table.configurable.iter().map(|row| {
        let leaf = leaf(row.leaf, row.subleaf);
        let (direct, allow) = (words(&row.direct), words(&row.allow));
        quote!(CpuidConfigurable { #leaf, direct: #direct, allow: #allow })
    });
    let masks = table.xfam_masks.iter().map(|row| {
        let leaf = leaf(row.leaf, row.subleaf);
        let (bit, mask) = (number(u64::from(row.xfam_bit)), words(&row.mask));
        quote!(CpuidXfamMask { #leaf, xfam_bit: #bit, mask: #mask })
    });
    let leaves = number(table.lookup.len() as u64);
    let configurable_leaves = number(table.configurable.len() as u64);
    let text = format!(
        " CPUID virtualization of module {}.",
        spec.module_names(table.modules).join(", ")
    );
    quote! {
        #[doc = #text]
        pub mod #name {
            use #root::cpuid::CpuidConfigurable;
            use #root::cpuid::CpuidLookup;
            use #root::cpuid::CpuidXfamMask;

            /// Leaves, in the order in which the TDCS keeps their values.
            pub static LOOKUP: [CpuidLookup; #leaves] = [#(#lookup),*];

            /// What TD_PARAMS configures, in its order.
            pub static CONFIGURABLE: [CpuidConfigurable; #configurable_leaves] = [#(#configurable),*];

            /// Bits that depend on XFAM.
            pub static XFAM_MASKS: &[CpuidXfamMask] = &[#(#masks),*];
        }
    }
}
