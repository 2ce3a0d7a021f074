//! PAGE.AUG maps 4 KiB and 2 MiB, and the page has the size of the entry.
use tdx_abi::Mapping;
use tdx_abi::Page;
use tdx_abi::Tdr;
use tdx_abi::level::Pd;
use tdx_abi::level::Pdpt;
use tdx_abi::level::Pt;
use tdx_abi::tdh::mem::PageAug;

fn size_of_another_level(gpa: Mapping<Pd>, page: Page<Pt>, tdr: Tdr) {
    let _ = PageAug { gpa, tdr, page };
}

fn level_that_the_leaf_lacks(gpa: Mapping<Pdpt>, page: Page<Pdpt>, tdr: Tdr) {
    let _ = PageAug { gpa, tdr, page };
}

fn main() {}
