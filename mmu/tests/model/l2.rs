//! The words of L2 VMs beside mirrored tables: who links a table there claims its word, while others remove the table.

use std::collections::BTreeMap;

use tdx_abi::Gpa;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_mmu::Td;
use tdx_mmu::attributes::Visibility;
use tdx_mmu::embed::Tables;
use tdx_mmu::l2::Link;
use tdx_mmu::mirror::Kind;
use tdx_mmu::mirror::MirrorEntry;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;

use super::memory::Seeded;
use super::memory::explore;
use super::memory::side_by_side;
use super::td::Host;
use super::td::fault;
use super::td::page;
use super::td::td_with;

const RUNS: usize = 150;
const GPA: u64 = 0x1000;
const TABLE: u64 = 0x20_0000;

/// The L1 VMM's TDG.MEM.PAGE.ATTR.WR has found a table missing.
fn alias(td: &Td<Host>) {
    let access = Access {
        gpa: Gpa::new(GPA),
        kind: AccessKind::Alias { vm: 1 },
    };
    td.fault(access).unwrap();
}

/// Takes all tables away that have become empty.
fn remove(td: &Td<Host>) {
    td.unmap_private(&[page(0, TABLE)]).unwrap();
    td.trim(page(0, TABLE)).unwrap();
}

/// What the host has on record, by address and level as the leaves take them.
fn recorded(host: &Host, table: Hpa, level: Level, start: u64, into: &mut BTreeMap<u64, u64>) {
    use std::sync::atomic::Ordering::Relaxed;
    for (index, entry) in (0..).zip(host.memory.entries(table)) {
        use tdx_mmu::Word;
        let kind = MirrorEntry::from_bits(entry.load(Relaxed)).kind();
        let (Kind::Table(table) | Kind::BlockedTable(table)) = kind else {
            continue;
        };
        let gpa = start + index * level.size();
        match Link::from_bits(host.memory.l2_links(table).unwrap()[0].load(Relaxed)) {
            Link::Absent => {}
            Link::Page(page) => {
                into.insert(gpa | level as u64, page.bits());
            }
            other => panic!("{other:?} was left"),
        }
        recorded(host, table, level.below().unwrap(), gpa, into);
    }
}

fn run<const N: usize>(mistake: Seeded, threads: [fn(&Td<Host>); N]) {
    explore(mistake, RUNS, move || {
        let td = td_with(1);
        td.declare(page(0, TABLE), Visibility::Private).unwrap();
        td.finalize().unwrap();
        fault(&td, GPA);
        side_by_side(&td, threads);
        let host = td.embedder();
        let tree = td.mirror().tree();
        let mut record = BTreeMap::new();
        recorded(host, tree.root(), tree.top(), 0, &mut record);
        assert_eq!(record, host.module.l2_tables());
    });
}

fn tables_beside_removals(mistake: Seeded) {
    run(
        mistake,
        [alias, alias, remove, |td| {
            fault(td, GPA);
            alias(td);
        }],
    );
}

#[test]
fn tables_of_an_l2_vm_are_linked_once_and_leave_with_the_tds() {
    tables_beside_removals(Seeded::Nothing);
}

#[test]
#[should_panic]
fn a_word_claimed_twice_is_noticed() {
    tables_beside_removals(Seeded::TornExchange);
}

#[test]
#[should_panic]
fn a_table_linked_beside_a_block_is_noticed() {
    tables_beside_removals(Seeded::OpenGate);
}
