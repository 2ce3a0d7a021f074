//! A shared GPA cannot name an entry of the Secure-EPT.
use tdx_abi::Mapping;
use tdx_abi::SharedGpa;
use tdx_abi::level::Pt;

fn main() {
    let gpa = SharedGpa::new(0x1000);
    let _ = Mapping::<Pt>::new(gpa);
}
