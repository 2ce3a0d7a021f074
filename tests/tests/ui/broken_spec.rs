//! Mistakes in a specification are compile errors with the text that the tool prints.
mod unknown_status {
    tdx_codegen_macros::formats!(spec = "../../data/codegen/broken/unknown_status", root = tdx_abi);
}

mod overlap {
    tdx_codegen_macros::formats!(spec = "../../data/codegen/broken/overlap", root = tdx_abi);
}

mod many {
    tdx_codegen_macros::operands!(spec = "../../data/codegen/broken/many");
}

mod bad_argument {
    tdx_codegen_macros::operands!(specs = "../../data/codegen/broken/many");
}

fn main() {}
