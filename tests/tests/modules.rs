//! Each module that the emulator can be, against the tables read from that module's source: which leaves and versions it
//! dispatches, in which OP_STATEs, and which metadata fields the host may read.

#[path = "../../emulator/tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::PAGE;
use support::Pages;
use support::Td;
use support::call;
use support::initialized;
use support::ready_with;
use support::runnable;
use tdx_abi::Registers;
use tdx_abi::Seamcall;
use tdx_abi::leaf::SeamcallLeaf;
use tdx_abi::operand::OperandId;
use tdx_abi::status::Status;
use tdx_abi::status::StatusCode;
use tdx_emulator::Lp;
use tdx_emulator::Module;
use tdx_emulator::Platform;

const MODULES: [Module; 3] = [Module::V1_5_01, Module::V1_5_34, Module::V2_0_18];

/// Leaves that a module dispatches and that answer as if it did not, and why that is right or what is missing.
const ANSWERED_AS_UNKNOWN: [(&str, &str); 8] = [
    ("TDH.PHYMEM.PAMT.ADD", "Dynamic PAMT was not chosen"),
    ("TDH.PHYMEM.PAMT.REMOVE", "Dynamic PAMT was not chosen"),
    ("TDH.MEM.SCAN.RANGE", "no operation of it is switched on"),
    ("TDH.MEM.SCAN.COMP", "no operation of it is switched on"),
    ("TDH.MEM.SCAN.CONFIG", "no operation of it is switched on"),
    ("TDH.MEM.SCAN.RESET", "no operation of it is switched on"),
    ("TDH.SYS.SHUTDOWN", "update of the module is not emulated"),
    ("TDH.SYS.UPDATE", "update of the module is not emulated"),
];

/// Leaves of TDX Connect, unknown to every module on a platform without it (`helpers.h`, `is_valid_tdx_io_host_call`).
const TDX_CONNECT: core::ops::RangeInclusive<u64> = 128..=166;

fn facts(module: Module, file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("data/facts")
        .join(format!("tdx-module-{}", module.name()))
        .join(file);
    let text = fs::read_to_string(path).expect("the file is there");
    serde_json::from_str(&text).expect("a list")
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().expect("not negative"),
        Value::String(text) => {
            u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hexadecimal")
        }
        _ => 0,
    }
}

fn name(row: &Value) -> &str {
    row["name"].as_str().expect("it has a name")
}

/// Versions that the facts say a leaf accepts; those of 1.5.01 do not say.
fn versions(row: &Value) -> Option<Vec<u64>> {
    Some(
        row.get("versions")?
            .as_array()?
            .iter()
            .map(number)
            .collect(),
    )
}

fn is_unknown_leaf(rax: u64) -> bool {
    Status::from_rax(rax) == Status::with_operand(StatusCode::OPERAND_INVALID, OperandId::RAX)
}

fn answered_as_unknown(leaf: &str) -> bool {
    ANSWERED_AS_UNKNOWN.iter().any(|(name, _)| *name == leaf)
}

/// `tdx_vmm_dispatcher.c`: every leaf number and version, on a ready module, with operands that are all 0.
#[test]
fn leaves_and_versions_are_dispatched_as_the_source_says() {
    let (mut calls, mut known) = (0, 0);
    for module in MODULES {
        let rows = facts(module, "seamcall_leaves.json");
        for leaf in 0..0x100u64 {
            let row = rows.iter().find(|row| number(&row["number"]) == leaf);
            let row = row.filter(|row| row["dispatched"] != Value::Bool(false));
            let row = row.filter(|row| name(row) != "TDH.MEM.SEPT.WR");
            let dispatched = row.filter(|_| !TDX_CONNECT.contains(&leaf));
            let platform = ready_with(module, 1, 1, false);
            for version in 0..3u64 {
                let Some(accepted) = dispatched.map_or(Some(vec![]), versions) else {
                    continue;
                };
                let lp = platform.lp(0).expect("there is one");
                let mut registers = Registers {
                    rax: leaf | version << 16,
                    ..Registers::default()
                };
                lp.seamcall(&mut registers).expect("no trap");
                calls += 1;
                if version > 0 && accepted.contains(&1) && !accepted.contains(&version) {
                    // The leaf bounds its versions itself, some after other checks.
                    assert!(Status::from_rax(registers.rax).is_error());
                    continue;
                }
                let unknown = is_unknown_leaf(registers.rax);
                let expected = accepted.contains(&version);
                let excused = dispatched.is_some_and(|row| answered_as_unknown(name(row)));
                known += u32::from(expected);
                assert!(
                    unknown != expected || (expected && excused),
                    "{module:?}: leaf {leaf} version {version}: {:#x}",
                    registers.rax
                );
            }
        }
    }
    println!("{calls} calls, {known} of them of leaves and versions that the module has");
}

