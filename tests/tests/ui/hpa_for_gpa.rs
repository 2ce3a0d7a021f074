//! Host-physical and guest-physical addresses are different things.
use tdx_abi::Hpa;
use tdx_abi::Mapping;
use tdx_abi::PrivateGpa;
use tdx_abi::Tdr;
use tdx_abi::level::Pt;

fn main() {
    let _ = Mapping::<Pt>::new(Hpa::new(0x1000));
    let _ = Tdr::assume(PrivateGpa::new(0x1000));
}
