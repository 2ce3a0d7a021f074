//! Metadata fields and MSR virtualization.

use proc_macro2::TokenStream;
use quote::quote;

use super::Options;
use super::modules::variant;
use super::text::camel;
use super::text::constant;
use super::text::constant_name;
use super::text::doc;
use super::text::hex;
use super::text::ident;
use super::text::number;
use crate::area::CORE;
use crate::area::TABLES;
use crate::area::of_field;
use crate::model::FieldRow;
use crate::model::FieldTable;
use crate::model::Spec;

/// One module of id constants a table; of one of them the content, if that is the part wanted.
pub fn field_ids(spec: &Spec, options: &Options) -> TokenStream {
    spec.fields
        .iter()
        .filter_map(|table| {
            let part = table.name.to_lowercase();
            if options.part.as_ref().is_some_and(|wanted| *wanted != part) {
                return None;
            }
            let constants = ids(spec, options, table);
            if options.part.is_some() {
                return Some(constants);
            }
            let (root, module) = (&options.root, ident(&part));
            let text = format!(" Ids of the fields of {}.", table.name);
            Some(quote! {
                #[doc = #text]
                pub mod #module {
                    use #root::field::FieldId;

                    #constants
                }
            })
        })
        .collect()
}

fn ids(spec: &Spec, options: &Options, table: &FieldTable) -> TokenStream {
    let mut seen: Vec<String> = Vec::new();
    let constants = table.rows.iter().filter_map(|row| {
        let constant = constant_name(&row.name);
        if seen.contains(&constant) || !options.wants(of_field(spec, table, &row.name)) {
            return None;
        }
        let name = ident(&constant);
        seen.push(constant);
        let (value, text) = (hex(row.id), field_doc(row));
        Some(quote!(#[doc = #text] pub const #name: FieldId = FieldId::from_bits(#value);))
    });
    constants.collect()
}

/// What modules fix; as the area [`TABLES`] the tables and the enum `MigType`.
pub fn fields(spec: &Spec, options: &Options) -> TokenStream {
    let fixed = options.wants(CORE).then(|| fixed(spec));
    let tables = options.wants(TABLES).then(|| tables(spec));
    quote!(#fixed #tables)
}

/// What does not depend on the platform.
fn fixed(spec: &Spec) -> TokenStream {
    let l2_vms = l2_vms(spec);
    let fixed = spec.modules.iter().flat_map(|module| {
        let name = variant(&module.name);
        let rows = module.values.iter();
        rows.map(move |(field, value)| {
            let (field, value) = (constant(&field.value), hex(*value));
            quote!((Module::#name, global::#field, #value))
        })
    });
    quote! {
        #l2_vms

        /// Values that a module's code fixes.
        static FIXED: &[(Module, FieldId, u64)] = &[#(#fixed),*];
    }
}

/// VM_CTLS of TDCS has an element for each VM, the first of which is the L1 VM.
fn l2_vms(spec: &Spec) -> Option<TokenStream> {
    let mut rows = spec.fields.iter().flat_map(|table| &table.rows);
    let vms = rows.find(|row| row.name == "VM_CTLS")?.num_of_fields;
    let l2_vms = number(u64::from(vms.saturating_sub(1)));
    Some(quote! {
        /// Most L2 VMs of a TD in any module; they are numbered from 1 on.
        pub const MAX_L2_VMS: u16 = #l2_vms;
    })
}

fn tables(spec: &Spec) -> TokenStream {
    let tables = spec.fields.iter().map(|table| one_table(spec, table));
    let mut kinds: Vec<&str> = spec
        .fields
        .iter()
        .flat_map(|table| &table.rows)
        .flat_map(|row| [row.mig_export.as_str(), row.mig_import.as_str()])
        .filter(|kind| *kind != "NONE")
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    let variants: Vec<_> = kinds.iter().map(|kind| camel(kind)).collect();
    let docs = kinds
        .iter()
        .map(|kind| format!(" `MIG_{kind}` of Intel's tables."));
    quote! {
        /// Part of a field in the migration of a TD.
        ///
        /// Exhaustive: the classes are those of Intel's tables.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MigType {
            /// `MIG_NONE` of Intel's tables: the field is not migrated.
            #[default]
            None,
            #(#[doc = #docs] #variants,)*
        }

        impl MigType {
            /// Intel's name without `MIG_`.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::None => "NONE",
                    #(Self::#variants => #kinds,)*
                }
            }
        }

        #(#tables)*
    }
}

fn one_table(spec: &Spec, table: &FieldTable) -> TokenStream {
    let name = constant(&table.name);
    // Few rows have masks and classes of their own.
    let mut kinds: Vec<Access<'_>> = table.rows.iter().map(access).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let rows = table.rows.iter().map(|row| field_row(row, &kinds));
    let kinds = kinds.iter().map(|(masks, export, import, flags)| {
        let masks = masks.iter().map(|mask| hex(*mask));
        let (export, import) = (camel(export), camel(import));
        let flags = hex(*flags);
        quote!(Access { masks: [#(#masks),*], export: MigType::#export, import: MigType::#import, flags: #flags })
    });
    let order = (0..spec.modules.len()).map(|module| {
        let indices = table
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.modules.contains(module))
            .map(|(index, _)| number(index as u64));
        quote!(&[#(#indices),*])
    });
    let text_table = format!(" Fields of {}.", table.name);
    quote! {
        #[doc = #text_table]
        pub static #name: FieldTable = {
            const A: &[Access] = &[#(#kinds),*];
            FieldTable { rows: &[#(#rows),*], order: [#(#order),*] }
        };
    }
}

fn field_doc(row: &FieldRow) -> String {
    row.doc
        .as_deref()
        .map_or_else(|| format!(" {}.", row.name), doc)
}

/// Masks, classes in export and import, and flags of a row.
type Access<'r> = ([u64; 10], &'r str, &'r str, u64);

fn access(row: &FieldRow) -> Access<'_> {
    let flags =
        u64::from(row.attributes) | u64::from(row.special_rd) << 6 | u64::from(row.special_wr) << 7;
    (row.masks, &row.mig_export, &row.mig_import, flags)
}

fn field_row(row: &FieldRow, kinds: &[Access<'_>]) -> TokenStream {
    let name = &row.name;
    let id = hex(row.id);
    let fields = number(u64::from(row.num_of_fields));
    let elements = number(u64::from(row.num_of_elem));
    let offset = number(u64::from(row.offset.unwrap_or_default()));
    let kind = number(kinds.binary_search(&access(row)).unwrap_or_default() as u64);
    quote!(FieldRow::new(#name, #id, #fields, #elements, #offset, &A[#kind]))
}

/// The table of MSRs.
pub fn msrs(spec: &Spec, options: &Options) -> TokenStream {
    if !options.wants(TABLES) {
        return TokenStream::new();
    }
    let rows = spec.msrs.iter().map(|row| {
        let name = &row.name;
        let (start, end) = (hex(u64::from(row.start)), hex(u64::from(row.end)));
        let modules = hex(u64::from(row.modules.0));
        let (read, write) = (&row.read, &row.write);
        quote!(MsrRow { name: #name, start: #start, end: #end, modules: Modules::from_bits(#modules), read: #read, write: #write })
    });
    quote! {
        /// How MSRs behave in a TD, by ascending number.
        pub static MSRS: &[MsrRow] = &[#(#rows),*];
    }
}
