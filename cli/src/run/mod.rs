//! `tdx run`: a real guest's trace on a TD of the emulated platform, from bring-up to teardown.

pub mod kvm;
pub mod ledger;
pub mod picture;
pub mod report;
pub mod tree;
