//! Ids of the fields of TDR_TDCS.

use super::FieldId;

tdx_codegen_macros::field_ids!(part = tdr_tdcs, area = core);
#[cfg(feature = "debug")]
tdx_codegen_macros::field_ids!(part = tdr_tdcs, area = debug);
#[cfg(feature = "tables")]
tdx_codegen_macros::field_ids!(part = tdr_tdcs, area = tables);
