//! Leaves of P-SEAMLDR.

tdx_codegen_macros::leaves!(side = seamldr, area = seamldr);
