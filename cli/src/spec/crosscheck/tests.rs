//! Shapes of the sources of Linux and OpenVMM, written for these tests.

use std::path::Path;

use super::Difference;
use super::Finding;
use super::Ours;
use super::compare;
use crate::reference;

fn findings(text: &str) -> (usize, Vec<Finding>) {
    let ours = Ours::new(reference::spec().expect("the built-in specification"));
    let report = compare(&ours, Path::new("peer.h"), text);
    (report.compared, report.findings)
}

fn one(text: &str) -> Finding {
    let (compared, mut found) = findings(text);
    assert_eq!((compared, found.len()), (1, 1), "{found:?}");
    found.remove(0)
}

#[test]
fn what_agrees_is_counted() {
    let (compared, found) = findings(
        "#define TDH_MNG_ADDCX 1\n\
         #define TDX_OPERAND_BUSY 0x8000020000000000ULL\n\
         #define TDX_OPERAND_ID_TD_EPOCH 0xa9\n\
         #define TDVMCALL_MAP_GPA 0x10001\n\
         #define TDX_FEATURES0_NO_RBP_MOD BIT(18)\n\
         #define TDX_VERSION_SHIFT 16\n\
         #define TDX_SEAMCALL_STATUS_MASK 0xFFFFFFFF00000000ULL\n\
         const TDCALL_VP_RD: u64 = 9;\n\
         pub enum TdCallResultCode: u32 { TD_FATAL = 0xE0000604, SUCCESS = 0 }\n",
    );
    assert_eq!(found, []);
    assert_eq!(compared, 8);
}

#[test]
fn linux_has_other_classes_for_two_statuses() {
    let (_, found) = findings(
        "#define TDX_NON_RECOVERABLE_TD 0x4000000200000000ULL\n\
         #define TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE 0x6000000700000000ULL\n",
    );
    let names: Vec<&str> = found.iter().map(|it| &*it.name).collect();
    assert_eq!(
        names,
        [
            "TDX_NON_RECOVERABLE_TD",
            "TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE"
        ]
    );
    assert!(found[0].ours.contains("0x6000000200000000"), "{found:?}");
    assert!(found[1].ours.contains("0xe000000700000000"), "{found:?}");
}

#[test]
fn a_leaf_with_two_names_is_contested() {
    let ours = one("open_enum! { pub enum TdCallLeaf: u64 { VP_INVGLA = 27 } }");
    assert_eq!(ours.kind, Difference::Contested);
    assert!(ours.ours.contains("TDG.VP.INVVPID"), "{ours:?}");
    let theirs = one("const TDCALL_VP_INVVPID: u64 = 27;");
    assert_eq!(theirs.kind, Difference::Contested);
    assert!(theirs.ours.contains("TDG.VP.INVGLA"), "{theirs:?}");
}

#[test]
fn field_ids_are_compared_without_bit_63() {
    for id in ["0x9110000300000016", "0x1110000300000016"] {
        let finding = one(&format!(
            "pub const TDX_FIELD_CODE_CONFIG_FLAGS: Code = Code({id});"
        ));
        assert_eq!(finding.kind, Difference::Bit63);
    }
    let finding = one("#define TDCS_CONFIG_FLAGS 0x1110000300000015");
    assert_eq!(finding.kind, Difference::Value);
    let finding = one("#define TDCS_NOTIFY_ENABLES 0x9100000000000010");
    assert_eq!(finding.kind, Difference::Form);
}

#[test]
fn headers_of_the_module_agree() {
    let (compared, found) = findings(
        "typedef enum seamcall_leaf_opcode_e { TDH_VP_ENTER_LEAF = 0, TDH_MEM_PAGE_RELOCATE = 5 } a;\n\
         #define TDX_NON_RECOVERABLE_TD 0x6000000200000000ULL\n\
         #define TDX_EPT_ENTRY_NOT_LEAF 0xC0000B0400000000ULL\n\
         #define TDH_PHYMEM_CACHEWB_START_CMD 0\n",
    );
    assert_eq!((compared, found), (4, Vec::new()));
}

#[test]
fn another_name_for_a_status() {
    let finding = one("enum TdCallResultCode: u32 { MCS_FIELD_ERROR = 0xC0000731 }");
    assert_eq!(finding.kind, Difference::Name);
    assert_eq!(finding.ours, "called TD_VMCS_FIELD_ERROR");
}

#[test]
fn wrong_and_unknown_numbers() {
    assert_eq!(one("#define TDH_MEM_TRACK 39").kind, Difference::Value);
    assert_eq!(one("#define TDH_MEM_FORGET 77").kind, Difference::Unknown);
    let status = one("#define TDX_NOT_TODAY 0xC0000FFF00000000");
    assert_eq!(status.kind, Difference::Unknown);
}
