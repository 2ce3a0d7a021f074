//! Page tables for hosts of Intel TDX guests: shared EPT and mirrored Secure-EPT.
#![no_std]
#![forbid(unsafe_code)]

pub mod platform;
