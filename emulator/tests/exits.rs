//! What an access comes to that no page is there for: EPT violations and their qualification, #VE, faults that go nowhere.
//!
//! Bits of the exit qualification: SDM volume 3, table 29-7 (EPT violations); of the #VE: 27.5.7.
#![expect(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "tests run on std"
)]

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Shape;
use support::Td;
use support::add_tables;
use support::call;
use support::ok;
use support::ready;
use support::shaped;
use tdx_abi::Hpa;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::field::td_vmcs;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Access;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::Lp;
use tdx_emulator::Platform;

const GPA: u64 = 0x20_0000;
const SHARED: u64 = 1 << 47;
const EXTERNAL_INTERRUPT: u64 = 1;
const EPT_VIOLATION: u64 = 48;
const EPT_MISCONFIGURATION: u64 = 49;
/// Extended exit qualification: the page is pending.
const PENDING: u64 = 6;
/// Interruption information: valid, hardware exception; vectors 20 (#VE) and 8 (#DF, which has an error code).
const VE: u32 = 0x8000_0314;
const DF: u32 = 0x8000_0b08;

/// A running TD of one vCPU with the tables for [`GPA`], and the pages left.
fn td(platform: &Platform, pending_exits: bool) -> (Td, Pages) {
    let mut pages = Pages(GIB);
    let shape = Shape {
        pending_exits,
        ..Shape::default()
    };
    let td = shaped(platform, &mut pages, 33, 1, shape);
    let lp = platform.lp(0).expect("there is one");
    ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [td.tdr, 0, 0, 0]);
    add_tables(&lp, &td, &mut pages, GPA, Level::Pt);
    (td, pages)
}

/// Lets the guest do `act` once, and returns what VP.ENTER returns; without an exit by then it is interrupted.
fn run(
    platform: &Platform,
    td: &Td,
    mut act: impl FnMut(&mut GuestCpu<'_>) -> Result<(), GuestFault> + Send + 'static,
) -> Registers {
    let vcpu = Hpa::new(td.vcpus[0]);
    platform.set_guest(vcpu, move |cpu: &mut GuestCpu<'_>| match act(cpu) {
        Err(GuestFault::Exited(exited)) => exited,
        Ok(()) => cpu.interrupt(),
        Err(fault) => panic!("{fault:?}"),
    });
    enter(&platform.lp(0).expect("there is one"), td)
}

fn enter(lp: &Lp<'_>, td: &Td) -> Registers {
    call(lp, SeamcallLeaf::TDH_VP_ENTER, [td.vcpus[0], 0, 0, 0])
}

fn access(cpu: &mut GuestCpu<'_>, gpa: u64, access: Access) -> Result<(), GuestFault> {
    match access {
        Access::Read => cpu.read_u64(gpa).map(drop),
        Access::Write => cpu.write_u64(gpa, 1),
        Access::Fetch => cpu.fetch(gpa),
    }
}

const ACCESSES: [(Access, u64); 3] = [(Access::Read, 1), (Access::Write, 2), (Access::Fetch, 4)];

#[test]
fn the_qualification_tells_access_and_permissions() {
    let platform = ready(1, 1);
    let (td, mut pages) = td(&platform, true);
    for (what, bit) in ACCESSES {
        let exit = run(&platform, &td, move |cpu| access(cpu, GPA + 0x123, what));
        // The offset in the page is the guest's own business, and so is bits 12:7.
        assert_eq!(
            (exit.rax, exit.rcx, exit.rdx, exit.r8),
            (EPT_VIOLATION, bit, 0, GPA),
            "{what:?}"
        );
    }
    let lp = platform.lp(0).expect("there is one");
    let page = pages.next();
    ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, [GPA, td.tdr, page, 0]);
    for (what, bit) in ACCESSES {
        let exit = run(&platform, &td, move |cpu| access(cpu, GPA, what));
        assert_eq!(
            (exit.rax, exit.rcx, exit.rdx, exit.r8),
            (EPT_VIOLATION, bit, PENDING, GPA),
            "{what:?}"
        );
    }
}

