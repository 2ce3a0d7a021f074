//! The life of a TD whose host and guest execute the real instructions.

use std::sync::mpsc;

use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::Tdcall;
use tdx_abi::hardware::HardwareSeamcall;
use tdx_abi::hardware::HardwareTdcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator_guard::Guard;
use tdx_emulator_guard::GuestThread;
use tdx_emulator_guard::InstallError;
use tdx_mmu::td::AccessKind;
use tdx_mmu::td::Resolution;

use super::compare::assert_equal;
use super::host::Host;
use super::life::end;
use super::life::fault;
use super::life::runnable_on;

/// Basic exit reason of a TDCALL.
const TDCALL_EXIT: u64 = 77;
/// Registers that TDG.VP.VMCALL passes here: R10 to R12.
const PASSED: u64 = 1 << 10 | 1 << 11 | 1 << 12;
/// The page that the guest accepts.
const ACCEPTED: u64 = 0x5000;

fn enter(instruction: HardwareSeamcall, registers: Registers) -> Registers {
    let mut after = Registers {
        rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
        ..registers
    };
    instruction.seamcall(&mut after).unwrap();
    after
}

/// What the guest does: accepts a page, then asks the host for twice a number until the host answers 0.
fn guest(instruction: HardwareTdcall, seen: &mpsc::Sender<u64>) {
    let mut accept = Registers {
        rax: TdcallLeaf::TDG_MEM_PAGE_ACCEPT.number().into(),
        rcx: ACCEPTED,
        ..Registers::default()
    };
    instruction.tdcall(&mut accept).unwrap();
    seen.send(accept.rax).unwrap();
    for number in 21.. {
        let mut call = Registers {
            rax: TdcallLeaf::TDG_VP_VMCALL.number().into(),
            rcx: PASSED,
            r12: number,
            rbx: 0x1234,
            ..Registers::default()
        };
        instruction.tdcall(&mut call).unwrap();
        assert_eq!((call.rax, call.rbx), (0, 0x1234));
        seen.send(call.r12).unwrap();
        if call.r12 == 0 {
            return;
        }
    }
}

#[test]
fn a_td_lives_and_its_guest_runs_by_the_instructions() {
    let platform: &'static Platform = Box::leak(Box::new(Platform::new(PlatformConfig::default())));
    let guard = Guard::install(platform).unwrap();
    assert!(matches!(
        Guard::install(platform),
        Err(InstallError::AlreadyInstalled)
    ));
    #[expect(
        unsafe_code,
        reason = "the program has to say that it may execute the instruction"
    )]
    // SAFETY: the guard handles the trap, and the module that executes the calls is emulated: it touches only the memory
    // of its platform.
    let (host, td) = unsafe { (HardwareSeamcall::new(), HardwareTdcall::new()) };

    let tree = runnable_on(Host::on(platform, Some(host)), 1);
    assert_eq!(
        fault(&tree, ACCEPTED, AccessKind::Write),
        Resolution::Mapped(Level::Pt)
    );
    assert_equal(&tree);

    let (to_host, seen) = mpsc::channel();
    let tdvpr = tree.tdvpr(0).unwrap();
    let program = GuestThread::spawn(move |_| guest(td, &to_host)).unwrap();
    platform.set_guest(tdvpr, program);
    let rcx = tdvpr.bits();
    let mut exit = enter(
        host,
        Registers {
            rcx,
            ..Registers::default()
        },
    );
    assert_eq!(seen.recv(), Ok(0), "the page is accepted");
    for number in 21..24 {
        assert_eq!(
            (exit.rax, exit.rcx, exit.r12),
            (TDCALL_EXIT, PASSED, number)
        );
        let answer = if number < 23 { 2 * number } else { 0 };
        exit = enter(
            host,
            Registers {
                rcx,
                r12: answer,
                ..Registers::default()
            },
        );
        assert_eq!(seen.recv(), Ok(answer));
    }
    assert_eq!(exit.rax, 1, "a guest that has ended is interrupted");
    end(tree);

    // An LP that is not there has no module.
    tdx_emulator_guard::run_on(platform.lps());
    let mut registers = Registers::default();
    assert_eq!(
        host.seamcall(&mut registers),
        Err(tdx_abi::Trap::VmFailInvalid)
    );
    drop(guard);
}
