//! Ids of the fields of TD_L2_VMCS.

use super::FieldId;

tdx_codegen_macros::field_ids!(part = td_l2_vmcs, area = guest);
