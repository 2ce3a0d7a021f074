//! What TDH.VP.ENTER passes both ways, and the defence against a host that single-steps its guest.
#![expect(clippy::std_instead_of_core, reason = "tests run on std")]

mod support;

use support::GIB;
use support::Pages;
use support::Td;
use support::call;
use support::ok;
use support::ready;
use support::ready_with;
use support::runnable;
use tdx_abi::Registers;
use tdx_abi::format::VeCategory;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::ExitInfo;
use tdx_emulator::GuestCall;
use tdx_emulator::GuestExit;
use tdx_emulator::HostCall;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;

const EXTERNAL_INTERRUPT: u32 = 1;
const MONITOR_TRAP_FLAG: u32 = 37;

fn enter(lp: &Lp<'_>, td: &Td) -> Registers {
    let mut registers = Registers {
        rax: SeamcallLeaf::TDH_VP_ENTER.number().into(),
        rcx: td.vcpus[0],
        ..Registers::default()
    };
    assert_eq!(lp.host_call(&mut registers), HostCall::EnteredTd);
    registers
}

fn exit(lp: &Lp<'_>, registers: &mut Registers, reason: u32, keeps_rip: bool) -> GuestExit {
    let info = ExitInfo {
        reason,
        interruption_info: 0x8000_00f2,
        keeps_rip,
        ..ExitInfo::default()
    };
    lp.guest_exit(&info, registers)
}

#[test]
fn vmcall_passes_the_xmm_registers_that_rcx_selects() {
    let platform = ready(1, 1);
    let td = runnable(&platform, &mut Pages(GIB), 33, 1);
    let lp = platform.lp(0).expect("there is one");
    lp.set_xmm([9; 16]);
    enter(&lp, &td);
    assert_eq!(lp.xmm(), [0; 16], "the guest begins with its own registers");
    let of_guest = std::array::from_fn(|number| (number as u128 + 1) << 64 | 5);
    lp.set_xmm(of_guest);
    let mut registers = Registers {
        rax: TdcallLeaf::TDG_VP_VMCALL.number().into(),
        rcx: 1 << 16 | 1 << 31,
        ..Registers::default()
    };
    assert_eq!(lp.guest_call(&mut registers), GuestCall::ExitedToVmm);
    let mut expected = [0; 16];
    (expected[0], expected[15]) = (of_guest[0], of_guest[15]);
    assert_eq!(lp.xmm(), expected);
    lp.set_xmm([3; 16]);
    enter(&lp, &td);
    let mut expected = of_guest;
    (expected[0], expected[15]) = (3, 3);
    assert_eq!(lp.xmm(), expected);
    let mut registers = Registers::default();
    let left = exit(&lp, &mut registers, EXTERNAL_INTERRUPT, false);
    assert_eq!(left, GuestExit::ExitedToVmm);
    assert_eq!(lp.xmm(), [0; 16], "an interrupt tells the host nothing");
}

/// A platform on which the module sees little time pass between entry and exit.
fn hasty() -> (Platform, Td) {
    let platform = support::ready_on(PlatformConfig {
        tsc_step: 100,
        ..PlatformConfig::default()
    });
    let td = runnable(&platform, &mut Pages(GIB), 33, 1);
    (platform, td)
}

#[test]
fn a_guest_that_is_interrupted_at_once_goes_on_for_some_instructions() {
    let (platform, td) = hasty();
    let lp = platform.lp(0).expect("there is one");
    let mut steps = Vec::new();
    for _ in 0..8 {
        let mut registers = enter(&lp, &td);
        let mut interrupt = |reason| exit(&lp, &mut registers, reason, true);
        assert_eq!(interrupt(EXTERNAL_INTERRUPT), GuestExit::ResumedTd);
        let mut count = 0;
        while count < 40 && interrupt(MONITOR_TRAP_FLAG) == GuestExit::ResumedTd {
            count += 1;
            if interrupt(EXTERNAL_INTERRUPT) == GuestExit::ExitedToVmm {
                break;
            }
            count += 1;
        }
        assert!((1..=33).contains(&count), "{count}");
        assert!(lp.inside().is_none());
        steps.push(count);
    }
    steps.dedup();
    assert!(steps.len() > 1, "their number is random");
    // Far from where it was entered there is nothing to suspect.
    let mut registers = enter(&lp, &td);
    let left = exit(&lp, &mut registers, EXTERNAL_INTERRUPT, false);
    assert_eq!(left, GuestExit::ExitedToVmm);
}

#[test]
fn single_stepping_with_a_disabled_apic_is_the_end_of_the_td() {
    const IA32_APIC_BASE: u32 = 0x1b;
    let (platform, td) = hasty();
    let lp = platform.lp(0).expect("there is one");
    lp.set_msr(IA32_APIC_BASE, 0xfee0_0000);
    let mut registers = enter(&lp, &td);
    let left = exit(&lp, &mut registers, EXTERNAL_INTERRUPT, true);
    assert_eq!(left, GuestExit::ExitedToVmm);
    let code = Status::from_rax(registers.rax).code();
    assert_eq!(code, StatusCode::NON_RECOVERABLE_TD_WRONG_APIC_MODE);
}

