//! What TDH.SYS.RD, TDH.SYS.RDALL and the dispatcher answer where the field or the leaf is not one that they have.

mod support;

use support::GIB;
use support::call;
use support::ready;
use support::ready_with;
use tdx_abi::field::global;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::module::Features;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;

/// A page of the host that no TDMR has.
const PAGE: u64 = GIB / 2;
const NONE: u64 = u64::MAX;
/// Low bit of an identifier's element size.
const ELEMENT_SIZE: u64 = 1 << 32;

fn rdall(platform: &Platform, first: u64) -> (StatusCode, u64) {
    let lp = platform.lp(0).expect("there is one");
    let after = call(&lp, SeamcallLeaf::TDH_SYS_RDALL, [0, PAGE, first, 0]);
    (Status::from_rax(after.rax).code(), after.r8)
}

fn word(platform: &Platform, number: u64) -> u64 {
    platform.memory().read_u64(PAGE + 8 * number)
}

/// `md_check_field_and_get_entry` of `metadata_generic.c`.
#[test]
fn a_list_begins_with_the_first_element_of_a_field() {
    let platform = ready(1, 1);
    let values = global::CPUID_CONFIG_VALUES.into_bits();
    assert_eq!(rdall(&platform, values), (StatusCode::SUCCESS, NONE));
    let second_element = values + 1;
    let another_size = values ^ ELEMENT_SIZE;
    for first in [second_element, another_size] {
        assert_eq!(
            rdall(&platform, first),
            (StatusCode::METADATA_FIELD_ID_INCORRECT, NONE),
            "{first:#x}"
        );
    }
}

/// `md_check_field_and_get_entry` takes nothing but class and field code from the caller's identifier.
#[test]
fn other_bits_of_the_identifier_do_not_reach_the_list() {
    const LAST_ELEMENT: u64 = 3 << 34;
    const INCREMENT: u64 = 1 << 50;
    let platform = ready(1, 1);
    let first = global::MAX_TDMRS.into_bits();
    assert_eq!(rdall(&platform, first).0, StatusCode::SUCCESS);
    let expected: Vec<u64> = (0..64).map(|number| word(&platform, number)).collect();
    assert_eq!(
        rdall(&platform, first | LAST_ELEMENT | INCREMENT).0,
        StatusCode::SUCCESS
    );
    let actual: Vec<u64> = (0..64).map(|number| word(&platform, number)).collect();
    assert_eq!(actual, expected);
}

/// `tdx_vmm_dispatcher.c`: only 2.0.18 knows the leaves of TDX Connect, and refuses them before it looks whether it is ready.
#[test]
fn a_leaf_of_tdx_connect_is_unknown_to_older_modules() {
    for (module, expected) in [
        (Module::V1_5_01, StatusCode::SYS_NOT_READY),
        (Module::V1_5_34, StatusCode::SYS_NOT_READY),
        (Module::V2_0_18, StatusCode::OPERAND_INVALID),
    ] {
        let platform = Platform::new(PlatformConfig {
            module,
            ..PlatformConfig::default()
        });
        let lp = platform.lp(0).expect("there is one");
        let after = call(&lp, SeamcallLeaf::TDH_IOMMU_SETREG, [0; 4]);
        assert_eq!(Status::from_rax(after.rax).code(), expected, "{module:?}");
    }
}

/// `metadata_sys.c` reports LOCAL_ATTESTATION where SEAMOPS offers SEAMVERIFYREPORT, which the emulated CPU does not.
#[test]
fn local_attestation_is_not_offered() {
    for module in [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18] {
        let platform = ready_with(module, 1, 1, false);
        let lp = platform.lp(0).expect("there is one");
        let field = global::TDX_FEATURES0.into_bits();
        let features = call(&lp, SeamcallLeaf::TDH_SYS_RD, [0, field, 0, 0]).r8;
        assert_eq!(features & Features::LOCAL_ATTESTATION.into_bits(), 0);
        assert_ne!(features & Features::TD_MIGRATION.into_bits(), 0);
    }
}

/// `check_cmrs` of `tdh_sys_init.c`.
#[test]
fn the_module_does_not_start_on_a_wrong_list_of_cmrs() {
    const MIB: u64 = 1 << 20;
    let status = |cmrs: &[[u64; 2]]| {
        let platform = Platform::new(PlatformConfig {
            cmrs: cmrs
                .iter()
                .map(|&[base, size]| Range { base, size })
                .collect(),
            ..PlatformConfig::default()
        });
        let lp = platform.lp(0).expect("there is one");
        Status::from_rax(call(&lp, SeamcallLeaf::TDH_SYS_INIT, [0; 4]).rax).code()
    };
    assert_eq!(status(&[[0, MIB], [MIB, MIB], [0, 0]]), StatusCode::SUCCESS);
    let of_a_key_id = 1 << 46;
    for wrong in [
        [[MIB, MIB], [0, MIB]],
        [[0, 2 * MIB], [MIB, MIB]],
        [[0, MIB], [MIB + 8, MIB]],
        [[0, MIB], [MIB, MIB + 8]],
        [[0, MIB], [of_a_key_id, MIB]],
        [[0, MIB], [of_a_key_id - MIB, 2 * MIB]],
        [[0, MIB], [u64::MAX - 4095, 2 * MIB]],
    ] {
        assert_eq!(status(&wrong), StatusCode::CMR_LIST_INVALID, "{wrong:x?}");
    }
}
