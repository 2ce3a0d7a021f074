//! What the guest wrote and must find again.

use std::collections::HashMap;
use std::collections::HashSet;

use tdx_abi::Level;

const PAGE: u64 = Level::Pt.size();

/// One side of the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Encrypted with the TD's key.
    Private,
    /// Readable by the host.
    Shared,
}

/// The stamp in each page that the guest has written, and which private pages it has accepted.
///
/// Only what the guest did counts, nothing that the host tells.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    stamps: HashMap<(Side, u64), u64>,
    accepted: HashSet<u64>,
    written: u64,
}

impl Ledger {
    /// What a read of the page must find: its stamp, or zero where nothing was written.
    pub fn expected(&self, side: Side, gpa: u64) -> u64 {
        self.stamps.get(&(side, gpa)).copied().unwrap_or(0)
    }

    /// A stamp for the page that no other page and no earlier write has had; never zero.
    pub fn stamp(&mut self, side: Side, gpa: u64) -> u64 {
        self.written += 1;
        // Odd multiplier: different inputs, different stamps.
        let stamp = ((self.written << 32 | gpa / PAGE).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        self.stamps.insert((side, gpa), stamp);
        stamp
    }

    /// Whether the guest has accepted the page.
    pub fn is_accepted(&self, gpa: u64) -> bool {
        self.accepted.contains(&gpa)
    }

    /// Whether the guest has accepted or shares any page of the 2 MiB around `gpa`.
    pub fn is_large_page_started(&self, gpa: u64) -> bool {
        let start = gpa & !(Level::Pd.size() - 1);
        pages(start, Level::Pd.size()).any(|page| {
            self.accepted.contains(&page) || self.stamps.contains_key(&(Side::Shared, page))
        })
    }

    /// The guest has accepted the pages, or had them from the start.
    pub fn accept(&mut self, gpa: u64, len: u64) {
        self.accepted.extend(pages(gpa, len));
    }

    /// The range's pages are gone, on the sides named.
    pub fn forget(&mut self, gpa: u64, len: u64, sides: &[Side]) {
        for page in pages(gpa, len) {
            for side in sides {
                self.stamps.remove(&(*side, page));
            }
            if sides.contains(&Side::Private) {
                self.accepted.remove(&page);
            }
        }
    }

    /// Every live stamp: side, page, stamp; in order.
    pub fn live(&self) -> Vec<(Side, u64, u64)> {
        let mut live: Vec<_> = self
            .stamps
            .iter()
            .map(|(&(side, gpa), &stamp)| (side, gpa, stamp))
            .collect();
        live.sort_unstable();
        live
    }
}

fn pages(gpa: u64, len: u64) -> impl Iterator<Item = u64> {
    (gpa..gpa.saturating_add(len)).step_by(PAGE as usize)
}
