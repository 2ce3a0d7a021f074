//! Faults that the platform injects, and locks that a ghost holds.

use std::sync::atomic::Ordering;

use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::OperandId;
use tdx_abi::PrivateGpa;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Calls;
use tdx_emulator::Effect;
use tdx_emulator::Fault;
use tdx_emulator::Hold;
use tdx_emulator::Lock;
use tdx_emulator::Platform;
use tdx_emulator::TdLock;
use tdx_emulator::When;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Error;
use tdx_mmu::td::Resolution;

use super::compare::assert_equal;
use super::host::Host;
use super::life::end;
use super::life::fault;
use super::life::runnable;
use super::life::runnable_on;

const ONCE: When = When::Calls { after: 0, times: 1 };

fn call(platform: &Platform, leaf: SeamcallLeaf, rcx: u64, rdx: u64) -> u64 {
    let mut registers = Registers {
        rax: leaf.number().into(),
        rcx,
        rdx,
        ..Registers::default()
    };
    platform.lp(0).unwrap().seamcall(&mut registers).unwrap();
    registers.rax
}

#[test]
fn the_second_and_third_call_are_busy_and_the_tree_does_not_mind() {
    let td = runnable(1);
    let platform = td.embedder().platform;
    let leaf = SeamcallLeaf::TDH_MEM_PAGE_AUG;
    let before = platform.counters().seamcalls(leaf);
    let injection = platform.inject(Fault {
        calls: Calls::Host(leaf),
        when: When::Calls { after: 1, times: 2 },
        effect: Effect::Status(Status::with_operand(
            StatusCode::OPERAND_BUSY,
            OperandId::RCX,
        )),
    });
    for gpa in [0x5000, 0x6000] {
        assert_eq!(
            fault(&td, gpa, AccessKind::Write),
            Resolution::Mapped(Level::Pt)
        );
    }
    assert_eq!((injection.calls(), injection.hits()), (4, 2));
    assert_eq!(platform.counters().seamcalls(leaf) - before, 4);
    assert_equal(&td);
    platform.clear_faults();
    assert_eq!(
        fault(&td, 0x7000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_eq!(injection.calls(), 4);
    end(td);
}

#[test]
fn a_third_of_all_calls_are_busy_and_the_td_still_lives_and_ends() {
    let td = runnable(1);
    let platform = td.embedder().platform;
    let injection = platform.inject(Fault {
        calls: Calls::AnyHost,
        when: When::OneIn { calls: 3, seed: 7 },
        effect: Effect::Status(Status::with_operand(
            StatusCode::OPERAND_BUSY,
            OperandId::RCX,
        )),
    });
    for page in 5..105 {
        let gpa = page << 12;
        assert_eq!(
            fault(&td, gpa, AccessKind::Write),
            Resolution::Mapped(Level::Pt)
        );
    }
    assert_equal(&td);
    let (calls, hits) = (injection.calls(), injection.hits());
    assert!(
        hits * 6 > calls && hits * 2 < calls,
        "{hits} of {calls} calls were struck"
    );
    platform.clear_faults();
    end(td);
}

#[test]
fn an_interrupted_leaf_says_so_and_completes_when_called_again() {
    let td = runnable(1);
    let platform = td.embedder().platform;
    *td.embedder().largest.lock().unwrap() = Level::Pd;
    assert_eq!(
        fault(&td, 0x40_0000, AccessKind::Write),
        Resolution::Mapped(Level::Pd)
    );
    let injection = platform.inject(Fault {
        calls: Calls::Host(SeamcallLeaf::TDH_MEM_PAGE_DEMOTE),
        when: ONCE,
        effect: Effect::Interrupt,
    });
    assert_eq!(
        fault(&td, 0x40_1000, AccessKind::Accept(Level::Pt)),
        Resolution::Split
    );
    assert_eq!((injection.calls(), injection.hits()), (2, 1));
    assert_equal(&td);
    end(td);
}

#[test]
fn a_lock_that_a_ghost_holds_makes_calls_busy_until_it_is_released() {
    let td = runnable(1);
    let platform = td.embedder().platform;
    let tdr = td.tdr();
    let read = |gpa| call(platform, SeamcallLeaf::TDH_MEM_SEPT_RD, gpa, tdr.bits());
    let busy = |operand| Status::with_operand(StatusCode::OPERAND_BUSY, operand).rax();
    assert_eq!(read(0), 0);

    let tree = Lock::Td {
        tdr,
        lock: TdLock::SeptTree,
    };
    let shared = platform.hold(tree, Hold::Shared).unwrap();
    assert_eq!(read(0), 0);
    assert!(platform.hold(tree, Hold::Exclusive).is_none());
    drop(shared);
    let exclusive = platform.hold(tree, Hold::Exclusive).unwrap();
    assert_eq!(read(0), busy(OperandId::SEPT_TREE));
    drop(exclusive);
    assert_eq!(read(0), 0);

    let page = Lock::Pamt {
        page: tdr,
        level: Level::Pt,
    };
    let held = platform.hold(page, Hold::Exclusive).unwrap();
    assert_eq!(read(0), busy(OperandId::RDX));
    drop(held);
    assert_eq!(read(0), 0);
    end(td);
}

#[test]
fn a_page_that_a_refused_split_has_written_to_is_scrubbed_before_it_is_free() {
    for host in [Host::new(), Host::partitioned(1)] {
        let td = runnable_on(host, 1);
        let host: &Host = td.embedder();
        *host.largest.lock().unwrap() = Level::Pd;
        assert_eq!(
            fault(&td, 0x40_0000, AccessKind::Write),
            Resolution::Mapped(Level::Pd)
        );
        let pamt = Lock::Pamt {
            page: Hpa::new(Host::backing(0x40_0000)),
            level: Level::Pd,
        };
        let before = host.module_pages_in_use();
        let held = host.platform.hold(pamt, Hold::Exclusive).unwrap();
        host.patience.store(3, Ordering::Relaxed);
        let split = td.split(PrivateGpa::new(0x40_0000));
        assert!(matches!(split, Err(Error::Busy { .. })), "{split:?}");
        drop(held);
        assert_eq!(host.module_pages_in_use(), before);
        let page = *host.allocated.lock().unwrap().last().unwrap();
        let memory = host.platform.host_memory();
        for line in (page..page + 4096).step_by(64) {
            memory.read(Hpa::new(line), &mut [0; 64]).unwrap();
        }
        assert_equal(&td);
        td.split(PrivateGpa::new(0x40_0000)).unwrap();
        assert_equal(&td);
        end(td);
    }
}

#[test]
fn a_guest_is_told_of_a_busy_operand_and_an_unknown_lock_is_none() {
    let td = runnable(1);
    let host: &Host = td.embedder();
    let platform = host.platform;
    assert_eq!(
        fault(&td, 0x5000, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    host.enter(0, td.tdvpr(0).unwrap());
    let busy = |code| Status::with_operand(code, OperandId::RCX);
    for (code, seen) in [
        (StatusCode::OPERAND_BUSY, StatusCode::OPERAND_BUSY),
        (
            StatusCode::OPERAND_BUSY_HOST_PRIORITY,
            StatusCode::OPERAND_BUSY,
        ),
    ] {
        let injection = platform.inject(Fault {
            calls: Calls::Guest(TdcallLeaf::TDG_MEM_PAGE_ACCEPT),
            when: ONCE,
            effect: Effect::Status(busy(code)),
        });
        assert_eq!(host.accept(0, 0x5000, Level::Pt), busy(seen).rax());
        assert_eq!(injection.hits(), 1);
    }
    let entry = Lock::SeptEntry {
        tdr: td.tdr(),
        gpa: 0x5000,
        level: Level::Pt,
    };
    let held = platform.hold(entry, Hold::Exclusive).unwrap();
    assert_eq!(
        host.accept(0, 0x5000, Level::Pt),
        busy(StatusCode::OPERAND_BUSY).rax()
    );
    drop(held);
    assert_eq!(host.accept(0, 0x5000, Level::Pt), 0);
    host.leave(0);
    assert!(
        platform
            .hold(Lock::WriteBack { package: 99 }, Hold::Exclusive)
            .is_none()
    );
    end(td);
}
