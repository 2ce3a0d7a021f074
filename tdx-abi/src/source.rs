//! The text of this crate's files, for tools that write them out with the macros expanded.

macro_rules! files {
    ($($name:literal)*) => {
        /// Name and text of each file of the crate but this one.
        pub const FILES: &[(&str, &str)] = &[$(($name, include_str!($name))),*];
    };
}

files! {
    "address.rs" "bytes.rs" "call.rs" "control.rs" "cpuid.rs" "field.rs" "field/global.rs" "field/table.rs" "field/td_l2_vmcs.rs"
    "field/td_vmcs.rs" "field/tdr_tdcs.rs" "field/tdvps.rs" "format.rs" "handler.rs" "hardware.rs" "leaf.rs" "level.rs" "lib.rs"
    "module.rs" "msr.rs" "op_state.rs" "operand.rs" "page.rs" "registers.rs" "seamldr.rs" "sept.rs" "status.rs" "tdg.rs" "tdh.rs" "tracking.rs" "vmcall.rs"
}
