//! Modules, releases and features.

use alloc::collections::BTreeSet;

use proc_macro2::TokenStream;
use quote::format_ident;
use quote::quote;

use super::Options;
use super::text::constant;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::model::Spec;

/// The enum `Module`, its tables, and the list of releases.
pub fn modules(spec: &Spec, _: &Options) -> TokenStream {
    let count = spec.modules.len();
    let variants: Vec<_> = spec
        .modules
        .iter()
        .map(|module| variant(&module.name))
        .collect();
    let names: Vec<_> = spec.modules.iter().map(|module| &module.name).collect();
    let docs = spec
        .modules
        .iter()
        .map(|module| format!(" TDX module {}.", module.name));
    let numbers = (0..count as u64).map(number);
    let features = spec.modules.iter().map(|module| match module.features0 {
        Some(bits) => {
            let bits = hex(bits);
            quote!(Some(#bits))
        }
        None => quote!(None),
    });
    let limits = limits(spec);
    let releases = spec.releases.iter().map(|release| {
        let (version, features0) = (&release.version, hex(release.features0));
        let from = match &release.min_update_from {
            Some(from) => quote!(Some(#from)),
            None => quote!(None),
        };
        let seamldr = &release.min_seamldr;
        quote! {
            Release { version: #version, features0: #features0, min_update_from: #from, min_seamldr: &[#(#seamldr),*] }
        }
    });
    quote! {
        /// A TDX module whose source is public.
        ///
        /// Exhaustive: a new manifest is a new variant, and whoever matches on it should know.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Module {
            #(#[doc = #docs] #variants = #numbers,)*
        }

        impl Module {
            /// Number of modules.
            pub const COUNT: usize = #count;
            /// All modules, oldest first.
            pub const ALL: [Self; #count] = [#(Self::#variants),*];

            /// Intel's version, such as `1.5.01`.
            pub const fn name(self) -> &'static str {
                const NAMES: [&str; #count] = [#(#names),*];
                NAMES[self as usize]
            }

            /// TDX_FEATURES0 of the released module, where Intel has published it.
            pub const fn features0(self) -> Option<u64> {
                const FEATURES0: [Option<u64>; #count] = [#(#features),*];
                FEATURES0[self as usize]
            }

            #limits
        }

        /// Released modules in Intel's order.
        pub static RELEASES: &[Release] = &[#(#releases),*];
    }
}

/// A method of `Module` for each number that no field tells.
fn limits(spec: &Spec) -> TokenStream {
    let names: BTreeSet<&str> = spec
        .modules
        .iter()
        .flat_map(|module| &module.limits)
        .map(|(name, _)| name.value.as_str())
        .collect();
    let methods = names.into_iter().map(|name| {
        let values = spec.modules.iter().map(|module| {
            let row = module.limits.iter().find(|(of, _)| of.value == name);
            row.map_or_else(
                || quote!(None),
                |(_, value)| {
                    let value = number(*value);
                    quote!(Some(#value))
                },
            )
        });
        let text = format!(" `{name}` of the module's source, where that is known.");
        let method = ident(&name.to_lowercase());
        quote! {
            #[doc = #text]
            pub const fn #method(self) -> Option<u64> {
                const VALUES: [Option<u64>; Module::COUNT] = [#(#values),*];
                VALUES[self as usize]
            }
        }
    });
    methods.collect()
}

/// `1.5.01` as `V1_5_01`.
pub(super) fn variant(name: &str) -> proc_macro2::Ident {
    format_ident!(
        "V{}",
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
    )
}

/// Constants of `Features` and the table of their names.
pub fn features(spec: &Spec, _: &Options) -> TokenStream {
    let constants = spec.features.iter().map(|feature| {
        let name = constant(&feature.name);
        let bit = number(u64::from(feature.bit));
        let text = feature
            .doc
            .as_deref()
            .map_or_else(|| format!(" {}.", feature.name), doc);
        let text = format!("{text}\n\nBit {}.", feature.bit);
        quote!(#[doc = #text] pub const #name: Self = Self(1 << #bit);)
    });
    let rows = spec.features.iter().map(|feature| {
        let (bit, name) = (number(u64::from(feature.bit)), &feature.name);
        quote!((#bit, #name))
    });
    quote! {
        impl Features {
            #(#constants)*
        }

        /// Bit number and name of every known feature; a contested bit stands several times.
        pub static FEATURES: &[(u32, &str)] = &[#(#rows),*];
    }
}
