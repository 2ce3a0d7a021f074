//! Ids of the fields of GLOBAL.

use super::FieldId;

tdx_codegen_macros::field_ids!(part = global, area = core);
