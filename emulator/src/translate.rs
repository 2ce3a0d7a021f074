//! Translation of guest-physical addresses, as the CPU does it and the module on the guest's behalf.
//!
//! Source: `gpa_translate` in `sept_manager.c` of the TDX module; SDM volume 3, 29.3.

use tdx_abi::Level;

use crate::core::Core;
use crate::sept::SeptEntry;
use crate::structures::Tdcs;

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Translation {
    /// The host-physical address.
    Mapped(u64),
    /// An EPT violation.
    Violation,
    /// An EPT violation that the CPU turns into #VE.
    Convertible,
    /// An EPT misconfiguration.
    Misconfigured,
}

/// A walk and what it saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// How it ended.
    pub(crate) outcome: Translation,
    /// Permissions that all entries on the way gave.
    pub(crate) permissions: u64,
    /// Level of the last entry read.
    pub(crate) level: Level,
    /// The last entry read.
    pub(crate) entry: SeptEntry,
}

/// Root of an EPT.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EptRoot {
    /// Host-physical address of the root table, KeyID included.
    pub(crate) hpa: u64,
    /// Level of its entries.
    pub(crate) level: Level,
}

const PERMISSIONS: u64 = 7;
const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const MEMORY_TYPE_SHIFT: u32 = 3;
const PAGE_SIZE: u64 = 1 << 7;
const SUPPRESS_VE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// EPTP bits 5:3: page-walk length less 1.
const WALK_LENGTH_SHIFT: u32 = 3;

/// Walks the Secure-EPT for an access with permissions `access`.
pub(crate) fn private(core: &Core, tdcs: Tdcs<'_>, gpa: u64, access: u64) -> Walk {
    let root = tdcs.root();
    walk(
        core,
        EptRoot {
            hpa: root.hpa,
            level: root.level,
        },
        gpa,
        access,
        false,
    )
}

/// Walks the Secure-EPT of L2 VM `vm` for an access with permissions `access`. Its CPU raises no #VE.
pub(crate) fn l2(core: &Core, tdcs: Tdcs<'_>, vm: usize, gpa: u64, access: u64) -> Walk {
    let root = tdcs.l2_root(vm);
    let root = EptRoot {
        hpa: root.hpa,
        level: root.level,
    };
    walk(core, root, gpa, access, false)
}

/// Walks the shared EPT under `eptp` for an access with permissions `access`.
pub(crate) fn shared(core: &Core, eptp: u64, gpa: u64, access: u64) -> Walk {
    let level = Level::new((eptp >> WALK_LENGTH_SHIFT & 7) as u8).unwrap_or(Level::Pml4);
    walk(
        core,
        EptRoot {
            hpa: eptp & ADDRESS,
            level,
        },
        gpa,
        access,
        true,
    )
}

fn walk(core: &Core, root: EptRoot, gpa: u64, access: u64, shared: bool) -> Walk {
    let memory = core.memory();
    let mut level = root.level;
    let mut table = root.hpa;
    let mut permissions = PERMISSIONS;
    loop {
        let raw = memory.read_u64(core.without_key_id(table) + 8 * level.index(gpa) as u64);
        let entry = SeptEntry(raw);
        permissions &= raw;
        let end = |outcome| Walk {
            outcome,
            permissions,
            level,
            entry,
        };
        if shared && is_misconfigured(core, raw, level) {
            return end(Translation::Misconfigured);
        }
        if raw & PERMISSIONS == 0 || raw & access != access {
            let last = raw & PERMISSIONS == 0 || raw & PAGE_SIZE != 0 || level == Level::Pt;
            let convertible = last && raw & SUPPRESS_VE == 0;
            return end(if convertible {
                Translation::Convertible
            } else {
                Translation::Violation
            });
        }
        if level == Level::Pt || raw & PAGE_SIZE != 0 {
            let offset = level.size() - 1;
            let hpa = raw & ADDRESS & !offset | gpa & offset;
            if shared && core.check_shared_hpa(hpa, Level::Pt.size()).is_err() {
                return end(Translation::Misconfigured);
            }
            return end(Translation::Mapped(hpa));
        }
        table = raw & ADDRESS;
        level = level.below().unwrap_or(Level::Pt);
    }
}

/// Whether the CPU refuses an entry of the shared EPT, or the module a table that it refers to.
///
/// Execute-only entries are legal on this platform.
fn is_misconfigured(core: &Core, raw: u64, level: Level) -> bool {
    /// Bits that must be 0 in an entry that refers to a table, and bit 7 where no page is that large.
    const TABLE_RESERVED: u64 = 0xf << 3;
    /// Memory types that do not exist: 2, 3 and 7.
    const RESERVED_TYPES: u8 = 1 << 2 | 1 << 3 | 1 << 7;
    if raw & (READ | WRITE) == WRITE {
        return true;
    }
    if raw & PERMISSIONS == 0 {
        return false;
    }
    let large = raw & PAGE_SIZE != 0;
    if level > Level::Pdpt && large {
        return true;
    }
    if level == Level::Pt || large {
        let memory_type = raw >> MEMORY_TYPE_SHIFT & 7;
        return RESERVED_TYPES >> memory_type & 1 != 0 || raw & ADDRESS & (level.size() - 1) != 0;
    }
    raw & TABLE_RESERVED != 0
        || core
            .check_shared_hpa(raw & ADDRESS, Level::Pt.size())
            .is_err()
}
