//! TD migration: export, import and the streams between them.
//!
//! Source: `src/vmm_dispatcher/migration_api_calls` and `src/common/helpers/migration.h` of the TDX module
//! 1.5.01.

pub(crate) mod block_write;
pub(crate) mod context;
pub(crate) mod export_memory;
pub(crate) mod export_state;
pub(crate) mod gcm;
pub(crate) mod gpa_list;
pub(crate) mod import_field;
pub(crate) mod import_memory;
pub(crate) mod import_state;
pub(crate) mod mbmd;
pub(crate) mod metadata_list;
pub(crate) mod operand;
pub(crate) mod resume;
pub(crate) mod session;
pub(crate) mod stream;
