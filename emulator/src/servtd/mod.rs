//! Service TDs: binding one to a target TD, and its access to the target's metadata.
//!
//! Source: `tdh_servtd_bind.c`, `tdh_servtd_prebind.c`, `tdg_servtd_rd_wr.c` and `service_td.h` of the TDX
//! module 1.5.01.

pub(crate) mod access;
pub(crate) mod binding;
pub(crate) mod tdinfo;
