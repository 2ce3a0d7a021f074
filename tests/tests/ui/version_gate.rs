//! A leaf version that not every module has needs evidence of the feature, which cannot be made up.
use tdx_abi::Tdvpr;
use tdx_abi::module::Has;
use tdx_abi::tdh::vp::InitV1;

fn without(tdvpr: Tdvpr) {
    let _ = InitV1 { tdvpr, initial_rcx: 0, x2apic_id: 0 };
}

fn of_another_feature(tdvpr: Tdvpr, supported: Has<1>) {
    let _ = InitV1 { supported, tdvpr, initial_rcx: 0, x2apic_id: 0 };
}

fn forged() -> Has<20> {
    Has(())
}

fn main() {}
