//! Ids of the fields of TD_VMCS.

use super::FieldId;

tdx_codegen_macros::field_ids!(part = td_vmcs, area = core);
#[cfg(feature = "debug")]
tdx_codegen_macros::field_ids!(part = td_vmcs, area = debug);
#[cfg(feature = "tables")]
tdx_codegen_macros::field_ids!(part = td_vmcs, area = tables);
