//! Procedural macros that expand to the typed TDX ABI.
#![forbid(unsafe_code)]
