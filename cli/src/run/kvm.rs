//! What Linux KVM would have paid for the same events.
//!
//! Counted from KVM's code: 4 KiB mappings only, one TDH.MEM.PAGE.AUG each; a page leaves by RANGE.BLOCK, TRACK,
//! a kick, PAGE.REMOVE and PHYMEM.PAGE.WBINVD; Secure-EPT pages are never removed at run time.

use std::collections::HashSet;

use serde::Serialize;
use tdx_abi::Level;

use super::report::Counts;

/// SEAMCALLs to take one 4 KiB page from a running TD.
const REMOVE: [&str; 4] = [
    "TDH.MEM.RANGE.BLOCK",
    "TDH.MEM.TRACK",
    "TDH.MEM.PAGE.REMOVE",
    "TDH.PHYMEM.PAGE.WBINVD",
];
const AUG: &str = "TDH.MEM.PAGE.AUG";
const SEPT_ADD: &str = "TDH.MEM.SEPT.ADD";
const PAGE: u64 = Level::Pt.size();

/// KVM's account of the events of a running TD.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Kvm {
    /// SEAMCALLs from the first to the last event, TD entries not counted.
    pub seamcalls: u64,
    /// The same by leaf.
    pub leaves: Counts,
    /// Times that all vCPUs are forced out.
    pub kicks: u64,
    /// EPT violations on private pages.
    pub faults: u64,
    #[serde(skip)]
    mapped: HashSet<u64>,
    #[serde(skip)]
    tables: HashSet<(Level, u64)>,
}

impl Kvm {
    /// Pages that the build has mapped; what the build costs is not counted.
    pub fn built(&mut self, gpa: u64, len: u64) {
        for page in (gpa..gpa + len).step_by(PAGE as usize) {
            self.map(page);
        }
        self.seamcalls = 0;
        self.leaves = Counts::default();
    }

    /// The guest touches a private page.
    pub fn touch(&mut self, gpa: u64) {
        self.faults += u64::from(self.map(gpa & !(PAGE - 1)));
    }

    /// The range is converted or taken back.
    pub fn unmap(&mut self, gpa: u64, len: u64) {
        for page in (gpa..gpa + len).step_by(PAGE as usize) {
            if self.mapped.remove(&page) {
                REMOVE.into_iter().for_each(|leaf| self.call(leaf));
                self.kicks += 1;
            }
        }
    }

    /// Says whether the page was not mapped.
    fn map(&mut self, page: u64) -> bool {
        let is_new = self.mapped.insert(page);
        if is_new {
            self.call(AUG);
            for level in [Level::Pd, Level::Pdpt, Level::Pml4] {
                if self.tables.insert((level, page / level.size())) {
                    self.call(SEPT_ADD);
                }
            }
        }
        is_new
    }

    fn call(&mut self, leaf: &str) {
        self.seamcalls += 1;
        self.leaves.add(leaf, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the design's cost table.
    #[test]
    fn a_large_page_costs_what_the_table_says() {
        let mut kvm = Kvm::default();
        kvm.built(0x20_0000, 0x1000);
        for page in 0..512 {
            kvm.touch(page * PAGE);
        }
        assert_eq!((kvm.seamcalls, kvm.kicks), (513, 0));
        kvm.unmap(0, 0x20_0000);
        assert_eq!((kvm.seamcalls - 513, kvm.kicks), (2048, 512));
        kvm.unmap(0, 0x20_0000);
        assert_eq!(
            (kvm.seamcalls - 513, kvm.kicks),
            (2048, 512),
            "nothing is left"
        );
    }
}
