//! Leaves of the TDX module that the guest calls.

#[cfg(feature = "guest")]
tdx_codegen_macros::leaves!(part = tdg, area = guest);
#[cfg(feature = "connect")]
tdx_codegen_macros::leaves!(part = tdg, area = connect);
#[cfg(feature = "migration")]
tdx_codegen_macros::leaves!(part = tdg, area = migration);
