//! Rules of the modules after 1.5.01, each with the file of their source that states it.

mod support;

use support::GIB;
use support::Pages;
use support::Shape;
use support::Td;
use support::call;
use support::enter;
use support::ok;
use support::ready_with;
use support::runnable;
use support::shaped;
use tdx_abi::Registers;
use tdx_abi::field::FieldId;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::leaf::TdcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::GuestCall;
use tdx_emulator::Lp;
use tdx_emulator::Module;

const NEWER: [Module; 2] = [Module::V1_5_34, Module::V2_0_18];

fn guest_call(lp: &Lp<'_>, leaf: TdcallLeaf, [rcx, rdx, r8, r9]: [u64; 4]) -> Status {
    let mut registers = Registers {
        rax: leaf.number().into(),
        rcx,
        rdx,
        r8,
        r9,
        ..Registers::default()
    };
    assert_eq!(lp.guest_call(&mut registers), GuestCall::ReturnedToTd);
    Status::from_rax(registers.rax)
}

/// `metadata_td.c`, `tdg_vp_cpuidve_set.c`: once the guest has set TD_CTLS.LOCK, it can repeat what is set and change nothing.
#[test]
fn a_guest_locks_its_controls_for_good() {
    const LOCK: u64 = 1 << 63;
    const ENABLE_HW_KEYS: u64 = 1 << 4;
    const CORE_CAPABILITIES: u64 = 1;
    const SUPERVISOR_VE: u64 = 1;
    const USER_VE: u64 = 2;
    let success = Status::of(StatusCode::SUCCESS);
    let not_valid = Status::of(StatusCode::METADATA_FIELD_VALUE_NOT_VALID);
    for module in NEWER {
        let platform = ready_with(module, 1, 1, false);
        let td = runnable(&platform, &mut Pages(GIB), 33, 1);
        let lp = platform.lp(0).expect("there is one");
        enter(&lp, &td);
        let write = |field: FieldId, value: u64, mask: u64| {
            let operands = [0, field.into_bits(), value, mask];
            guest_call(&lp, TdcallLeaf::TDG_VM_WR, operands)
        };
        let set_cpuid_ve =
            |control| guest_call(&lp, TdcallLeaf::TDG_VP_CPUIDVE_SET, [control, 0, 0, 0]);
        // The CPU has no sealing keys.
        let keys = write(tdr_tdcs::TD_CTLS, ENABLE_HW_KEYS, ENABLE_HW_KEYS);
        assert_eq!(keys, not_valid, "{module:?}");
        let paravirt = tdr_tdcs::FEATURE_PARAVIRT_CTLS;
        assert_eq!(
            write(paravirt, CORE_CAPABILITIES, CORE_CAPABILITIES),
            success
        );
        assert_eq!(set_cpuid_ve(SUPERVISOR_VE), success);
        assert_eq!(write(tdr_tdcs::TD_CTLS, LOCK, LOCK), success, "{module:?}");
        for (value, status) in [(LOCK, success), (0, not_valid)] {
            assert_eq!(write(tdr_tdcs::TD_CTLS, value, LOCK), status, "{module:?}");
        }
        for (value, status) in [(CORE_CAPABILITIES, success), (0, not_valid)] {
            assert_eq!(
                write(paravirt, value, CORE_CAPABILITIES),
                status,
                "{module:?}"
            );
        }
        assert_eq!(set_cpuid_ve(SUPERVISOR_VE), success);
        let rcx_is_wrong = Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RCX);
        assert_eq!(set_cpuid_ve(USER_VE), rcx_is_wrong, "{module:?}");
    }
}

/// `is_binding_allowed` of `helpers.h`: a service TD is not migratable, and has no service TD itself. 1.5.01 does not ask.
#[test]
fn a_service_td_is_a_plain_td() {
    const MIGRATION_TD: u64 = 0;
    for module in [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18] {
        let platform = ready_with(module, 1, 1, false);
        let lp = platform.lp(0).expect("there is one");
        let mut pages = Pages(GIB);
        let mut td = |key_id, migratable| {
            let shape = Shape {
                migratable,
                ..Shape::default()
            };
            shaped(&platform, &mut pages, key_id, 1, shape)
        };
        let [target, plain, nested] = [33, 34, 35].map(|key_id| td(key_id, false));
        let migratable = td(36, true);
        for service in [&plain, &nested, &migratable] {
            ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [service.tdr, 0, 0, 0]);
        }
        let bind = |target: &Td, service: &Td| {
            let operands = [target.tdr, service.tdr, 0, MIGRATION_TD];
            Status::from_rax(call(&lp, SeamcallLeaf::TDH_SERVTD_BIND, operands).rax)
        };
        let served = td(37, false);
        assert_eq!(bind(&served, &plain), Status::of(StatusCode::SUCCESS));
        ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [served.tdr, 0, 0, 0]);
        let refused = |code| {
            if module == Module::V1_5_01 {
                Status::of(StatusCode::SUCCESS)
            } else {
                Status::of(code)
            }
        };
        let is_served = bind(&target, &served);
        assert_eq!(
            is_served,
            refused(StatusCode::SERVTD_NESTING_NOT_ALLOWED),
            "{module:?}"
        );
        if module != Module::V1_5_01 {
            let status = bind(&target, &migratable);
            assert_eq!(
                status,
                Status::of(StatusCode::SERVTD_CANNOT_BE_MIGRATABLE),
                "{module:?}"
            );
            assert_eq!(
                bind(&target, &nested),
                Status::of(StatusCode::SUCCESS),
                "{module:?}"
            );
        }
    }
}
