//! The tables of L2 VMs that the host has on record, and their Secure-EPTs as they lie in physical memory.

use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::L2SeptState;
use tdx_abi::Level;
use tdx_abi::format::L2SeptEntry;
use tdx_mmu::Td;
use tdx_mmu::embed::Tables;
use tdx_mmu::l2::Link;
use tdx_mmu::mirror::Kind;
use tdx_mmu::mirror::MirrorEntry;

use super::super::compare::Entry;
use super::super::compare::Picture;
use super::super::host::Host;

/// The Secure-EPT of L2 VM `vm`, tables and pages.
pub fn secure_ept(td: &Td<Host>, vm: usize) -> Picture {
    let host = td.embedder();
    let root = host.allocated.lock().unwrap()[host.l2_root(vm)];
    let mut picture = Picture::new();
    walk(host, root, td.mirror().tree().top(), 0, &mut picture);
    picture
}

fn walk(host: &Host, table: u64, level: Level, start: u64, picture: &mut Picture) {
    for index in 0..512 {
        let bits = host.platform.memory().read_u64(table + 8 * index);
        let address = start + index * level.size();
        let entry = L2SeptEntry::from_bits(bits);
        let page = entry.hpa().bits();
        // Bit R is a part of the state of entries with a table only.
        let state = entry.state().or_else(|| entry.with_r(false).state());
        let entry = match state.unwrap_or_else(|| panic!("state of {bits:#x} at {address:#x}")) {
            L2SeptState::L2Free => continue,
            state @ (L2SeptState::L2NlMapped | L2SeptState::L2NlBlocked) => {
                walk(host, page, level.below().unwrap(), address, picture);
                Entry::Table {
                    page,
                    blocked: state == L2SeptState::L2NlBlocked,
                }
            }
            state => Entry::Leaf {
                page,
                blocked: state == L2SeptState::L2Blocked,
                export: None,
            },
        };
        picture.insert((address, level), entry);
    }
}

/// The tables of L2 VM `vm` that the host has on record.
pub fn recorded(td: &Td<Host>, vm: usize) -> Picture {
    let tree = td.mirror().tree();
    let mut picture = Picture::new();
    walk_recorded(td.embedder(), vm, tree.root(), tree.top(), 0, &mut picture);
    picture
}

fn walk_recorded(
    host: &Host,
    vm: usize,
    table: Hpa,
    level: Level,
    start: u64,
    picture: &mut Picture,
) {
    for (index, entry) in (0..).zip(host.entries(table)) {
        let address = start + index * level.size();
        let kind = MirrorEntry::from_bits(entry.load(Ordering::Acquire)).kind();
        let (Kind::Table(table) | Kind::BlockedTable(table)) = kind else {
            continue;
        };
        let word = host.l2_links(table).unwrap()[vm - 1].load(Ordering::Acquire);
        match Link::from_bits(word) {
            Link::Absent => continue,
            Link::Page(page) => {
                let entry = Entry::Table {
                    page: page.bits(),
                    blocked: matches!(kind, Kind::BlockedTable(_)),
                };
                picture.insert((address, level), entry);
            }
            other => panic!("word of L2 VM {vm} at {address:#x}: {other:?}"),
        }
        walk_recorded(host, vm, table, level.below().unwrap(), address, picture);
    }
}

/// Fails unless the record is what the Secure-EPT of L2 VM `vm` has of tables, and every page in it is the one that
/// the TD has at the same place, and blocked where that is.
#[track_caller]
pub fn assert_equal(td: &Td<Host>, vm: usize, mirror: &Picture) {
    let is_table = |entry: &Entry| matches!(entry, Entry::Table { .. });
    let secure = secure_ept(td, vm);
    let tables: Picture = secure
        .iter()
        .filter(|(_, entry)| is_table(entry))
        .map(|(place, entry)| (*place, *entry))
        .collect();
    assert_eq!(recorded(td, vm), tables, "tables of L2 VM {vm}");
    for (place, entry) in secure.iter().filter(|(_, entry)| !is_table(entry)) {
        let (
            Some(Entry::Leaf { page, blocked, .. }),
            Entry::Leaf {
                page: alias,
                blocked: hidden,
                ..
            },
        ) = (mirror.get(place), entry)
        else {
            panic!("L2 VM {vm} has {entry:x?} at {place:x?}, the TD no page");
        };
        assert_eq!(alias, page, "page of L2 VM {vm} at {place:x?}");
        // An alias of a pending page is blocked, too.
        assert!(
            *hidden || !*blocked,
            "L2 VM {vm} sees a blocked page at {place:x?}"
        );
    }
}

/// How many tables the L2 VMs have.
pub fn tables(td: &Td<Host>) -> usize {
    (1..=td.l2_vms()).map(|vm| recorded(td, vm).len()).sum()
}

/// How many pages L2 VM `vm` has aliases of, at `level`.
pub fn aliases(td: &Td<Host>, vm: usize, level: Level) -> usize {
    secure_ept(td, vm)
        .iter()
        .filter(|((_, at), entry)| *at == level && matches!(entry, Entry::Leaf { .. }))
        .count()
}
