//! Guests that run as programs: translations, their staleness, and KeyIDs of memory lines.
#![expect(
    clippy::std_instead_of_core,
    clippy::std_instead_of_alloc,
    reason = "tests run on std"
)]

mod support;

use std::sync::Arc;
use std::sync::Mutex;

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
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Exited;
use tdx_emulator::GuestCpu;
use tdx_emulator::GuestFault;
use tdx_emulator::LineFault;
use tdx_emulator::Lp;
use tdx_emulator::Platform;

const EPT_VIOLATION: u32 = 48;
const EXTERNAL_INTERRUPT: u32 = 1;
const GPA: u64 = 0x20_0000;

/// What the guest is to do next, and what came of it.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<(Option<Act>, Vec<u64>)>>);

#[derive(Clone, Copy)]
enum Act {
    Accept(u64),
    Read(u64),
    Write(u64, u64),
}

impl Script {
    /// Runs the guest with one act until the TD is left, and returns VP.ENTER's status and registers.
    fn enter(&self, lp: &Lp<'_>, td: &Td, act: Act) -> tdx_abi::Registers {
        self.0.lock().expect("not poisoned").0 = Some(act);
        call(lp, SeamcallLeaf::TDH_VP_ENTER, [td.vcpus[0], 0, 0, 0])
    }

    fn results(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().expect("not poisoned").1)
    }

    fn run(&self, cpu: &mut GuestCpu<'_>) -> Exited {
        let act = self.0.lock().expect("not poisoned").0;
        let result = match act {
            Some(Act::Accept(gpa)) => cpu.accept(gpa, Level::Pt).map(Status::rax),
            Some(Act::Read(gpa)) => cpu.read_u64(gpa),
            Some(Act::Write(gpa, value)) => cpu.write_u64(gpa, value).map(|()| 0),
            None => Ok(0),
        };
        match result {
            Ok(value) => {
                self.0.lock().expect("not poisoned").1.push(value);
                cpu.interrupt()
            }
            Err(GuestFault::Exited(exited)) => exited,
            Err(GuestFault::LeftL2) => cpu.interrupt(),
            Err(GuestFault::Event(event)) => {
                self.0
                    .lock()
                    .expect("not poisoned")
                    .1
                    .push(event.information.into());
                cpu.interrupt()
            }
        }
    }
}

/// A running TD with the tables for [`GPA`], its guest and the pages left.
fn guest(platform: &Platform) -> (Td, Pages, Script) {
    let mut pages = Pages(GIB);
    let td = runnable(platform, &mut pages, 33, 1);
    let lp = platform.lp(0).expect("there is one");
    add_tables(&lp, &td, &mut pages, GPA, Level::Pt);
    let script = Script::default();
    let program = script.clone();
    platform.set_guest(Hpa::new(td.vcpus[0]), move |cpu: &mut GuestCpu<'_>| {
        program.run(cpu)
    });
    (td, pages, script)
}

fn reason(registers: &tdx_abi::Registers) -> u32 {
    registers.rax as u32
}

#[test]
fn an_access_needs_a_page_and_its_acceptance() {
    let platform = ready(1, 1);
    let (td, mut pages, script) = guest(&platform);
    let lp = platform.lp(0).expect("there is one");
    let missing = script.enter(&lp, &td, Act::Write(GPA + 8, 7));
    // A write (bit 1) to an entry without permissions, at the page's address.
    assert_eq!(
        (reason(&missing), missing.rcx, missing.r8),
        (EPT_VIOLATION, 2, GPA)
    );
    ok(
        &lp,
        SeamcallLeaf::TDH_MEM_PAGE_AUG,
        [GPA, td.tdr, pages.next(), 0],
    );
    let pending = script.enter(&lp, &td, Act::Read(GPA));
    assert_eq!(
        (reason(&pending), pending.rcx, pending.rdx),
        (EPT_VIOLATION, 1, 6)
    );
    assert_eq!(
        reason(&script.enter(&lp, &td, Act::Accept(GPA))),
        EXTERNAL_INTERRUPT
    );
    script.enter(&lp, &td, Act::Write(GPA + 8, 7));
    script.enter(&lp, &td, Act::Read(GPA + 8));
    script.enter(&lp, &td, Act::Read(GPA + 16));
    assert_eq!(script.results(), [0, 0, 7, 0]);
    // Until the host sets a shared EPTP, shared addresses lead to a page of zeros, whose entries ask for #VE.
    const VE: u64 = 0x8000_0314;
    let shared = script.enter(&lp, &td, Act::Read(GPA | 1 << 47));
    assert_eq!(
        (reason(&shared), script.results()),
        (EXTERNAL_INTERRUPT, vec![VE])
    );
}

