//! Translations that an LP has cached, and keeps until something flushes them.

use alloc::collections::BTreeMap;

use tdx_abi::Level;

/// Which translations a cached one belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Space {
    /// Private addresses of the TD with this TDR.
    Private(u64),
    /// Private addresses of an L2 VM of the TD with this TDR.
    L2(u64, usize),
    /// Shared addresses under the shared EPT with this root.
    Shared(u64),
}

/// A cached translation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cached {
    /// Host-physical address of the page.
    pub hpa: u64,
    /// Permissions: bit 0 read, 1 write, 2 execute.
    pub permissions: u64,
}

/// Translations after which the oldest way of making room is taken: all of them go.
const CAPACITY: usize = 1 << 20;

/// The TLB of one LP. Unlike a real one it forgets nothing by itself, so that a missing flush shows.
#[derive(Debug, Default)]
pub(crate) struct Tlb {
    cached: BTreeMap<(Space, Level, u64), Cached>,
    /// How many flushes of shared translations this TLB has followed.
    shared_flushes: u64,
}

impl Tlb {
    /// The host-physical address of `gpa` and the permissions, if they are cached.
    pub(crate) fn lookup(&self, space: Space, gpa: u64) -> Option<Cached> {
        [Level::Pt, Level::Pd, Level::Pdpt]
            .into_iter()
            .find_map(|level| {
                let offset = gpa & (level.size() - 1);
                let cached = self.cached.get(&(space, level, gpa - offset))?;
                Some(Cached {
                    hpa: cached.hpa + offset,
                    ..*cached
                })
            })
    }

    /// Caches where the page of size `level` with `gpa` in it lies, given where `gpa` lies.
    pub(crate) fn insert(&mut self, space: Space, level: Level, gpa: u64, found: Cached) {
        if self.cached.len() >= CAPACITY {
            self.cached.clear();
        }
        let offset = gpa & (level.size() - 1);
        let page = Cached {
            hpa: found.hpa - offset,
            ..found
        };
        self.cached.insert((space, level, gpa - offset), page);
    }

    /// Forgets private translations of the TD whose TDR is at `tdr`, as INVEPT by the module does.
    pub(crate) fn flush_td(&mut self, tdr: u64) {
        self.cached.retain(|(space, ..), _| match space {
            Space::Private(of) | Space::L2(of, _) => *of != tdr,
            Space::Shared(_) => true,
        });
    }

    /// Forgets private translations of one L2 VM of the TD.
    pub(crate) fn flush_l2(&mut self, tdr: u64, vm: usize) {
        self.cached
            .retain(|(space, ..), _| *space != Space::L2(tdr, vm));
    }

    /// Forgets shared translations if there were more flushes than this TLB has followed.
    pub(crate) fn follow_shared_flushes(&mut self, flushes: u64) {
        if self.shared_flushes != flushes {
            self.shared_flushes = flushes;
            self.cached
                .retain(|(space, ..), _| !matches!(space, Space::Shared(_)));
        }
    }
}
