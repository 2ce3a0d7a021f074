//! Words and structures, bit by bit and byte by byte.
//!
//! A format is a transparent [`Word`](generic::Word): `from_bits` and `into_bits` keep every bit, getters are named after the
//! field, and `with_` builders replace it. An enum is an open [`Number`](generic::Number). A
//! [`Structure`](generic::Structure) is aligned bytes with accessors. All are instances of these three types, so that what
//! they have in common is compiled once.

tdx_codegen_macros::formats!(area = core);
#[cfg(feature = "connect")]
tdx_codegen_macros::formats!(area = connect);
#[cfg(feature = "guest")]
tdx_codegen_macros::formats!(area = guest);
#[cfg(feature = "migration")]
tdx_codegen_macros::formats!(area = migration);
#[cfg(feature = "seamldr")]
tdx_codegen_macros::formats!(area = seamldr);
#[cfg(feature = "tables")]
tdx_codegen_macros::formats!(area = tables);
