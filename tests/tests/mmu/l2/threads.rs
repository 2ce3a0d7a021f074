//! Faults, invalidations, splits, promotions and tables for the L2 VM, from threads on LPs of their own, while the
//! L1 VMM gives and takes aliases.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tdx_abi::Level;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::StatusCode;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_emulator::HostCall;
use tdx_mmu::Td;
use tdx_mmu::td::Access;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;

use super::super::compare::assert_equal;
use super::super::compare::bytes;
use super::super::host::Host;
use super::super::host::range;
use super::super::host::run_on;
use super::super::life::end;
use super::super::life::runnable_on;
use super::super::threads::Random;

const LARGE: u64 = 0x20_0000;
const BASE: u64 = 0x1000_0000;
const BYTES: u64 = 2 * LARGE;

fn step(td: &Td<Host>, random: &mut Random) -> Result<(), Error> {
    let page = BASE + (random.below(BYTES) & !0xfff);
    let pages = 1 + random.below(300);
    let some = range(page, (pages << 12).min(BASE + BYTES - page));
    let large = range(page & !(LARGE - 1), LARGE);
    match random.below(12) {
        0..4 => td
            .fault(Access {
                gpa: tdx_abi::Gpa::new(page),
                kind: AccessKind::Write,
            })
            .map(drop),
        4 => td.prefault(some, Level::Pd).map(drop),
        5 => td.unmap_private(&[some]),
        6 | 7 => td.promote(&[large]).map(drop),
        8 => td.split(PrivateGpa::new(page)),
        9 => td.trim(large).map(drop),
        10 => td.link_l2(1, some).map(drop),
        _ => td
            .fault(Access {
                gpa: tdx_abi::Gpa::new(page),
                kind: AccessKind::Alias { vm: 1 },
            })
            .map(drop),
    }
}

/// The L1 VMM on LP 0 gives and takes aliases until the others are through; the host resolves its exits.
fn l1_vmm(td: &Td<Host>, done: &AtomicBool, mut random: Random) -> u64 {
    let host = td.embedder();
    let lp = host.platform.lp(0).unwrap();
    let mut given = 0;
    while !done.load(Ordering::Relaxed) {
        let mut registers = Registers {
            rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
            rcx: td.tdvpr(0).unwrap().bits(),
            ..Registers::default()
        };
        let entered = td.enter(0).unwrap();
        if lp.host_call(&mut registers) == HostCall::EnteredTd {
            for _ in 0..random.below(20) {
                let gpa = BASE + (random.below(BYTES) & !0xfff);
                match host.set_alias(gpa, Level::Pt, random.below(4) > 0) {
                    Some(Ok(code)) => given += u64::from(code == StatusCode::SUCCESS),
                    Some(Err(access)) => {
                        drop(entered);
                        match td.fault(access) {
                            Ok(_) | Err(Error::Unexpected(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                        break;
                    }
                    None => break,
                }
            }
            host.leave(0);
        }
    }
    given
}

fn quarrel(host: Host, round: u64) {
    let td = runnable_on(host, 1);
    *td.embedder().largest.lock().unwrap() = if round == 0 { Level::Pt } else { Level::Pd };
    *td.embedder().blocks.lock().unwrap() = Some(BTreeMap::new());
    td.embedder().patience.store(usize::MAX, Ordering::Relaxed);
    let done = AtomicBool::new(false);
    let given = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..4)
            .map(|lp| {
                let td = &td;
                scope.spawn(move || {
                    run_on(lp);
                    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (round * 4 + lp as u64) << 9);
                    for _ in 0..120 {
                        match step(td, &mut random) {
                            Ok(()) | Err(Error::Unexpected(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let guest = scope.spawn(|| {
            run_on(0);
            l1_vmm(&td, &done, Random(0x1234_5678 + round))
        });
        let workers: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(Result::unwrap);
        guest.join().unwrap()
    });
    assert!(given > 0, "no alias was ever given or taken");
    assert_equal(&td);
    td.embedder().check_pamt();
    assert_eq!(td.embedder().private_in_use(), bytes(&td));
    td.discard(&[range(BASE, BYTES)]).unwrap();
    assert_equal(&td);
    end(td);
}

#[test]
fn threads_leave_the_tables_of_an_l2_vm_as_recorded() {
    for round in 0..3 {
        quarrel(Host::partitioned(1), round);
    }
}

#[test]
fn threads_leave_the_tables_of_an_l2_vm_as_recorded_with_dynamic_pamt() {
    for round in 0..2 {
        quarrel(Host::dynamic_partitioned(1), round);
    }
}
