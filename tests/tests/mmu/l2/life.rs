//! From a fault in the TD to an alias in its L2 VM, and back.

use std::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::StatusCode;
use tdx_emulator::GuestFault;
use tdx_mmu::Td;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;

use super::super::compare::assert_equal;
use super::super::host::Host;
use super::super::host::ram;
use super::super::host::range;
use super::super::life::end;
use super::super::life::runnable_on;
use super::compare::aliases;
use super::compare::tables;
use super::guest::STATE;
use super::guest::accept;
use super::guest::alias;
use super::guest::enter;
use super::guest::prepare;
use super::guest::run;
use super::guest::set_alias;

/// A page that L2 VM 1 is to see; its table has no other page.
const DATA: u64 = 0x3000_0000;
const SECRET: u64 = 42;
const MAPPED: Resolution = Resolution::Mapped(Level::Pt);

pub fn partitioned() -> Td<Host> {
    runnable_on(Host::partitioned(1), 1)
}

/// The L1 VMM lets L2 VM 1 see [`DATA`], and that writes there.
fn alias_and_write(td: &Td<Host>) -> Vec<Resolution> {
    run(td, |cpu| {
        if cpu.vm() == 0 {
            prepare(cpu)?;
            accept(cpu, DATA, Level::Pt)?;
            alias(cpu, DATA, Level::Pt)?;
        }
        enter(cpu)?;
        cpu.write_u64(DATA, SECRET)?;
        assert_eq!(cpu.read_u64(DATA)?, SECRET);
        Ok(())
    })
}

#[test]
fn the_module_says_which_control_pages_l2_vms_need() {
    for l2_vms in 0..=3 {
        let (without, with) = (Host::new(), Host::partitioned(l2_vms));
        let config = without.config().with_l2_vms(&with, l2_vms).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", with.config()));
    }
    let host = Host::new();
    host.config().with_l2_vms(&host, 4).unwrap_err();
}

#[test]
fn a_page_is_mapped_aliased_used_and_unmapped() {
    for host in [Host::partitioned(1), Host::dynamic_partitioned(1)] {
        let td = runnable_on(host, 1);
        let resolutions = alias_and_write(&td);
        // The pages of the L2 VM's state, the page, and one exit for all tables that its alias lacks.
        assert_eq!(resolutions, [MAPPED, MAPPED, MAPPED, Resolution::Linked]);
        assert_eq!((tables(&td), aliases(&td, 1, Level::Pt)), (3, 1));
        assert_equal(&td);
        // The L2 VM has a translation now, and loses it.
        td.unmap_private(&[range(DATA, 0x1000)]).unwrap();
        assert_equal(&td);
        assert_eq!((tables(&td), aliases(&td, 1, Level::Pt)), (3, 0));
        let resolutions = run(&td, |cpu| {
            if cpu.vm() == 1 {
                let read = cpu.read_u64(DATA);
                match read {
                    // The page is there again: the L1 VMM has to accept it.
                    Err(GuestFault::LeftL2) => {}
                    Err(fault) => return Err(fault),
                    Ok(value) => panic!("{value:#x} through a translation that is gone"),
                }
            }
            accept(cpu, DATA, Level::Pt)?;
            alias(cpu, DATA, Level::Pt)?;
            enter(cpu)?;
            assert_eq!(cpu.read_u64(DATA)?, 0);
            Ok(())
        });
        // Its tables were not lost.
        assert_eq!(resolutions, [MAPPED]);
        assert_equal(&td);
        td.embedder().check_pamt();
        end(td);
    }
}

#[test]
fn a_vcpu_inside_its_l2_vm_is_kicked_once() {
    let td = partitioned();
    alias_and_write(&td);
    let host = td.embedder();
    host.enter(0, td.tdvpr(0).unwrap());
    let entered = td.enter(0).unwrap();
    let kicks = host.kicks.load(Ordering::Relaxed);
    td.unmap_private(&[range(DATA, 0x1000)]).unwrap();
    assert_eq!(host.kicks.load(Ordering::Relaxed), kicks + 1);
    drop(entered);
    assert_equal(&td);
    end(td);
}

#[test]
fn without_a_kick_the_module_keeps_the_page_of_an_l2_vm() {
    let td = partitioned();
    alias_and_write(&td);
    let host = td.embedder();
    host.enter(0, td.tdvpr(0).unwrap());
    let entered = td.enter(0).unwrap();
    host.kick_disabled.store(true, Ordering::Relaxed);
    let error = td.unmap_private(&[range(DATA, 0x1000)]).unwrap_err();
    let code = error.status().map(|status| status.code());
    assert_eq!(code, Some(StatusCode::TLB_TRACKING_NOT_DONE));
    assert_equal(&td);
    host.kick_disabled.store(false, Ordering::Relaxed);
    host.leave(0);
    drop(entered);
    td.unmap_private(&[range(DATA, 0x1000)]).unwrap();
    assert_equal(&td);
    end(td);
}

