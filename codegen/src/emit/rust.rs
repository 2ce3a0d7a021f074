//! Rust: tables, formats and leaves as items that a module of `tdx-abi` takes in by a macro.
//!
//! The emitted items name what they need by the path [`Options::root`], never by the name of a crate.

mod cpuid;
mod format;
// Written out as it stands; compiled here too, where a mistake in it has a line.
#[cfg(test)]
pub mod generic;
#[cfg(test)]
mod generic_tests;
mod handler;
mod leaf;
mod leaf_doc;
mod leaf_table;
mod metadata;
mod modules;
mod states;
mod status;
mod structure;
mod text;
mod vmcall;

use proc_macro2::TokenStream;

use crate::model::Spec;

pub use cpuid::cpuid;
pub use format::fits_bitfield_struct;
pub use format::format_list;
pub use format::formats;
pub use handler::handlers;
pub use leaf::is_typed;
pub use leaf::leaves;
pub use leaf::type_path;
pub use leaf_table::leaf_numbers;
pub use metadata::field_ids;
pub use metadata::fields;
pub use metadata::msrs;
pub use modules::features;
pub use modules::modules;
pub use states::op_states;
pub use states::sept_states;
pub use status::operands;
pub use status::statuses;
pub use structure::type_size;
pub use vmcall::vmcalls;

/// What an entry of each level covers, from the lowest level up.
pub const SIZES: [&str; 5] = ["4 KiB", "2 MiB", "1 GiB", "512 GiB", "256 TiB"];

/// How the items refer to what is written by hand.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the crate that holds the types written by hand: `crate` inside `tdx-abi`.
    pub root: TokenStream,
    /// Path of the attribute `bitfield_struct::bitfield`, if formats are to be left to it where it can carry them.
    pub bitfield: Option<TokenStream>,
    /// Whether lints will see the code: what a macro writes is exempt from most.
    pub linted: bool,
    /// The only area of the ABI to write, [`CORE`](crate::area::CORE) for what belongs to none; everything if `None`.
    pub area: Option<String>,
    /// The only module of leaves or of field ids to write, such as `tdh`, without the module itself; all of them if `None`.
    pub part: Option<String>,
}

impl Options {
    /// Whether what belongs to `area` is to be written.
    fn wants(&self, area: &str) -> bool {
        self.area.as_deref().is_none_or(|wanted| wanted == area)
    }
}

/// A part of the generated ABI.
#[derive(Clone, Copy)]
pub struct Section {
    /// Name of the part, and of its macro.
    pub name: &'static str,
    /// Files that it depends on, as beginnings of their names.
    pub files: &'static [&'static str],
    /// Writes it.
    pub emit: fn(&Spec, &Options) -> TokenStream,
}

/// Every part.
pub const SECTIONS: &[Section] = &[
    Section {
        name: "modules",
        files: &["modules/", "releases"],
        emit: modules,
    },
    Section {
        name: "features",
        files: &["features"],
        emit: features,
    },
    Section {
        name: "statuses",
        files: &["tables/status", "sources", "leaves/", "areas"],
        emit: statuses,
    },
    Section {
        name: "operands",
        files: &["tables/operands"],
        emit: operands,
    },
    Section {
        name: "op_states",
        files: &["tables/op_states"],
        emit: op_states,
    },
    Section {
        name: "sept_states",
        files: &["tables/sept_states"],
        emit: sept_states,
    },
    Section {
        name: "leaf_numbers",
        files: &["leaves/", "modules/", "areas"],
        emit: leaf_numbers,
    },
    Section {
        name: "field_ids",
        files: &["fields/", "areas"],
        emit: field_ids,
    },
    Section {
        name: "fields",
        files: &["fields/", "modules/"],
        emit: fields,
    },
    Section {
        name: "msrs",
        files: &["tables/msrs"],
        emit: msrs,
    },
    Section {
        name: "cpuid",
        files: &["tables/cpuid", "modules/"],
        emit: cpuid,
    },
    Section {
        name: "vmcalls",
        files: &["leaves/tdvmcall/"],
        emit: vmcalls,
    },
    Section {
        name: "formats",
        files: &["enums/", "formats/", "structures/", "leaves/", "areas"],
        emit: formats,
    },
    Section {
        name: "leaves",
        files: &["leaves/", "modules/", "features", "sources", "areas"],
        emit: leaves,
    },
    Section {
        name: "handlers",
        files: &["leaves/"],
        emit: handlers,
    },
    Section {
        name: "format_list",
        files: &["formats/", "enums/", "structures/"],
        emit: format_list,
    },
];
