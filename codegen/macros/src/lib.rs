//! Procedural macros that expand to the typed TDX ABI.
//!
//! Each macro expands to one section of the ABI, which `tdx_codegen::expand` writes. All of them take the same
//! arguments, all optional: `spec = "directory"` (relative to the file that holds the macro; default: the specification of
//! `tdx-spec`), `root = path` (of the crate with the types written by hand; default: `crate`), `bitfield = path` (of the
//! attribute `bitfield_struct::bitfield`, which then carries the formats that it can; default: no format), `area = name`
//! (what the section has of that area of the ABI, `core` for what belongs to none; default: everything), and of leaves and
//! field ids `part = name` (the content of that module, such as `tdh`; default: all modules).
#![forbid(unsafe_code)]

use proc_macro::Span;
use proc_macro::TokenStream;

macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $($(#[$doc])*
        #[proc_macro]
        pub fn $name(arguments: TokenStream) -> TokenStream {
            let file = Span::call_site().local_file();
            tdx_codegen::expand::expand(stringify!($name), arguments.into(), file.as_deref()).into()
        })*
    };
}

sections! {
    /// The enum `Module` and the list of releases.
    modules
    /// Constants of `Features`.
    features
    /// Constants of `StatusCode`, `SeamldrStatus` and `LinuxStatus`.
    statuses
    /// Constants of `OperandId`.
    operands
    /// The enum `OpState`.
    op_states
    /// The enums `SeptState` and `L2SeptState`.
    sept_states
    /// Constants of `SeamcallLeaf`, `TdcallLeaf` and `SeamldrLeaf`.
    leaf_numbers
    /// A module of constants of `FieldId` for each table of metadata fields.
    field_ids
    /// Tables of metadata fields, and what modules fix.
    fields
    /// Enums, bit formats and structures.
    formats
    /// The macros `for_each_format!`, `for_each_enum!` and `for_each_structure!`, which hand the names of all of them to another macro.
    format_list
    /// A type for each leaf, for the caller.
    leaves
    /// Traits and dispatchers, for the callee.
    handlers
    /// The table of MSRs.
    msrs
    /// CPUID virtualization.
    cpuid
    /// Constants of `Vmcall` and the table of sub-functions.
    vmcalls
}
