//! An executable Intel TDX module and the platform around it.
#![no_std]
extern crate alloc;
