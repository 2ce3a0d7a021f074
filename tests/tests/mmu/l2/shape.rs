//! Large pages and their aliases: split, promoted, relocated.

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::StatusCode;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_mmu::Td;
use tdx_mmu::td::Resolution;

use super::super::compare::assert_equal;
use super::super::compare::leaves;
use super::super::host::Host;
use super::super::host::range;
use super::super::life::end;
use super::super::life::runnable_on;
use super::compare::aliases;
use super::compare::tables;
use super::guest::accept;
use super::guest::alias;
use super::guest::enter;
use super::guest::prepare;
use super::guest::run;
use super::guest::set_alias;

const LARGE: u64 = 0x2020_0000;
const SIZE: u64 = 0x20_0000;
/// Where in it the L2 VM writes.
const PLACES: [u64; 3] = [LARGE, LARGE + 0x5000, LARGE + SIZE - 0x1000];

/// The L2 VM finds in each place what was written there.
fn check(cpu: &mut GuestCpu<'_>) -> Result<(), GuestFault> {
    for place in PLACES {
        assert_eq!(cpu.read_u64(place)?, place ^ 0x55);
    }
    Ok(())
}

/// A TD whose L2 VM has an alias of a 2 MiB page, and has written to it.
fn with_large_alias(host: Host) -> Td<Host> {
    let td = runnable_on(host, 1);
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    let resolutions = run(&td, |cpu| {
        if cpu.vm() == 0 {
            accept(cpu, LARGE, Level::Pd)?;
            alias(cpu, LARGE, Level::Pd)?;
        }
        Ok(())
    });
    assert_eq!(
        resolutions,
        [Resolution::Mapped(Level::Pd), Resolution::Linked]
    );
    *td.embedder().largest.lock().unwrap() = Level::Pt;
    run(&td, |cpu| {
        prepare(cpu)?;
        enter(cpu)?;
        PLACES
            .iter()
            .try_for_each(|&place| cpu.write_u64(place, place ^ 0x55))?;
        check(cpu)
    });
    assert_eq!((tables(&td), aliases(&td, 1, Level::Pd)), (2, 1));
    assert_equal(&td);
    td
}

/// The L2 VM uses the page without the host or the L1 VMM.
#[track_caller]
fn undisturbed(td: &Td<Host>) {
    assert_eq!(run(td, check), []);
    assert_equal(td);
    td.embedder().check_pamt();
}

#[test]
fn an_alias_is_split_and_promoted_with_its_page() {
    for host in [Host::partitioned(1), Host::dynamic_partitioned(1)] {
        let td = with_large_alias(host);
        let before = td.embedder().module_pages_in_use();
        let pairs = td.embedder().pamt_pairs();
        let pages = |td: &Td<Host>| {
            let host = td.embedder();
            host.module_pages_in_use() - 2 * (host.pamt_pairs() - pairs)
        };
        td.split(PrivateGpa::new(LARGE)).unwrap();
        undisturbed(&td);
        assert_eq!(
            pages(&td),
            before + 2,
            "a table of the TD and one of the L2 VM"
        );
        assert_eq!((tables(&td), aliases(&td, 1, Level::Pt)), (3, 512));
        assert_eq!(td.promote(&[range(LARGE, SIZE)]).unwrap(), 1);
        undisturbed(&td);
        assert_eq!(pages(&td), before);
        assert_eq!((tables(&td), aliases(&td, 1, Level::Pd)), (2, 1));
        td.unmap_private(&[range(LARGE, SIZE)]).unwrap();
        assert_equal(&td);
        assert_eq!(aliases(&td, 1, Level::Pd), 0);
        end(td);
    }
}

#[test]
fn pages_for_l2_vms_without_an_alias_come_back_from_a_split() {
    let td = with_large_alias(Host::partitioned(3));
    let before = td.embedder().module_pages_in_use();
    td.split(PrivateGpa::new(LARGE)).unwrap();
    undisturbed(&td);
    assert_eq!(td.embedder().module_pages_in_use(), before + 2);
    assert_eq!(tables(&td), 3);
    end(td);
}

#[test]
fn aliases_that_differ_are_not_promoted_and_stay() {
    let td = with_large_alias(Host::partitioned(1));
    td.split(PrivateGpa::new(LARGE)).unwrap();
    // The TD's own pages are all alike still.
    run(&td, |cpu| {
        if cpu.vm() == 1 {
            assert!(matches!(cpu.read_u64(0), Err(GuestFault::LeftL2)));
        }
        let code = set_alias(cpu, LARGE + 0x1000, Level::Pt, false)?;
        assert_eq!(code, StatusCode::SUCCESS);
        enter(cpu)
    });
    assert_eq!(aliases(&td, 1, Level::Pt), 511);
    assert_eq!(td.promote(&[range(LARGE, SIZE)]).unwrap(), 0);
    undisturbed(&td);
    assert_eq!((tables(&td), leaves(&td, Level::Pd)), (3, 0));
    end(td);
}

#[test]
fn part_of_a_large_alias_is_unmapped_and_the_rest_stays() {
    let td = with_large_alias(Host::partitioned(1));
    td.unmap_private(&[range(LARGE + 0x10_0000, 0x4000)])
        .unwrap();
    undisturbed(&td);
    assert_eq!(aliases(&td, 1, Level::Pt), 512 - 4);
    end(td);
}

#[test]
fn unmapping_after_promotion_gives_both_tables_back() {
    let td = with_large_alias(Host::partitioned(1));
    let before = td.embedder().module_pages_in_use();
    td.split(PrivateGpa::new(LARGE)).unwrap();
    td.unmap_private_promoting(&[range(LARGE, SIZE)]).unwrap();
    assert_equal(&td);
    assert_eq!(td.embedder().module_pages_in_use(), before);
    assert_eq!((tables(&td), aliases(&td, 1, Level::Pd)), (2, 0));
    end(td);
}

#[test]
fn a_page_is_split_for_the_alias_of_a_part() {
    let td = with_large_alias(Host::partitioned(1));
    let resolutions = run(&td, |cpu| {
        if cpu.vm() == 1 {
            assert!(matches!(cpu.read_u64(0), Err(GuestFault::LeftL2)));
        }
        let code = set_alias(cpu, LARGE + 0x1000, Level::Pt, false)?;
        assert_eq!(code, StatusCode::SUCCESS);
        enter(cpu)
    });
    assert_eq!(resolutions, [Resolution::Split]);
    undisturbed(&td);
    assert_eq!(aliases(&td, 1, Level::Pt), 511);
    end(td);
}

#[test]
fn an_alias_follows_its_page_to_another_place() {
    let td = with_large_alias(Host::partitioned(1));
    td.split(PrivateGpa::new(LARGE)).unwrap();
    let spare = td.embedder().spare(0);
    let target = spare.hpa();
    td.relocate(PrivateGpa::new(PLACES[1]), spare).unwrap();
    let now = td.mirror().look(td.embedder(), PrivateGpa::new(PLACES[1]));
    assert_eq!(now.entry.address(), target);
    undisturbed(&td);
    end(td);
}