/// Shared EPT entries that the host made: what they allow, what else exits with their permissions in bits 5:3, or is #VE
/// unless bit 63 suppresses it.
#[test]
fn entries_of_the_shared_ept_decide_between_page_exit_and_ve() {
    const TABLES: u64 = 0x3000_0000;
    const LINE: u64 = 0x3800_0000;
    const WRITE_BACK: u64 = 6 << 3;
    const SUPPRESS_VE: u64 = 1 << 63;
    const RWX: u64 = 7;
    let platform = ready(1, 1);
    let (td, _) = td(&platform, true);
    let lp = platform.lp(0).expect("there is one");
    let gpa = SHARED | GPA;
    // PML4, PDPT and page directory, one entry each, and the page table.
    for (number, shift) in [(0, 39), (1, 30), (2, 21)] {
        let at = TABLES + number * PAGE + 8 * (gpa >> shift & 511);
        platform
            .memory()
            .write_u64(at, (TABLES + (number + 1) * PAGE) | RWX);
    }
    let entry = TABLES + 3 * PAGE + 8 * (gpa >> 12 & 511);
    let eptp = td_vmcs::SHARED_EPTP.into_bits();
    ok(
        &lp,
        SeamcallLeaf::TDH_VP_WR,
        [td.vcpus[0], eptp, TABLES, u64::MAX],
    );
    for permissions in [0, 1, 3, 4, 5, 7_u64] {
        for suppress in [0, SUPPRESS_VE] {
            let value = LINE | permissions | WRITE_BACK | suppress;
            platform.memory().write_u64(entry, value);
            platform.flush_shared();
            for (what, bit) in ACCESSES {
                let seen = Arc::new(Mutex::new(None));
                let of_guest = Arc::clone(&seen);
                let exit = run(&platform, &td, move |cpu| match access(cpu, gpa, what) {
                    Err(GuestFault::Event(event)) => {
                        let mut info = registers(TdcallLeaf::TDG_VP_VEINFO_GET, 0);
                        cpu.tdcall(&mut info)?;
                        *of_guest.lock().expect("not poisoned") = Some((event.information, info));
                        Ok(())
                    }
                    other => other,
                });
                let case = format!("{permissions:#b}, {suppress:#x}, {what:?}");
                let seen = seen.lock().expect("not poisoned").take();
                let qualification = bit | permissions << 3;
                if permissions & bit != 0 {
                    assert_eq!((exit.rax, seen), (EXTERNAL_INTERRUPT, None), "{case}");
                } else if suppress != 0 {
                    assert_eq!(
                        (exit.rax, exit.rcx, exit.rdx, exit.r8),
                        (EPT_VIOLATION, qualification, 0, gpa),
                        "{case}"
                    );
                } else {
                    assert_eq!(exit.rax, EXTERNAL_INTERRUPT, "{case}");
                    let (event, info) = seen.expect("a #VE");
                    // The guest sees bits 12:7 as well, of which 8:7 say that there is a linear address.
                    assert_eq!(
                        (event, info.rax, info.rcx, info.rdx & 0x3f, info.r9),
                        (VE, 0, EPT_VIOLATION, qualification, gpa),
                        "{case}"
                    );
                }
            }
        }
    }
    // A write without a read is no entry at all.
    platform.memory().write_u64(entry, LINE | 2 | WRITE_BACK);
    platform.flush_shared();
    let exit = run(&platform, &td, move |cpu| cpu.read_u64(gpa).map(drop));
    assert_eq!((exit.rax, exit.r8), (EPT_MISCONFIGURATION, gpa));
}

fn registers(leaf: TdcallLeaf, rcx: u64) -> Registers {
    Registers {
        rax: leaf.number().into(),
        rcx,
        ..Registers::default()
    }
}

/// Without SEPT_VE_DISABLE the guest itself learns of a pending page, and has to ask why before the next: the second #VE is #DF.
#[test]
fn a_pending_page_is_a_ve_and_the_next_before_it_was_read_a_double_fault() {
    let platform = ready(1, 1);
    let (td, mut pages) = td(&platform, false);
    let lp = platform.lp(0).expect("there is one");
    let page = pages.next();
    ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, [GPA, td.tdr, page, 0]);
    let exit = run(&platform, &td, |cpu| {
        let event = |fault| match fault {
            Err(GuestFault::Event(event)) => event.information,
            other => panic!("{other:?}"),
        };
        let mut veinfo = || -> Result<Registers, GuestFault> {
            let mut info = registers(TdcallLeaf::TDG_VP_VEINFO_GET, 0);
            cpu.tdcall(&mut info)?;
            Ok(info)
        };
        let none = Status::from_rax(veinfo()?.rax).code();
        assert_eq!(none, StatusCode::NO_VALID_VE_INFO);
        assert_eq!(event(cpu.write_u64(GPA + 8, 1)), VE);
        assert_eq!(event(cpu.read_u64(GPA).map(drop)), DF);
        let mut info = registers(TdcallLeaf::TDG_VP_VEINFO_GET, 0);
        cpu.tdcall(&mut info)?;
        assert_eq!(
            (info.rax, info.rcx, info.rdx & 0x3f, info.r9 & !0xfff),
            (0, EPT_VIOLATION, 2, GPA)
        );
        assert_eq!(cpu.accept(GPA, Level::Pt)?.rax(), 0);
        cpu.write_u64(GPA + 8, 1)
    });
    assert_eq!(exit.rax, EXTERNAL_INTERRUPT);
}