#[test]
fn where_no_exits_are_asked_for_the_guest_is_told_and_the_host_links_by_request() {
    let td = runnable_on(Host::partitioned(2), 1);
    let wanted = |td: &Td<Host>, expected: StatusCode| {
        let resolutions = run(td, move |cpu| {
            accept(cpu, DATA, Level::Pt)?;
            assert_eq!(set_alias(cpu, DATA, Level::Pt, true)?, expected);
            Ok(())
        });
        assert!(!resolutions.contains(&Resolution::Linked));
    };
    td.embedder().forgo_exits(&td);
    wanted(&td, StatusCode::L2_SEPT_WALK_FAILED);
    let page = range(DATA, 0x1000);
    assert_eq!(td.link_l2(1, page), Ok(3));
    assert_eq!(td.link_l2(1, page), Ok(0));
    wanted(&td, StatusCode::SUCCESS);
    assert_equal(&td);
    // Of the other one nothing yet; of what is no L2 VM never.
    assert_eq!(td.link_l2(2, ram()), Ok(2 + 2));
    for vm in [0, 3] {
        assert_eq!(td.link_l2(vm, page), Err(Error::NoSuchL2Vm(vm)));
    }
    assert_equal(&td);
    end(td);
}

#[test]
fn a_page_that_the_td_has_not_is_mapped_before_it_is_aliased() {
    let td = partitioned();
    let resolutions = run(&td, |cpu| alias(cpu, DATA, Level::Pt));
    assert_eq!(resolutions, [MAPPED, Resolution::Linked]);
    assert_equal(&td);
    // The alias of a page that is not accepted yet.
    assert_eq!(aliases(&td, 1, Level::Pt), 1);
    end(td);
}

#[test]
fn tables_of_l2_vms_leave_with_the_tds() {
    let td = runnable_on(Host::partitioned(3), 1);
    let host = td.embedder();
    td.prefault(range(DATA, 0x1000), Level::Pt).unwrap();
    let before = host.module_pages_in_use();
    for vm in 1..=3 {
        td.link_l2(vm, range(DATA, 0x1000)).unwrap();
    }
    assert_eq!(tables(&td), 9);
    assert_eq!(host.module_pages_in_use(), before + 9);
    td.unmap_private(&[range(DATA, 0x1000)]).unwrap();
    assert_eq!(td.trim(ram()).unwrap(), 1);
    assert_equal(&td);
    // The lowest ones; those above have other tables.
    assert_eq!(tables(&td), 6);
    assert_eq!(host.module_pages_in_use(), before + 6 - 1);
    end(td);
}

#[test]
fn teardown_reclaims_every_page_by_one_call() {
    let td = runnable_on(Host::partitioned(2), 1);
    td.prefault(range(DATA, 0x3000), Level::Pt).unwrap();
    for vm in [1, 2] {
        td.link_l2(vm, ram()).unwrap();
    }
    assert_eq!(tables(&td), 2 * 4);
    let platform = td.embedder().platform;
    let reclaimed = || {
        let counts = platform.counters().seamcalls_by_name();
        counts.get("TDH.PHYMEM.PAGE.RECLAIM").copied().unwrap_or(0)
    };
    let (before, leaves) = (reclaimed(), td.embedder().private_in_use() / 4096);
    let module_pages = td.embedder().module_pages_in_use() as u64;
    end(td);
    assert_eq!(reclaimed() - before, leaves + module_pages);
    platform.for_each_used_page(|hpa, _, kind, _| panic!("{kind:?} page at {hpa:?}"));
}

#[test]
fn partitioning_that_is_not_used_costs_nothing() {
    let td = partitioned();
    let count = |name: &str| {
        let counters = td.embedder().platform.counters().seamcalls_by_name();
        counters.get(name).copied().unwrap_or(0)
    };
    let (added, tracked) = (count("TDH.MEM.SEPT.ADD"), count("TDH.MEM.TRACK"));
    td.prefault(range(DATA, 0x20_0000), Level::Pt).unwrap();
    assert_eq!(td.promote(&[range(DATA, 0x20_0000)]).unwrap(), 1);
    td.split(tdx_abi::PrivateGpa::new(DATA)).unwrap();
    td.unmap_private(&[range(DATA, 0x20_0000)]).unwrap();
    assert_eq!(count("TDH.MEM.SEPT.ADD") - added, 1);
    assert_eq!(count("TDH.MEM.TRACK") - tracked, 3);
    assert_eq!(tables(&td), 0);
    assert_equal(&td);
    end(td);
}

#[test]
fn the_l1_vmm_takes_an_alias_away_without_the_host() {
    let td = partitioned();
    alias_and_write(&td);
    let resolutions = run(&td, |cpu| {
        if cpu.vm() == 1 {
            // A page that is the L1 VMM's alone brings the L2 VM out.
            assert!(matches!(cpu.read_u64(STATE), Err(GuestFault::LeftL2)));
        }
        assert_eq!(set_alias(cpu, DATA, Level::Pt, false)?, StatusCode::SUCCESS);
        Ok(())
    });
    assert_eq!(resolutions, []);
    assert_eq!((tables(&td), aliases(&td, 1, Level::Pt)), (3, 0));
    assert_equal(&td);
    end(td);
}
