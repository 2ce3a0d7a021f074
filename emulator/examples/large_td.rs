//! A large TD built, faulted in page by page and torn down, on two LPs.
//!
//! `cargo run --release --example large_td -p tdx-emulator [GIB]`: 64 GiB unless told.
//!
//! Each half of the TD's memory belongs to one vCPU, which accepts its 4 KiB pages one after the other. The first attempt is a
//! TD exit that names the address; the host then adds the page and enters again. The TD ends as a VMM ends it: its key is
//! freed, and every page is reclaimed.
#![expect(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "examples run on std"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Instant;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Td;
use support::call;
use support::ok;
use support::ready;
use support::runnable;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::GuestFault;
use tdx_emulator::Platform;

/// LPs, vCPUs and parts of the memory.
const PARTS: u64 = 2;
/// Control pages and tables lie here, data above [`DATA`].
const CONTROL: u64 = GIB;
const DATA: u64 = 2 * GIB;

fn main() {
    let gib: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(64);
    let count = gib * GIB / PAGE;
    let platform = ready(gib + 1, PARTS as u32);
    let mut pages = Pages(CONTROL);
    let td = runnable(&platform, &mut pages, 33, PARTS as usize);
    let before = resident("VmRSS:");
    let all = Instant::now();
    let each = |what: &str, work: &(dyn Fn(u64) + Sync)| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in 0..PARTS {
                scope.spawn(move || work(part));
            }
        });
        let time = start.elapsed();
        let nanoseconds = time.as_nanos() as f64 * PARTS as f64 / count as f64;
        println!("{what}: {time:.1?}, {nanoseconds:.0} ns per page and LP");
    };
    let start = Instant::now();
    add_tables(&platform, &td, &mut pages, count);
    println!("tables: {:.1?}", start.elapsed());
    each("faulted in", &|part| fault_in(&platform, &td, part, count));
    println!(
        "host memory: {} bytes per guest page",
        (resident("VmRSS:") - before) / count
    );
    free_key(&platform, &td);
    each("reclaimed", &|part| {
        let share = count / PARTS;
        for page in part * share..(part + 1) * share {
            reclaim(&platform, part, DATA + page * PAGE);
        }
    });
    for page in (CONTROL..pages.0).step_by(PAGE as usize) {
        if page != td.tdr {
            reclaim(&platform, 0, page);
        }
    }
    reclaim(&platform, 0, td.tdr);
    let mut left = 0;
    platform.for_each_used_page(|_, _, _, _| left += 1);
    assert_eq!(left, 0, "pages are still in use");
    println!(
        "{gib} GiB, {count} pages: {:.1?} in all, peak {} MiB of host memory",
        all.elapsed(),
        resident("VmHWM:") >> 20
    );
}

/// A line of the process's status, in bytes.
fn resident(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|text| text.strip_prefix(line))
        .and_then(|text| text.trim().split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

fn add_tables(platform: &Platform, td: &Td, pages: &mut Pages, count: u64) {
    let lp = platform.lp(0).expect("there is one");
    let end = count * PAGE;
    for level in [Level::Pml4, Level::Pdpt, Level::Pd] {
        for gpa in (0..end).step_by(level.size() as usize) {
            let operands = [gpa | level as u64, td.tdr, pages.next(), 0];
            let added = call(&lp, SeamcallLeaf::TDH_MEM_SEPT_ADD, operands);
            if added.rax != 0 {
                // The root has entries of this level itself.
                assert_eq!(level, Level::Pml4, "{:x}", added.rax);
                pages.0 -= PAGE;
            }
        }
    }
}

/// Runs one vCPU until it has accepted its share.
fn fault_in(platform: &Platform, td: &Td, part: u64, count: u64) {
    let share = count / PARTS;
    let end = (part + 1) * share * PAGE;
    let next = Arc::new(AtomicU64::new(part * share * PAGE));
    let accepted = Arc::clone(&next);
    let vcpu = td.vcpus[part as usize];
    platform.set_guest(
        Hpa::new(vcpu),
        move |cpu: &mut tdx_emulator::GuestCpu<'_>| {
            loop {
                let gpa = accepted.load(Ordering::Relaxed);
                if gpa == end {
                    return cpu.interrupt();
                }
                match cpu.accept(gpa, Level::Pt) {
                    Ok(status) if status.code() == StatusCode::SUCCESS => {
                        accepted.store(gpa + PAGE, Ordering::Relaxed);
                    }
                    Ok(status) => assert_eq!(status.code(), StatusCode::OPERAND_BUSY),
                    Err(GuestFault::Exited(exited)) => return exited,
                    Err(fault) => panic!("{fault:?}"),
                }
            }
        },
    );
    let lp = platform.lp(part as usize).expect("there is one each");
    while next.load(Ordering::Relaxed) != end {
        let exit = call(&lp, SeamcallLeaf::TDH_VP_ENTER, [vcpu, 0, 0, 0]);
        if next.load(Ordering::Relaxed) == end {
            break;
        }
        let operands = [exit.r8, td.tdr, DATA + exit.r8, 0];
        retry(platform, part, SeamcallLeaf::TDH_MEM_PAGE_AUG, operands);
    }
}

fn free_key(platform: &Platform, td: &Td) {
    let lp = platform.lp(0).expect("there is one");
    for (part, &vcpu) in td.vcpus.iter().enumerate() {
        let lp = platform.lp(part).expect("there is one each");
        ok(&lp, SeamcallLeaf::TDH_VP_FLUSH, [vcpu, 0, 0, 0]);
    }
    ok(&lp, SeamcallLeaf::TDH_MNG_VPFLUSHDONE, [td.tdr, 0, 0, 0]);
    ok(&lp, SeamcallLeaf::TDH_PHYMEM_CACHE_WB, [0; 4]);
    ok(&lp, SeamcallLeaf::TDH_MNG_KEY_FREEID, [td.tdr, 0, 0, 0]);
}

fn reclaim(platform: &Platform, part: u64, page: u64) {
    let leaf = SeamcallLeaf::TDH_PHYMEM_PAGE_RECLAIM;
    retry(platform, part, leaf, [page, 0, 0, 0]);
}

/// Makes a call again as long as another one is in its way.
fn retry(platform: &Platform, part: u64, leaf: SeamcallLeaf, operands: [u64; 4]) {
    let lp = platform.lp(part as usize).expect("there is one each");
    loop {
        let status = Status::from_rax(call(&lp, leaf, operands).rax);
        match status.code() {
            StatusCode::SUCCESS => return,
            StatusCode::OPERAND_BUSY => std::hint::spin_loop(),
            code => panic!("{leaf}({operands:#x?}): {code:?}"),
        }
    }
}
