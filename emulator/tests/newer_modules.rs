//! What a host meets in 2.0.18 beside Dynamic PAMT. Each test names the file of the module that its rule is from.
#![allow(missing_docs, reason = "tests")]

mod support;

use support::GIB;
use support::PAGE;
use support::Pages;
use support::Td;
use support::add_tables;
use support::call;
use support::initialized;
use support::ok;
use support::ready_with;
use tdx_abi::Level;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::field::FieldId;
use tdx_abi::field::global;
use tdx_abi::field::tdr_tdcs;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::Platform;
use tdx_emulator::PlatformConfig;
use tdx_emulator::Range;

/// Where the list of TDMRs is, below all of them.
const LIST: u64 = 0x10_0000;

/// A platform whose LPs are initialised, and memory that describes one TDMR of 1 GiB at 1 GiB.
fn to_be_configured(module: Module) -> Platform {
    let platform = Platform::new(PlatformConfig {
        module,
        lps_per_package: 1,
        cmrs: vec![Range {
            base: 0,
            size: 2 * GIB,
        }],
        seamrr: Range {
            base: 1 << 40,
            size: 1 << 25,
        },
        ..PlatformConfig::default()
    });
    let lp = lp(&platform);
    ok(&lp, SeamcallLeaf::TDH_SYS_INIT, [0; 4]);
    ok(&lp, SeamcallLeaf::TDH_SYS_LP_INIT, [0; 4]);
    let info = LIST + PAGE;
    platform.memory().write_u64(LIST, info);
    let words = [
        GIB,
        GIB,
        0x100_0000,
        PAGE,
        0x110_0000,
        512 * 16,
        0x120_0000,
        512 * 512 * 16,
    ];
    for (word, value) in (0u64..).zip(words) {
        platform.memory().write_u64(info + word * 8, value);
    }
    platform
}

fn lp(platform: &Platform) -> Lp<'_> {
    platform.lp(0).expect("there is one")
}

/// TDH.SYS.CONFIG in this version, the module's KeyID valid.
fn configure(platform: &Platform, version: u64, tdmrs: u64, r9: u64, r10: u64) -> Status {
    let mut registers = Registers {
        rax: u64::from(SeamcallLeaf::TDH_SYS_CONFIG.number()) | version << 16,
        rcx: LIST,
        rdx: tdmrs,
        r8: platform.config().first_private_key_id.into(),
        r9,
        r10,
        ..Registers::default()
    };
    lp(platform)
        .seamcall(&mut registers)
        .expect("the emulator does not trap");
    Status::from_rax(registers.rax)
}

fn invalid(operand: OperandId) -> Status {
    Status::with_operand(StatusCode::OPERAND_INVALID, operand)
}

fn features(platform: &Platform) -> u64 {
    let field = global::TDX_FEATURES0.into_bits();
    ok(&lp(platform), SeamcallLeaf::TDH_SYS_RD, [0, field, 0, 0]).r8
}

/// `tdh_sys_config.c` of 2.0.18: after RCX, RDX and R8, and before any TDMR is looked at.
#[test]
fn version_1_of_sys_config_has_enabling_flags_in_r9_and_nothing_in_r10() {
    let platform = to_be_configured(Module::V2_0_18);
    let offered = features(&platform);
    assert_ne!(offered, 0);
    let config = |version, tdmrs, r9, r10| configure(&platform, version, tdmrs, r9, r10);
    for bit in (0..64).filter(|bit| offered >> bit & 1 == 0) {
        assert_eq!(config(1, 1, 1 << bit, 0), invalid(OperandId::R9), "{bit}");
        assert_eq!(config(1, 1, offered | 1 << bit, 1), invalid(OperandId::R9));
    }
    assert_eq!(config(1, 0, u64::MAX, u64::MAX), invalid(OperandId::RDX));
    for bit in 0..64 {
        assert_eq!(config(1, 1, offered, 1 << bit), invalid(OperandId::R10));
    }
    assert_eq!(config(2, 1, 0, 0), invalid(OperandId::RAX));
    platform.memory().write_u64(LIST + PAGE, GIB + PAGE);
    assert_eq!(config(1, 1, u64::MAX, 0), invalid(OperandId::R9));
    assert_eq!(
        config(1, 1, offered, 0).code(),
        StatusCode::INVALID_TDMR,
        "the flags are fine, the TDMR is not"
    );
    platform.memory().write_u64(LIST + PAGE, GIB);
    assert_eq!(config(1, 1, offered, 0), Status::of(StatusCode::SUCCESS));
    assert_eq!(
        config(1, 1, offered, 0),
        Status::of(StatusCode::SYS_CONFIG_NOT_PENDING)
    );
}

/// `tdh_sys_config.c` of 2.0.18: version 0 does not look at R9 and R10; 1.5.01 has no version 1.
#[test]
fn version_0_of_sys_config_ignores_them() {
    for module in [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18] {
        let platform = to_be_configured(module);
        assert_eq!(
            configure(&platform, 0, 1, u64::MAX, u64::MAX),
            Status::of(StatusCode::SUCCESS),
            "{module:?}"
        );
    }
    let platform = to_be_configured(Module::V1_5_01);
    assert_eq!(configure(&platform, 1, 1, 0, 0), invalid(OperandId::RAX));
}

