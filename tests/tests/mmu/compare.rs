//! Mirror and Secure-EPT, entry for entry.

use std::collections::BTreeMap;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::format::Eptp;
use tdx_abi::format::SeptEntry;
use tdx_abi::sept::SeptState;
use tdx_mmu::Td;
use tdx_mmu::embed::Tables;
use tdx_mmu::mirror::ExportState;
use tdx_mmu::mirror::Kind;
use tdx_mmu::mirror::MirrorEntry;

use super::host::Host;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Table {
        page: u64,
        blocked: bool,
    },
    Leaf {
        page: u64,
        blocked: bool,
        export: Option<ExportState>,
    },
    Poisoned,
}

/// What every entry that is not absent says, by address and level.
pub type Picture = BTreeMap<(u64, Level), Entry>;

const EPTP_IN_TDCS: u64 = 0x98;

/// The Secure-EPT as it lies in physical memory, found by the EPTP in the TDCS.
pub fn secure_ept(host: &Host) -> Picture {
    let tdcs = host.allocated.lock().unwrap()[host.first_tdcx()];
    let eptp = Eptp::from_bits(host.platform.memory().read_u64(tdcs + EPTP_IN_TDCS));
    let root = eptp.root().bits();
    // A TD that is about to be imported has none yet.
    if root == 0 {
        return Picture::new();
    }
    let top = Level::new(eptp.walk_length()).unwrap();
    let mut picture = Picture::new();
    walk(host, root, top, 0, &mut picture);
    picture
}

fn walk(host: &Host, table: u64, level: Level, start: u64, picture: &mut Picture) {
    for index in 0..512 {
        let bits = host.platform.memory().read_u64(table + 8 * index);
        let address = start + index * level.size();
        let entry = SeptEntry::from_bits(bits);
        let state = entry
            .state()
            .unwrap_or_else(|| panic!("state of {bits:#x} at {address:#x}"));
        let page = entry.hpa().bits();
        let entry = match state {
            SeptState::Free | SeptState::Removed => continue,
            SeptState::NlMapped | SeptState::NlBlocked => {
                let below = level.below().unwrap();
                walk(host, page, below, address, picture);
                Entry::Table {
                    page,
                    blocked: state == SeptState::NlBlocked,
                }
            }
            state => {
                assert!(
                    entry.leaf() || level == Level::Pt,
                    "{state:?} at {address:#x}"
                );
                Entry::Leaf {
                    page,
                    blocked: state.any_blocked(),
                    export: export_state(state),
                }
            }
        };
        picture.insert((address, level), entry);
    }
}

/// What an export has done with a page, by the names of the module's states.
fn export_state(state: SeptState) -> Option<ExportState> {
    match state {
        SeptState::Blockedw | SeptState::PendingBlockedw => Some(ExportState::WriteBlocked),
        SeptState::ExportedBlockedw | SeptState::PendingExportedBlockedw => {
            Some(ExportState::Exported)
        }
        SeptState::ExportedDirty | SeptState::PendingExportedDirty => Some(ExportState::Dirty),
        SeptState::ExportedDirtyBlockedw | SeptState::PendingExportedDirtyBlockedw => {
            Some(ExportState::DirtyWriteBlocked)
        }
        _ => None,
    }
}

/// What the mirror says, with the Secure-EPT page that each table stands for.
pub fn mirror(td: &Td<Host>) -> Picture {
    let mut picture = Picture::new();
    walk_mirror(
        td.embedder(),
        td.mirror().tree().root(),
        td.mirror().tree().top(),
        0,
        &mut picture,
    );
    picture
}

fn walk_mirror(host: &Host, table: Hpa, level: Level, start: u64, picture: &mut Picture) {
    for (index, entry) in (0..).zip(host.entries(table)) {
        let bits = entry.load(std::sync::atomic::Ordering::Acquire);
        let address = start + index * level.size();
        let link = |table| host.link(table).load(std::sync::atomic::Ordering::Acquire);
        let below = |table, picture: &mut Picture| {
            walk_mirror(host, table, level.below().unwrap(), address, picture)
        };
        let entry = match MirrorEntry::from_bits(bits).kind() {
            Kind::Empty => continue,
            Kind::Frozen => panic!("entry at {address:#x} was left frozen"),
            Kind::Poisoned(_) => Entry::Poisoned,
            Kind::Leaf(page) => Entry::Leaf {
                page: page.bits(),
                blocked: false,
                export: None,
            },
            Kind::BlockedLeaf(page) => Entry::Leaf {
                page: page.bits(),
                blocked: true,
                export: None,
            },
            Kind::ExportLeaf(page, state) => Entry::Leaf {
                page: page.bits(),
                blocked: false,
                export: Some(state),
            },
            Kind::Table(table) => {
                below(table, picture);
                Entry::Table {
                    page: link(table),
                    blocked: false,
                }
            }
            Kind::BlockedTable(table) => {
                below(table, picture);
                Entry::Table {
                    page: link(table),
                    blocked: true,
                }
            }
        };
        picture.insert((address, level), entry);
    }
}

/// Fails unless both say the same of every address.
#[track_caller]
pub fn assert_equal(td: &Td<Host>) {
    let (mirror, secure) = (mirror(td), secure_ept(td.embedder()));
    for (place, entry) in &mirror {
        assert_eq!(
            Some(entry),
            secure.get(place),
            "mirror and Secure-EPT at {place:x?}"
        );
    }
    for (place, entry) in &secure {
        assert_eq!(
            Some(entry),
            mirror.get(place),
            "Secure-EPT and mirror at {place:x?}"
        );
    }
    for vm in 1..=td.l2_vms() {
        super::l2::compare::assert_equal(td, vm, &mirror);
    }
}

/// How many leaves there are of a level.
pub fn leaves(td: &Td<Host>, level: Level) -> usize {
    mirror(td)
        .iter()
        .filter(|((_, at), entry)| *at == level && matches!(entry, Entry::Leaf { .. }))
        .count()
}

/// How many bytes the leaves map.
pub fn bytes(td: &Td<Host>) -> u64 {
    let leaf = |entry: &Entry| matches!(entry, Entry::Leaf { .. });
    mirror(td)
        .iter()
        .filter(|(_, entry)| leaf(entry))
        .map(|((_, level), _)| level.size())
        .sum()
}