#[test]
fn a_translation_outlives_block_until_the_epoch_changes() {
    let platform = ready(1, 1);
    let (td, mut pages, script) = guest(&platform);
    let lp = platform.lp(0).expect("there is one");
    ok(
        &lp,
        SeamcallLeaf::TDH_MEM_PAGE_AUG,
        [GPA, td.tdr, pages.next(), 0],
    );
    script.enter(&lp, &td, Act::Accept(GPA));
    script.enter(&lp, &td, Act::Write(GPA, 7));
    ok(&lp, SeamcallLeaf::TDH_MEM_RANGE_BLOCK, [GPA, td.tdr, 0, 0]);
    script.enter(&lp, &td, Act::Read(GPA));
    assert_eq!(
        script.results(),
        [0, 0, 7],
        "the LP still has the translation"
    );
    let early = call(&lp, SeamcallLeaf::TDH_MEM_PAGE_REMOVE, [GPA, td.tdr, 0, 0]);
    assert_eq!(
        Status::from_rax(early.rax).code(),
        StatusCode::TLB_TRACKING_NOT_DONE
    );
    ok(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
    let blocked = script.enter(&lp, &td, Act::Read(GPA));
    assert_eq!((reason(&blocked), blocked.rcx), (EPT_VIOLATION, 1));
    ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_REMOVE, [GPA, td.tdr, 0, 0]);
}

#[test]
fn the_host_sees_no_plaintext_and_poisons_what_it_writes() {
    let platform = ready(1, 1);
    let (td, mut pages, script) = guest(&platform);
    let lp = platform.lp(0).expect("there is one");
    let page = pages.next();
    ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_AUG, [GPA, td.tdr, page, 0]);
    script.enter(&lp, &td, Act::Accept(GPA));
    script.enter(&lp, &td, Act::Write(GPA + 64, 7));
    let host = platform.host_memory();
    let mut bytes = [0; 8];
    let hpa = page + 64;
    let wrong = LineFault::WrongKey { hpa, key_id: 33 };
    assert_eq!(host.read(Hpa::new(hpa), &mut bytes), Err(wrong));
    assert_eq!(bytes, [0; 8]);
    host.write(Hpa::new(hpa), &[1]);
    assert_eq!(
        host.read(Hpa::new(hpa), &mut bytes),
        Err(LineFault::Poisoned { hpa })
    );
    script.enter(&lp, &td, Act::Read(GPA));
    assert_eq!(
        script.results(),
        [0, 0, 0],
        "the line beside it is untouched"
    );
    let dead = script.enter(&lp, &td, Act::Read(GPA + 64));
    let code = Status::from_rax(dead.rax).code();
    assert_eq!(code, StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE);
    let fatal = call(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
    assert_eq!(Status::from_rax(fatal.rax).code(), StatusCode::TD_FATAL);
}

#[test]
fn a_page_has_to_be_flushed_before_the_host_writes_it() {
    let platform = ready(1, 1);
    let lp = platform.lp(0).expect("there is one");
    let mut pages = Pages(GIB);
    let td = initialized(&platform, &mut pages, 33, 1);
    add_tables(&lp, &td, &mut pages, GPA, Level::Pt);
    let host = platform.host_memory();
    let source = 0x20_0000;
    let mut bytes = [0; 8];
    for flushed in [false, true] {
        let page = pages.next();
        ok(
            &lp,
            SeamcallLeaf::TDH_MEM_PAGE_ADD,
            [GPA, td.tdr, page, source],
        );
        ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_REMOVE, [GPA, td.tdr, 0, 0]);
        if flushed {
            ok(
                &lp,
                SeamcallLeaf::TDH_PHYMEM_PAGE_WBINVD,
                [page | 33 << 46, 0, 0, 0],
            );
        }
        host.scrub(Hpa::new(page));
        let read = host.read(Hpa::new(page + PAGE - 8), &mut bytes);
        let overwritten = LineFault::Overwritten {
            hpa: page + PAGE - 8,
        };
        assert_eq!(read, if flushed { Ok(()) } else { Err(overwritten) });
    }
}
