//! Leaves of P-SEAMLDR.

tdx_codegen_macros::leaves!(part = seamldr, area = seamldr);
