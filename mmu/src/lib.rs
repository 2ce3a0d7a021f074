//! Page tables for hosts of Intel TDX guests: shared EPT and mirrored Secure-EPT.
#![no_std]
#![forbid(unsafe_code)]

pub mod attributes;
pub mod deposit;
pub mod embed;
mod gate;
pub mod mirror;
pub mod platform;
mod range;
pub mod shared;
pub mod td;
pub mod tree;
mod word;

pub use range::GpaRange;
pub use td::Td;
pub use word::Word;