#[test]
fn an_lp_whose_msrs_the_host_changed_does_not_enter() {
    const IA32_TSC_ADJUST: u32 = 0x3b;
    let platform = ready(1, 1);
    let td = runnable(&platform, &mut Pages(GIB), 33, 1);
    let lp = platform.lp(0).expect("there is one");
    lp.set_msr(IA32_TSC_ADJUST, 1);
    let refused = call(&lp, SeamcallLeaf::TDH_VP_ENTER, [td.vcpus[0], 0, 0, 0]);
    let status = Status::from_rax(refused.rax);
    assert_eq!(
        (status.code(), status.low()),
        (StatusCode::INCONSISTENT_MSR, IA32_TSC_ADJUST)
    );
}

#[test]
fn the_module_shuts_down_only_while_no_other_lp_is_busy() {
    let platform = ready(1, 2);
    let td = runnable(&platform, &mut Pages(GIB), 33, 1);
    let (lp, other) = (
        platform.lp(0).expect("there is one"),
        platform.lp(1).expect("there are two"),
    );
    let mut registers = enter(&other, &td);
    let busy = call(&lp, SeamcallLeaf::TDH_SYS_SHUTDOWN, [0; 4]);
    assert_eq!(Status::from_rax(busy.rax).code(), StatusCode::SYS_BUSY);
    exit(&other, &mut registers, EXTERNAL_INTERRUPT, false);
    let unknown = call(&lp, SeamcallLeaf::TDH_SYS_SHUTDOWN, [1, 0, 0, 0]);
    assert_eq!(
        Status::from_rax(unknown.rax).code(),
        StatusCode::OPERAND_INVALID
    );
    ok(&lp, SeamcallLeaf::TDH_SYS_SHUTDOWN, [0; 4]);
    let refused = call(&lp, SeamcallLeaf::TDH_SYS_INFO, [0; 4]);
    assert_eq!(
        Status::from_rax(refused.rax).code(),
        StatusCode::SYS_SHUTDOWN
    );
}

/// `ve_category_e` of `helpers.h`, and where it is passed: `tdx_td_dispatcher.c`, `td_cpuid.c`, `td_msr_access.c`.
#[test]
fn version_1_of_veinfo_get_tells_why_there_was_a_ve() {
    const CPUID: u32 = 10;
    const HLT: u32 = 12;
    const RDMSR: u32 = 31;
    const WRMSR: u32 = 32;
    const PCONFIG: u32 = 65;
    const VERSION_1: u64 = 1 << 16;
    let with = |rax, rcx, rdx| Registers {
        rax,
        rcx,
        rdx,
        ..Registers::default()
    };
    let paravirtualised = VeCategory::NON_CONFIG_PARAVIRT;
    let configurable = VeCategory::CONFIG_PARAVIRT;
    let unsupported = VeCategory::UNSUPPORTED_FEATURE;
    let cases = [
        (HLT, with(0, 0, 0), paravirtualised),
        (PCONFIG, with(0, 0, 0), configurable),
        // No leaf of any processor, and one that the module virtualises in no TD.
        (CPUID, with(0x4000_0000, 0, 0), paravirtualised),
        (CPUID, with(2, 0, 0), configurable),
        // An MSR of the hypervisor, one that a CPUID bit takes away, one that nothing changes.
        (RDMSR, with(0, 0x4000_0000, 0), paravirtualised),
        (RDMSR, with(0, 0x17a, 0), configurable),
        (RDMSR, with(0, 0x1b, 0), paravirtualised),
        // IA32_DEBUGCTL.TR without BTS.
        (WRMSR, with(1 << 6, 0x1d9, 0), unsupported),
    ];
    for module in [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18] {
        let platform = ready_with(module, 1, 1, false);
        let td = runnable(&platform, &mut Pages(GIB), 33, 1);
        let lp = platform.lp(0).expect("there is one");
        enter(&lp, &td);
        for (reason, registers, category) in cases {
            let mut of_guest = registers;
            let info = ExitInfo {
                reason,
                ..ExitInfo::default()
            };
            let resumed = lp.guest_exit(&info, &mut of_guest);
            assert_eq!(resumed, GuestExit::ResumedTd, "{module:?} {reason}");
            let veinfo = |version| {
                let leaf = u64::from(TdcallLeaf::TDG_VP_VEINFO_GET.number());
                let mut outputs = with(leaf | version, 7, 0);
                assert_eq!(lp.guest_call(&mut outputs), GuestCall::ReturnedToTd);
                outputs
            };
            let told = veinfo(VERSION_1);
            let version_is_wrong =
                Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RAX).rax();
            if module == Module::V1_5_01 {
                assert_eq!(told.rax, version_is_wrong);
                assert_eq!(veinfo(0).rcx, reason.into());
            } else {
                let expected = u64::from(category.into_bits()) << 32 | u64::from(reason);
                assert_eq!(
                    (told.rax, told.rcx),
                    (0, expected),
                    "{module:?} {registers:x?}"
                );
                // It is told once.
                let again = Status::from_rax(veinfo(VERSION_1).rax);
                assert_eq!(again.code(), StatusCode::NO_VALID_VE_INFO);
            }
        }
    }
}