/// What a host reads of a TD: MEM_COUNT, BLOCKED_COUNT and PENDING_BLOCKED_COUNT.
fn counts(lp: &Lp<'_>, td: &Td) -> [u64; 3] {
    [
        tdr_tdcs::MEM_COUNT,
        tdr_tdcs::BLOCKED_COUNT,
        tdr_tdcs::PENDING_BLOCKED_COUNT,
    ]
    .map(|field: FieldId| {
        let operands = [td.tdr, field.into_bits(), 0, 0];
        ok(lp, SeamcallLeaf::TDH_MNG_RD, operands).r8
    })
}

/// `tdh_mem_page_add.c`, `tdh_mem_page_aug.c`, `tdh_mem_range_block.c`, `tdh_mem_range_unblock.c`, `tdh_mem_page_demote.c`,
/// `tdh_mem_page_remove.c` of 2.0.18: 4 KiB pages, `BIT(9 * level)` for each page, those of a blocked table all at once.
#[test]
fn the_td_counts_its_memory_and_what_is_blocked_of_it() {
    let platform = ready_with(Module::V2_0_18, 1, 1, false);
    let lp = lp(&platform);
    let mut pages = Pages(GIB);
    let td = initialized(&platform, &mut pages, 33, 1);
    let large = Level::Pd as u64;
    let call_of = |leaf, gpa: u64, level: u64, page: u64| {
        ok(&lp, leaf, [gpa | level, td.tdr, page, 0]);
    };
    add_tables(&lp, &td, &mut pages, 0, Level::Pt);
    assert_eq!(counts(&lp, &td), [0, 0, 0], "tables are not counted");
    for number in 0..3 {
        let operands = [number * PAGE, td.tdr, pages.next(), LIST];
        ok(&lp, SeamcallLeaf::TDH_MEM_PAGE_ADD, operands);
    }
    assert_eq!(counts(&lp, &td), [3, 0, 0]);
    ok(&lp, SeamcallLeaf::TDH_MR_FINALIZE, [td.tdr, 0, 0, 0]);
    let gpa = Level::Pd.size();
    call_of(SeamcallLeaf::TDH_MEM_PAGE_AUG, 8 * PAGE, 0, pages.next());
    call_of(SeamcallLeaf::TDH_MEM_PAGE_AUG, gpa, large, pages.next_2m());
    assert_eq!(counts(&lp, &td), [3 + 1 + 512, 0, 0]);

    call_of(SeamcallLeaf::TDH_MEM_RANGE_BLOCK, 0, 0, 0);
    call_of(SeamcallLeaf::TDH_MEM_RANGE_BLOCK, PAGE, 0, 0);
    call_of(SeamcallLeaf::TDH_MEM_RANGE_BLOCK, 8 * PAGE, 0, 0);
    call_of(SeamcallLeaf::TDH_MEM_RANGE_BLOCK, gpa, large, 0);
    assert_eq!(counts(&lp, &td), [516, 2, 1 + 512]);
    let again = [PAGE, td.tdr, 0, 0];
    assert_ne!(call(&lp, SeamcallLeaf::TDH_MEM_RANGE_BLOCK, again).rax, 0);
    assert_eq!(counts(&lp, &td), [516, 2, 513], "refused, not counted");
    ok(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);

    call_of(SeamcallLeaf::TDH_MEM_RANGE_UNBLOCK, 0, 0, 0);
    assert_eq!(counts(&lp, &td), [516, 1, 513]);
    call_of(SeamcallLeaf::TDH_MEM_PAGE_REMOVE, PAGE, 0, 0);
    call_of(SeamcallLeaf::TDH_MEM_PAGE_REMOVE, 8 * PAGE, 0, 0);
    assert_eq!(counts(&lp, &td), [514, 0, 512]);
    call_of(SeamcallLeaf::TDH_MEM_PAGE_DEMOTE, gpa, large, pages.next());
    assert_eq!(counts(&lp, &td), [514, 0, 0], "split pages are not blocked");

    // A table counts as all that it could map: its first 2 MiB have two pages in use.
    call_of(SeamcallLeaf::TDH_MEM_RANGE_BLOCK, 0, large, 0);
    assert_eq!(counts(&lp, &td), [514, 512, 0]);
    ok(&lp, SeamcallLeaf::TDH_MEM_TRACK, [td.tdr, 0, 0, 0]);
    call_of(SeamcallLeaf::TDH_MEM_RANGE_UNBLOCK, 0, large, 0);
    assert_eq!(counts(&lp, &td), [514, 0, 0]);
}

/// The tables of 1.5.01 have no such fields.
#[test]
fn older_modules_do_not_count() {
    let platform = ready_with(Module::V1_5_01, 1, 1, false);
    let td = initialized(&platform, &mut Pages(GIB), 33, 1);
    let operands = [td.tdr, tdr_tdcs::MEM_COUNT.into_bits(), 0, 0];
    let read = call(&lp(&platform), SeamcallLeaf::TDH_MNG_RD, operands);
    assert_eq!(
        Status::from_rax(read.rax).code(),
        StatusCode::METADATA_FIELD_ID_INCORRECT
    );
}