/// `op_state_lookup.c`: every leaf that looks at OP_STATE, in every OP_STATE.
#[test]
fn leaves_look_at_op_state_as_the_source_says() {
    let inputs = facts(Module::V2_0_18, "seamcall_leaves.json");
    for module in MODULES {
        let (mut allowed_calls, mut refused_calls) = (0, 0);
        let platform = ready_with(module, 1, 1, false);
        let mut pages = Pages(support::GIB);
        let td = runnable(&platform, &mut pages, 33, 1);
        let other = runnable(&platform, &mut pages, 34, 1);
        let states = facts(module, "op_states.json");
        for row in facts(module, "seamcall_leaves.json") {
            let Value::Array(allowed) = &row["op_states"] else {
                continue;
            };
            let leaf = name(&row);
            let gated = !answered_as_unknown(leaf);
            if TDX_CONNECT.contains(&number(&row["number"])) || !gated || leaf == "TDH.VP.FLUSH" {
                // VP.FLUSH has a row of all states, and does not look.
                continue;
            }
            let of_newest = inputs
                .iter()
                .find(|row| name(row) == leaf)
                .expect("no leaf was taken away");
            for state in &states {
                let may = allowed.contains(&state["name"]);
                if may && leaf == "TDH.VP.ENTER" {
                    continue;
                }
                let value = number(&state["value"]);
                set_op_state(&platform, &td, value);
                let page = pages.next();
                let registers = operands(&row, of_newest, &td, &other, page);
                let status = status_of(&platform.lp(0).expect("there is one"), registers);
                let refused = status.code() == StatusCode::OP_STATE_INCORRECT;
                let state_name = name(state);
                let context = format!("{module:?}: {leaf} in {state_name}: {status:?}");
                if may {
                    allowed_calls += 1;
                    assert!(!refused, "{context}");
                } else {
                    refused_calls += 1;
                    assert!(refused, "{context}");
                    // `tdh_mng_add_cx.c` leaves the state out.
                    let tells = module != Module::V1_5_01 && leaf != "TDH.MNG.ADDCX";
                    let told = if tells { value as u32 } else { 0 };
                    assert_eq!(status.low(), told, "{context}");
                }
            }
        }
        println!("{module:?}: {refused_calls} calls refused, {allowed_calls} not");
        assert!(refused_calls > 200, "the tables were not empty");
    }
}

fn set_op_state(platform: &Platform, td: &Td, state: u64) {
    const TDCX_PA: u64 = 0x18;
    const OP_STATE: u64 = 8;
    let key_id = platform.config().key_id_mask();
    let tdcs = platform.memory().read_u64(td.tdr + TDCX_PA) & !key_id;
    platform.memory().write_u64(tdcs + OP_STATE, state);
}

/// The leaf's registers: TDR and TDVPR where the facts say, a free page in RCX where a control page is given.
fn operands(row: &Value, of_newest: &Value, td: &Td, other: &Td, page: u64) -> Registers {
    let mut registers = Registers {
        rax: number(&row["number"]),
        ..Registers::default()
    };
    for input in of_newest["inputs"].as_array().into_iter().flatten() {
        let what = input["name"].as_str().expect("it has a name");
        let value = match what {
            "target_tdvpr_pa" if name(row) == "TDH.VP.CREATE" => page,
            "tdcx_pa" => page,
            _ if what.contains("servtd_tdr") => other.tdr,
            _ if what.contains("tdvpr") => td.vcpus[0],
            _ if what.contains("tdr") => td.tdr,
            _ => continue,
        };
        match input["reg"].as_str() {
            Some("rcx") => registers.rcx = value,
            Some("rdx") => registers.rdx = value,
            Some("r8") => registers.r8 = value,
            _ => {}
        }
    }
    registers
}

fn status_of(lp: &Lp<'_>, mut registers: Registers) -> Status {
    lp.seamcall(&mut registers).expect("no trap");
    Status::from_rax(registers.rax)
}

