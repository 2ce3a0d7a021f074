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

/// The stamp in each page that the guest has written, which private pages it has accepted, and which
/// pages it shares.
///
/// Only what the guest did counts, nothing that the host tells.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    stamps: HashMap<(Side, u64), u64>,
    accepted: HashSet<u64>,
    shared: HashSet<u64>,
    /// Pages with content from the image.
    loaded: HashSet<u64>,
    written: u64,
}

impl Ledger {
    /// What a read of the page must find: its stamp, or zero where nothing was written. `None` if it
    /// has content from the image.
    pub fn expected(&self, side: Side, gpa: u64) -> Option<u64> {
        match self.stamps.get(&(side, gpa)) {
            Some(stamp) => Some(*stamp),
            None if side == Side::Private && self.loaded.contains(&gpa) => None,
            None => Some(0),
        }
    }

    /// A stamp for the page that no other page and no earlier write has had; never zero.
    pub fn next_stamp(&self, gpa: u64) -> u64 {
        // Odd multiplier: different inputs, different stamps.
        ((((self.written + 1) << 32) | (gpa / PAGE)).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1
    }

    /// The guest has written the stamp.
    pub fn wrote(&mut self, side: Side, gpa: u64, stamp: u64) {
        self.written += 1;
        self.stamps.insert((side, gpa), stamp);
    }

    /// Which side the guest uses the page on.
    pub fn side(&self, gpa: u64) -> Side {
        if self.shared.contains(&gpa) {
            Side::Shared
        } else {
            Side::Private
        }
    }

    /// Whether the guest has accepted the page.
    pub fn is_accepted(&self, gpa: u64) -> bool {
        self.accepted.contains(&gpa)
    }

    /// Whether the guest has accepted or shares any page of the 2 MiB around `gpa`.
    pub fn is_large_page_started(&self, gpa: u64) -> bool {
        let start = gpa & !(Level::Pd.size() - 1);
        pages(start, Level::Pd.size())
            .any(|page| self.accepted.contains(&page) || self.shared.contains(&page))
    }

    /// The guest has accepted the pages.
    pub fn accept(&mut self, gpa: u64, len: u64) {
        self.accepted.extend(pages(gpa, len));
    }

    /// The guest had the pages from the start, with or without content.
    pub fn load(&mut self, gpa: u64, has_content: bool) {
        self.accepted.insert(gpa);
        if has_content {
            self.loaded.insert(gpa);
        }
    }

    /// The guest has converted the range to `side`: what was on the other side is gone.
    pub fn convert(&mut self, gpa: u64, len: u64, side: Side) {
        for page in pages(gpa, len) {
            if self.side(page) == side {
                continue;
            }
            self.forget(page, PAGE);
            match side {
                Side::Shared => self.shared.insert(page),
                Side::Private => self.shared.remove(&page),
            };
        }
    }

    /// What the range held is gone; it stays on the side where it was.
    pub fn forget(&mut self, gpa: u64, len: u64) {
        for page in pages(gpa, len) {
            self.stamps.remove(&(Side::Private, page));
            self.stamps.remove(&(Side::Shared, page));
            self.accepted.remove(&page);
            self.loaded.remove(&page);
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
