//! A TDVPR is no TDR.
use tdx_abi::Hpa;
use tdx_abi::Tdvpr;
use tdx_abi::tdh::mng::KeyConfig;
use tdx_abi::tdh::vp::Flush;
use tdx_abi::Tdr;

fn main() {
    let _ = KeyConfig { tdr: Tdvpr::assume(Hpa::new(0x1000)) };
    let _ = Flush { tdvpr: Tdr::assume(Hpa::new(0x1000)) };
}