/// `global_sys_fields_lookup.c`: TDH.SYS.RD reads every field that the host may read, within its mask, and no other; going
/// from field to field meets each once, in the table's order.
#[test]
fn global_fields_are_readable_as_the_source_says() {
    const NOT_ARCHITECTURAL: u64 = 1 << 63;
    for module in MODULES {
        let platform = ready_with(module, 1, 1, false);
        let lp = platform.lp(0).expect("there is one");
        let rows = facts(module, "metadata_global.json");
        let mut readable = Vec::new();
        for row in &rows {
            let id = number(&row["field_id"]);
            let mask = number(&row["vmm_rd_mask"]);
            let read = call(
                &lp,
                SeamcallLeaf::TDH_SYS_RD,
                [0, id & !(0x1fff << 34), 0, 0],
            );
            let status = Status::from_rax(read.rax);
            if mask == 0 {
                assert_eq!(
                    status.code(),
                    StatusCode::METADATA_FIELD_NOT_READABLE,
                    "{row}"
                );
                continue;
            }
            assert_eq!(status, Status::of(StatusCode::SUCCESS), "{row}");
            assert_eq!(read.r8 & !mask, 0, "{row}");
            readable.push((id, row));
        }
        let first_of = |id: u64| id & 0xff_ffff | id & (0x3f << 56);
        let mut next = u64::MAX;
        let mut met = Vec::new();
        loop {
            next = call(&lp, SeamcallLeaf::TDH_SYS_RD, [0, next, 0, 0]).rdx;
            if next | 7 << 52 == u64::MAX {
                break;
            }
            met.push(first_of(next & !NOT_ARCHITECTURAL));
        }
        let listed: Vec<u64> = readable
            .iter()
            .flat_map(|(id, row)| {
                let elements =
                    number(&row["num_of_fields"]).max(1) * number(&row["num_of_elem"]).max(1);
                (0..elements).map(|element| first_of(*id) + element)
            })
            .collect();
        assert_eq!(met, listed, "{module:?}");
        println!(
            "{module:?}: {} of {} fields readable",
            readable.len(),
            rows.len()
        );
    }
}

/// `tdr_tdcs_fields_lookup.c`: TDH.MNG.RD reads what the host may read of a production TD, within its mask, and no more.
#[test]
fn td_fields_are_readable_as_the_source_says() {
    for module in MODULES {
        let platform = ready_with(module, 1, 1, false);
        let lp = platform.lp(0).expect("there is one");
        let mut pages = Pages(support::GIB);
        let td = initialized(&platform, &mut pages, 33, 1);
        let (mut readable, mut hidden) = (0, 0);
        for row in facts(module, "metadata_tdr_tdcs.json") {
            let field = name(&row);
            // The CPUID values have codes of their own; roots of L2 VMs are there only with L2 VMs.
            if field == "CPUID_VALUES" || field.starts_with("L2_SEPT_ROOT") {
                continue;
            }
            let id = number(&row["field_id"]) & !(0x1fff << 34);
            let mask = number(&row["prod_rd_mask"]);
            let read = call(&lp, SeamcallLeaf::TDH_MNG_RD, [td.tdr, id, 0, 0]);
            let status = Status::from_rax(read.rax);
            if mask == 0 {
                hidden += 1;
                assert_eq!(
                    status.code(),
                    StatusCode::METADATA_FIELD_NOT_READABLE,
                    "{module:?} {row}"
                );
            } else {
                readable += 1;
                assert_eq!(status, Status::of(StatusCode::SUCCESS), "{module:?} {row}");
                assert_eq!(read.r8 & !mask, 0, "{module:?} {row}");
            }
        }
        println!("{module:?}: {readable} fields readable, {hidden} hidden");
        assert!(readable > 10 && hidden > 10);
    }
}

/// `td_control_structures.h` of 2.0.18: a TD has 9 to 12 control pages; `tdh_mng_init.c`: fewer do not do.
#[test]
fn a_td_of_2_0_has_nine_control_pages() {
    for (module, needed, most) in [
        (Module::V1_5_01, 6, 9),
        (Module::V1_5_34, 6, 9),
        (Module::V2_0_18, 9, 12),
    ] {
        let platform = ready_with(module, 1, 1, false);
        let lp = platform.lp(0).expect("there is one");
        let mut pages = Pages(support::GIB);
        let tdr = pages.next();
        support::ok(&lp, SeamcallLeaf::TDH_MNG_CREATE, [tdr, 33, 0, 0]);
        support::ok(&lp, SeamcallLeaf::TDH_MNG_KEY_CONFIG, [tdr, 0, 0, 0]);
        let init =
            || Status::from_rax(call(&lp, SeamcallLeaf::TDH_MNG_INIT, [tdr, PAGE, 0, 0]).rax);
        for number in 1..=most {
            assert_eq!(
                init().code() == StatusCode::TDCS_NOT_ALLOCATED,
                number <= needed,
                "{module:?} with {} pages",
                number - 1
            );
            support::ok(&lp, SeamcallLeaf::TDH_MNG_ADDCX, [pages.next(), tdr, 0, 0]);
        }
        let one_more = call(&lp, SeamcallLeaf::TDH_MNG_ADDCX, [pages.next(), tdr, 0, 0]);
        assert_eq!(
            Status::from_rax(one_more.rax).code(),
            StatusCode::TDCX_NUM_INCORRECT
        );
    }
}
