//! A leaf version that not every module has needs evidence of the feature.
use tdx_abi::Has;
use tdx_abi::Tdvpr;
use tdx_abi::module::Has as Evidence;
use tdx_abi::tdh::vp::InitV1;

fn without(tdvpr: Tdvpr) {
    let _ = InitV1 { tdvpr, guest_rcx: 0, x2apic_id: 0 };
}

fn forged() -> Evidence<20> {
    Evidence(())
}

fn main() {}
