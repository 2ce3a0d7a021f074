//! Leaves of the TDX module that the host calls.

tdx_codegen_macros::leaves!(part = tdh, area = core);
#[cfg(feature = "connect")]
tdx_codegen_macros::leaves!(part = tdh, area = connect);
#[cfg(feature = "migration")]
tdx_codegen_macros::leaves!(part = tdh, area = migration);
