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
use std::time::Duration;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Td;
use support::add_tables;
use support::call;
use support::initialized;
use support::ok;
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
use tdx_emulator::Hold;
use tdx_emulator::Lock;
use tdx_emulator::Lp;
use tdx_emulator::PageType;
use tdx_emulator::Platform;
use tdx_emulator::TdLock;

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

/// Holds the Secure-EPT tree now and then, as a long call on another LP would: so threads meet also where one CPU runs them all.
fn haunt(platform: &Platform, tdr: Hpa, done: &AtomicBool) {
    let lock = Lock::Td {
        tdr,
        lock: TdLock::SeptTree,
    };
    while !done.load(Ordering::Acquire) {
        let held = platform.hold(lock, Hold::Exclusive);
        std::thread::sleep(Duration::from_micros(500));
        drop(held);
        std::thread::sleep(Duration::from_millis(2));
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
    let td_root = Hpa::new(td.tdr);
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
        let (platform, done) = (&platform, &done);
        scope.spawn(move || haunt(platform, td_root, done));
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
    let busy = seen.busy.load(Ordering::Relaxed);
    println!("{busy} calls were busy");
    assert!(busy > 0, "no call ever met another in a lock");
    check(&platform, td.tdr);
    check_tree(&platform, &td);
}

/// No entry maps anything any more, and every table of the Secure-EPT can be taken out again.
fn check_tree(platform: &Platform, td: &Td) {
    const LEVEL: u64 = 7;
    const STATE: u64 = 0xff << 8;
    let lp = platform.lp(0).expect("there is one");
    let entry = |gpa: u64, level: Level| {
        let operands = [gpa | level as u64, td.tdr, 0, 0];
        ok(&lp, SeamcallLeaf::TDH_MEM_SEPT_RD, operands).rdx
    };
    for page in 0..GUEST_PAGES {
        let free = entry(page * PAGE, Level::Pt);
        assert_eq!(free & (LEVEL | STATE), 0, "guest page {page}: {free:#x}");
    }
    let children = platform.memory().read_u64(td.tdr + 8);
    for table in [Level::Pd, Level::Pdpt, Level::Pml4] {
        let operands = [table as u64, td.tdr, 0, 0];
        ok(&lp, SeamcallLeaf::TDH_MEM_RANGE_BLOCK, operands);
        ok(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
        ok(&lp, SeamcallLeaf::TDH_MEM_SEPT_REMOVE, operands);
        assert_eq!(entry(0, table) & STATE, 0, "{table:?}");
    }
    assert_eq!(platform.memory().read_u64(td.tdr + 8), children - 3);
    check(platform, td.tdr);
}

/// Pages and chunks of them that are measured.
const BUILT_PAGES: u64 = 200;
const CHUNK: u64 = 256;
/// Host page with the content.
const SOURCE: u64 = 0x20_0000;

/// MRTD by the rules of Intel's "Measurement and Attestation" chapter: SHA-384 of 128 bytes for each page that is added, and
/// of 128 bytes and the content for each chunk that is measured.
fn expected_mrtd() -> Vec<u8> {
    use sha2::Digest;
    let mut hash = sha2::Sha384::new();
    let header = |name: &[u8], gpa: u64| {
        let mut bytes = [0; 128];
        bytes[..name.len()].copy_from_slice(name);
        bytes[16..24].copy_from_slice(&gpa.to_le_bytes());
        bytes
    };
    for page in 0..BUILT_PAGES {
        let gpa = page * PAGE;
        hash.update(header(b"MEM.PAGE.ADD", gpa));
        let chunk = gpa + page % 16 * CHUNK;
        hash.update(header(b"MR.EXTEND", chunk));
        let words = (0..CHUNK / 8).map(|word| content(chunk % PAGE + word * 8));
        hash.update(words.flat_map(u64::to_le_bytes).collect::<Vec<u8>>());
    }
    hash.finalize().to_vec()
}

/// The quadword at this offset of the source.
fn content(offset: u64) -> u64 {
    (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A host builds a TD while another LP blocks, reads and adds elsewhere in its tree: calls are busy, and what is measured is
/// what was asked for, each page once and in order.
#[test]
fn a_build_that_is_disturbed_measures_what_it_should() {
    let platform = ready(1, 2);
    let mut pages = Pages(GIB);
    let td = initialized(&platform, &mut pages, 33, 1);
    let lp = platform.lp(0).expect("there is one");
    add_tables(&lp, &td, &mut pages, 0, Level::Pt);
    for offset in (0..PAGE).step_by(8) {
        platform
            .memory()
            .write_u64(SOURCE + offset, content(offset));
    }
    let seen = Seen::default();
    let done = AtomicBool::new(false);
    let success = [StatusCode::SUCCESS];
    let build = || {
        for page in 0..BUILT_PAGES {
            let gpa = page * PAGE;
            let operands = [gpa, td.tdr, FIRST_PAGE + gpa, SOURCE];
            let leaf = SeamcallLeaf::TDH_MEM_PAGE_ADD;
            insist(&lp, &seen, leaf, operands, &success);
            let chunk = gpa + page % 16 * CHUNK;
            let leaf = SeamcallLeaf::TDH_MR_EXTEND;
            insist(&lp, &seen, leaf, [chunk, td.tdr, 0, 0], &success);
        }
    };
    let table = pages.next();
    let disturb = || {
        let lp = platform.lp(1).expect("there are two");
        let elsewhere = Level::Pdpt.size() | Level::Pdpt as u64;
        while !done.load(Ordering::Acquire) {
            for (leaf, page) in [
                (SeamcallLeaf::TDH_MEM_SEPT_ADD, table),
                (SeamcallLeaf::TDH_MEM_RANGE_BLOCK, 0),
                (SeamcallLeaf::TDH_MEM_SEPT_RD, 0),
                (SeamcallLeaf::TDH_MEM_SEPT_REMOVE, 0),
            ] {
                insist(&lp, &seen, leaf, [elsewhere, td.tdr, page, 0], &success);
            }
        }
    };
    std::thread::scope(|scope| {
        let builder = scope.spawn(build);
        let disturber = scope.spawn(disturb);
        let built = builder.join();
        done.store(true, Ordering::Release);
        disturber.join().expect("the other host thread failed");
        built.expect("the builder failed");
    });
    ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [td.tdr, 0, 0, 0]);
    let mrtd = (0..6).flat_map(|element| {
        let field = tdx_abi::field::tdr_tdcs::MRTD.into_bits() + element;
        let operands = [td.tdr, field, 0, 0];
        let value = ok(&lp, SeamcallLeaf::TDH_MNG_RD, operands).r8;
        value.to_le_bytes()
    });
    assert_eq!(mrtd.collect::<Vec<u8>>(), expected_mrtd());
    println!("{} calls were busy", seen.busy.load(Ordering::Relaxed));
    // All pages of the tree are there, each counted once.
    let mut built = 0;
    platform.for_each_used_page(|_, _, page_type, owner| {
        built += u64::from(page_type == PageType::Regular && owner.bits() == td.tdr);
    });
    assert_eq!(built, BUILT_PAGES);
}

/// After all that: no lock is held, no guest page is left, and the TDR counts exactly the pages that are the TD's.
fn check(platform: &Platform, tdr: u64) {
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
