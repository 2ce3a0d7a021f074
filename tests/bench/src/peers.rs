//! The crates that people use today, and the bare algorithm.

pub mod aarch64_paging;
pub mod page_table_generic;
pub mod page_table_multiarch;
pub mod reference;
pub mod x86_64;
