//! A page that was given away is gone.
use tdx_abi::HostLeaf;
use tdx_abi::Mapping;
use tdx_abi::Page;
use tdx_abi::Seamcall;
use tdx_abi::Tdr;
use tdx_abi::level::Pt;
use tdx_abi::tdh::mem::PageAug;

fn twice(lp: &impl Seamcall, gpa: Mapping<Pt>, other: Mapping<Pt>, tdr: Tdr, page: Page<Pt>) {
    let _ = PageAug { gpa, tdr, page }.call(lp);
    let _ = PageAug { gpa: other, tdr, page }.call(lp);
}

fn main() {}
