//! The three trees of a TD as they are.

use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::SeptState;
use tdx_abi::format::SeptEntry;
use tdx_mmu::embed::Grace;
use tdx_mmu::embed::Tables;
use tdx_mmu::mirror::Kind;
use tdx_mmu::mirror::MirrorEntry;
use tdx_mmu::shared::EptEntry;
use tdx_mmu::shared::EptKind;

use super::tree::Entry;
use super::tree::Tree;
use crate::host::Host;
use crate::host::td::HostTd;

/// The mirror, through the MMU. Entries that cannot be compared are the error.
pub(crate) fn mirror(td: &HostTd<'_>) -> Result<Tree, String> {
    let host = td.embedder();
    let _reader = host.enter();
    let mut tree = Tree::default();
    let mut odd = None;
    td.mirror().tree().visit(host, &mut |gpa, level, bits| {
        let stands_for = |table| host.link(table).load(Ordering::Acquire);
        let (is_leaf, hpa, is_blocked) = match MirrorEntry::from_bits(bits).kind() {
            Kind::Empty => return,
            Kind::Leaf(page) | Kind::ExportLeaf(page, _) => (true, page.bits(), false),
            Kind::BlockedLeaf(page) => (true, page.bits(), true),
            Kind::Table(table) => (false, stands_for(table), false),
            Kind::BlockedTable(table) => (false, stands_for(table), true),
            kind @ (Kind::Frozen | Kind::Poisoned(_)) => {
                odd = Some(format!("the mirror has a {kind:?} entry at {gpa:#x}"));
                return;
            }
        };
        tree.entries.push(Entry {
            gpa,
            level,
            is_leaf,
            hpa,
            is_blocked,
        });
    });
    odd.map_or(Ok(tree), Err)
}

/// The shared EPT, through the MMU.
pub(crate) fn shared(td: &HostTd<'_>) -> Tree {
    let host = td.embedder();
    let _reader = host.enter();
    let mut tree = Tree::default();
    td.shared().tree().visit(host, &mut |gpa, level, bits| {
        let entry = EptEntry::from_bits(bits);
        let (is_leaf, hpa) = match entry.kind() {
            EptKind::Table(table) => (false, table.bits()),
            EptKind::Leaf { hpa, .. } => (true, hpa.bits()),
            _ => return,
        };
        let gpa = gpa & !td.shared_bit().mask();
        tree.entries.push(Entry {
            gpa,
            level,
            is_leaf,
            hpa,
            is_blocked: false,
        });
    });
    tree
}

/// The Secure-EPT as it lies in physical memory, from its root on. The MMU has no part in it.
pub(crate) fn secure(host: &Host, tdr: Hpa) -> Result<Tree, String> {
    let (root, top) = host
        .platform()
        .sept_root(tdr)
        .ok_or("the TD has no Secure-EPT")?;
    let key_id_mask = host.platform().config().key_id_mask();
    let mut tree = Tree::default();
    let mut walk = Walk {
        host,
        entries: &mut tree.entries,
    };
    walk.table(root.bits() & !key_id_mask, top, 0)?;
    Ok(tree)
}

struct Walk<'w> {
    host: &'w Host,
    entries: &'w mut Vec<Entry>,
}

impl Walk<'_> {
    fn table(&mut self, table: u64, level: Level, start: u64) -> Result<(), String> {
        for index in 0..512 {
            let bits = self.host.platform().memory().read_u64(table + 8 * index);
            let entry = SeptEntry::from_bits(bits);
            let gpa = start + index * level.size();
            let state = entry.state().ok_or_else(|| {
                format!("the Secure-EPT entry {bits:#x} at {gpa:#x} has no known state")
            })?;
            let hpa = entry.hpa().bits();
            let is_leaf = match state {
                SeptState::Free | SeptState::Removed => continue,
                SeptState::NlMapped | SeptState::NlBlocked => false,
                _ => true,
            };
            // Of a pending large page the lower address bits count what is accepted.
            let hpa = if is_leaf {
                hpa & !(level.size() - 1)
            } else {
                hpa
            };
            let is_blocked = state.any_blocked();
            self.entries.push(Entry {
                gpa,
                level,
                is_leaf,
                hpa,
                is_blocked,
            });
            if let Some(below) = level.below().filter(|_| !is_leaf) {
                self.table(hpa, below, gpa)?;
            }
        }
        Ok(())
    }
}
