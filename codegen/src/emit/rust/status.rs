//! Status codes and operand ids.

use alloc::collections::BTreeSet;

use proc_macro2::Ident;
use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::text::constant;
use super::text::constants_of;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use crate::area::Areas;
use crate::area::CORE;
use crate::model::Callee;
use crate::model::Low;
use crate::model::OperandId;
use crate::model::Retry;
use crate::model::Spec;
use crate::model::StatusRow;

/// Constants of `StatusCode`, `SeamldrStatus` and `LinuxStatus`, and the table behind each.
pub fn statuses(spec: &Spec, options: &Options) -> TokenStream {
    [Callee::Module, Callee::Seamldr, Callee::Linux]
        .into_iter()
        .map(|callee| of_callee(spec, options, callee))
        .collect()
}

fn of_callee(spec: &Spec, options: &Options, callee: Callee) -> TokenStream {
    let (ty, table) = match callee {
        Callee::Module => ("StatusCode", "STATUS_CODES"),
        Callee::Seamldr => ("SeamldrStatus", "SEAMLDR_STATUSES"),
        Callee::Linux => ("LinuxStatus", "LINUX_STATUSES"),
    };
    let (ty, table) = (ident(ty), ident(table));
    let tables = spec.statuses.iter().filter(|table| table.callee == callee);
    let mut rows: Vec<&StatusRow> = tables.flat_map(|table| &table.rows).collect();
    // Of names that claim one value, the one that a module's own table has comes first.
    rows.sort_by_key(|row| (row.value, row.modules.is_empty()));
    let areas = Areas::of_statuses(spec, callee);
    let mut seen = BTreeSet::new();
    let constants = rows.iter().filter_map(|row| {
        let area = areas.of(&row.name);
        if !options.wants(area) || !seen.insert(row.name.as_str()) {
            return None;
        }
        let name = constant(&row.name);
        let value = hex(row.value);
        let doc = status_doc(row);
        Some(quote!(#[doc = #doc] pub const #name: Self = Self(#value);))
    });
    let constants = constants_of(&ty, constants);
    if !options.wants(CORE) {
        return quote!(#constants);
    }
    let entries = rows.iter().map(|row| {
        let name = &row.name;
        let value = hex(row.value);
        let modules = hex(u64::from(row.modules.0));
        let retry = match row.retry {
            None => quote!(None),
            Some(Retry::Busy) => quote!(Some(Retry::Busy)),
            Some(Retry::Restartable) => quote!(Some(Retry::Restartable)),
            Some(Retry::Resumable) => quote!(Some(Retry::Resumable)),
        };
        let low = ident(match row.low {
            Low::None => "None",
            Low::Operand => "Operand",
            Low::Level => "Level",
            Low::ExitReason => "ExitReason",
            Low::Count => "Count",
            Low::Field => "Field",
            Low::Detail => "Detail",
        });
        quote!(StatusRow::new(#name, #value, #modules, #retry, Low::#low))
    });
    let retry = retry_of(&ty, &rows);
    quote! {
        #constants

        #retry

        /// Every code with a name, by ascending value.
        pub static #table: &[StatusRow] = &[#(#entries),*];
    }
}

/// The retry class as a comparison of numbers and not a look at the table, so that it costs nothing where nobody asks for it.
fn retry_of(ty: &Ident, rows: &[&StatusRow]) -> Option<TokenStream> {
    let classes = [
        (Retry::Busy, "Busy"),
        (Retry::Restartable, "Restartable"),
        (Retry::Resumable, "Resumable"),
    ];
    let arms = classes.iter().filter_map(|(class, name)| {
        let rows = rows.iter().filter(|row| row.retry == Some(*class));
        let mut values: Vec<u64> = rows.map(|row| row.value).collect();
        values.dedup();
        let (values, name) = (values.into_iter().map(hex), ident(name));
        let mut values = values.peekable();
        values.peek()?;
        Some(quote!(#(#values)|* => Some(Retry::#name),))
    });
    let mut arms = arms.peekable();
    arms.peek()?;
    Some(quote! {
        impl #ty {
            /// How to make a call that returned `value` again.
            #[inline]
            const fn retry_of(value: u64) -> Option<Retry> {
                match value {
                    #(#arms)*
                    _ => None,
                }
            }
        }
    })
}

fn status_doc(row: &StatusRow) -> String {
    let mut text = doc(row.doc.as_deref().unwrap_or(&row.name));
    if let Some(cause) = &row.cause {
        text.push_str("\n\nUsual cause:");
        text.push_str(&doc(cause));
    }
    if let Some(remedy) = &row.remedy {
        text.push_str("\n\nRemedy:");
        text.push_str(&doc(remedy));
    }
    text
}

/// Constants of `OperandId` and the table behind them.
pub fn operands(spec: &Spec, _: &Options) -> TokenStream {
    let mut rows: Vec<&OperandId> = spec.operands.iter().collect();
    rows.sort_by_key(|row| row.value);
    let constants = rows.iter().map(|row| {
        let name = constant(&row.name);
        let value = hex(u64::from(row.value));
        let text = row
            .doc
            .as_deref()
            .map_or_else(|| format!(" {}.", row.name), doc);
        quote!(#[doc = #text] pub const #name: Self = Self(#value);)
    });
    let entries = rows.iter().map(|row| {
        let (name, value) = (&row.name, hex(u64::from(row.value)));
        quote!((#value, #name))
    });
    quote! {
        impl OperandId {
            #(#constants)*
        }

        /// Every id with a name, by ascending value.
        pub static OPERAND_IDS: &[(u32, &str)] = &[#(#entries),*];
    }
}
