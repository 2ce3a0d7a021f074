//! OP_STATEs and states of Secure-EPT entries.

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::text::camel;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::model::FlagTable;
use crate::model::Spec;
use crate::model::StateRow;

/// The enum `OpState` with its flags.
pub fn op_states(spec: &Spec, _: &Options) -> TokenStream {
    let table = &spec.op_states;
    let ty = ident("OpState");
    let definition = definition(
        table,
        &ty,
        "Value of the TDCS field OP_STATE, numbered as Intel numbers it.",
        |_, row| row.value,
    );
    let flags = flags(table);
    quote! {
        #definition

        impl OpState {
            /// The state with this number, if there is one.
            pub const fn new(number: u32) -> Option<Self> {
                let mut i = 0;
                while i < Self::ALL.len() {
                    if Self::ALL[i] as u32 == number {
                        return Some(Self::ALL[i]);
                    }
                    i += 1;
                }
                None
            }

            #flags
        }
    }
}

/// The enums `SeptState` and `L2SeptState` with their flags.
pub fn sept_states(spec: &Spec, _: &Options) -> TokenStream {
    let l1 = sept(
        &spec.sept_states,
        "SeptState",
        "State of an entry of the L1 Secure-EPT.",
    );
    let l2 = sept(
        &spec.l2_sept_states,
        "L2SeptState",
        "State of an entry of an L2 Secure-EPT.",
    );
    quote!(#l1 #l2)
}

fn sept(table: &FlagTable, ty: &str, text: &str) -> TokenStream {
    let ty = ident(ty);
    let definition = definition(table, &ty, text, |position, _| position as u64);
    let flags = flags(table);
    let states = states(table);
    let variants: Vec<Ident> = states.iter().map(|row| camel(&row.name)).collect();
    let count = states.len();
    let encodings = states.iter().map(|row| hex(row.value));
    let publics = states
        .iter()
        .map(|row| number(row.public.unwrap_or_default()));
    let rows = table.rows.iter().map(|row| {
        let state = camel(&row.name);
        let modules = hex(u64::from(row.modules.0));
        let encoding = hex(row.value);
        let also = option(row.also.map(hex));
        let index = option(row.index.map(number));
        let table_index = option(row.table_index.map(number));
        quote!(StateRow { state: Self::#state, modules: Modules::from_bits(#modules), encoding: #encoding, also: #also, index: #index, table_index: #table_index })
    });
    quote! {
        #definition

        impl #ty {
            /// The state's bits as Intel's table packs them: `state_encoding` of an entry.
            pub const fn encoding(self) -> u8 {
                const ENCODINGS: [u8; #count] = [#(#encodings),*];
                ENCODINGS[self as usize]
            }

            /// The number that leaves return for the state.
            pub const fn public_state(self) -> u8 {
                const PUBLIC: [u8; #count] = [#(#publics),*];
                PUBLIC[self as usize]
            }

            /// The state with this encoding in any module.
            ///
            /// Where the export mode decides (0x66), the state under write blocking.
            pub const fn from_encoding(encoding: u8) -> Option<Self> {
                let mut i = 0;
                while i < Self::ROWS.len() {
                    let row = &Self::ROWS[i];
                    if row.encoding == encoding || matches!(row.also, Some(also) if also == encoding) {
                        return Some(row.state);
                    }
                    i += 1;
                }
                None
            }

            /// The state with this encoding in `module`.
            ///
            /// Where the export mode decides (0x66), the state under write blocking.
            pub const fn decode(encoding: u8, module: Module) -> Option<Self> {
                let mut i = 0;
                while i < Self::ROWS.len() {
                    let row = &Self::ROWS[i];
                    let matches = row.encoding == encoding || matches!(row.also, Some(also) if also == encoding);
                    if matches && row.modules.contains(module) {
                        return Some(row.state);
                    }
                    i += 1;
                }
                None
            }

            /// Intel's rows: a state has several where modules differ.
            pub const ROWS: &'static [StateRow<Self>] = &[#(#rows),*];

            /// The state whose table index is `number`, if there is one.
            pub const fn new(number: u8) -> Option<Self> {
                match Self::ALL.len() > number as usize {
                    true => Some(Self::ALL[number as usize]),
                    false => None,
                }
            }

            #flags
        }

        const _: [#ty; #count] = [#(#ty::#variants),*];
    }
}

fn option<T: quote::ToTokens>(value: Option<T>) -> TokenStream {
    match value {
        Some(value) => quote!(Some(#value)),
        None => quote!(None),
    }
}

/// One row a name, in the order of the first rows.
pub(super) fn states(table: &FlagTable) -> Vec<&StateRow> {
    let mut list: Vec<&StateRow> = Vec::new();
    for row in &table.rows {
        if !list.iter().any(|known| known.name == row.name) {
            list.push(row);
        }
    }
    list
}

fn definition(
    table: &FlagTable,
    ty: &Ident,
    text: &str,
    value: fn(usize, &StateRow) -> u64,
) -> TokenStream {
    let states = states(table);
    let count = states.len();
    let variants: Vec<Ident> = states.iter().map(|row| camel(&row.name)).collect();
    let values = states
        .iter()
        .enumerate()
        .map(|(position, row)| number(value(position, row)));
    let names = states.iter().map(|row| &row.name);
    let docs = states.iter().map(|row| {
        row.doc
            .as_deref()
            .map_or_else(|| format!(" {}.", row.name), doc)
    });
    let text = format!(" {text}");
    quote! {
        #[doc = #text]
        ///
        /// Exhaustive: the states are those of Intel's table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum #ty {
            #(#[doc = #docs] #variants = #values,)*
        }

        impl #ty {
            /// All states in the order of Intel's table.
            pub const ALL: [Self; #count] = [#(Self::#variants),*];

            /// Intel's name.
            pub const fn name(self) -> &'static str {
                match self {
                    #(Self::#variants => #names,)*
                }
            }
        }
    }
}

fn flags(table: &FlagTable) -> TokenStream {
    table
        .flags
        .iter()
        .enumerate()
        .map(|(index, flag)| {
            let name = ident(&flag.name);
            let text = doc(&flag.doc);
            let mut set: Vec<&str> = Vec::new();
            for row in table.rows.iter().filter(|row| row.flags.contains(&index)) {
                if !set.contains(&row.name.as_str()) {
                    set.push(&row.name);
                }
            }
            let body = if set.is_empty() {
                quote!(false)
            } else {
                let variants = set.into_iter().map(camel);
                quote!(matches!(self, #(Self::#variants)|*))
            };
            quote! {
                #[doc = #text]
                pub const fn #name(self) -> bool {
                    #body
                }
            }
        })
        .collect()
}
