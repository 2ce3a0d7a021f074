//! Words and structures, bit by bit and byte by byte.
//!
//! A format is a transparent word: `from_bits` and `into_bits` keep every bit, getters are named after the field, and
//! `with_` builders replace it. A structure is aligned bytes with accessors.

tdx_codegen_macros::formats!();