/// `td_exit_stepping.c`: from the seventh EPT violation of one instruction on the module remembers its address, and does not
/// enter the TD while the access would fault again.
#[test]
fn a_guest_that_faults_for_ever_on_one_page_is_not_entered() {
    let platform = ready(1, 1);
    let (td, mut pages) = td(&platform, true);
    let lp = platform.lp(0).expect("there is one");
    let operands = [GPA, td.tdr, pages.next(), 0];
    ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, operands);
    let accepted = run(&platform, &td, |cpu| cpu.accept(GPA, Level::Pt).map(drop));
    assert_eq!(accepted.rax, EXTERNAL_INTERRUPT);
    let of_page = |leaf| ok(&lp, leaf, [GPA, td.tdr, 0, 0]);
    of_page(SeamcallLeaf::TDH_MEM_RANGE_BLOCK);
    ok(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
    let entries = Arc::new(AtomicU64::new(0));
    let of_guest = Arc::clone(&entries);
    let guest = move |cpu: &mut GuestCpu<'_>| -> Exited {
        of_guest.fetch_add(1, Ordering::Relaxed);
        match cpu.write_u64(GPA, 1) {
            Err(GuestFault::Exited(exited)) => exited,
            _ => cpu.interrupt(),
        }
    };
    platform.set_guest(Hpa::new(td.vcpus[0]), guest);
    for number in 1..=7 {
        let exit = enter(&lp, &td);
        assert_eq!((exit.rax, exit.rcx, exit.r8), (EPT_VIOLATION, 2, GPA));
        assert_eq!(entries.load(Ordering::Relaxed), number);
    }
    for _ in 0..3 {
        let exit = enter(&lp, &td);
        assert_eq!((exit.rax & 0xffff_ffff, exit.r8), (EPT_VIOLATION, GPA));
        assert_eq!(
            entries.load(Ordering::Relaxed),
            7,
            "the module answers for the guest"
        );
    }
    of_page(SeamcallLeaf::TDH_MEM_RANGE_UNBLOCK);
    assert_eq!(enter(&lp, &td).rax, EXTERNAL_INTERRUPT);
    assert_eq!(entries.load(Ordering::Relaxed), 8);
}

/// Each LP keeps what it has translated until something makes it forget: a track does not reach an LP by itself.
#[test]
fn each_lp_has_its_own_translations() {
    let platform = ready(1, 2);
    let mut pages = Pages(GIB);
    let td = support::runnable(&platform, &mut pages, 33, 2);
    let lp = |number| platform.lp(number).expect("there are two");
    add_tables(&lp(0), &td, &mut pages, GPA, Level::Pt);
    let page = pages.next();
    ok(
        &lp(0),
        SeamcallLeaf::TDH_MEM_PAGE_AUG,
        [GPA, td.tdr, page, 0],
    );
    for vcpu in &td.vcpus {
        platform.set_guest(Hpa::new(*vcpu), |cpu: &mut GuestCpu<'_>| {
            let used = cpu.accept(GPA, Level::Pt).and_then(|_| cpu.read_u64(GPA));
            match used {
                Err(GuestFault::Exited(exited)) => exited,
                _ => cpu.interrupt(),
            }
        });
    }
    let enter_on = |number: usize| {
        let operands = [td.vcpus[number], 0, 0, 0];
        call(&lp(number), SeamcallLeaf::TDH_VP_ENTER, operands).rax
    };
    assert_eq!(enter_on(0), EXTERNAL_INTERRUPT);
    for vcpu in &td.vcpus {
        platform.set_guest(Hpa::new(*vcpu), |cpu: &mut GuestCpu<'_>| {
            match cpu.read_u64(GPA) {
                Err(GuestFault::Exited(exited)) => exited,
                _ => cpu.interrupt(),
            }
        });
    }
    ok(
        &lp(0),
        SeamcallLeaf::TDH_MEM_RANGE_BLOCK,
        [GPA, td.tdr, 0, 0],
    );
    assert_eq!(enter_on(1), EPT_VIOLATION, "it has never seen the page");
    assert_eq!(
        enter_on(0),
        EXTERNAL_INTERRUPT,
        "it has the translation still"
    );
    ok(&lp(0), SeamcallLeaf::TDH_VP_FLUSH, [td.vcpus[0], 0, 0, 0]);
    assert_eq!(enter_on(0), EPT_VIOLATION, "TDH.VP.FLUSH makes it forget");
}
