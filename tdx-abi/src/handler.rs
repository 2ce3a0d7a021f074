//! For whoever implements a module: a trait a side with one method a leaf, and a dispatcher.

tdx_codegen_macros::handlers!();
