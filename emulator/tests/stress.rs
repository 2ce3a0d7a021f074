//! Many LPs at once: the host maps, blocks, tracks and removes while guests accept, write and read.
#![expect(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "tests run on std"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::add_tables;
use support::call;
use support::ready;
use support::runnable;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Retry;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::Lp;
use tdx_emulator::PageType;
use tdx_emulator::Platform;

const HOSTS: u64 = 2;
const GUESTS: u64 = 2;
/// Guest pages, of which each host thread owns every other one.
const GUEST_PAGES: u64 = 64;
const ROUNDS: u64 = 400;
/// Where guest page 0 lies in the TDMR.
const FIRST_PAGE: u64 = GIB + (256 << 20);

/// What the threads counted.
#[derive(Default)]
struct Seen {
    busy: AtomicU64,
    removed: AtomicU64,
    accepted: AtomicU64,
}

/// Calls a leaf until it is no longer busy; any status not in `legal` is a failure.
fn insist(
    lp: &Lp<'_>,
    seen: &Seen,
    leaf: SeamcallLeaf,
    operands: [u64; 4],
    legal: &[StatusCode],
) -> StatusCode {
    loop {
        let status = Status::from_rax(call(lp, leaf, operands).rax);
        if status.retry() == Some(Retry::Busy) {
            let operand = status.operand();
            let known = [
                OperandId::SEPT_TREE,
                OperandId::TD_EPOCH,
                OperandId::RCX,
                OperandId::RDX,
                OperandId::R8,
                OperandId::OP_STATE,
            ];
            let plain = status.code() == StatusCode::PREVIOUS_TLB_EPOCH_BUSY;
            assert!(plain || known.contains(&operand), "{leaf}: {status}");
            seen.busy.fetch_add(1, Ordering::Relaxed);
            std::thread::yield_now();
            continue;
        }
        assert!(legal.contains(&status.code()), "{leaf}: {status}");
        return status.code();
    }
}

/// Maps and removes its guest pages, one round after the other.
fn host(platform: &Platform, tdr: u64, number: u64, seen: &Seen) {
    let lp = platform.lp(number as usize).expect("there is one");
    for round in 0..ROUNDS {
        let page = (round * 7 + number) % (GUEST_PAGES / HOSTS) * HOSTS + number;
        let gpa = page * PAGE;
        let hpa = FIRST_PAGE + page * PAGE;
        let success = [StatusCode::SUCCESS];
        insist(
            &lp,
            seen,
            SeamcallLeaf::TDH_MEM_PAGE_AUG,
            [gpa, tdr, hpa, 0],
            &success,
        );
        std::thread::yield_now();
        insist(
            &lp,
            seen,
            SeamcallLeaf::TDH_MEM_RANGE_BLOCK,
            [gpa, tdr, 0, 0],
            &success,
        );
        loop {
            insist(
                &lp,
                seen,
                SeamcallLeaf::TDH_MEM_TRACK,
                [tdr, 0, 0, 0],
                &success,
            );
            platform.kick();
            let legal = [StatusCode::SUCCESS, StatusCode::TLB_TRACKING_NOT_DONE];
            let operands = [gpa, tdr, 0, 0];
            let code = insist(
                &lp,
                seen,
                SeamcallLeaf::TDH_MEM_PAGE_REMOVE,
                operands,
                &legal,
            );
            if code == StatusCode::SUCCESS {
                break;
            }
        }
        seen.removed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Enters a vCPU again and again; it touches all guest pages and accepts those that are pending.
fn guest(platform: &Platform, tdvpr: u64, number: u64, done: &AtomicBool) {
    let lp = platform
        .lp((HOSTS + number) as usize)
        .expect("there is one");
    while !done.load(Ordering::Acquire) {
        let status = Status::from_rax(call(&lp, SeamcallLeaf::TDH_VP_ENTER, [tdvpr, 0, 0, 0]).rax);
        let legal = status.code() == StatusCode::SUCCESS || status.retry() == Some(Retry::Busy);
        assert!(legal, "{status}");
        std::thread::yield_now();
    }
}

#[test]
fn pages_come_and_go_under_running_guests() {
    let platform = ready(1, (HOSTS + GUESTS) as u32);
    let mut pages = Pages(GIB);
    let td = runnable(&platform, &mut pages, 33, GUESTS as usize);
    let lp = platform.lp(0).expect("there is one");
    add_tables(&lp, &td, &mut pages, 0, Level::Pt);
    let seen: &'static Seen = Box::leak(Box::default());
    for (number, tdvpr) in (0u64..).zip(&td.vcpus) {
        let mut next = number;
        platform.set_guest(Hpa::new(*tdvpr), move |cpu: &mut GuestCpu<'_>| {
            loop {
                let gpa = next % GUEST_PAGES * PAGE;
                next += 1;
                let stamp = gpa ^ number << 32;
                let outcome = cpu.accept(gpa, Level::Pt).and_then(|status| {
                    if status.code() == StatusCode::SUCCESS {
                        seen.accepted.fetch_add(1, Ordering::Relaxed);
                    }
                    cpu.write_u64(gpa + 8 * number, stamp)?;
                    let read = cpu.read_u64(gpa + 8 * number)?;
                    // The other guest's acceptance after a removal may have zeroed it in between.
                    assert!(read == stamp || read == 0, "{read:#x} is not {stamp:#x}");
                    Ok(())
                });
                match outcome {
                    Ok(()) => {}
                    Err(GuestFault::Exited(exited)) => return exited,
                    Err(fault) => panic!("{fault:?}"),
                }
            }
        });
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..HOSTS)
            .map(|number| {
                let (platform, tdr) = (&platform, td.tdr);
                scope.spawn(move || host(platform, tdr, number, seen))
            })
            .collect();
        for (number, tdvpr) in (0u64..).zip(td.vcpus.clone()) {
            let (platform, done) = (&platform, &done);
            scope.spawn(move || guest(platform, tdvpr, number, done));
        }
        let outcomes: Vec<_> = hosts
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Release);
        for outcome in outcomes {
            outcome.expect("a host thread failed");
        }
    });
    assert_eq!(seen.removed.load(Ordering::Relaxed), HOSTS * ROUNDS);
    assert!(
        seen.accepted.load(Ordering::Relaxed) > 0,
        "no guest ever accepted a page"
    );
    check(&platform, td.tdr);
}

/// After all that: no lock is held, no guest page is left, and the TDR counts exactly the pages that are the TD's.
fn check(platform: &Platform, tdr: u64) {
    use tdx_emulator::TdLock;
    for lock in [TdLock::OpState, TdLock::SeptTree, TdLock::Epoch] {
        // Attempts that failed leave readers and host priority behind, as in the module; but nobody holds it.
        assert_eq!(platform.td_lock(tdr, lock).get() & 1, 0, "{lock:?}");
    }
    let mut by_type: BTreeMap<String, u64> = BTreeMap::new();
    platform.for_each_used_page(|hpa, level, page_type, owner| {
        assert_ne!(page_type, PageType::Regular, "{hpa:?} is left over");
        if owner.bits() == tdr {
            *by_type.entry(format!("{page_type:?}")).or_default() += 1 << (9 * level as u32);
        }
    });
    let children = platform.memory().read_u64(tdr + 8);
    assert_eq!(children, by_type.values().sum::<u64>(), "{by_type:?}");
}
