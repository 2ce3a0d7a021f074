//! Page tables for hosts of Intel TDX guests: shared EPT and mirrored Secure-EPT.
#![no_std]
#![forbid(unsafe_code)]

pub mod deposit;
pub mod embed;
mod gate;
pub mod mirror;
pub mod platform;
pub mod shared;
pub mod tree;
mod word;

pub use word::Word;
