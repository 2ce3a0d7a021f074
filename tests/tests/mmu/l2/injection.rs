//! Operations on the tables of L2 VMs, with every call failing in every way: see [`super::super::injection`].

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::StatusCode;
use tdx_mmu::Td;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;

use super::super::host::Host;
use super::super::host::range;
use super::super::injection::Case;
use super::super::injection::all_positions;
use super::super::injection::allocations;
use super::super::injection::clear;
use super::super::injection::large;
use super::super::injection::small;
use super::super::life::runnable_on;
use super::compare::aliases;

const LARGE: u64 = 0x3000_0000;
const SIZE: u64 = 0x20_0000;

fn partitioned() -> Td<Host> {
    runnable_on(Host::partitioned(2), 1)
}

fn dynamic() -> Td<Host> {
    runnable_on(Host::dynamic_partitioned(2), 1)
}

/// The TD's own tables are there, and no other.
fn without_tables(td: &Td<Host>) {
    clear(td);
    td.unmap_private(&[range(0, 0x1000)]).unwrap();
    td.trim(range(0, 1 << 40)).unwrap();
}

/// L2 VM 1 has an alias of the 2 MiB page at [`LARGE`].
fn aliased(td: &Td<Host>) {
    clear(td);
    td.trim(range(LARGE, SIZE)).unwrap();
    large(td);
    td.prefault(range(LARGE, SIZE), Level::Pd).unwrap();
    small(td);
    td.link_l2(1, range(LARGE, SIZE)).unwrap();
    let host = td.embedder();
    host.enter(0, td.tdvpr(0).unwrap());
    let answer = host.set_alias(LARGE, Level::Pd, true).unwrap();
    assert_eq!(answer.unwrap(), StatusCode::SUCCESS);
    host.leave(0);
    assert_eq!(aliases(td, 1, Level::Pd), 1);
}

fn fault_alias(td: &Td<Host>) -> Result<(), Error> {
    let access = Access {
        gpa: tdx_abi::Gpa::new(LARGE),
        kind: AccessKind::Alias { vm: 1 },
    };
    td.fault(access)
        .map(|resolution| assert_eq!(resolution, Resolution::Linked))
}

const LINK: Case = Case {
    name: "link the tables of an L2 VM for a fault",
    stage: partitioned,
    prepare: |td| {
        without_tables(td);
        td.prefault(range(LARGE, 0x1000), Level::Pt).unwrap();
    },
    operate: fault_alias,
};

const SPLIT: Case = Case {
    name: "split a page with an alias",
    stage: partitioned,
    prepare: aliased,
    operate: |td| td.split(PrivateGpa::new(LARGE)),
};

const PROMOTE: Case = Case {
    name: "promote pages with aliases",
    stage: partitioned,
    prepare: |td| {
        aliased(td);
        td.split(PrivateGpa::new(LARGE)).unwrap();
        assert_eq!(aliases(td, 1, Level::Pt), 512);
    },
    operate: |td| td.promote(&[range(LARGE, SIZE)]).map(drop),
};

const CASES: [Case; 9] = [
    LINK,
    Case {
        name: "link the tables of an L2 VM in a range",
        operate: |td| td.link_l2(2, range(0, 0x4000_0000)).map(drop),
        ..LINK
    },
    Case {
        name: "link the tables of an L2 VM with Dynamic PAMT",
        stage: dynamic,
        ..LINK
    },
    SPLIT,
    Case {
        name: "split a page with an alias, with Dynamic PAMT",
        stage: dynamic,
        ..SPLIT
    },
    PROMOTE,
    Case {
        name: "promote pages with aliases, with Dynamic PAMT",
        stage: dynamic,
        ..PROMOTE
    },
    Case {
        name: "unmap part of a page with an alias",
        operate: |td| td.unmap_private(&[range(LARGE, 0x2000)]),
        ..SPLIT
    },
    Case {
        name: "give empty tables back, and those of an L2 VM",
        stage: partitioned,
        prepare: |td| {
            clear(td);
            td.prefault(range(LARGE, 0x1000), Level::Pt).unwrap();
            td.link_l2(1, range(LARGE, SIZE)).unwrap();
            clear(td);
        },
        operate: |td| td.trim(range(SIZE, 0x4000_0000 - SIZE)).map(drop),
    },
];

#[test]
fn every_call_of_every_operation_with_l2_vms_may_fail_in_every_way() {
    std::thread::scope(|scope| {
        for half in CASES.chunks(CASES.len().div_ceil(2)) {
            scope.spawn(move || half.iter().for_each(all_positions));
        }
    });
}

#[test]
fn every_allocation_of_every_operation_with_l2_vms_may_fail() {
    CASES.iter().for_each(allocations);
}
