//! Ids of the fields of TDVPS.

use super::FieldId;

tdx_codegen_macros::field_ids!(part = tdvps, area = core);
#[cfg(feature = "debug")]
tdx_codegen_macros::field_ids!(part = tdvps, area = debug);
#[cfg(feature = "tables")]
tdx_codegen_macros::field_ids!(part = tdvps, area = tables);
