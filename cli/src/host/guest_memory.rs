//! What backs a guest's addresses.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Page;
use tdx_abi::PrivateGpa;
use tdx_abi::SharedGpa;
use tdx_mmu::GpaRange;
use tdx_mmu::embed::Backing;
use tdx_mmu::embed::SharedBacking;
use tdx_mmu::shared::Attributes;
use tdx_mmu::shared::Permissions;

use super::Host;
use super::frames::Use;

/// What a frame holds when a TD gets it: not zero, so that it shows whether ACCEPT clears it.
const SOIL: u64 = 0x5e11_ed00_5e11_ed00;

/// The memory slots of a guest and the shared pages behind them.
#[derive(Debug)]
pub struct GuestMemory {
    slots: Vec<GpaRange>,
    largest: Level,
    shared: Mutex<HashMap<u64, Hpa>>,
}

impl GuestMemory {
    /// Memory at `slots`, private pages up to `largest`.
    pub fn new(slots: Vec<GpaRange>, largest: Level) -> Self {
        Self {
            slots,
            largest,
            shared: Mutex::default(),
        }
    }

    /// The memory slots.
    pub fn slots(&self) -> &[GpaRange] {
        &self.slots
    }

    /// Whether all of `bytes` from `start` on is memory.
    pub fn contains(&self, start: u64, bytes: u64) -> bool {
        let end = start.saturating_add(bytes);
        self.slots
            .iter()
            .any(|slot| slot.start() <= start && end <= slot.end())
    }
}

impl Host {
    /// The shared page behind `gpa`, if the guest has used it.
    pub fn shared_frame(&self, gpa: u64) -> Option<Hpa> {
        self.shared_frames().get(&(gpa >> 12)).copied()
    }

    /// Frees the shared pages of `range`, which nothing maps any more.
    pub fn drop_shared(&self, range: GpaRange) {
        let mut shared = self.shared_frames();
        for page in range.start() >> 12..range.end() >> 12 {
            if let Some(hpa) = shared.remove(&page) {
                self.frames.free(hpa, Level::Pt, Use::Shared);
            }
        }
    }

    fn shared_frames(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Hpa>> {
        self.guest
            .shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backing for &Host {
    fn private_page(&self, gpa: PrivateGpa, largest: Level) -> Option<Page> {
        let start = gpa.align_down(Level::Pd).bits();
        let fits = self.guest.contains(start, Level::Pd.size());
        if !self
            .guest
            .contains(gpa.align_down(Level::Pt).bits(), Level::Pt.size())
        {
            return None;
        }
        let wanted = largest.min(self.guest.largest);
        let large = if wanted >= Level::Pd && fits {
            self.frames.allocate(Level::Pd, Use::Private)
        } else {
            None
        };
        let (hpa, level) = match large {
            Some(hpa) => (hpa, Level::Pd),
            None => (self.frames.allocate(Level::Pt, Use::Private)?, Level::Pt),
        };
        if self.soil_allowed.load(Ordering::Relaxed) {
            self.soil(hpa, level, SOIL);
        }
        Page::assume_owned(hpa, level)
    }

    fn take_back(&self, _gpa: PrivateGpa, page: Page) {
        let level = page.level();
        self.frames.free(page.into_hpa(), level, Use::Private);
    }

    fn shared_page(&self, gpa: SharedGpa) -> SharedBacking {
        let gpa = gpa.align_down(Level::Pt).bits();
        if !self.guest.contains(gpa, Level::Pt.size()) {
            return SharedBacking::None;
        }
        let mut shared = self.shared_frames();
        let hpa = match shared.get(&(gpa >> 12)) {
            Some(hpa) => *hpa,
            None => {
                let Some(hpa) = self.frames.allocate(Level::Pt, Use::Shared) else {
                    return SharedBacking::None;
                };
                // Shared pages come zeroed, as from any host.
                self.soil(hpa, Level::Pt, 0);
                shared.insert(gpa >> 12, hpa);
                hpa
            }
        };
        let attributes = Attributes::new(Permissions::READ_WRITE);
        SharedBacking::Memory {
            hpa,
            level: Level::Pt,
            attributes,
        }
    }
}
